//! Since when a peer has not taken what is sent to it.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

/// Watches the writes to one connection.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    blocked: AtomicBool,
    since: Mutex<Option<Instant>>,
}

impl Backlog {
    /// Notes what came of a write or flush, and hands it on.
    pub(crate) fn note<T>(&self, poll: Poll<T>) -> Poll<T> {
        if poll.is_pending() {
            let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
            since.get_or_insert_with(Instant::now);
            self.blocked.store(true, Ordering::Relaxed);
        } else if self.blocked.swap(false, Ordering::Relaxed) {
            *self.since.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        poll
    }

    /// Whether nothing has gone out for this long although something should.
    pub(crate) fn is_older_than(&self, limit: Duration) -> bool {
        let since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() >= limit)
    }
}
