//! What came of an exchange, for the log.

use std::time::{Duration, SystemTime};

use http::{Method, Version};

use crate::chain::Refusal;
use crate::verdict::Upgrade;

/// What came of an exchange. The edge fills it in once, when both directions have ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The request's method.
    pub method: Method,
    /// The request's scheme.
    pub scheme: String,
    /// The host the visitor asked for, with the port if it named one.
    pub host: String,
    /// The path as it was received.
    pub path: String,
    /// The query, secrets already removed.
    pub query: Option<String>,
    /// The visitor's HTTP version.
    pub version: Version,
    /// The status the visitor was sent.
    pub status: Option<u16>,
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
    /// How it ended.
    pub termination: Termination,
    /// The protocol it left HTTP for.
    pub upgrade: Option<Upgrade>,
    /// Unique in this engine; also given to the visitor on failures.
    pub stream_id: String,
    /// The visitor's `User-Agent`.
    pub user_agent: Option<String>,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Termination {
    /// Who ended it.
    pub by: By,
    /// In what way.
    pub cause: Cause,
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
