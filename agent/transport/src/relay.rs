//! Bytes both ways between two streams, as if they were one connection.
//!
//! The end of one direction is passed on as a half-close and leaves the other alone. A reset is
//! passed on by the streams themselves: the relay returns an error without shutting anything down,
//! and dropping a [`Guarded`](crate::Guarded) stream that was not shut down resets it.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use crate::Abort;

/// Bytes read at a time in each direction. A TLS record holds 16 KiB; four of them halve the
/// system calls of a bulk transfer, more gained nothing.
pub const BUFFER_LEN: usize = 64 * 1024;

/// Buffers a thread keeps for its next read. Only a read that found data and a write that waits
/// hold one, so a handful serves thousands of streams: 8 × 64 KiB = 512 KiB a thread.
pub const SPARE_BUFFERS_MAX: usize = 8;

/// How long a peer that sends on, after the other peer stopped taking it, is listened to. Closing
/// at once would make the kernel reset the connection and destroy an answer still under way
/// (an early answer to an upload).
pub const LINGER: Duration = Duration::from_secs(5);

/// How often the streams of a relay are looked at whose one direction is done while the other is
/// silent. A reset then wakes nobody: the side it came from was read to its end already.
pub const HALF_CLOSED_CHECK: Duration = Duration::from_secs(5);

thread_local! {
    static SPARE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

fn take_buffer() -> Box<[u8]> {
    SPARE
        .with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| vec![0; BUFFER_LEN].into_boxed_slice())
}

fn give_buffer(buffer: Box<[u8]>) {
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < SPARE_BUFFERS_MAX {
            spare.push(buffer);
        }
    });
}

/// How many bytes went each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relayed {
    /// From the first stream to the second.
    pub forth: u64,
    /// From the second stream to the first.
    pub back: u64,
}

/// A relay that did not end well.
#[derive(Debug, thiserror::Error)]
#[error("{side} broke off: {source}")]
pub struct RelayError {
    /// Which stream failed.
    pub side: Side,
    /// How.
    pub source: io::Error,
    /// What had been relayed by then.
    pub relayed: Relayed,
}

/// One of the two streams of a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one given first.
    First,
    /// The one given second.
    Second,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::First => "the first stream",
            Self::Second => "the second stream",
        })
    }
}

impl Side {
    const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// Copies until both directions have ended. On an error, drop both streams: those that were not
/// finished are reset.
///
/// # Errors
///
/// [`RelayError`] when a stream fails before both directions are done.
pub async fn relay<A, B>(first: &mut A, second: &mut B) -> Result<Relayed, RelayError>
where
    A: AsyncRead + AsyncWrite + Abort + Unpin,
    B: AsyncRead + AsyncWrite + Abort + Unpin,
{
    let mut forth = Flow::new(Side::First);
    let mut back = Flow::new(Side::Second);
    let mut linger: Option<Pin<Box<Sleep>>> = None;
    let mut check: Option<Pin<Box<Sleep>>> = None;
    let end = std::future::poll_fn(|cx| {
        let mut open = false;
        // A write that was told of a reset has taken that news from the read side.
        for from_first in [true, false] {
            let step = if from_first {
                forth.poll(cx, first, second, back.sink_reset)
            } else {
                back.poll(cx, second, first, forth.sink_reset)
            };
            match step {
                Poll::Pending => open = true,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
            }
        }
        if !open {
            return Poll::Ready(Ok(()));
        }
        if (forth.is_discarding() && back.is_done()) || (back.is_discarding() && forth.is_done()) {
            let linger = linger.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
            return linger.as_mut().poll(cx).map(Ok);
        }
        if forth.is_discarding() && back.is_discarding() {
            return Poll::Ready(Err((Side::First, io::ErrorKind::BrokenPipe.into())));
        }
        if forth.is_done() != back.is_done() {
            let check =
                check.get_or_insert_with(|| Box::pin(tokio::time::sleep(HALF_CLOSED_CHECK)));
            while check.as_mut().poll(cx).is_ready() {
                if let Some(error) = first.broken() {
                    return Poll::Ready(Err((Side::First, error)));
                }
                if let Some(error) = second.broken() {
                    return Poll::Ready(Err((Side::Second, error)));
                }
                check.as_mut().reset(Instant::now() + HALF_CLOSED_CHECK);
            }
        }
        Poll::Pending
    })
    .await;
    let relayed = Relayed {
        forth: forth.bytes,
        back: back.bytes,
    };
    end.map(|()| relayed).map_err(|(side, source)| RelayError {
        side,
        source,
        relayed,
    })
}

/// One direction.
struct Flow {
    from: Side,
    state: State,
    /// Held only while it has bytes in it.
    buffer: Option<Box<[u8]>>,
    start: usize,
    end: usize,
    unflushed: bool,
    /// Whether writing to the sink has shown that its peer reset the connection.
    sink_reset: bool,
    bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Copying,
    /// The source has ended; the sink is being told.
    Finishing,
    /// The sink takes no more. It may still be sending, so the source is read and thrown away.
    Discarding,
    Done,
}

impl Flow {
    const fn new(from: Side) -> Self {
        Self {
            from,
            state: State::Copying,
            buffer: None,
            start: 0,
            end: 0,
            unflushed: false,
            sink_reset: false,
            bytes: 0,
        }
    }

