//! The two bodies of an exchange on their way through: filters see the bytes, bytes are counted,
//! stalls are noticed. Nothing is kept unless a filter holds it.

mod pace;
mod request;
mod response;
mod stall;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use adit_filters::{BodyFlow, Passed, Settlement};
use bytes::Bytes;
use http_body::{Body, Frame};

use super::abort::Abort;
use super::record::Record;
use super::{http1, http2};

pub(crate) use request::{ApiBody, RequestBody, Sent, Unread};
pub(crate) use response::ResponseBody;
pub(crate) use stall::ContinueWait;

pub(crate) type Next = Poll<Option<Result<Frame<Bytes>, Abort>>>;

/// A request body as it comes from a visitor, whatever the protocol.
pub(crate) enum Inbound {
    Empty,
    Http1(http1::Incoming),
    Http2(http2::Lingering),
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

enum Through {
    /// What may go on after this wait, and trailers that follow it.
    Forward {
        data: Option<Frame<Bytes>>,
        trailers: Option<Frame<Bytes>>,
        wait: Duration,
    },
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
    let forward = |bytes: Bytes, wait| Through::Forward {
        data: (!bytes.is_empty()).then(|| Frame::data(bytes)),
        trailers,
        wait,
    };
    match passed {
        Passed::Forward(bytes) => forward(bytes, Duration::ZERO),
        Passed::Pace(bytes, wait) => forward(bytes, wait),
        Passed::Held => forward(Bytes::new(), Duration::ZERO),
        Passed::Refuse(refusal) => {
            record.refuse(refusal.clone());
            Through::Abort(Abort::Refused(refusal))
        }
        Passed::Respond { reply, by } => {
            record.settle(by, Settlement::Answered);
            Through::Abort(Abort::Answered(Arc::from(reply)))
        }
        Passed::Close { by } => {
            record.settle(by, Settlement::Closed);
            Through::Abort(Abort::Closed)
        }
    }
}
