//! What a hook can answer. One type per kind of phase, so that an answer that makes no sense in a phase cannot be
//! written. What a refusal looks like (403, alert, silence) is decided by the edge alone, from [`Reason`] and surface.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};

/// Answer of [`OnConnect`](crate::OnConnect).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admission {
    /// The next filter decides.
    Admit,
    /// Not this connection to this tunnel.
    Refuse(Reason),
    /// Not this connection to this tunnel, nor another like it for this long.
    RefuseFor(Reason, Duration),
    /// Close without a word.
    Close,
}

/// Answer of [`OnRequest`](crate::OnRequest).
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The next filter decides.
    Continue,
    /// A wish: the next filter decides; if all agree and the request asked for exactly this, it leaves HTTP.
    Upgrade(Upgrade),
    /// Answer with this instead of asking upstream.
    Respond(Box<Reply>),
    /// Send the visitor elsewhere.
    Redirect(Box<Redirect>),
    /// Not this request.
    Refuse(Reason),
    /// Not this request, nor another like it for this long.
    RefuseFor(Reason, Duration),
    /// Close without a word.
    Close,
}

/// Answer of [`OnResponse`](crate::OnResponse).
#[derive(Clone, Debug)]
pub enum Revision {
    /// The head as it now is goes on.
    Keep,
    /// This goes on instead, head and body.
    Replace(Box<Reply>),
    /// Close without a word.
    Close,
}

/// Answer of the hooks that see bytes pass.
#[derive(Clone, Debug)]
pub enum Passage {
    /// What this filter holds, and then this piece, goes on.
    Forward,
    /// This piece goes on in the place of what this filter holds. Not an answer to a datagram.
    Replace,
    /// The same after this wait, counted from now; until then no further piece is asked for. Not an answer to a
    /// datagram.
    Pace(Duration),
    /// Keep this piece until a later answer. Not an answer to a datagram, nor to the last piece.
    Hold,
    /// Drop what this filter holds, and this piece. The end of the bytes still goes on.
    Discard,
    /// Stop the exchange for this reason.
    Refuse(Reason),
    /// Stop the exchange and answer this, if nothing has been answered yet.
    Respond(Box<Reply>),
    /// Close without a word.
    Close,
}

/// Ways to leave HTTP.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Upgrade {
    /// Plain CONNECT ([RFC 9110 §9.3.6](https://www.rfc-editor.org/rfc/rfc9110#section-9.3.6)).
    Connect,
    /// IP in HTTP ([RFC 9484](https://www.rfc-editor.org/rfc/rfc9484)).
    ConnectIp,
    /// UDP in HTTP ([RFC 9298](https://www.rfc-editor.org/rfc/rfc9298)).
    ConnectUdp,
    /// WebSocket, on any HTTP version ([RFC 6455](https://www.rfc-editor.org/rfc/rfc6455),
    /// [RFC 8441](https://www.rfc-editor.org/rfc/rfc8441), [RFC 9220](https://www.rfc-editor.org/rfc/rfc9220)).
    WebSocket,
    /// WebTransport.
    WebTransport,
    /// Any other HTTP/1.1 `Upgrade` token.
    Other,
}

impl Upgrade {
    /// The upgrade as the log writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ConnectIp => "connect-ip",
            Self::ConnectUdp => "connect-udp",
            Self::WebSocket => "websocket",
            Self::WebTransport => "webtransport",
            Self::Other => "other",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// Why something was refused: the vocabulary of the log and of the rendering table.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[non_exhaustive]
        pub enum Reason { $($(#[$doc])* $variant,)* }

        impl Reason {
            /// Every reason, for tables that must have an answer to each.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The reason in kebab case, as logs and metrics write it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}
reasons! {
    /// More than one proof, or proofs that contradict each other.
    AmbiguousCredentials = "ambiguous-credentials",
    /// The request can be read in two ways, or in none.
    BadRequest = "bad-request",
    /// No room left.
    Capacity = "capacity",
    /// A challenge has not been met.
    Challenge = "challenge",
    /// Not from this country.
    Country = "country",
    /// The token's time is over.
    ExpiredToken = "expired-token",
    /// The token is good, but not for this.
    InsufficientScope = "insufficient-scope",
    /// The token is not one of ours, or damaged.
    InvalidToken = "invalid-token",
    /// Not from this address.
    Ip = "ip",
    /// Nobody is logged in.
    Login = "login",
    /// This connection cannot serve that tunnel.
    Misdirected = "misdirected",
    /// A token is needed and there is none.
    MissingToken = "missing-token",
    /// A client certificate is needed, or is not accepted.
    Mtls = "mtls",
    /// Nothing is here.
    NotFound = "not-found",
    /// Not from a page of this origin.
    Origin = "origin",
    /// A filter failed.
    Plugin = "plugin",
    /// The operator's rules say no.
    Policy = "policy",
    /// Too much in too short a time.
    RateLimited = "rate-limited",
    /// It took longer than it may.
    TimeLimit = "time-limit",
    /// Too many bytes.
    TooLarge = "too-large",
    /// Something the decision needs did not answer.
    Unavailable = "unavailable",
    /// Not offered here.
    Unsupported = "unsupported",
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A response a filter gives itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Reply {
    /// Status.
    pub status: StatusCode,
    /// Fields; framing is the edge's.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// Why the request does not pass, where the answer is a way to say no: a page to sign in on is one.
    pub because: Option<Reason>,
}

impl Reply {
    /// The same as a way to say no for this reason: in logs and metrics it is a refusal.
    #[must_use]
    pub fn because(self, reason: Reason) -> Self {
        Self {
            because: Some(reason),
            ..self
        }
    }
}

/// A redirection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// Where to.
    pub location: HeaderValue,
}

/// The filter could not decide. Never a refusal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// The filter would need more memory or bytes than it may have.
    #[error("needs more than its limit of {limit} bytes")]
    OverLimit {
        /// That limit.
        limit: usize,
    },
    /// The plugin's code stopped before it answered.
    #[error("plugin stopped: {reason}")]
    Trapped {
        /// What stopped it.
        reason: &'static str,
    },
    /// As many instances of a plugin are at work as may be.
    #[error("all {limit} instances are at work")]
    Full {
        /// That limit.
        limit: usize,
    },
    /// A plugin failed, in its own words or those of what it runs on.
    #[error("plugin failed: {reason}")]
    Plugin {
        /// What happened.
        reason: String,
    },
    /// Something the decision needs did not answer.
    #[error("`{service}` did not answer")]
    Unavailable {
        /// What was asked.
        service: &'static str,
        /// What came instead.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl FilterError {
    /// What the visitor is told when a filter that must decide could not.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unavailable { .. } => Reason::Unavailable,
            Self::Full { .. } => Reason::Capacity,
            Self::OverLimit { .. } | Self::Plugin { .. } | Self::Trapped { .. } => Reason::Plugin,
        }
    }

    /// The error and its causes on one line, for the log.
    #[must_use]
    pub fn detail(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
