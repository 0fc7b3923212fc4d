//! What is remembered of an exchange until it is over: the filters' log phase runs when the last
//! part of it (head, either body, an upgraded stream) has been let go.

use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
    atomic::{AtomicU16, AtomicU64, Ordering},
};
use std::time::{Duration, Instant, SystemTime};

use adit_filters::{
    By, Cause, Chain, Deadline, Exchange, Failure, Fields, Outcome, Reason, Refusal, RequestId,
    RequestLine, Settled, Settlement, Termination, Upgrade,
};
use http::{Version, response};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::abort::Abort;
use super::counters::{Counters, Finished};
use super::open::Place;
use super::site::Site;
use super::stop::Stop;

/// One exchange, shared by everything that still works on it.
pub(crate) struct Record {
    chain: Arc<Chain>,
    exchange: Exchange,
    /// Kept only where a filter takes part in the log phase.
    line: Option<RequestLine>,
    version: Version,
    id: RequestId,
    started: SystemTime,
    clock: Instant,
    established: OnceLock<Duration>,
    status: AtomicU16,
    up: AtomicU64,
    down: AtomicU64,
    upgrade: Option<Upgrade>,
    ending: Mutex<Ending>,
    stop: Stop,
    /// Ends the exchange when its time is over.
    timer: OnceLock<AbortHandle>,
    counters: Arc<Counters>,
    site: Arc<Site>,
    /// Where it is found while it is under way.
    place: OnceLock<Place>,
}

#[derive(Default)]
struct Ending {
    abort: Option<Abort>,
    refusal: Option<Refusal>,
    settled: Option<Settled>,
    failure: Option<Failure>,
    response: Fields,
    termination: Option<Termination>,
}

/// What a [`Record`] begins with.
pub(crate) struct Opening {
    pub(crate) chain: Arc<Chain>,
    pub(crate) exchange: Exchange,
    pub(crate) line: Option<RequestLine>,
    pub(crate) version: Version,
    pub(crate) id: RequestId,
    pub(crate) started: SystemTime,
    pub(crate) clock: Instant,
    pub(crate) upgrade: Option<Upgrade>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) site: Arc<Site>,
}

impl Record {
    pub(crate) fn new(opening: Opening) -> Arc<Self> {
        let record = Arc::new(Self {
            chain: opening.chain,
            exchange: opening.exchange,
            line: opening.line,
            version: opening.version,
            id: opening.id,
            started: opening.started,
            clock: opening.clock,
            established: OnceLock::new(),
            status: AtomicU16::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            upgrade: opening.upgrade,
            ending: Mutex::default(),
            stop: Stop::default(),
            timer: OnceLock::new(),
            counters: opening.counters,
            site: opening.site,
            place: OnceLock::new(),
        });
        if let Some(deadline) = record.exchange.deadline() {
            let task = tokio::spawn(stop_after(deadline.clone(), Arc::downgrade(&record)));
            let _only_here = record.timer.set(task.abort_handle());
        }
        record
    }

    /// Ends the exchange, whatever it is doing. Where the last of the answer is given already, it is what still waits
    /// for the visitor to take it that ends.
    pub(crate) fn stop(&self, refusal: Refusal) {
        let mut ending = self.ending();
        if ending.termination.is_some() {
            drop(ending);
            self.stop.ask();
            return;
        }
        let cause = match refusal.reason {
            Reason::TimeLimit => Cause::Timeout,
            _ => Cause::Closed,
        };
        let abort = Abort::Refused(refusal.clone());
        ending.termination = Some(Termination {
            detail: Some(abort.detail()),
            ..Termination::new(By::Server, cause)
        });
        ending.refusal.get_or_insert(refusal);
        ending.abort.get_or_insert(abort);
        drop(ending);
        self.stop.ask();
    }

    /// Whether somebody has ended the exchange, and why. For what goes on with nobody to drive it.
    pub(crate) fn is_stopped(&self) -> Option<Refusal> {
        self.stop.is_asked().then(|| self.why_stopped())
    }

    fn why_stopped(&self) -> Refusal {
        let why = self.refusal();
        why.unwrap_or_else(|| Refusal::edge(Reason::Policy))
    }

    /// Waits until somebody ends the exchange. For the one task that drives it.
    pub(crate) async fn stopped(&self) {
        self.stop.asked().await;
    }

    /// Waits until somebody ends the exchange, and says why.
    pub(crate) async fn stopped_by(&self) -> Refusal {
        self.stopped().await;
        self.why_stopped()
    }

