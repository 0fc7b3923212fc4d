//! A visitor's upload that is let go before its end.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;

use super::body::Incoming;
use crate::edge::body::Next;
use crate::edge::limits::Limits;

/// A request body that is read on for a while when nobody wants the rest of it.
///
/// Letting go of it resets the stream, and clients in the field take a reset that arrives together
/// with a whole answer for the loss of that answer.
pub(crate) struct Lingering {
    body: Option<Incoming>,
    wait: Duration,
    bytes: usize,
}

impl Lingering {
    pub(super) fn new(body: Incoming, limits: &Limits) -> Self {
        Self {
            body: Some(body),
            wait: limits.lingering,
            bytes: limits.lingering_bytes,
        }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Next {
        match &mut self.body {
            Some(body) => body.poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let (wait, mut left) = (self.wait, self.bytes);
        runtime.spawn(async move {
            let rest = async {
                while let Some(Ok(data)) = body.data().await {
                    left = left.saturating_sub(data.len());
                    if left == 0 {
                        // Enough was read; the visitor still has the rest of the time to read its
                        // answer before the reset.
                        std::future::pending::<()>().await;
                    }
                }
            };
            let _long_enough = tokio::time::timeout(wait, rest).await;
        });
    }
}
