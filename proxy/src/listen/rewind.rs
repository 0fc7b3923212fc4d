//! A stream whose first bytes were read already and are read once more.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use adit_transport::Abort;
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Gives back `head`, byte for byte, before it reads from the stream it wraps.
#[derive(Debug)]
pub struct Rewind<Io> {
    head: Bytes,
    io: Io,
}

impl<Io> Rewind<Io> {
    /// Puts `head` in front of what `io` has yet to give.
    pub const fn new(head: Bytes, io: Io) -> Self {
        Self { head, io }
    }

    /// The stream inside.
    pub const fn get_ref(&self) -> &Io {
        &self.io
    }
}

impl<Io: Abort> Abort for Rewind<Io> {
    fn abort_on_drop(&self) {
        self.io.abort_on_drop();
    }

    fn broken(&self) -> Option<io::Error> {
        self.io.broken()
    }

    fn give_up_after(&self, limit: Duration) {
        self.io.give_up_after(limit);
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Rewind<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.head.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let taken = self.head.len().min(buf.remaining());
        buf.put_slice(self.head.get(..taken).unwrap_or_default());
        self.head.advance(taken);
        if self.head.is_empty() {
            // The buffer is not needed again in the connection's life.
            self.head = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Rewind<Io> {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_was_read_is_read_again_before_the_rest() {
        let (mut peer, io) = tokio::io::duplex(64);
        peer.write_all(b" and the rest").await.unwrap();
        peer.shutdown().await.unwrap();
        let mut stream = Rewind::new(Bytes::from_static(b"the head"), io);
        let mut first = [0; 3];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"the");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, " head and the rest");
    }
}
