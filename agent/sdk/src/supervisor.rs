//! Keeps one control channel alive for as long as anybody wants it.

use std::sync::Arc;
use std::time::Duration;

use adit_protocol::liveness::Interval;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::registry::Registry;
use crate::session::{End, Session};
use crate::{Dialer, Error, Retry, Status, TunnelStatus};

pub(crate) struct Supervisor {
    dialer: Dialer,
    registry: Arc<Registry>,
    heartbeat: Interval,
    retry: Retry,
}

impl Supervisor {
    pub(crate) const fn new(
        dialer: Dialer,
        registry: Arc<Registry>,
        heartbeat: Interval,
        retry: Retry,
    ) -> Self {
        Self {
            dialer,
            registry,
            heartbeat,
            retry,
        }
    }

    /// Connects, serves, and connects again, until the client is closed or gives up.
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::new(self.retry);
        let mut was_online = false;
        loop {
            if self.registry.is_closing() {
                return self.registry.finish(None);
            }
            self.registry.status.send_replace(Status::Connecting);
            let reason = match self.unless_closing(self.open(&backoff)).await {
                None => return self.registry.finish(None),
                Some(Err(error)) => error,
                Some(Ok(session)) => {
                    was_online = true;
                    let start = Instant::now();
                    let end = session.run().await;
                    backoff.lost(start, Instant::now());
                    match end {
                        End::Closed => return self.registry.finish(None),
                        // What was to end has ended, if not in good order.
                        End::Lost(_) if self.registry.is_closing() => {
                            return self.registry.finish(None);
                        }
                        End::Lost(error) => error,
                    }
                }
            };
            tracing::debug!(%reason, "the control channel is lost");
            let hopeless = !reason.is_retryable() || (!was_online && reason.is_mismatch());
            let wait = backoff.next(Instant::now(), random());
            let (false, Some(retry_in)) = (hopeless, wait) else {
                return self.registry.finish(Some(&reason));
            };
            self.registry
                .status
                .send_replace(Status::Disconnected { reason, retry_in });
            for entry in self.registry.entries() {
                entry.status.send_replace(TunnelStatus::Waiting);
            }
            if self.pause(retry_in).await.is_none() {
                return self.registry.finish(None);
            }
        }
    }

    async fn open(&self, backoff: &Backoff) -> Result<Session, Error> {
        let connecting = self.dialer.connect();
        let stream = match backoff.connect_limit(Instant::now()) {
            Some(limit) => tokio::time::timeout(limit, connecting)
                .await
                .map_err(|_| Error::Timeout(limit))??,
            None => connecting.await?,
        };
        Session::open(
            stream,
            self.dialer.clone(),
            Arc::clone(&self.registry),
            self.heartbeat,
            self.retry,
        )
        .await
    }

    /// Waits; `None` if the client was closed meanwhile.
    async fn pause(&self, time: Duration) -> Option<()> {
        self.unless_closing(tokio::time::sleep(time)).await
    }

    /// Drops `future` when the client is closed. There is no channel now, so tunnels that are
    /// closed meanwhile are over at once.
    async fn unless_closing<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let closing = async {
            while !self.registry.is_closing() {
                self.registry.end_closing();
                self.registry.changed().await;
            }
        };
        tokio::select! {
            value = future => Some(value),
            () = closing => None,
        }
    }
}

/// Jitter needs no quality: without a random source there is none.
pub(crate) fn random() -> u32 {
    getrandom::u32().unwrap_or(0)
}
