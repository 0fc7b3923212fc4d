//! The alert that tells a client of TLS 1.2 that it needs a certificate.
//!
//! The library says `certificate_required` in every version, which TLS 1.2 does not know: there it is
//! `handshake_failure` (RFC 5246 §7.4.6). Up to that point nothing is encrypted in TLS 1.2, and in TLS 1.3
//! everything is, so the alert on the wire is always the one of TLS 1.2.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A fatal `certificate_required` in the clear (RFC 8446 §6), and what is said instead.
const SAID: [u8; 7] = [21, 3, 3, 0, 2, 2, 116];
const MEANT: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];

/// A stream during and after a handshake.
#[derive(Debug)]
pub(crate) struct OldAlert<Io> {
    io: Io,
    shaking: bool,
}

impl<Io> OldAlert<Io> {
    pub(crate) const fn new(io: Io) -> Self {
        Self { io, shaking: true }
    }

    /// Lets everything pass from now on: hands have been shaken.
    pub(crate) fn settle(&mut self) {
        self.shaking = false;
    }

    /// Whether this is the alert. It is written by itself, after all before it was sent.
    fn is_alert<'a>(&self, mut pieces: impl Iterator<Item = &'a [u8]>) -> bool {
        self.shaking && pieces.next() == Some(&SAID) && pieces.next().is_none()
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for OldAlert<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for OldAlert<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let buf = match self.is_alert(std::iter::once(buf)) {
            true => &MEANT,
            false => buf,
        };
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_alert(bufs.iter().map(|piece| &**piece)) {
            return Pin::new(&mut self.io).poll_write(cx, &MEANT);
        }
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
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn the_alert_is_said_in_the_words_of_tls_1_2_while_hands_are_shaken() {
        let (mut io, wire) = (OldAlert::new(Vec::new()), |io: &OldAlert<Vec<u8>>| {
            io.io.clone()
        });
        io.write_all(&SAID[..6]).await.unwrap();
        io.write_all(&SAID).await.unwrap();
        assert_eq!(wire(&io), [&SAID[..6], &MEANT].concat());
        let more = [IoSlice::new(b"a"), IoSlice::new(&SAID)];
        assert!(!io.is_alert(more.iter().map(|piece| &**piece)));
        let alone = [IoSlice::new(&SAID)];
        assert!(io.is_alert(alone.iter().map(|piece| &**piece)));
        io.settle();
        io.write_all(&SAID).await.unwrap();
        assert!(wire(&io).ends_with(&SAID));
    }
}
