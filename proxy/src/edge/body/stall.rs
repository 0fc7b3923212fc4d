//! Times a body is held to.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Notices that nothing moved for too long. The timer exists only while something is awaited.
pub(super) struct Stall {
    limit: Duration,
    last: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            last: None,
            timer: None,
        }
    }

    pub(super) fn progress(&mut self) {
        if self.timer.is_some() {
            self.last = Some(Instant::now());
        }
    }

    /// Begins to wait anew.
    pub(super) fn restart(&mut self) {
        self.timer = None;
        self.last = None;
    }

    pub(super) fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + limit)));
        loop {
            ready!(timer.as_mut().poll(cx));
            // The timer is set anew only when it rings, not for every chunk.
            match self.last.take() {
                Some(last) => timer.as_mut().reset(last + limit),
                None => return Poll::Ready(()),
            }
        }
    }
}

/// Holds a request body back until the upstream asks for it or the wait is over.
pub(crate) struct ContinueWait {
    asked: tokio::sync::oneshot::Receiver<()>,
    over: Pin<Box<Sleep>>,
}

impl ContinueWait {
    /// The sender is used when the upstream answers `100 Continue`.
    pub(crate) fn new(wait: Duration) -> (tokio::sync::oneshot::Sender<()>, Self) {
        let (ask, asked) = tokio::sync::oneshot::channel();
        let over = Box::pin(sleep_until(Instant::now() + wait));
        (ask, Self { asked, over })
    }

    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.asked.is_terminated()
            && let Poll::Ready(Ok(())) = Pin::new(&mut self.asked).poll(cx)
        {
            return Poll::Ready(());
        }
        // Where the sender is gone nobody will ask: the time decides.
        self.over.as_mut().poll(cx)
    }
}
