//! The two directions of an HTTP/2 stream in the edge's terms.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

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
    _slot: Option<super::client::Slot>,
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
    pub(super) fn holding(mut self, slot: super::client::Slot) -> Self {
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
            // A peer that needs no more of us may say so after its whole message (RFC 9113 §8.1).
            Some(Err(error)) if error.reason() == Some(h2::Reason::NO_ERROR) => Poll::Ready(None),
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
pub(crate) struct Outgoing(h2::SendStream<Bytes>);

impl Outgoing {
    pub(super) fn new(stream: h2::SendStream<Bytes>) -> Self {
        Self(stream)
    }

    /// Sends bytes as the peer's window lets them go.
    ///
    /// # Errors
    /// The peer reset the stream, or the connection broke.
    pub(crate) async fn send(&mut self, mut bytes: Bytes, end: bool) -> Result<(), Abort> {
        if bytes.is_empty() {
            return if end { self.put(bytes, true) } else { Ok(()) };
        }
        self.0.reserve_capacity(bytes.len());
        while !bytes.is_empty() {
            let granted = match self.0.capacity() {
                0 => match poll_fn(|cx| self.0.poll_capacity(cx)).await {
                    Some(Ok(granted)) => granted,
                    Some(Err(error)) => return Err(abort_of(&error)),
                    None => return Err(self.reset_by_peer().await),
                },
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
        self.0
            .send_data(bytes, end)
            .map_err(|error| abort_of(&error))
    }

    pub(crate) fn trailers(&mut self, trailers: HeaderMap) -> Result<(), Abort> {
        self.0
            .send_trailers(trailers)
            .map_err(|error| abort_of(&error))
    }

    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Abort> {
        self.0.poll_reset(cx).map(|reset| match reset {
            Ok(reason) => Abort::Reset(reason.into()),
            Err(error) => abort_of(&error),
        })
    }

    pub(crate) async fn reset_by_peer(&mut self) -> Abort {
        poll_fn(|cx| self.poll_reset(cx)).await
    }

    pub(crate) fn reset(&mut self, code: u32) {
        self.0.send_reset(h2::Reason::from(code));
    }
}

/// The sending direction of an exchange's upstream stream, once the request has been sent whole.
pub(super) type Sender = Arc<Mutex<Option<Outgoing>>>;

/// A response body; dropped before its end, it cancels the stream.
pub(crate) struct UpstreamBody {
    body: Incoming,
    sender: Sender,
}

impl UpstreamBody {
    pub(super) fn new(body: Incoming, sender: Sender, slot: super::client::Slot) -> Self {
        Self {
            body: body.holding(slot),
            sender,
        }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Next {
        self.body.poll_frame(cx)
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
