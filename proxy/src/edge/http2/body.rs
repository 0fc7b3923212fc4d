//! The two directions of an HTTP/2 stream in the edge's terms.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::client::Pumping;
use crate::edge::abort::{Abort, code};
use crate::edge::body::Next;

/// Maps the crate's error to how the leg ended.
pub(super) fn abort_of(error: &h2::Error) -> Abort {
    match error.reason() {
        Some(reason) if error.is_remote() && error.is_reset() => Abort::Reset(reason.into()),
        _ => Abort::Truncated,
    }
}

/// The receiving direction of a stream.
pub(crate) struct Incoming {
    stream: h2::RecvStream,
    data_over: bool,
    /// Keeps the upstream connection's count of streams right.
    _slot: Option<Arc<super::client::Slot>>,
}

impl Incoming {
    pub(super) fn new(stream: h2::RecvStream) -> Self {
        Self {
            stream,
            data_over: false,
            _slot: None,
        }
    }

    /// Keeps a place on an upstream connection taken for as long as this direction lives.
    pub(super) fn holding(mut self, slot: Arc<super::client::Slot>) -> Self {
        self._slot = Some(slot);
        self
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Next {
        if !self.data_over {
            if let Some(data) = ready!(self.poll_data(cx)) {
                return Poll::Ready(Some(data.map(Frame::data)));
            }
            self.data_over = true;
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(abort_of(&error)))),
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Abort>>> {
        match ready!(self.stream.poll_data(cx)) {
            Some(Ok(data)) => {
                // The reader asks for the next chunk only when this one has gone on, so the window
                // follows the slower side.
                let _stream_over = self.stream.flow_control().release_capacity(data.len());
                Poll::Ready(Some(Ok(data)))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(abort_of(&error)))),
            None => Poll::Ready(None),
        }
    }

    /// The next data of a stream that carries no message.
    pub(crate) async fn data(&mut self) -> Option<Result<Bytes, Abort>> {
        poll_fn(|cx| self.poll_data(cx)).await
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}

/// The sending direction of a stream.
pub(crate) struct Outgoing {
    stream: h2::SendStream<Bytes>,
    /// How long the peer may leave its window closed.
    patience: Duration,
}

impl Outgoing {
    pub(super) fn new(stream: h2::SendStream<Bytes>, patience: Duration) -> Self {
        Self { stream, patience }
    }

    /// Sends bytes as the peer's window lets them go.
    ///
    /// # Errors
    /// The peer reset the stream, or the connection broke.
    pub(crate) async fn send(&mut self, mut bytes: Bytes, end: bool) -> Result<(), Abort> {
        if bytes.is_empty() {
            return if end { self.put(bytes, true) } else { Ok(()) };
        }
        self.stream.reserve_capacity(bytes.len());
        while !bytes.is_empty() {
            let granted = match self.stream.capacity() {
                0 => {
                    let more = poll_fn(|cx| self.stream.poll_capacity(cx));
                    match tokio::time::timeout(self.patience, more).await {
                        Ok(Some(Ok(granted))) => granted,
                        Ok(Some(Err(error))) => return Err(abort_of(&error)),
                        Ok(None) => return Err(self.reset_by_peer().await),
                        Err(_) => {
                            self.reset(code::CANCEL);
                            return Err(Abort::Stalled);
                        }
                    }
                }
                granted => granted,
            };
            let part = bytes.split_to(granted.min(bytes.len()));
            let last = end && bytes.is_empty();
            if !part.is_empty() {
                self.put(part, last)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, bytes: Bytes, end: bool) -> Result<(), Abort> {
        self.stream
            .send_data(bytes, end)
            .map_err(|error| abort_of(&error))
    }

    pub(crate) fn trailers(&mut self, trailers: HeaderMap) -> Result<(), Abort> {
        self.stream
            .send_trailers(trailers)
            .map_err(|error| abort_of(&error))
    }

    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Abort> {
        self.stream.poll_reset(cx).map(|reset| match reset {
            Ok(reason) => Abort::Reset(reason.into()),
            Err(error) => abort_of(&error),
        })
    }

    pub(crate) async fn reset_by_peer(&mut self) -> Abort {
        poll_fn(|cx| self.poll_reset(cx)).await
    }

    pub(crate) fn reset(&mut self, code: u32) {
        self.stream.send_reset(h2::Reason::from(code));
    }
}

/// The sending direction of an exchange's upstream stream, once the request has been sent whole.
pub(super) type Sender = Arc<Mutex<Option<Outgoing>>>;

/// A response body; dropped before its end, it cancels the stream.
pub(crate) struct UpstreamBody {
    body: Incoming,
    sender: Sender,
    pumping: Option<Pumping>,
}

impl UpstreamBody {
    pub(super) fn new(
        body: Incoming,
        sender: Sender,
        slot: Arc<super::client::Slot>,
        pumping: Option<Pumping>,
    ) -> Self {
        let mut body = Self {
            body: body.holding(slot),
            sender,
            pumping,
        };
        if body.is_end_stream() {
            body.over();
        }
        body
    }

    fn over(&mut self) {
        if let Some(pumping) = self.pumping.take() {
            pumping.let_go();
        }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Next {
        let next = self.body.poll_frame(cx);
        if matches!(next, Poll::Ready(None)) || self.body.is_end_stream() {
            self.over();
        }
        next
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    pub(crate) fn reset(&mut self, code: u32) {
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = sender.as_mut() {
            let code = match code {
                // To a server, "no error" would mean that its answer was complete.
                code::NO_ERROR => code::CANCEL,
                other => other,
            };
            sender.reset(code);
        }
    }
}
