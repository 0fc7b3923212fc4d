//! What an engine answers when it refuses.

use std::fmt;

use crate::message;

/// Number of an engine error. The list is open: a number without a name here is kept as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorCode(pub i32);

impl ErrorCode {
    /// No reason given.
    pub const UNSPECIFIED: Self = Self(0);
    /// Not authenticated, or not allowed.
    pub const UNAUTHORIZED: Self = Self(1000);
    /// The request contradicts itself or asks for something unknown.
    pub const INVALID_REQUEST: Self = Self(2000);
    /// The client did not say which revision it speaks.
    pub const PROTOCOL_VERSION_MISSING: Self = Self(2010);
    /// The revision is not three numbers.
    pub const PROTOCOL_VERSION_INVALID: Self = Self(2020);
    /// The revision is of another major version.
    pub const PROTOCOL_VERSION_INCOMPATIBLE: Self = Self(2030);
    /// No tunnel of that id or name.
    pub const TUNNEL_NOT_FOUND: Self = Self(3000);
    /// The stream is unknown, taken or over.
    pub const INVALID_STREAM: Self = Self(4000);
    /// Known, but not offered here.
    pub const FEATURE_NOT_AVAILABLE: Self = Self(5000);
    /// Something the engine depends on is down.
    pub const SERVICE_UNAVAILABLE: Self = Self(6000);
    /// A limit is reached.
    pub const CAPACITY_EXHAUSTED: Self = Self(7000);
    /// A host name, port or endpoint still belongs to somebody live.
    pub const RESOURCE_CONFLICT: Self = Self(8000);
    /// The engine's own fault.
    pub const INTERNAL: Self = Self(9000);

    /// Whether the same request may succeed later without a change.
    #[must_use]
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::SERVICE_UNAVAILABLE
                | Self::CAPACITY_EXHAUSTED
                | Self::RESOURCE_CONFLICT
                | Self::INTERNAL
        )
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// An error as it travels: a code to act on and a text to show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("engine error {code}: {message}")]
pub struct ProtocolError {
    /// What kind of error.
    pub code: ErrorCode,
    /// Text for people; empty if the peer gave none.
    pub message: String,
}

impl ProtocolError {
    /// An error of this code and text.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl From<message::Error> for ProtocolError {
    fn from(error: message::Error) -> Self {
        Self {
            code: ErrorCode(error.code),
            message: error.message.unwrap_or_default(),
        }
    }
}

impl From<ProtocolError> for message::Error {
    fn from(error: ProtocolError) -> Self {
        Self {
            code: error.code.0,
            message: (!error.message.is_empty()).then_some(error.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_code_survives_the_round_trip() {
        let wire = message::Error::from(ProtocolError::new(ErrorCode(4711), "later"));
        assert_eq!(
            ProtocolError::from(wire).to_string(),
            "engine error 4711: later"
        );
    }

    #[test]
    fn only_four_codes_are_worth_a_retry() {
        let all = [
            0, 1000, 2000, 2010, 2020, 2030, 3000, 4000, 5000, 6000, 7000, 8000, 9000,
        ];
        let retryable: Vec<i32> = all
            .into_iter()
            .filter(|code| ErrorCode(*code).is_retryable())
            .collect();
        assert_eq!(retryable, [6000, 7000, 8000, 9000]);
    }
}
