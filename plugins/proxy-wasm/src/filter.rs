//! A configured filter: its machines, and the hooks it takes part in.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use adit_filters::{
    FilterError, Hooks, LogCx, OnLog, OnRequest, OnResponse, RequestCx, ResponseCx, Revision, Slot,
    Stage, Verdict,
};

use crate::code::Code;
use crate::common::{Common, Which, lock};
use crate::context::Context;
use crate::visit::Visit;
use crate::vm::{NotStarted, VMS_MAX, Vm};

/// How many contexts a machine has before another is started beside it.
const CROWD: usize = 64;

/// How often in a row a machine may fail to start before nobody tries for a while.
const FAILURES_MAX: u32 = 3;

/// How long nobody tries then, nor to start one with a timer again.
pub(crate) const RESTART: Duration = Duration::from_secs(1);

/// A configured filter.
pub(crate) struct Filter {
    pub(crate) common: Arc<Common>,
    pub(crate) code: Arc<Code>,
    pub(crate) vms: [Mutex<Option<Vm>>; VMS_MAX],
    generations: AtomicU64,
    failing: Mutex<Failing>,
    turn: AtomicUsize,
}

/// How often machines could not be started since one could.
#[derive(Default)]
struct Failing {
    times: u32,
    until: Duration,
    last: String,
}

impl Failing {
    /// An error as long as it is too early to try again.
    fn rests(&self, now: Duration) -> Result<(), FilterError> {
        let Self { times, until, last } = self;
        match *times >= FAILURES_MAX && now < *until {
            true => Err(FilterError::Plugin {
                reason: format!("it could not be started {times} times, the last time: {last}"),
            }),
            false => Ok(()),
        }
    }

    fn started<R>(&mut self, now: Duration, started: &Result<R, FilterError>) {
        match started {
            Ok(_) => *self = Self::default(),
            // That there is no place says nothing about the filter.
            Err(FilterError::Full { .. }) => {}
            Err(error) => {
                self.times = self.times.saturating_add(1);
                self.until = now.saturating_add(RESTART);
                self.last = error.detail();
            }
        }
    }
}

/// What stands in a chain.
pub(crate) struct Hook {
    pub(crate) filter: Arc<Filter>,
    pub(crate) slot: Slot<Visit>,
}

impl Filter {
    pub(crate) fn new(common: Arc<Common>, code: Arc<Code>) -> Self {
        Self {
            common,
            code,
            vms: Default::default(),
            generations: AtomicU64::new(0),
            failing: Mutex::default(),
            turn: AtomicUsize::new(0),
        }
    }

    /// Starts a machine for a place.
    pub(crate) fn start(&self, vm: usize) -> Result<Vm, NotStarted> {
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        Vm::start(&self.code, &self.common, Which { vm, generation })
    }

    fn start_again(&self, vm: usize) -> Result<Vm, FilterError> {
        let now = self.common.services.env().clock.monotonic();
        lock(&self.failing).rests(now)?;
        let started = self.start(vm).map_err(|error| match error {
            NotStarted::Failed(error) => error,
            NotStarted::Rejected(what) => FilterError::Plugin {
                reason: format!("it took its configuration before and does not now: {what}"),
            },
        });
        lock(&self.failing).started(now, &started);
        started
    }

    /// Makes a context on a machine: one that rests, else a new one, else whose turn it is.
    pub(crate) fn admit(&self, context: Context) -> Result<(Which, u32), FilterError> {
        let mut context = Some(context);
        let mut place = |slot: &mut Option<Vm>, at: usize| {
            if slot.is_none() {
                *slot = Some(self.start_again(at)?);
            }
            let (Some(vm), Some(context)) = (slot.as_mut(), context.take()) else {
                return Err(FilterError::Trapped {
                    reason: "there is no machine",
                });
            };
            let which = vm.which;
            let made = vm.create(context).and_then(|id| vm.tidy().map(|()| id));
            if made.is_err() {
                self.lose(slot);
            }
            Ok((which, made?))
        };
        let mut crowded = None;
        let mut free = None;
        for (at, slot) in self.vms.iter().enumerate() {
            let mut slot = match slot.try_lock() {
                Ok(slot) => slot,
                Err(TryLockError::Poisoned(slot)) => slot.into_inner(),
                Err(TryLockError::WouldBlock) => continue,
            };
            match slot.as_mut().map(|vm| vm.host().contexts.len()) {
                Some(contexts) if contexts < CROWD => return place(&mut slot, at),
                Some(contexts) => {
                    if crowded.is_none_or(|(least, _)| contexts < least) {
                        crowded = Some((contexts, at));
                    }
                }
                None => {
                    free.get_or_insert(at);
                }
            }
        }
        if let Some((at, slot)) = free.and_then(|at| Some((at, self.vms.get(at)?))) {
            let mut slot = lock(slot);
            if slot.is_none() {
                match self.start_again(at) {
                    Ok(vm) => *slot = Some(vm),
                    // As many instances of plugins are at work as may be: one of ours has to do.
                    Err(FilterError::Full { .. }) => {}
                    Err(error) if crowded.is_some() => self.common.services.failed(&error),
                    Err(error) => return Err(error),
                }
            }
            if slot.is_some() {
                return place(&mut slot, at);
            }
        }
        let at = crowded.map_or_else(
            || self.turn.fetch_add(1, Ordering::Relaxed) % VMS_MAX,
            |(_, at)| at,
        );
        // One that lives, from there on.
        let order = (at..VMS_MAX).chain(0..at);
        let mut last = None;
        for (at, slot) in order.filter_map(|at| Some((at, self.vms.get(at)?))) {
            let mut slot = lock(slot);
            if slot.is_some() {
                return place(&mut slot, at);
            }
            last = Some(at);
        }
        let at = last.unwrap_or_default();
        let slot = self.vms.get(at).ok_or(FilterError::Trapped {
            reason: "there is no machine",
        })?;
        place(&mut lock(slot), at)
    }