    /// From now on, who ends the exchange ends the connection that this tells.
    pub(crate) fn stop_cuts(&self, connection: &Arc<Notify>) {
        self.stop.cuts(Arc::clone(connection));
    }

    pub(crate) fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    pub(crate) fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    pub(crate) fn site(&self) -> &Arc<Site> {
        &self.site
    }

    /// What it has left HTTP for, or asked to.
    pub(crate) fn upgrade(&self) -> Option<Upgrade> {
        self.upgrade
    }

    /// Keeps the place where it is found until it is over.
    pub(crate) fn keep(&self, place: Place) {
        let _only_once = self.place.set(place);
    }

    /// The upstream has answered, or the relay has begun.
    pub(crate) fn establish(&self) {
        let _first_wins = self.established.set(self.clock.elapsed());
    }

    /// Whether the answer has begun and not ended.
    pub(crate) fn is_flowing(&self) -> bool {
        let ending = self.ending();
        self.established.get().is_some() && ending.termination.is_none()
    }

    /// Notes the head of the answer that goes to the visitor.
    pub(crate) fn answer(&self, head: &response::Parts) {
        self.status.store(head.status.as_u16(), Ordering::Relaxed);
        let names = self.chain.logged_response_fields();
        if !names.is_empty() {
            self.ending().response = Fields::of(&head.headers, names);
        }
    }

    pub(crate) fn add_up(&self, bytes: usize) {
        self.up.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn add_down(&self, bytes: usize) {
        self.down.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Notes why the exchange was refused; the first reason stands.
    pub(crate) fn refuse(&self, refusal: Refusal) {
        self.ending().refusal.get_or_insert(refusal);
    }

    pub(crate) fn refusal(&self) -> Option<Refusal> {
        self.ending().refusal.clone()
    }

    /// Notes which filter dealt with the exchange itself; the first stands.
    pub(crate) fn settle(&self, by: Arc<str>, how: Settlement) {
        let settled = Settled { by, how };
        self.ending().settled.get_or_insert(settled);
    }

    /// Notes why the service was not reached.
    pub(crate) fn fail(&self, failure: Failure) {
        self.ending().failure.get_or_insert(failure);
    }

    /// Notes why the request body broke off: the upstream only sees that it did.
    pub(crate) fn break_off(&self, abort: Abort) {
        self.ending().abort.get_or_insert(abort);
    }

    pub(crate) fn broken_off(&self) -> Option<Abort> {
        self.ending().abort.clone()
    }

    /// Notes how the exchange ended; the first end stands.
    pub(crate) fn end(&self, by: By, cause: Cause) {
        let end = Termination::new(by, cause);
        self.ending().termination.get_or_insert(end);
    }

    /// Notes how the exchange ended, and what broke it off.
    pub(crate) fn end_with(&self, by: By, cause: Cause, abort: &Abort) {
        self.ending()
            .termination
            .get_or_insert_with(|| Termination {
                detail: Some(abort.detail()),
                ..Termination::new(by, cause)
            });
    }

    fn ending(&self) -> MutexGuard<'_, Ending> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends an exchange that is not over in time.
async fn stop_after(deadline: Deadline, record: Weak<Record>) {
    tokio::time::sleep(deadline.after).await;
    if let Some(record) = record.upgrade() {
        record.stop(deadline.refusal);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.get() {
            timer.abort();
        }
        let ending = std::mem::take(
            self.ending
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner),
        );
        let status = Some(self.status.load(Ordering::Relaxed)).filter(|status| *status != 0);
        let (up, down) = (*self.up.get_mut(), *self.down.get_mut());
        self.site.usage(&self.counters).add(up, down);
        self.counters.finished(Finished {
            version: self.version,
            status,
            refusal: ending.refusal.as_ref(),
            settled: ending.settled.as_ref(),
            establish: self.established.get().copied(),
        });
        let Some(line) = self.line.take() else {
            return;
        };
        let outcome = Outcome {
            request: line,
            version: self.version,
            status,
            response: ending.response,
            started: self.started,
            duration: self.clock.elapsed(),
            establish: self.established.get().copied(),
            bytes_up: up,
            bytes_down: down,
            refusal: ending.refusal,
            settled: ending.settled,
            failure: ending.failure,
            // Let go without an end noted: the visitor's connection went first.
            termination: ending
                .termination
                .unwrap_or_else(|| Termination::new(By::Downstream, Cause::Closed)),
            upgrade: self.upgrade,
            request_id: self.id,
        };
        self.chain.log(&self.exchange, &Arc::new(outcome));
    }
}
