//! Between the WIT's words and those of the filter contract.

use std::time::Duration;

use adit_filters::{
    Admission, FilterError, Passage, Reason, Redirect, Reply, Revision, Stay, Transport, Upgrade,
    Verdict,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::bindings::adit::filter::types as wit;
use crate::limits::Limits;

/// An answer that makes no sense.
pub(crate) fn nonsense(what: impl Into<String>) -> FilterError {
    FilterError::Plugin {
        reason: what.into(),
    }
}

macro_rules! same {
    ($wit:ident, $own:ident: $($name:ident),* $(,)?) => {
        impl From<$own> for wit::$wit {
            fn from(own: $own) -> Self {
                match own { $($own::$name => Self::$name,)* }
            }
        }
        impl From<wit::$wit> for $own {
            fn from(wit: wit::$wit) -> Self {
                match wit { $(wit::$wit::$name => Self::$name,)* }
            }
        }
    };
}
same!(Transport, Transport: Tcp, Tls, Quic, Udp, Dtls);

impl From<Upgrade> for wit::Upgrade {
    fn from(own: Upgrade) -> Self {
        match own {
            Upgrade::Connect => Self::Connect,
            Upgrade::ConnectIp => Self::ConnectIp,
            Upgrade::ConnectUdp => Self::ConnectUdp,
            Upgrade::WebSocket => Self::Websocket,
            Upgrade::WebTransport => Self::Webtransport,
            Upgrade::Other => Self::Other,
        }
    }
}

impl From<wit::Upgrade> for Upgrade {
    fn from(wit: wit::Upgrade) -> Self {
        match wit {
            wit::Upgrade::Connect => Self::Connect,
            wit::Upgrade::ConnectIp => Self::ConnectIp,
            wit::Upgrade::ConnectUdp => Self::ConnectUdp,
            wit::Upgrade::Websocket => Self::WebSocket,
            wit::Upgrade::Webtransport => Self::WebTransport,
            wit::Upgrade::Other => Self::Other,
        }
    }
}

macro_rules! reasons {
    ($($name:ident),* $(,)?) => {
        impl From<wit::Reason> for Reason {
            fn from(wit: wit::Reason) -> Self {
                match wit { $(wit::Reason::$name => Self::$name,)* }
            }
        }
    };
}
reasons!(
    AmbiguousCredentials,
    BadRequest,
    Capacity,
    Challenge,
    Country,
    ExpiredToken,
    InsufficientScope,
    InvalidToken,
    Ip,
    Login,
    MissingToken,
    Mtls,
    NotFound,
    Origin,
    Policy,
    RateLimited,
    TimeLimit,
    TooLarge,
    Unavailable,
    Unsupported,
);

/// A refusal in its parts: why, for how long, and what the log may know beside.
pub(crate) struct Refused {
    pub(crate) reason: Reason,
    pub(crate) wait: Option<Duration>,
    pub(crate) detail: Option<String>,
}

impl From<wit::Refusal> for Refused {
    fn from(refusal: wit::Refusal) -> Self {
        Self {
            reason: refusal.reason.into(),
            wait: refusal.retry_after_ms.map(Duration::from_millis),
            detail: refusal.detail,
        }
    }
}

/// What a guest has said, and what it has to say of that for the log.
pub(crate) struct Answer<A> {
    pub(crate) answer: A,
    pub(crate) detail: Option<String>,
}

impl<A> From<A> for Answer<A> {
    fn from(answer: A) -> Self {
        Self {
            answer,
            detail: None,
        }
    }
}

pub(crate) fn admission(said: wit::Admission) -> Answer<Admission> {
    match said {
        wit::Admission::Admit => Admission::Admit.into(),
        wit::Admission::Close => Admission::Close.into(),
        wit::Admission::Refuse(refusal) => {
            let Refused {
                reason,
                wait,
                detail,
            } = refusal.into();
            let answer = match wait {
                Some(wait) => Admission::RefuseFor(reason, wait),
                None => Admission::Refuse(reason),
            };
            Answer { answer, detail }
        }
    }
}

pub(crate) fn verdict(said: wit::Verdict, limits: &Limits) -> Result<Answer<Verdict>, FilterError> {
    Ok(match said {
        wit::Verdict::Continue => Verdict::Continue.into(),
        wit::Verdict::Close => Verdict::Close.into(),
        wit::Verdict::Upgrade(upgrade) => Verdict::Upgrade(upgrade.into()).into(),
        wit::Verdict::Respond(said) => Verdict::Respond(Box::new(reply(said, limits)?)).into(),
        wit::Verdict::Redirect(to) => Verdict::Redirect(Box::new(redirect(to)?)).into(),
        wit::Verdict::Refuse(refusal) => {
            let Refused {
                reason,
                wait,
                detail,
            } = refusal.into();
            let answer = match wait {
                Some(wait) => Verdict::RefuseFor(reason, wait),
                None => Verdict::Refuse(reason),
            };
            Answer { answer, detail }
        }
    })
}

pub(crate) fn revision(said: wit::Revision, limits: &Limits) -> Result<Revision, FilterError> {
    Ok(match said {
        wit::Revision::Keep => Revision::Keep,
        wit::Revision::Close => Revision::Close,
        wit::Revision::Replace(said) => Revision::Replace(Box::new(reply(said, limits)?)),
    })
}

pub(crate) fn passage(said: wit::Passage, limits: &Limits) -> Result<Answer<Passage>, FilterError> {
    Ok(match said {
        wit::Passage::Forward => Passage::Forward.into(),
        wit::Passage::Pace(ms) => Passage::Pace(Duration::from_millis(ms.into())).into(),
        wit::Passage::Hold => Passage::Hold.into(),
        wit::Passage::Discard => Passage::Discard.into(),
        wit::Passage::Close => Passage::Close.into(),
        wit::Passage::Respond(said) => Passage::Respond(Box::new(reply(said, limits)?)).into(),
        wit::Passage::Refuse(refusal) => {
            let Refused { reason, detail, .. } = refusal.into();
            Answer {
                answer: Passage::Refuse(reason),
                detail,
            }
        }
    })
}

pub(crate) fn stay(said: wit::Stay) -> Stay {
    match said {
        wit::Stay::Yes => Stay::Yes,
        wit::Stay::Upgraded => Stay::Upgraded,
        wit::Stay::No(reason) => Stay::No(reason.into()),
    }
}

pub(crate) fn failure(said: wit::Failure) -> FilterError {
    match said {
        wit::Failure::Unavailable(service) => FilterError::Unavailable {
            service: "what the plugin asked",
            source: Some(service.into()),
        },
        wit::Failure::Internal(reason) => FilterError::Plugin { reason },
    }
}

fn reply(said: wit::Reply, limits: &Limits) -> Result<Reply, FilterError> {
    let status = StatusCode::from_u16(said.status)
        .ok()
        .filter(|status| !status.is_informational())
        .ok_or_else(|| nonsense(format!("answers with status {}", said.status)))?;
    if said.body.len() > limits.reply_bytes {
        return Err(FilterError::OverLimit {
            limit: limits.reply_bytes,
        });
    }
    Ok(Reply {
        status,
        headers: headers(said.headers, limits)?,
        body: Bytes::from(said.body),
        because: None,
    })
}

pub(crate) fn headers(fields: Vec<wit::Field>, limits: &Limits) -> Result<HeaderMap, FilterError> {
    if fields.len() > limits.fields {
        return Err(FilterError::OverLimit {
            limit: limits.fields,
        });
    }
    let mut headers = HeaderMap::with_capacity(fields.len());
    for wit::Field { name, value } in fields {
        if value.len() > limits.field_bytes {
            return Err(FilterError::OverLimit {
                limit: limits.field_bytes,
            });
        }
        let known = (
            HeaderName::try_from(&name),
            HeaderValue::from_maybe_shared(Bytes::from(value)),
        );
        match known {
            (Ok(name), Ok(value)) => headers.append(name, value),
            _ => return Err(nonsense("gives a field that HTTP does not allow")),
        };
    }
    Ok(headers)
}

fn redirect(to: wit::Redirect) -> Result<Redirect, FilterError> {
    let status = match to.kind {
        wit::RedirectKind::Found => StatusCode::FOUND,
        wit::RedirectKind::SeeOther => StatusCode::SEE_OTHER,
        wit::RedirectKind::Temporary => StatusCode::TEMPORARY_REDIRECT,
        wit::RedirectKind::Permanent => StatusCode::PERMANENT_REDIRECT,
    };
    let location = HeaderValue::try_from(to.location)
        .map_err(|_| nonsense("redirects to what is no field's value"))?;
    Ok(Redirect { status, location })
}
