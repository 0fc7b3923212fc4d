//! A request body on its way to the upstream.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adit_filters::{BodyFlow, By, Cause};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::pace::Pace;
use super::stall::{ContinueWait, Stall};
use super::{Inbound, Next, Through, pass};
use crate::edge::abort::Abort;
use crate::edge::fields;
use crate::edge::record::Record;

/// Whether there is a request body that has not been read to its end, so that the connection
/// cannot be used again and lingers when it closes.
pub(crate) type Unread = Arc<AtomicBool>;

/// A request body on its way to the upstream.
pub(crate) struct RequestBody {
    inner: Inbound,
    record: Arc<Record>,
    flow: Option<BodyFlow>,
    pace: Pace,
    /// What may go on once the wait is over.
    held: VecDeque<Frame<Bytes>>,
    length: Option<u64>,
    stall: Stall,
    wait: Option<ContinueWait>,
    unread: Unread,
    sent: Sent,
    done: bool,
}

/// Set once a request body has been given away to its end.
pub(crate) type Sent = Arc<AtomicBool>;

/// How a leg ended before its end.
type Failed = (Abort, By, Cause);

impl RequestBody {
    /// `length` is the visitor's `Content-Length` where its protocol frames without it.
    pub(crate) fn new(
        inner: Inbound,
        record: Arc<Record>,
        length: Option<u64>,
        idle: Duration,
        unread: Unread,
    ) -> Self {
        let flow = record.chain().request_body(record.exchange());
        let length = match &flow {
            // The number changes with the bytes.
            Some(flow) if flow.may_change() => None,
            _ => inner.length().or(length),
        };
        let done = inner.is_end_stream() && flow.is_none();
        unread.store(!inner.is_end_stream(), Ordering::Relaxed);
        Self {
            inner,
            record,
            flow,
            pace: Pace::default(),
            held: VecDeque::new(),
            length,
            stall: Stall::new(idle),
            wait: None,
            unread,
            sent: Sent::new(AtomicBool::new(done)),
            done,
        }
    }

    /// Tells, as long as anybody asks, whether all of it has been sent.
    pub(crate) fn sent(&self) -> Sent {
        Arc::clone(&self.sent)
    }

    /// A request without a body, whose visitor's stream serves something else or nothing.
    pub(crate) fn none(record: Arc<Record>) -> Self {
        Self {
            inner: Inbound::Empty,
            record,
            flow: None,
            pace: Pace::default(),
            held: VecDeque::new(),
            length: Some(0),
            stall: Stall::new(Duration::MAX),
            wait: None,
            unread: Unread::default(),
            sent: Sent::new(AtomicBool::new(true)),
            done: true,
        }
    }

