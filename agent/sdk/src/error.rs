//! What can go wrong between an agent and its engine.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use adit_protocol::agent::{AgentChannelError, OpenTunnelError};
use adit_protocol::handshake::HandshakeError;
use adit_protocol::{ErrorCode, ProtocolError};
use adit_transport::address::AddressError;
use adit_transport::messages::{ReadError, WriteError};
use adit_transport::tls::{ConnectError, SetupError};

/// What can go wrong between an agent and its engine.
///
/// Cheap to clone, because a status holds one.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The engine's address cannot be used.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The engine broke the protocol.
    #[error("protocol error: {0}")]
    Channel(#[from] AgentChannelError),
    /// The client or tunnel was closed.
    #[error("closed")]
    Closed,
    /// The engine was not reached.
    #[error(transparent)]
    Connect(Arc<ConnectError>),
    /// The engine ended the control channel.
    #[error("the engine closed the control channel")]
    Ended,
    /// The engine refused.
    #[error(transparent)]
    Engine(ProtocolError),
    /// The connection ended without a word: the engine was killed, or the network was.
    #[error("the engine has gone away")]
    Gone,
    /// The opening of a stream went wrong.
    #[error("stream handshake failed: {0}")]
    Handshake(HandshakeError),
    /// The engine opened a tunnel that cannot be used.
    #[error("the engine answered without a tunnel id or with one in use")]
    InvalidTunnel,
    /// The connection broke.
    #[error("{0}")]
    Lost(Arc<dyn std::error::Error + Send + Sync>),
    /// No engine address was given.
    #[error("no engine address was given")]
    NoEngine,
    /// The settings cannot be used.
    #[error("{0}")]
    Setup(Arc<SetupError>),
    /// The engine takes one credential.
    #[error("a token and a client certificate are given, leave one out")]
    TwoCredentials,
    /// The engine does not read what it is sent.
    #[error("the engine takes no more messages")]
    Stuck,
    /// The engine did not answer in time.
    #[error("the engine did not answer within {0:?}")]
    Timeout(Duration),
}

impl Error {
    /// Whether trying again later may help without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Address(_)
            | Self::Closed
            | Self::NoEngine
            | Self::Setup(_)
            | Self::TwoCredentials => false,
            Self::Engine(error) | Self::Handshake(HandshakeError::Refused(error)) => {
                error.code.is_retryable()
            }
            Self::Connect(error) => !matches!(**error, ConnectError::Address(_)),
            Self::Channel(_)
            | Self::Ended
            | Self::Gone
            | Self::Handshake(_)
            | Self::InvalidTunnel
            | Self::Lost(_)
            | Self::Stuck
            | Self::Timeout(_) => true,
        }
    }

    /// Whether the engine answered, but is not the one meant: a certificate that does not fit or
    /// another protocol. Before the first connection that is a mistake to be told at once; later on
    /// it passes (a certificate being replaced).
    pub(crate) fn is_mismatch(&self) -> bool {
        match self {
            Self::Connect(error) => matches!(
                **error,
                ConnectError::Name { .. }
                    | ConnectError::NotAnEngine { .. }
                    | ConnectError::UnknownAuthority { .. }
            ),
            _ => false,
        }
    }

    /// As the engine is told when a stream could not be brought.
    pub(crate) fn to_answer(&self) -> ProtocolError {
        ProtocolError::new(ErrorCode::SERVICE_UNAVAILABLE, self.to_string())
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        Self::Connect(Arc::new(error))
    }
}

impl From<SetupError> for Error {
    fn from(error: SetupError) -> Self {
        Self::Setup(Arc::new(error))
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Closed => Self::Ended,
            ReadError::Timeout(limit) => Self::Timeout(limit),
            ReadError::Io(error) => error.into(),
            ReadError::Truncated => Self::Gone,
            other => Self::Lost(Arc::new(other)),
        }
    }
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Io(error) => error.into(),
            other => Self::Lost(Arc::new(other)),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof => {
                Self::Gone
            }
            _ => Self::Lost(Arc::new(ReadError::Io(error))),
        }
    }
}

impl From<HandshakeError> for Error {
    fn from(error: HandshakeError) -> Self {
        match error {
            HandshakeError::Refused(error) => Self::Engine(error),
            other => Self::Handshake(other),
        }
    }
}

impl From<OpenTunnelError> for Error {
    fn from(error: OpenTunnelError) -> Self {
        match error {
            OpenTunnelError::Refused(error) => Self::Engine(error),
            _ => Self::InvalidTunnel,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_errors_are_retried_by_their_code_and_losses_always() {
        for (code, expected) in [(1000, false), (2000, false), (5000, false), (8000, true)] {
            let error = Error::Engine(ProtocolError::new(ErrorCode(code), "no"));
            assert_eq!(error.is_retryable(), expected, "{code}");
            assert_eq!(error.to_string(), format!("engine error {code}: no"));
        }
        assert!(Error::Ended.is_retryable());
        assert!(!Error::Closed.is_retryable());
    }
}
