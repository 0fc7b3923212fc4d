//! HTTP calls: as a context has dispatched them, and under way.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use adit_filters::env::{BoxFuture, HttpRequest, HttpResponse};

use crate::common::{Common, Which, lock};

/// How many calls of one filter may be under way. Each exchange that waits has one at least.
const CALLS_MAX: usize = 1024;

/// How many bytes the bodies of those may have together.
const BYTES_MAX: usize = 16 << 20;

/// An HTTP call that a context has dispatched.
pub(crate) struct Outgoing {
    pub(crate) context: u32,
    pub(crate) token: u32,
    pub(crate) request: HttpRequest,
    pub(crate) place: CallPlace,
}

/// The calls of one filter that are under way.
#[derive(Default)]
pub(crate) struct UnderWay(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    calls: usize,
    bytes: usize,
}

impl UnderWay {
    /// A place for a call with so large a body, if there is one.
    pub(crate) fn place(self: &Arc<Self>, bytes: usize) -> Option<CallPlace> {
        let mut taken = lock(&self.0);
        if taken.calls >= CALLS_MAX || taken.bytes.saturating_add(bytes) > BYTES_MAX {
            return None;
        }
        taken.calls += 1;
        taken.bytes += bytes;
        Some(CallPlace {
            under_way: Arc::clone(self),
            bytes,
        })
    }
}

/// A call's place among those that may be under way, given back when it is over.
pub(crate) struct CallPlace {
    under_way: Arc<UnderWay>,
    bytes: usize,
}

impl Drop for CallPlace {
    fn drop(&mut self) {
        let mut taken = lock(&self.under_way.0);
        taken.calls -= 1;
        taken.bytes -= self.bytes;
    }
}

/// What came of a call: whose it was, which one, and the answer if there is one.
pub(crate) type Arrived = (Which, u32, u32, Option<HttpResponse>);

/// A call under way. It begins when somebody first waits for it.
pub(crate) struct Call {
    pub(crate) which: Which,
    pub(crate) context: u32,
    pub(crate) token: u32,
    answer: BoxFuture<'static, Option<HttpResponse>>,
}

impl Call {
    pub(crate) fn new(common: &Common, which: Which, call: Outgoing) -> Self {
        let Outgoing {
            context,
            token,
            request,
            place,
        } = call;
        let http = Arc::clone(&common.services.env().http);
        let max = common.services.limits().fetch_bytes;
        let answer = Box::pin(async move {
            let _place = place;
            let answer = http.fetch(request).await.ok();
            answer.filter(|answer| answer.body.len() <= max)
        });
        Self {
            which,
            context,
            token,
            answer,
        }
    }
}

impl Future for Call {
    type Output = Arrived;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Arrived> {
        let answer = self.answer.as_mut().poll(cx);
        answer.map(|answer| (self.which, self.context, self.token, answer))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn places_are_counted_and_weighed_and_given_back() {
        let under_way = Arc::new(UnderWay::default());
        let large = under_way.place(BYTES_MAX).unwrap();
        assert!(under_way.place(1).is_none());
        let small = under_way.place(0).unwrap();
        drop((large, small));
        let all: Vec<_> = (0..CALLS_MAX)
            .map(|_| under_way.place(1).unwrap())
            .collect();
        assert!(under_way.place(1).is_none());
        drop(all);
        assert!(under_way.place(BYTES_MAX).is_some());
    }
}
