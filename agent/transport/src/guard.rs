//! Streams whose end is never taken for more than it was.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;

/// A connection that can end with a reset.
pub trait Abort {
    /// Makes the close that comes with the drop a reset: what was not yet delivered is thrown
    /// away and the peer's next read or write fails.
    fn abort_on_drop(&self);

    /// How the connection has broken, if it has and no read or write was told. Takes the error: who
    /// asks gives the connection up. `None` where the carrier cannot say.
    fn broken(&self) -> Option<io::Error> {
        None
    }

    /// Counts the connection as broken once what was sent has not been acknowledged for `limit`,
    /// where the carrier can tell (`TCP_USER_TIMEOUT`).
    fn give_up_after(&self, limit: Duration) {
        let _ = limit;
    }
}

impl Abort for TcpStream {
    fn abort_on_drop(&self) {
        // The call fails only on a socket that is gone already.
        let _ = self.set_zero_linger();
    }

    fn broken(&self) -> Option<io::Error> {
        self.take_error().unwrap_or_else(Some)
    }

    fn give_up_after(&self, limit: Duration) {
        // Without it the kernel's retransmissions decide, a quarter of an hour later.
        #[cfg(any(target_os = "android", target_os = "linux"))]
        let _ = socket2::SockRef::from(self).set_tcp_user_timeout(Some(limit));
        #[cfg(not(any(target_os = "android", target_os = "linux")))]
        let _ = limit;
    }
}

/// In memory there is no reset: the peer sees the end of the stream.
impl Abort for DuplexStream {
    fn abort_on_drop(&self) {}
}

impl<S: Abort> Abort for tokio_rustls::client::TlsStream<S> {
    fn abort_on_drop(&self) {
        self.get_ref().0.abort_on_drop();
    }

    fn broken(&self) -> Option<io::Error> {
        self.get_ref().0.broken()
    }

    fn give_up_after(&self, limit: Duration) {
        self.get_ref().0.give_up_after(limit);
    }
}

impl<S: Abort> Abort for tokio_rustls::server::TlsStream<S> {
    fn abort_on_drop(&self) {
        self.get_ref().0.abort_on_drop();
    }

    fn broken(&self) -> Option<io::Error> {
        self.get_ref().0.broken()
    }

    fn give_up_after(&self, limit: Duration) {
        self.get_ref().0.give_up_after(limit);
    }
}

impl<S: Abort + ?Sized> Abort for Box<S> {
    fn abort_on_drop(&self) {
        (**self).abort_on_drop();
    }

    fn broken(&self) -> Option<io::Error> {
        (**self).broken()
    }

    fn give_up_after(&self, limit: Duration) {
        (**self).give_up_after(limit);
    }
}

/// A stream that resets the connection when it is dropped before its write side was shut down.
///
/// A stream that ends by `shutdown` ends well; anything else (an error, a cancelled task, a panic)
/// must not look like that to the peer, or half a file passes for a whole one. Over TLS, `shutdown`
/// sends `close_notify` and then the end of the TCP stream; the other direction stays open.
#[derive(Debug)]
pub struct Guarded<S: Abort> {
    stream: S,
    finished: bool,
}

impl<S: Abort> Guarded<S> {
    /// Guards `stream`.
    pub const fn new(stream: S) -> Self {
        Self {
            stream,
            finished: false,
        }
    }

    /// The stream inside.
    pub const fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: Abort> Abort for Guarded<S> {
    fn abort_on_drop(&self) {
        self.stream.abort_on_drop();
    }

    fn broken(&self) -> Option<io::Error> {
        self.stream.broken()
    }

    fn give_up_after(&self, limit: Duration) {
        self.stream.give_up_after(limit);
    }
}

impl<S: Abort> Drop for Guarded<S> {
    fn drop(&mut self) {
        if !self.finished {
            self.stream.abort_on_drop();
        }
    }
}

impl<S: Abort + AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: Abort + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        self.finished = true;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (a, b) = tokio::join!(TcpStream::connect(address), listener.accept());
        (a.unwrap(), b.unwrap().0)
    }

    #[tokio::test]
    async fn a_stream_dropped_early_is_an_error_for_the_peer() {
        let (a, mut b) = pair().await;
        drop(Guarded::new(a));
        let error = b.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[cfg(any(target_os = "android", target_os = "linux"))]
    #[tokio::test]
    async fn the_kernel_is_told_how_long_to_wait_for_acknowledgements() {
        let (a, _b) = pair().await;
        let a = Box::new(Guarded::new(a));
        let limit = Duration::from_secs(60);
        a.give_up_after(limit);
        let set = socket2::SockRef::from(a.get_ref()).tcp_user_timeout();
        assert_eq!(set.unwrap(), Some(limit));
    }

    #[tokio::test]
    async fn a_stream_shut_down_delivers_everything_and_then_its_end() {
        let (a, mut b) = pair().await;
        let mut a = Guarded::new(a);
        a.write_all(b"whole").await.unwrap();
        a.shutdown().await.unwrap();
        drop(a);
        let mut text = String::new();
        b.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "whole");
    }
}
