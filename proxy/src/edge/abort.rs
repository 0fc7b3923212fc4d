//! How one leg of an exchange ends before its time, in terms every protocol can express.

use std::fmt;
use std::sync::Arc;

use adit_filters::{Refusal, Reply};

/// Error codes of HTTP/2 (RFC 9113 §7), the ones the edge speaks of itself.
pub(crate) mod code {
    pub(crate) const NO_ERROR: u32 = 0x0;
    pub(crate) const INTERNAL_ERROR: u32 = 0x2;
    pub(crate) const CANCEL: u32 = 0x8;
    pub(crate) const CONNECT_ERROR: u32 = 0xa;
}

/// A leg ended before its end.
#[derive(Clone, Debug)]
pub(crate) enum Abort {
    /// The peer reset its stream with this HTTP/2 code.
    Reset(u32),
    /// The connection broke, or ended inside a message.
    Truncated,
    /// No byte came for longer than the limit.
    Stalled,
    /// A filter refused the bytes.
    Refused(Refusal),
    /// A filter answered in the upstream's place.
    Answered(Arc<Reply>),
    /// A filter closed the exchange without a word.
    Closed,
}

impl Abort {
    /// The HTTP/2 code another leg is reset with because of this.
    pub(crate) fn code(&self) -> u32 {
        match self {
            Self::Reset(code) => *code,
            Self::Truncated => code::INTERNAL_ERROR,
            Self::Stalled | Self::Refused(_) | Self::Answered(_) | Self::Closed => code::CANCEL,
        }
    }
}

impl fmt::Display for Abort {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reset(code) => write!(out, "the peer reset the stream with code {code:#x}"),
            Self::Truncated => out.write_str("the connection broke inside a message"),
            Self::Stalled => out.write_str("no byte came within the time allowed"),
            Self::Refused(refusal) => write!(out, "refused: {}", refusal.reason.as_str()),
            Self::Answered(_) => out.write_str("answered by a filter"),
            Self::Closed => out.write_str("closed by a filter"),
        }
    }
}

impl std::error::Error for Abort {}
