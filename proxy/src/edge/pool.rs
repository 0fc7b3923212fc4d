//! Connections to the service behind one tunnel, kept for the next request.
//!
//! One pool per incarnation of a tunnel, never keyed by anything a visitor sends. HTTP/1.1
//! connections are lent out one exchange at a time, the last one used first; HTTP/2 connections
//! are shared up to the upstream's limit of streams.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{http1, http2};
use crate::render::Failure;

/// How often idle connections are looked through, as a part of the time they may idle.
const SWEEPS_PER_IDLE_TIME: u32 = 4;

/// How long a connection that came back may take until it can be used.
const READY_WAIT: Duration = Duration::from_millis(100);

/// An attempt to open a connection that failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FailedOpening {
    pub(crate) at: Instant,
    pub(crate) failure: Failure,
}

/// The idle connections of one tunnel.
#[derive(Default)]
pub(crate) struct Pool {
    inner: Mutex<Inner>,
    opening: tokio::sync::Mutex<Option<FailedOpening>>,
}

#[derive(Default)]
struct Inner {
    http1: Vec<Idle>,
    http2: Vec<Shared>,
    sweeping: bool,
    /// The tunnel has ended: what comes back is let go.
    closed: bool,
}

struct Idle {
    client: http1::Client,
    since: Instant,
}

struct Shared {
    client: http2::Client,
    used: Instant,
}

/// What a pool keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep {
    pub(crate) idle_max: usize,
    pub(crate) idle: Duration,
}

impl Pool {
    fn with<R>(&self, act: impl FnOnce(&mut Inner) -> R) -> R {
        act(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// An idle HTTP/1.1 connection that is still open.
    pub(crate) async fn http1(&self) -> Option<http1::Client> {
        while let Some(idle) = self.with(|inner| inner.http1.pop()) {
            let mut client = idle.client;
            if client.is_ready() {
                return Some(client);
            }
            // It comes back when the answer is whole; its own task may need a moment to notice, or
            // may still be sending a request nobody reads any more.
            let ready = tokio::time::timeout(READY_WAIT, client.ready());
            if matches!(ready.await, Ok(true)) {
                return Some(client);
            }
        }
        None
    }

    /// Held while one request opens an HTTP/2 connection for all that wait. It says how the last
    /// such attempt failed, so that those who waited for it share its end instead of making the
    /// same attempt one after the other.
    pub(crate) async fn opening(&self) -> tokio::sync::MutexGuard<'_, Option<FailedOpening>> {
        self.opening.lock().await
    }

    /// A place on an open HTTP/2 connection.
    pub(crate) fn http2(&self) -> Option<http2::Reserved> {
        self.with(|inner| {
            inner.http2.retain(|shared| shared.client.is_open());
            inner.http2.iter_mut().find_map(|shared| {
                let reserved = shared.client.reserve()?;
                shared.used = Instant::now();
                Some(reserved)
            })
        })
    }

    /// Shares a fresh HTTP/2 connection.
    pub(crate) fn share(self: &Arc<Self>, client: http2::Client, keep: Keep) {
        let excess = self.with(|inner| {
            if inner.closed {
                return None;
            }
            inner.http2.push(Shared {
                client,
                used: Instant::now(),
            });
            (inner.http2.len() > keep.idle_max).then(|| inner.http2.remove(0))
        });
        drop(excess);
        self.sweep_later(keep);
    }

    fn put_http1(self: &Arc<Self>, client: http1::Client, keep: Keep) {
        if !client.is_open() || self.with(|inner| inner.closed) {
            return;
        }
        let excess = self.with(|inner| {
            inner.http1.push(Idle {
                client,
                since: Instant::now(),
            });
            // The one that waited longest gives way.
            (inner.http1.len() > keep.idle_max).then(|| inner.http1.remove(0))
        });
        drop(excess);
        self.sweep_later(keep);
    }

    /// Lets every idle connection go, now and later.
    pub(crate) fn close(&self) {
        let let_go = self.with(|inner| {
            inner.closed = true;
            let http1 = std::mem::take(&mut inner.http1);
            (http1, std::mem::take(&mut inner.http2))
        });
        drop(let_go);
    }

    fn sweep_later(self: &Arc<Self>, keep: Keep) {
        if self.with(|inner| std::mem::replace(&mut inner.sweeping, true)) {
            return;
        }
        // The task holds no pool: a tunnel that ends is not kept alive by its sweeper.
        let pool = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(keep.idle / SWEEPS_PER_IDLE_TIME).await;
                let Some(pool) = pool.upgrade() else { return };
                if pool.sweep(keep) {
                    return;
                }
            }
        });
    }

    /// Drops what idled too long; `true` where nothing is left to look after.
    fn sweep(&self, keep: Keep) -> bool {
        let mut let_go = Vec::new();
        self.with(|inner| {
            let expired = inner
                .http1
                .iter()
                .take_while(|idle| idle.since.elapsed() >= keep.idle)
                .count();
            let_go.extend(inner.http1.drain(..expired));
            inner.http1.retain(|idle| idle.client.is_open());
            inner.http2.retain(|shared| {
                let idle = shared.client.is_idle() && shared.used.elapsed() >= keep.idle;
                shared.client.is_open() && !idle
            });
            let done = inner.http1.is_empty() && inner.http2.is_empty();
            inner.sweeping = !done;
            done
        })
    }
}

/// A connection that goes back to its pool when its exchange is over.
pub(crate) struct Returning<C> {
    client: C,
    pool: Arc<Pool>,
    keep: Keep,
}

impl Returning<http1::Client> {
    pub(crate) fn new(client: http1::Client, pool: Arc<Pool>, keep: Keep) -> Self {
        Self { client, pool, keep }
    }

    pub(crate) fn put(self) {
        self.pool.put_http1(self.client, self.keep);
    }

    pub(crate) fn abandon(self) {
        self.client.abandon();
    }
}
