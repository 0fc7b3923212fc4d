//! One stream: a visitor's connection, or one dialled.

use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use adit_transport::Abort;
use adit_transport::tls::ClientStream;
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes to and from the other end of a tunnel.
///
/// `shutdown` ends this direction and leaves the other open. A stream dropped without it is reset:
/// the other end sees an error and not the end of the data.
#[derive(Debug)]
pub struct Stream {
    io: ClientStream,
    /// Payload that came with the handshake.
    early: Bytes,
    id: Arc<str>,
    tunnel: Arc<str>,
    source: Option<IpAddr>,
}

impl Stream {
    pub(crate) fn new(
        io: ClientStream,
        early: Bytes,
        id: &str,
        tunnel: &str,
        source: Option<IpAddr>,
    ) -> Self {
        Self {
            io,
            early,
            id: id.into(),
            tunnel: tunnel.into(),
            source,
        }
    }

    /// The engine's name for the stream; empty on one dialled without waiting for the answer.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The tunnel: its id on a stream accepted, what was dialled on a stream dialled.
    #[must_use]
    pub fn tunnel(&self) -> &str {
        &self.tunnel
    }

    /// Where the visitor comes from, if the engine said so.
    #[must_use]
    pub const fn source(&self) -> Option<IpAddr> {
        self.source
    }
}

impl Abort for Stream {
    fn abort_on_drop(&self) {
        self.io.abort_on_drop();
    }

    fn broken(&self) -> Option<io::Error> {
        self.io.broken()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let len = self.early.len().min(buf.remaining());
        buf.put_slice(self.early.get(..len).unwrap_or_default());
        self.early.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
