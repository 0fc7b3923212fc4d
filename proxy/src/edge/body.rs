//! The two bodies of an exchange on their way through: filters see the bytes, bytes are counted,
//! stalls are noticed. Nothing is kept unless a filter holds it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adit_filters::{BodyFlow, By, Cause, Passed};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::abort::Abort;
use super::record::Record;
use super::{http1, http2};

pub(crate) type Next = Poll<Option<Result<Frame<Bytes>, Abort>>>;

/// A request body as it comes from a visitor, whatever the protocol.
pub(crate) enum Inbound {
    Empty,
    Http1(http1::Incoming),
    Http2(http2::Incoming),
}

impl Inbound {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Next {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Http1(body) => body.poll_frame(cx),
            Self::Http2(body) => body.poll_frame(cx),
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Http1(body) => body.length(),
            Self::Http2(_) => None,
        }
    }
}

/// A request body for the engine's own API.
pub(crate) struct ApiBody(Inbound);

impl ApiBody {
    pub(crate) fn new(body: Inbound) -> Self {
        Self(body)
    }
}

impl Body for ApiBody {
    type Data = Bytes;
    type Error = Abort;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Next {
        self.0.poll_frame(cx)
    }
}

/// A response body as it comes from an upstream or from the edge itself.
pub(crate) enum Outbound {
    Empty,
    Full(Bytes),
    Http1(http1::UpstreamBody),
    Http2(http2::UpstreamBody),
    Api(axum::body::Body),
}

impl Outbound {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Next {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let frame = Frame::data(std::mem::take(bytes));
                *self = Self::Empty;
                Poll::Ready(Some(Ok(frame)))
            }
            Self::Http1(body) => body.poll_frame(cx),
            Self::Http2(body) => body.poll_frame(cx),
            Self::Api(body) => Pin::new(body).poll_frame(cx).map_err(|_| Abort::Truncated),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
            Self::Api(body) => body.is_end_stream(),
        }
    }

    fn length(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Full(bytes) => Some(bytes.len() as u64),
            Self::Http1(body) => body.length(),
            Self::Http2(_) => None,
            Self::Api(body) => body.size_hint().exact(),
        }
    }

    /// Passes the visitor's abort on to an HTTP/2 upstream; others are told by closing.
    fn reset(&mut self, code: u32) {
        if let Self::Http2(body) = self {
            body.reset(code);
        }
    }
}

/// Whether there is a request body that has not been read to its end, so that the connection
/// cannot be used again and lingers when it closes.
pub(crate) type Unread = Arc<AtomicBool>;

