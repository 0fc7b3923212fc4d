//! hyper's bodies in the edge's terms.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use http_body::Body as _;

use super::client::Client;
use crate::edge::abort::Abort;
use crate::edge::body::{Next, Sent};
use crate::edge::pool::Returning;

/// A message body hyper reads from a peer.
pub(crate) struct Incoming(hyper::body::Incoming);

impl Incoming {
    pub(crate) fn new(body: hyper::body::Incoming) -> Self {
        Self(body)
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Next {
        Pin::new(&mut self.0)
            .poll_frame(cx)
            .map_err(|_| Abort::Truncated)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    pub(crate) fn length(&self) -> Option<u64> {
        self.0.size_hint().exact()
    }
}

/// A response body; when it has been read to its end the connection goes back to the pool.
pub(crate) struct UpstreamBody {
    body: Option<Incoming>,
    back: Option<Returning<Client>>,
    /// The request has been sent whole, so that the connection can take the next.
    sent: Sent,
}

impl UpstreamBody {
    pub(crate) fn new(
        body: hyper::body::Incoming,
        back: Option<Returning<Client>>,
        sent: Sent,
    ) -> Self {
        let mut body = Self {
            body: Some(Incoming::new(body)),
            back,
            sent,
        };
        if body.is_end_stream() {
            body.put_back();
        }
        body
    }

    /// No body at all, of a connection that must not be used again.
    pub(super) fn none() -> Self {
        Self {
            body: None,
            back: None,
            sent: Sent::default(),
        }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Next {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let next = body.poll_frame(cx);
        match &next {
            Poll::Ready(None) => self.put_back(),
            Poll::Ready(Some(Ok(_))) if body.is_end_stream() => self.put_back(),
            Poll::Ready(Some(Err(_))) => self.back = None,
            _ => {}
        }
        next
    }

    fn put_back(&mut self) {
        match self.back.take() {
            Some(back) if self.sent.load(Ordering::Relaxed) => back.put(),
            // Answered before the request was whole: what is left of it is in the way.
            Some(back) => back.abandon(),
            None => {}
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    pub(crate) fn length(&self) -> Option<u64> {
        self.body.as_ref().map_or(Some(0), Incoming::length)
    }
}
