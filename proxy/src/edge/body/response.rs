//! A response body on its way to the visitor.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use adit_filters::{BodyFlow, By, Cause};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;

use super::pace::Pace;
use super::{Next, Outbound, Through, pass};
use crate::edge::abort::Abort;
use crate::edge::http1;
use crate::edge::record::Record;

/// A response body on its way to the visitor.
pub(crate) struct ResponseBody {
    inner: Outbound,
    record: Option<Arc<Record>>,
    flow: Option<BodyFlow>,
    pace: Pace,
    /// What may go on once the wait is over.
    held: VecDeque<Frame<Bytes>>,
    /// Dropped with the body: tells the connection that the exchange is over.
    busy: Option<http1::Busy>,
    /// It ends when somebody ends the exchange. The edge's own word about that does not.
    can_be_stopped: bool,
    done: bool,
}

impl ResponseBody {
    pub(crate) fn new(inner: Outbound, record: Option<Arc<Record>>) -> Self {
        let flow = record
            .as_ref()
            .and_then(|record| record.chain().response_body(record.exchange()));
        let done = inner.is_end_stream() && flow.is_none();
        Self {
            inner,
            record,
            flow,
            pace: Pace::default(),
            held: VecDeque::new(),
            busy: None,
            can_be_stopped: false,
            done,
        }
    }

    /// An answer of an upstream: who ends the exchange ends it too.
    pub(crate) fn of_upstream(inner: Outbound, record: &Arc<Record>) -> Self {
        let mut body = Self::new(inner, Some(Arc::clone(record)));
        body.can_be_stopped = true;
        body
    }

    fn stoppable(&self) -> Option<&Arc<Record>> {
        self.record.as_ref().filter(|_| self.can_be_stopped)
    }

    /// Waits until the exchange has to end, and for ever if nobody can end it.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + use<> {
        let record = self.stoppable().map(Arc::clone);
        async move {
            match record {
                Some(record) => record.stopped().await,
                None => std::future::pending().await,
            }
        }
    }

    /// The end of the exchange is the end of its connection, which `cut` tells.
    pub(crate) fn cuts(&self, cut: &Arc<Notify>) {
        if let Some(record) = self.stoppable() {
            record.stop_cuts(cut);
        }
    }

    pub(crate) fn empty() -> Self {
        Self::new(Outbound::Empty, None)
    }

    pub(crate) fn keep_busy(&mut self, busy: http1::Busy) {
        self.busy = Some(busy);
    }

    /// Whether filters may change the bytes, so that a length said before is void.
    pub(crate) fn may_change(&self) -> bool {
        self.flow.as_ref().is_some_and(BodyFlow::may_change)
    }

    /// The visitor went away; an HTTP/2 upstream hears the same code.
    pub(crate) fn reset(&mut self, code: u32) {
        if let Some(record) = &self.record {
            record.end(By::Downstream, Cause::Reset);
        }
        self.inner.reset(code);
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Next {
        loop {
            ready!(self.pace.poll_over(cx));
            if let Some(frame) = self.held.pop_front() {
                return self.give(Some(frame));
            }
            if self.done {
                return self.give(None);
            }
            let piece_max = self.flow.as_ref().map_or(usize::MAX, BodyFlow::piece_max);
            let frame = match self.pace.rest(piece_max) {
                Some(rest) => Some(rest),
                None => match ready!(self.inner.poll_frame(cx)) {
                    Some(Ok(frame)) => Some(self.pace.cut(frame, piece_max)),
                    Some(Err(abort)) => return self.fail(abort, By::Upstream, Cause::Reset),
                    None => None,
                },
            };
            self.done = frame.is_none() || self.inner.is_end_stream() && !self.pace.has_rest();
            let (Some(flow), Some(record)) = (&mut self.flow, &self.record) else {
                return self.give(frame);
            };
            match pass(flow, record, frame, self.done) {
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
                Through::Abort(abort) => return self.fail(abort, By::Server, Cause::Error),
            }
        }
    }

    /// Gives the next frame away, or says that there are no more.
    fn give(&mut self, frame: Option<Frame<Bytes>>) -> Next {
        if let Some(record) = &self.record {
            if let Some(data) = frame.as_ref().and_then(Frame::data_ref) {
                record.add_down(data.len());
            }
            if self.done && self.held.is_empty() {
                record.end(By::Upstream, Cause::Closed);
            }
        }
        Poll::Ready(frame.map(Ok))
    }

    fn fail(&mut self, abort: Abort, by: By, cause: Cause) -> Next {
        self.done = true;
        if let Some(record) = &self.record {
            record.end_with(by, cause, &abort);
        }
        if by != By::Upstream {
            self.inner.reset(abort.code());
        }
        Poll::Ready(Some(Err(abort)))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Abort;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Next {
        self.poll_next(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.done && self.held.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        // What a filter lets wait counts as still to come, and nobody knows here how much that is.
        let known = self.flow.is_none().then(|| self.inner.length()).flatten();
        known.map(SizeHint::with_exact).unwrap_or_default()
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let (Some(flow), Some(record)) = (self.flow.take(), &self.record) {
            flow.finish(record.exchange());
        }
    }
}
