//! How one leg of an exchange ends before its time, in terms every protocol can express.

use std::borrow::Cow;
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

impl Abort {
    /// What happened, for the log.
    pub(crate) fn detail(&self) -> Cow<'static, str> {
        match self {
            Self::Truncated => "the connection broke inside a message".into(),
            Self::Stalled => "no byte came within the time allowed".into(),
            Self::Answered(_) => "answered by a filter".into(),
            Self::Closed => "closed by a filter".into(),
            Self::Reset(code) => format!("the peer reset the stream with code {code:#x}").into(),
            Self::Refused(refusal) => format!("refused: {}", refusal.reason).into(),
        }
    }
}

impl fmt::Display for Abort {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.detail())
    }
}

impl std::error::Error for Abort {}
