//! The pace that filters set a body: large pieces are cut, and a piece waits its time.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::time::{Instant, Sleep, sleep_until};

/// What of a body was cut off, and how long it still waits. The timer exists only where something has had to wait.
#[derive(Default)]
pub(super) struct Pace {
    rest: Bytes,
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl Pace {
    /// Begins to wait.
    pub(super) fn wait(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(until),
            None => self.timer = Some(Box::pin(sleep_until(until))),
        }
        self.waiting = true;
    }

    /// Until the wait is over; then whether there was one.
    pub(super) fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if !self.waiting {
            return Poll::Ready(false);
        }
        if let Some(timer) = &mut self.timer {
            ready!(timer.as_mut().poll(cx));
        }
        self.waiting = false;
        Poll::Ready(true)
    }

    /// What was cut off before, as much of it as may pass at once.
    pub(super) fn rest(&mut self, piece_max: usize) -> Option<Frame<Bytes>> {
        let piece = self.rest.len().min(piece_max);
        (piece > 0).then(|| Frame::data(self.rest.split_to(piece)))
    }

    /// Whether something is cut off.
    pub(super) fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }

    /// The frame, or as much of it as may pass at once.
    pub(super) fn cut(&mut self, frame: Frame<Bytes>, piece_max: usize) -> Frame<Bytes> {
        match frame.into_data() {
            Ok(mut bytes) if bytes.len() > piece_max => {
                self.rest = bytes.split_off(piece_max);
                Frame::data(bytes)
            }
            Ok(bytes) => Frame::data(bytes),
            Err(frame) => frame,
        }
    }
}
