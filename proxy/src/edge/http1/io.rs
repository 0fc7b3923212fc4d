//! A visitor's HTTP/1.1 connection as hyper sees it: times for heads and idleness are kept here,
//! and a connection that closes with a request half read lingers (RFC 9112 §9.6).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};

use crate::edge::backlog::Backlog;
use crate::edge::body::Unread;
use crate::edge::limits::Limits;

/// What a connection is doing, shared by its socket, its service and its watchdog.
#[derive(Debug)]
pub(crate) struct Clock {
    state: Mutex<State>,
    /// A request body was let go before its end.
    unread: Unread,
    /// The connection left HTTP.
    upgraded: AtomicBool,
    backlog: Backlog,
    /// Tells the connection to end at once.
    cut: Arc<Notify>,
    /// What the connection became when it left HTTP.
    relay: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Nothing is under way since then.
    Idle(Instant),
    /// A head has begun to arrive.
    Head(Instant),
    /// An exchange is under way.
    Busy,
}

impl Clock {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::Idle(Instant::now())),
            unread: Unread::default(),
            upgraded: AtomicBool::new(false),
            backlog: Backlog::default(),
            cut: Arc::default(),
            relay: Mutex::default(),
        })
    }

    fn with<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn bytes_arrived(&self) {
        self.with(|state| {
            if matches!(state, State::Idle(_)) {
                *state = State::Head(Instant::now());
            }
        });
    }

    /// An exchange begins; it lasts until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Busy {
        self.with(|state| *state = State::Busy);
        Busy(Arc::clone(self))
    }

    pub(crate) fn unread(&self) -> Unread {
        Arc::clone(&self.unread)
    }

    /// What ends the connection at once, with the answer that is on its way.
    pub(crate) fn cut(&self) -> &Arc<Notify> {
        &self.cut
    }

    /// The connection leaves HTTP; what it becomes is still the connection's.
    pub(crate) fn leave_http(&self, relay: JoinHandle<()>) {
        self.upgraded.store(true, Ordering::Relaxed);
        *self.relay.lock().unwrap_or_else(PoisonError::into_inner) = Some(relay);
    }

    pub(crate) fn relay(&self) -> Option<JoinHandle<()>> {
        self.relay
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Waits until a head took too long, the connection was idle for too long, or the visitor left
    /// an answer unread for too long.
    pub(crate) async fn expired(&self, limits: &Limits) {
        loop {
            let now = Instant::now();
            let look_again = now + limits.idle.min(limits.header_wait);
            let (deadline, wake) = self.with(|state| match *state {
                // A head that begins meanwhile has a nearer end.
                State::Idle(since) => {
                    let deadline = since + limits.idle;
                    (Some(deadline), deadline.min(look_again))
                }
                State::Head(since) => {
                    let deadline = since + limits.header_wait;
                    (Some(deadline), deadline)
                }
                State::Busy => (None, look_again),
            });
            if deadline.is_some_and(|deadline| deadline <= now)
                || self.backlog.is_older_than(limits.write_idle)
            {
                return;
            }
            tokio::time::sleep_until(wake).await;
        }
    }
}

/// While it lives, an exchange is under way on the connection.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Clock>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.with(|state| *state = State::Idle(Instant::now()));
    }
}

/// The socket side of a visitor's connection.
pub(crate) struct VisitorIo<I> {
    inner: I,
    clock: Arc<Clock>,
    linger: Linger,
}

enum Linger {
    Allowed { wait: Duration, bytes: usize },
    Reading { until: Pin<Box<Sleep>>, left: usize },
    Over,
}

impl<I> VisitorIo<I> {
    pub(crate) fn new(inner: I, clock: Arc<Clock>, limits: &Limits) -> Self {
        Self {
            inner,
            clock,
            linger: Linger::Allowed {
                wait: limits.lingering,
                bytes: limits.lingering_bytes,
            },
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for VisitorIo<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, out))?;
        if out.filled().len() > before {
            self.clock.bytes_arrived();
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for VisitorIo<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.clock.backlog.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.clock.backlog.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.clock.backlog.note(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        if let Linger::Allowed { wait, bytes } = me.linger {
            ready!(Pin::new(&mut me.inner).poll_shutdown(cx))?;
            let unread = me.clock.unread.load(Ordering::Relaxed)
                && !me.clock.upgraded.load(Ordering::Relaxed);
            me.linger = if unread {
                Linger::Reading {
                    until: Box::pin(tokio::time::sleep(wait)),
                    left: bytes,
                }
            } else {
                Linger::Over
            };
        }
        // Closing a socket with bytes unread resets it, and the visitor loses the answer that is
        // still on its way; so the rest is read, within bounds, until the visitor closes.
        while let Linger::Reading { until, left } = &mut me.linger {
            if until.as_mut().poll(cx).is_ready() {
                me.linger = Linger::Over;
                break;
            }
            if *left == 0 {
                // Enough was read; the visitor still has the rest of the time to read its answer.
                return Poll::Pending;
            }
            let mut scratch = [0; 4096];
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut me.inner).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    *left = left.saturating_sub(buffer.filled().len());
                }
                _ => me.linger = Linger::Over,
            }
        }
        Poll::Ready(Ok(()))
    }
}
