//! What is remembered of an exchange until it is over: the filters' log phase runs when the last
//! part of it (head, either body, an upgraded stream) has been let go.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicU16, AtomicU64, Ordering},
};
use std::time::{Duration, Instant, SystemTime};

use adit_filters::{By, Cause, Chain, Exchange, Outcome, Refusal, Termination, Upgrade};
use http::Version;

use super::abort::Abort;
use super::counters::Counters;
use super::request_id::RequestId;

/// The request as it is logged; collected only where a filter takes part in the log phase.
#[derive(Clone, Debug)]
pub(crate) struct RequestLine {
    pub(crate) method: http::Method,
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) user_agent: Option<String>,
}

/// One exchange, shared by everything that still works on it.
pub(crate) struct Record {
    chain: Arc<Chain>,
    exchange: Exchange,
    line: Option<RequestLine>,
    version: Version,
    stream_id: RequestId,
    started: SystemTime,
    clock: Instant,
    established: OnceLock<Duration>,
    status: AtomicU16,
    up: AtomicU64,
    down: AtomicU64,
    upgrade: Option<Upgrade>,
    ending: Mutex<Ending>,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Ending {
    abort: Option<Abort>,
    refusal: Option<Refusal>,
    termination: Option<Termination>,
}

/// What a [`Record`] begins with.
pub(crate) struct Opening {
    pub(crate) chain: Arc<Chain>,
    pub(crate) exchange: Exchange,
    pub(crate) line: Option<RequestLine>,
    pub(crate) version: Version,
    pub(crate) stream_id: RequestId,
    pub(crate) started: SystemTime,
    pub(crate) clock: Instant,
    pub(crate) upgrade: Option<Upgrade>,
    pub(crate) counters: Arc<Counters>,
}

impl Record {
    pub(crate) fn new(opening: Opening) -> Arc<Self> {
        Arc::new(Self {
            chain: opening.chain,
            exchange: opening.exchange,
            line: opening.line,
            version: opening.version,
            stream_id: opening.stream_id,
            started: opening.started,
            clock: opening.clock,
            established: OnceLock::new(),
            status: AtomicU16::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            upgrade: opening.upgrade,
            ending: Mutex::default(),
            counters: opening.counters,
        })
    }

    pub(crate) fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    pub(crate) fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    /// The upstream has answered, or the relay has begun.
    pub(crate) fn establish(&self) {
        let _first_wins = self.established.set(self.clock.elapsed());
    }

    /// Whether the answer has begun and not ended.
    pub(crate) fn is_flowing(&self) -> bool {
        let ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        self.established.get().is_some() && ending.termination.is_none()
    }

    pub(crate) fn answer(&self, status: http::StatusCode) {
        self.status.store(status.as_u16(), Ordering::Relaxed);
    }

    pub(crate) fn add_up(&self, bytes: usize) {
        self.up.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_down(&self, bytes: usize) {
        self.down.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Notes why the exchange was refused; the first reason stands.
    pub(crate) fn refuse(&self, refusal: Refusal) {
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        ending.refusal.get_or_insert(refusal);
    }

    pub(crate) fn refusal(&self) -> Option<Refusal> {
        let ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        ending.refusal.clone()
    }

    /// Notes why the request body broke off: the upstream only sees that it did.
    pub(crate) fn break_off(&self, abort: Abort) {
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        ending.abort.get_or_insert(abort);
    }

    pub(crate) fn broken_off(&self) -> Option<Abort> {
        let ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        ending.abort.clone()
    }

    /// Notes how the exchange ended; the first end stands.
    pub(crate) fn end(&self, by: By, cause: Cause) {
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        ending.termination.get_or_insert(Termination { by, cause });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let ending = std::mem::take(
            self.ending
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner),
        );
        let status = Some(self.status.load(Ordering::Relaxed)).filter(|status| *status != 0);
        let (up, down) = (*self.up.get_mut(), *self.down.get_mut());
        self.counters
            .finished(status, ending.refusal.as_ref(), up, down);
        let Some(line) = self.line.take() else {
            return;
        };
        let outcome = Outcome {
            method: line.method,
            scheme: "https".to_owned(),
            host: line.host,
            path: line.path,
            query: line.query,
            version: self.version,
            status,
            started: self.started,
            duration: self.clock.elapsed(),
            establish: self.established.get().copied(),
            bytes_up: up,
            bytes_down: down,
            refusal: ending.refusal,
            // Let go without an end noted: the visitor's connection went first.
            termination: ending.termination.unwrap_or(Termination {
                by: By::Downstream,
                cause: Cause::Closed,
            }),
            upgrade: self.upgrade,
            stream_id: self.stream_id.to_string(),
            user_agent: line.user_agent,
        };
        self.chain.log(&self.exchange, &outcome);
    }
}
