//! How the edge reaches the service behind a tunnel. It does not know by which carrier.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream to or from a peer. Dropping it without shutting it down resets it.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A [`Stream`] of whatever carrier.
pub type BoxStream = Box<dyn Stream>;

/// Why a stream to the service behind a tunnel could not be opened.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The tunnel's agent is not connected any more.
    #[error("the agent is not connected")]
    Offline,
    /// Too many streams wait for this agent already.
    #[error("too many streams wait for the agent")]
    Capacity,
    /// The agent did not bring the stream within this time.
    #[error("the agent did not bring the stream in {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The agent said no, most often because the local service is down.
    #[error("the agent refused: {0}")]
    Refused(String),
}

/// A stream that is being opened.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = Result<BoxStream, DialError>> + Send + 'a>>;

/// Opens streams to the service behind one tunnel.
pub trait Dial: Send + Sync {
    /// Opens one. `source` is the visitor's address where the stream serves one visitor only.
    fn dial(&self, source: Option<IpAddr>) -> Dialing<'_>;
}
