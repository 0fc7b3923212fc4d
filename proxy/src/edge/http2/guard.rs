//! Stands between a visitor's connection and h2, which answers nearly every fault with `PROTOCOL_ERROR`. Where RFC 9113 names another
//! code, the guard ends the connection with that one: it lets h2 see the end of what it reads, and when h2 closes the connection in
//! turn, says `GOAWAY` itself.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::{Fault, Frames, farewell};
use crate::edge::backlog::Backlog;

/// A connection whose frames are looked at as h2 reads them.
#[derive(Debug)]
pub(crate) struct Guard<I> {
    io: I,
    frames: Frames,
    fault: Option<u32>,
    /// How much of the `GOAWAY` is written.
    said: usize,
    backlog: Arc<Backlog>,
}

impl<I> Guard<I> {
    pub(crate) fn new(io: I, backlog: Arc<Backlog>) -> Self {
        Self {
            backlog,
            io,
            frames: Frames::default(),
            fault: None,
            said: 0,
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Guard<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.fault.is_some() {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let Some(arrived) = buf.filled_mut().get_mut(before..) else {
            return Poll::Ready(Ok(()));
        };
        if let Err(Fault { code, good }) = this.frames.see(arrived) {
            tracing::debug!(code, "visitor broke the framing");
            this.fault = Some(code);
            buf.set_filled(before + good);
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Guard<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.backlog.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.backlog.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.backlog.note(flushed)
    }

    /// h2 shuts down once everything it had to say is written, so a `GOAWAY` here stands between whole frames.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(code) = this.fault {
            let farewell = farewell(this.frames.last, code);
            while let Some(left) = farewell.get(this.said..).filter(|left| !left.is_empty()) {
                let written = ready!(Pin::new(&mut this.io).poll_write(cx, left))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                this.said += written;
            }
            ready!(Pin::new(&mut this.io).poll_flush(cx))?;
        }
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    /// HEADERS on stream 5 that end it, and a PING of five octets.
    const HEADERS: &[u8] = &[0, 0, 1, 1, 5, 0, 0, 0, 5, b'x'];
    const SHORT_PING: &[u8] = &[0, 0, 5, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5];

    #[tokio::test]
    async fn the_reader_sees_the_end_and_the_visitor_the_code() {
        let (mut visitor, ours) = tokio::io::duplex(1024);
        let mut guard = Guard::new(ours, Arc::default());
        visitor
            .write_all(&[PREFACE, HEADERS, SHORT_PING].concat())
            .await
            .unwrap();
        let mut read = Vec::new();
        guard.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, [PREFACE, HEADERS].concat());
        guard.shutdown().await.unwrap();
        let mut answer = Vec::new();
        visitor.read_to_end(&mut answer).await.unwrap();
        // GOAWAY, last stream 5, FRAME_SIZE_ERROR
        assert_eq!(answer, [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 6]);
    }

    #[tokio::test]
    async fn without_a_fault_nothing_is_added() {
        let (mut visitor, ours) = tokio::io::duplex(1024);
        let mut guard = Guard::new(ours, Arc::default());
        visitor
            .write_all(&[PREFACE, HEADERS].concat())
            .await
            .unwrap();
        visitor.shutdown().await.unwrap();
        let mut read = Vec::new();
        guard.read_to_end(&mut read).await.unwrap();
        guard.shutdown().await.unwrap();
        let mut answer = Vec::new();
        visitor.read_to_end(&mut answer).await.unwrap();
        assert!(answer.is_empty());
    }
}