    /// Whether there is nothing to send at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.done && self.held.is_empty()
    }

    /// Bytes are asked for only when `wait` says so (`Expect: 100-continue`).
    pub(crate) fn wait_for(&mut self, wait: ContinueWait) {
        self.wait = Some(wait);
    }

    /// Reads until the filters that must judge the body let go of what they hold.
    ///
    /// # Errors
    /// The refusal of a filter, or how the visitor's leg ended.
    pub(crate) async fn prefill(&mut self) -> Result<(), Abort> {
        if self.flow.as_ref().is_none_or(|flow| flow.hold() == 0) {
            return Ok(());
        }
        if let Some(frame) = std::future::poll_fn(|cx| self.poll_through(cx)).await {
            // Trailers may have come with it already.
            self.held.push_front(frame?);
            self.sent.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    fn poll_through(&mut self, cx: &mut Context<'_>) -> Next {
        loop {
            if ready!(self.pace.poll_over(cx)) {
                // It was not the visitor who kept everybody waiting.
                self.stall.restart();
            }
            if let Some(frame) = self.held.pop_front() {
                return self.give(Some(frame));
            }
            if self.done {
                return self.give(None);
            }
            let piece_max = self.flow.as_ref().map_or(usize::MAX, BodyFlow::piece_max);
            let frame = match self.pace.rest(piece_max) {
                Some(rest) => Some(rest),
                None => match ready!(self.poll_visitor(cx)) {
                    Some(Ok(frame)) => Some(self.pace.cut(frame, piece_max)),
                    Some(Err((abort, by, cause))) => return self.fail(abort, by, cause),
                    None => None,
                },
            };
            let last = frame.is_none() || self.inner.is_end_stream() && !self.pace.has_rest();
            self.done = last;
            let Some(flow) = &mut self.flow else {
                return self.give(frame);
            };
            match pass(flow, &self.record, frame, last) {
                Through::Forward {
                    data,
                    trailers,
                    wait,
                } => {
                    self.held.extend(data);
                    self.held.extend(trailers);
                    if !wait.is_zero() {
                        self.pace.wait(wait);
                    }
                }
                Through::Abort(abort) => {
                    return self.fail(abort, By::Server, Cause::Error);
                }
            }
        }
    }

    /// The next frame from the visitor, or how its leg ended.
    fn poll_visitor(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Failed>>> {
        let next = loop {
            match self.inner.poll_frame(cx) {
                Poll::Ready(next) => break next,
                Poll::Pending => {
                    ready!(self.stall.poll_expired(cx));
                    if !self.record.is_flowing() {
                        let stalled = (Abort::Stalled, By::Downstream, Cause::Timeout);
                        return Poll::Ready(Some(Err(stalled)));
                    }
                    // The answer is on its way: a conversation in which this side is quiet.
                    self.stall.restart();
                }
            }
        };
        self.stall.progress();
        // Once the answer is whole, what is left of the request goes on by itself.
        if let Some(refusal) = self.record.is_stopped() {
            let stopped = (Abort::Refused(refusal), By::Server, Cause::Closed);
            return Poll::Ready(Some(Err(stopped)));
        }
        if next.is_none() || self.inner.is_end_stream() {
            self.unread.store(false, Ordering::Relaxed);
        }
        let Some(next) = next else {
            return Poll::Ready(None);
        };
        if let Some(data) = next.as_ref().ok().and_then(Frame::data_ref) {
            self.record.add_up(data.len());
        }
        let next = next
            .map(without_forged_trailers)
            .map_err(|abort| (abort, By::Downstream, Cause::Reset));
        Poll::Ready(Some(next))
    }

    /// Gives the next frame away, or says that there are no more.
    fn give(&mut self, frame: Option<Frame<Bytes>>) -> Next {
        if self.done && self.held.is_empty() {
            self.sent.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame.map(Ok))
    }

    fn fail(&mut self, abort: Abort, by: By, cause: Cause) -> Next {
        self.done = true;
        self.unread.store(true, Ordering::Relaxed);
        self.record.end_with(by, cause, &abort);
        self.record.break_off(abort.clone());
        Poll::Ready(Some(Err(abort)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Abort;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Next {
        if self.held.is_empty()
            && let Some(wait) = &mut self.wait
        {
            ready!(wait.poll_over(cx));
            self.wait = None;
        }
        self.poll_through(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map(SizeHint::with_exact).unwrap_or_default()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(flow) = self.flow.take() {
            flow.finish(self.record.exchange());
        }
    }
}

/// Trailers may be merged with a head by who gets them, and then say what a head may not.
fn without_forged_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            fields::strip_hop_by_hop(&mut trailers);
            fields::strip_identity(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// A request body for the engine's own API.
pub(crate) struct ApiBody {
    inner: Inbound,
    stall: Stall,
    unread: Unread,
}

impl ApiBody {
    pub(crate) fn new(inner: Inbound, idle: Duration, unread: Unread) -> Self {
        Self {
            inner,
            stall: Stall::new(idle),
            unread,
        }
    }
}

impl Body for ApiBody {
    type Data = Bytes;
    type Error = Abort;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Next {
        let me = &mut *self;
        let Poll::Ready(next) = me.inner.poll_frame(cx) else {
            ready!(me.stall.poll_expired(cx));
            return Poll::Ready(Some(Err(Abort::Stalled)));
        };
        me.stall.progress();
        if next.is_none() || me.inner.is_end_stream() {
            me.unread.store(false, Ordering::Relaxed);
        }
        Poll::Ready(next)
    }
}