    fn is_done(&self) -> bool {
        self.state == State::Done
    }

    fn is_discarding(&self) -> bool {
        self.state == State::Discarding
    }

    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        sink: &mut W,
        source_reset: bool,
    ) -> Poll<Result<(), (Side, io::Error)>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            match self.state {
                State::Copying => {
                    if self.start == self.end
                        && ready!(self.poll_fill(cx, source, sink, source_reset))?
                    {
                        continue;
                    }
                    if let Err(error) = ready!(self.poll_drain(cx, sink)) {
                        self.refused(error)?;
                    }
                }
                State::Finishing => match ready!(Pin::new(&mut *sink).poll_shutdown(cx)) {
                    Ok(()) => self.state = State::Done,
                    Err(error) => self.refused(error)?,
                },
                State::Discarding => {
                    if ready!(self.poll_read(cx, source))? == 0 {
                        self.state = State::Done;
                    }
                    self.start = self.end;
                    self.release();
                }
                State::Done => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Reads into the empty buffer; true if the state has changed and there is nothing to write.
    fn poll_fill<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
        sink: &mut W,
        source_reset: bool,
    ) -> Poll<Result<bool, (Side, io::Error)>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        match self.poll_read(cx, source) {
            Poll::Pending => {
                if self.unflushed {
                    match ready!(Pin::new(sink).poll_flush(cx)) {
                        Ok(()) => self.unflushed = false,
                        Err(error) => {
                            self.refused(error)?;
                            return Poll::Ready(Ok(true));
                        }
                    }
                }
                Poll::Pending
            }
            Poll::Ready(Ok(0)) if source_reset => {
                // What came before the reset is delivered; what follows it is not an end.
                if self.unflushed {
                    let _ = ready!(Pin::new(sink).poll_flush(cx));
                }
                Poll::Ready(Err((self.from, io::ErrorKind::ConnectionReset.into())))
            }
            Poll::Ready(Ok(0)) => {
                self.state = State::Finishing;
                Poll::Ready(Ok(true))
            }
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(false)),
            Poll::Ready(Err(failure)) => Poll::Ready(Err(failure)),
        }
    }

    fn poll_read<R: AsyncRead + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut R,
    ) -> Poll<Result<usize, (Side, io::Error)>> {
        let mut buffer = self.buffer.take().unwrap_or_else(take_buffer);
        let mut space = ReadBuf::new(&mut buffer);
        let read = Pin::new(source).poll_read(cx, &mut space);
        let len = space.filled().len();
        match read {
            Poll::Ready(Ok(())) if len > 0 => {
                self.buffer = Some(buffer);
                self.start = 0;
                self.end = len;
                Poll::Ready(Ok(len))
            }
            other => {
                give_buffer(buffer);
                other.map_ok(|()| 0).map_err(|error| (self.from, error))
            }
        }
    }

    /// Writes what the buffer holds.
    fn poll_drain<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut W,
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = self
            .buffer
            .as_deref()
            .and_then(|buffer| buffer.get(self.start..self.end))
            .filter(|rest| !rest.is_empty())
        {
            let written = ready!(Pin::new(&mut *sink).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.start = self.start.saturating_add(written).min(self.end);
            self.bytes += u64::try_from(written).unwrap_or(0);
            self.unflushed = true;
        }
        self.release();
        Poll::Ready(Ok(()))
    }

    /// The sink failed. When it only stopped reading, its own data and its end may still come: a
    /// server may answer an upload it does not want and close. Anything worse shows on its read
    /// side, which the other direction has.
    fn refused(&mut self, error: io::Error) -> Result<(), (Side, io::Error)> {
        self.start = self.end;
        self.release();
        self.sink_reset |= error.kind() == io::ErrorKind::ConnectionReset;
        match error.kind() {
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::NotConnected => {
                self.state = State::Discarding;
                Ok(())
            }
            _ => Err((self.from.other(), error)),
        }
    }

    fn release(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            give_buffer(buffer);
        }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::Guarded;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (a, b) = tokio::join!(TcpStream::connect(address), listener.accept());
        (a.unwrap(), b.unwrap().0)
    }

    /// A relay between two connections, and the outer ends of both.
    async fn relayed() -> (
        TcpStream,
        TcpStream,
        tokio::task::JoinHandle<Result<Relayed, RelayError>>,
    ) {
        let (visitor, first) = pair().await;
        let (second, service) = pair().await;
        let task = tokio::spawn(async move {
            relay(&mut Guarded::new(first), &mut Guarded::new(second)).await
        });
        (visitor, service, task)
    }

    #[tokio::test]
    async fn the_end_of_one_direction_leaves_the_other_open() {
        let (mut visitor, mut service, task) = relayed().await;
        visitor.write_all(b"question").await.unwrap();
        visitor.shutdown().await.unwrap();
        let mut text = String::new();
        service.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "question");
        service.write_all(b"answer").await.unwrap();
        service.shutdown().await.unwrap();
        text.clear();
        visitor.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "answer");
        let done = task.await.unwrap().unwrap();
        assert_eq!(done, Relayed { forth: 8, back: 6 });
    }

    #[tokio::test]
    async fn a_reset_reaches_the_other_side_as_a_reset() {
        for from_visitor in [true, false] {
            let (visitor, service, task) = relayed().await;
            let (near, mut far) = if from_visitor {
                (visitor, service)
            } else {
                (service, visitor)
            };
            near.set_zero_linger().unwrap();
            drop(near);
            let error = far.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            assert!(task.await.unwrap().is_err());
        }
    }

    #[tokio::test]
    async fn an_early_answer_to_an_upload_is_delivered() {
        let (mut visitor, mut service, task) = relayed().await;
        visitor.write_all(&[0; 1000]).await.unwrap();
        service.read_exact(&mut [0; 1000]).await.unwrap();
        service.write_all(b"too large").await.unwrap();
        drop(service);
        // Writes until the relay has noticed that nobody reads any more, and then still reads.
        let (mut reader, mut writer) = visitor.into_split();
        let upload = tokio::spawn(async move {
            for _ in 0..1000 {
                if writer.write_all(&[0; 1000]).await.is_err() {
                    break;
                }
            }
            writer.shutdown().await.ok();
        });
        let mut text = vec![0; 9];
        reader.read_exact(&mut text).await.unwrap();
        assert_eq!(text, b"too large");
        upload.await.unwrap();
        task.await.unwrap().ok();
    }

    #[tokio::test]
    async fn a_reset_in_the_middle_of_an_upload_is_no_end() {
        let (visitor, mut service, task) = relayed().await;
        let (mut reader, mut writer) = visitor.into_split();
        // Uploads until the relay waits for the service to take more.
        let upload = tokio::spawn(async move {
            loop {
                if let Err(error) = writer.write_all(&[0; BUFFER_LEN]).await {
                    return error.kind();
                }
            }
        });
        service.write_all(b"half").await.unwrap();
        let mut text = vec![0; 4];
        reader.read_exact(&mut text).await.unwrap();
        assert_eq!(text, b"half");
        service.set_zero_linger().unwrap();
        drop(service);
        let read = reader.read_u8().await.unwrap_err().kind();
        assert!(task.await.unwrap().is_err());
        // The first of the visitor's calls to hear of the reset takes the news.
        let written = upload.await.unwrap();
        assert!([read, written].contains(&io::ErrorKind::ConnectionReset));
    }

    #[tokio::test]
    async fn a_reset_after_a_half_close_is_found_while_the_other_side_is_silent() {
        for from_visitor in [true, false] {
            let (visitor, service, task) = relayed().await;
            let (mut near, mut far) = if from_visitor {
                (visitor, service)
            } else {
                (service, visitor)
            };
            near.write_all(b"question").await.unwrap();
            near.shutdown().await.unwrap();
            let mut text = String::new();
            far.read_to_string(&mut text).await.unwrap();
            near.set_zero_linger().unwrap();
            drop(near);
            tokio::time::pause();
            let error = tokio::time::timeout(HALF_CLOSED_CHECK * 4, task)
                .await
                .unwrap();
            let side = if from_visitor {
                Side::First
            } else {
                Side::Second
            };
            assert_eq!(error.unwrap().unwrap_err().side, side);
            tokio::time::resume();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_sends_on_for_ever_is_not_listened_to_for_ever() {
        // The second stream takes nothing and has ended; the first says nothing at all.
        struct Closed;
        impl AsyncRead for Closed {
            fn poll_read(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
                _: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
        }
        impl AsyncWrite for Closed {
            fn poll_write(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
                _: &[u8],
            ) -> Poll<io::Result<usize>> {
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            }
            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
            fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
        }
        impl Abort for Closed {
            fn abort_on_drop(&self) {}
        }
        let (mut visitor, mut first) = tokio::io::duplex(64);
        visitor.write_all(b"x").await.unwrap();
        let before = tokio::time::Instant::now();
        relay(&mut first, &mut Closed).await.unwrap();
        assert_eq!(before.elapsed(), LINGER);
    }

    #[tokio::test]
    async fn an_idle_relay_holds_no_buffer() {
        let (mut visitor, mut first) = tokio::io::duplex(64);
        let (mut second, mut service) = tokio::io::duplex(64);
        let mut flow = std::pin::pin!(relay(&mut first, &mut second));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        visitor.write_all(b"x").await.unwrap();
        assert!(flow.as_mut().poll(&mut cx).is_pending());
        assert_eq!(service.read_u8().await.unwrap(), b'x');
        // The one buffer this needed, for both directions in turn, is back with the thread.
        assert_eq!(SPARE.with_borrow(Vec::len), 1);
    }
}