    /// Works on a machine, if it still lives. What fails costs the machine.
    pub(crate) fn with<R>(
        &self,
        which: Which,
        work: impl FnOnce(&mut Vm) -> Result<R, FilterError>,
    ) -> Result<R, FilterError> {
        let lost = || FilterError::Plugin {
            reason: "the machine of its context was lost to another failure".to_owned(),
        };
        let slot = self.vms.get(which.vm).ok_or_else(lost)?;
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let living = slot.as_mut().filter(|vm| vm.which == which);
        let vm = living.ok_or_else(lost)?;
        let done = work(vm).and_then(|done| vm.tidy().map(|()| done));
        if done.is_err() {
            self.lose(&mut slot);
        }
        done
    }

    /// Drops a machine that has failed, with every context in it.
    pub(crate) fn lose(&self, slot: &mut Option<Vm>) {
        if let Some(mut vm) = slot.take() {
            for context in vm.host().contexts.values() {
                // Whoever waits hears of it now.
                context.wake.notify_one();
            }
        }
        self.common.wake.notify_one();
    }

    /// This machine if it lives, else another that does.
    pub(crate) fn living(&self, which: Which) -> Option<Which> {
        let mut other = None;
        for slot in &self.vms {
            match lock(slot).as_ref().map(|vm| vm.which) {
                Some(lives) if lives == which => return Some(lives),
                Some(lives) => {
                    other.get_or_insert(lives);
                }
                None => {}
            }
        }
        other
    }

    /// Writes down what failed.
    pub(crate) fn tell<R>(&self, said: Result<R, FilterError>) -> Result<R, FilterError> {
        said.inspect_err(|error| self.common.services.failed(error))
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        // The driver has nothing to do any more.
        self.common.wake.notify_one();
    }
}

impl Hook {
    pub(crate) fn hooks(self, stage: Stage) -> Hooks {
        let hook = Arc::new(self);
        let exports = &hook.filter.code.exports;
        let [request_body, response_body] = &exports.body;
        let [request_trailers, response_trailers] = &exports.trailers;
        let [_, response] = &exports.headers;
        let mut hooks = Hooks::new()
            .at(stage)
            .request(Arc::clone(&hook))
            .log(Arc::clone(&hook));
        if response.is_some() || response_body.is_some() || response_trailers.is_some() {
            hooks = hooks.response(Arc::clone(&hook));
        }
        if request_body.is_some() || request_trailers.is_some() {
            hooks = hooks.request_body(Arc::clone(&hook));
        }
        if response_body.is_some() || response_trailers.is_some() {
            hooks = hooks.response_body(Arc::clone(&hook));
        }
        hooks
    }
}

impl OnRequest for Hook {
    async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        let filter = &self.filter;
        let visit = Visit::begin(filter, cx.exchange);
        let visit = filter.tell(visit)?;
        cx.exchange.fill(self.slot, visit);
        let Some(visit) = cx.exchange.slot(self.slot) else {
            return Err(FilterError::Trapped {
                reason: "an exchange keeps nothing",
            });
        };
        let said = visit.request(cx.head, cx.exchange.is_bodiless()).await;
        filter.tell(visit.weigh(said))
    }
}

impl OnResponse for Hook {
    async fn on_response(&self, cx: &mut ResponseCx<'_>) -> Result<Revision, FilterError> {
        let Some(visit) = cx.exchange.slot(self.slot) else {
            return Ok(Revision::Keep);
        };
        let said = visit.response(cx.head).await;
        self.filter.tell(visit.weigh(said))
    }
}

impl OnLog for Hook {
    fn on_log(&self, cx: &LogCx<'_>) {
        if let Some(visit) = cx.exchange.slot(self.slot) {
            let _told = self.filter.tell(visit.end(Some(cx.outcome)));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_cannot_be_started_time_and_again_rests() {
        let mut failing = Failing::default();
        let now = Duration::from_secs(60);
        let failed = || {
            Err::<(), _>(FilterError::Plugin {
                reason: "it panicked".to_owned(),
            })
        };
        for _ in 0..FAILURES_MAX {
            failing.rests(now).unwrap();
            failing.started(now, &failed());
            failing.started(now, &Err::<(), _>(FilterError::Full { limit: 1 }));
        }
        let error = failing.rests(now).unwrap_err().detail();
        assert!(
            error.contains("3 times") && error.contains("it panicked"),
            "{error}"
        );
        failing.rests(now + RESTART).unwrap();
        failing.started(now + RESTART, &failed());
        failing.rests(now + RESTART).unwrap_err();
        failing.started(now, &Ok(()));
        failing.rests(now).unwrap();
    }
}
