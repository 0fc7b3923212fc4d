//! What came of an exchange, for the log.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Version;

use crate::chain::Refusal;
use crate::request_line::{Fields, RequestLine};
use crate::verdict::Upgrade;

/// What came of an exchange. The edge fills it in once, when both directions have ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The request as it arrived.
    pub request: RequestLine,
    /// The visitor's HTTP version.
    pub version: Version,
    /// The status the visitor was sent.
    pub status: Option<u16>,
    /// The answer's fields that filters of the log asked for.
    pub response: Fields,
    /// When the request's head was complete.
    pub started: SystemTime,
    /// From there to the end of both directions.
    pub duration: Duration,
    /// From there to the upstream leg being open; none if it never was.
    pub establish: Option<Duration>,
    /// Body or stream bytes from the visitor.
    pub bytes_up: u64,
    /// Body or stream bytes to the visitor.
    pub bytes_down: u64,
    /// Why the exchange was refused, if it was.
    pub refusal: Option<Refusal>,
    /// The filter that dealt with the exchange itself, if one did.
    pub settled: Option<Settled>,
    /// Why the service was not reached, if nobody refused and it was not.
    pub failure: Option<Failure>,
    /// How it ended.
    pub termination: Termination,
    /// The protocol it left HTTP for.
    pub upgrade: Option<Upgrade>,
    /// The request's name.
    pub request_id: RequestId,
}

/// Name of one request, unique in this engine; also given to the visitor on failures.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct RequestId(u64);

impl RequestId {
    /// The name that these bits are.
    #[must_use]
    pub fn new(bits: u64) -> Self {
        Self(bits)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A filter dealt with the exchange in the service's place, without refusing it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settled {
    /// That filter.
    pub by: Arc<str>,
    /// What it did.
    pub how: Settlement,
}

/// What a filter did in the service's place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Settlement {
    /// It answered.
    Answered,
    /// It sent the visitor elsewhere.
    Redirected,
    /// It closed without a word.
    Closed,
}

impl Settlement {
    /// As the log writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Redirected => "redirected",
            Self::Closed => "closed",
        }
    }
}

/// Why a service was not reached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// What kind of failure.
    pub kind: FailureKind,
    /// More, for the log alone.
    pub detail: String,
}

/// Kinds of failure to reach a service.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FailureKind {
    /// The tunnel's agent is away.
    Offline,
    /// A limit is reached.
    Capacity,
    /// Somebody took longer than this.
    Timeout(Duration),
    /// The service has no such thing.
    Unsupported,
    /// A connection failed.
    Io,
}

/// How an exchange ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Termination {
    /// Who ended it.
    pub by: By,
    /// In what way.
    pub cause: Cause,
    /// More, for the log alone.
    pub detail: Option<Cow<'static, str>>,
}

impl Termination {
    /// An end that needs no more words.
    #[must_use]
    pub fn new(by: By, cause: Cause) -> Self {
        Self {
            by,
            cause,
            detail: None,
        }
    }
}

/// Who ended an exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum By {
    /// The visitor.
    Downstream,
    /// The service behind the agent.
    Upstream,
    /// The engine.
    Server,
    /// Nobody can tell.
    Unknown,
}

impl By {
    /// As the log writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
            Self::Server => "server",
            Self::Unknown => "unknown",
        }
    }
}

/// In what way an exchange ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// In order.
    Closed,
    /// By a reset.
    Reset,
    /// Nothing came for too long.
    Timeout,
    /// By an error.
    Error,
    /// Nobody can tell.
    Unknown,
}

impl Cause {
    /// As the log writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Error => "error",
            Self::Unknown => "unknown",
        }
    }
}