/// A request body on its way to the upstream.
pub(crate) struct RequestBody {
    inner: Inbound,
    record: Arc<Record>,
    flow: Option<BodyFlow>,
    held: VecDeque<Frame<Bytes>>,
    length: Option<u64>,
    stall: Stall,
    wait: Option<ContinueWait>,
    unread: Unread,
    done: bool,
}

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
        let length = match flow {
            // A filter may change the bytes and so their number.
            Some(_) => None,
            None => inner.length().or(length),
        };
        let done = inner.is_end_stream() && flow.is_none();
        unread.store(!inner.is_end_stream(), Ordering::Relaxed);
        Self {
            inner,
            record,
            flow,
            held: VecDeque::new(),
            length,
            stall: Stall::new(idle),
            wait: None,
            unread,
            done,
        }
    }

    /// A request without a body, whose visitor's stream serves something else or nothing.
    pub(crate) fn none(record: Arc<Record>) -> Self {
        Self {
            inner: Inbound::Empty,
            record,
            flow: None,
            held: VecDeque::new(),
            length: Some(0),
            stall: Stall::new(Duration::MAX),
            wait: None,
            unread: Unread::default(),
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
        while !self.done && self.held.is_empty() {
            match std::future::poll_fn(|cx| self.poll_through(cx)).await {
                Some(frame) => self.held.push_back(frame?),
                None => break,
            }
        }
        Ok(())
    }

    fn poll_through(&mut self, cx: &mut Context<'_>) -> Next {
        loop {
            if self.done {
                return Poll::Ready(None);
            }
            let next = match self.inner.poll_frame(cx) {
                Poll::Ready(next) => {
                    self.stall.progress();
                    next
                }
                Poll::Pending => {
                    ready!(self.stall.poll_expired(cx));
                    return self.fail(Abort::Stalled, By::Downstream, Cause::Timeout);
                }
            };
            let frame = match next {
                Some(Ok(frame)) => Some(frame),
                Some(Err(abort)) => {
                    return self.fail(abort, By::Downstream, Cause::Reset);
                }
                None => None,
            };
            let last = frame.is_none() || self.inner.is_end_stream();
            self.done = last;
            if last {
                self.unread.store(false, Ordering::Relaxed);
            }
            if let Some(data) = frame.as_ref().and_then(Frame::data_ref) {
                self.record.add_up(data.len());
            }
            let Some(flow) = &mut self.flow else {
                return Poll::Ready(frame.map(Ok));
            };
            match pass(flow, &self.record, frame, last) {
                Through::Forward(Some(frame), then) => {
                    self.held.extend(then);
                    return Poll::Ready(Some(Ok(frame)));
                }
                Through::Forward(None, _) => {}
                Through::Abort(abort) => {
                    return self.fail(abort, By::Server, Cause::Error);
                }
            }
        }
    }

    fn fail(&mut self, abort: Abort, by: By, cause: Cause) -> Next {
        self.done = true;
        self.unread.store(true, Ordering::Relaxed);
        self.record.end(by, cause);
        self.record.break_off(abort.clone());
        Poll::Ready(Some(Err(abort)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Abort;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Next {
        if let Some(frame) = self.held.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(wait) = &mut self.wait {
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

/// A response body on its way to the visitor.
pub(crate) struct ResponseBody {
    inner: Outbound,
    record: Option<Arc<Record>>,
    flow: Option<BodyFlow>,
    held: VecDeque<Frame<Bytes>>,
    /// Dropped with the body: tells the connection that the exchange is over.
    busy: Option<http1::Busy>,
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
            held: VecDeque::new(),
            busy: None,
            done,
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
        self.flow.is_some()
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
            if let Some(frame) = self.held.pop_front() {
                return Poll::Ready(Some(Ok(frame)));
            }
            if self.done {
                return Poll::Ready(None);
            }
            let frame = match ready!(self.inner.poll_frame(cx)) {
                Some(Ok(frame)) => Some(frame),
                Some(Err(abort)) => return self.fail(abort, By::Upstream, Cause::Reset),
                None => None,
            };
            self.done = frame.is_none() || self.inner.is_end_stream();
            let (frame, then) = match (&mut self.flow, &self.record) {
                (Some(flow), Some(record)) => match pass(flow, record, frame, self.done) {
                    Through::Forward(frame, then) => (frame, then),
                    Through::Abort(abort) => return self.fail(abort, By::Server, Cause::Error),
                },
                _ => (frame, None),
            };
            self.held.extend(then);
            if let Some(record) = &self.record {
                if let Some(data) = frame.as_ref().and_then(Frame::data_ref) {
                    record.add_down(data.len());
                }
                if self.done {
                    record.end(By::Upstream, Cause::Closed);
                }
            }
            if let Some(frame) = frame {
                return Poll::Ready(Some(Ok(frame)));
            }
        }
    }

    fn fail(&mut self, abort: Abort, by: By, cause: Cause) -> Next {
        self.done = true;
        if let Some(record) = &self.record {
            record.end(by, cause);
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
        match self.flow {
            Some(_) => SizeHint::default(),
            None => self
                .inner
                .length()
                .map(SizeHint::with_exact)
                .unwrap_or_default(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let (Some(flow), Some(record)) = (self.flow.take(), &self.record) {
            flow.finish(record.exchange());
        }
    }
}

enum Through {
    /// What may go on now, and trailers that follow it.
    Forward(Option<Frame<Bytes>>, Option<Frame<Bytes>>),
    Abort(Abort),
}

/// Shows one frame to the filters. `None` is the end of a body without trailers.
fn pass(
    flow: &mut BodyFlow,
    record: &Arc<Record>,
    frame: Option<Frame<Bytes>>,
    last: bool,
) -> Through {
    let (bytes, mut trailers) = match frame.map(Frame::into_data) {
        Some(Ok(bytes)) => (bytes, None),
        Some(Err(other)) => (Bytes::new(), other.into_trailers().ok()),
        None => (Bytes::new(), None),
    };
    let passed = flow.pass(record.exchange(), bytes, last, trailers.as_mut());
    let trailers = trailers.map(Frame::trailers);
    match passed {
        Passed::Forward(bytes) if bytes.is_empty() => Through::Forward(trailers, None),
        Passed::Forward(bytes) => Through::Forward(Some(Frame::data(bytes)), trailers),
        Passed::Held => Through::Forward(trailers, None),
        Passed::Refuse(refusal) => {
            record.refuse(refusal.clone());
            Through::Abort(Abort::Refused(refusal))
        }
        Passed::Respond { reply, .. } => Through::Abort(Abort::Answered(Arc::from(reply))),
        Passed::Close { .. } => Through::Abort(Abort::Closed),
    }
}

/// Notices that nothing moved for too long. The timer exists only while something is awaited.
struct Stall {
    limit: Duration,
    last: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Stall {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            last: None,
            timer: None,
        }
    }

    fn progress(&mut self) {
        if self.timer.is_some() {
            self.last = Some(Instant::now());
        }
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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

    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.asked.is_terminated()
            && let Poll::Ready(Ok(())) = Pin::new(&mut self.asked).poll(cx)
        {
            return Poll::Ready(());
        }
        // Where the sender is gone nobody will ask: the time decides.
        self.over.as_mut().poll(cx)
    }
}
