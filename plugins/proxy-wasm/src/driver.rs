//! Beside the data path: timers, queues, and the calls that no exchange waits for.

use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use adit_filters::env::{BoxFuture, HttpResponse};
use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use crate::common::{Event, Outgoing, Which, lock};
use crate::filter::Filter;

/// How many calls of one filter may be under way that no exchange waits for; more have failed at once.
const CALLS_MAX: usize = 64;

/// How long a machine with a timer stays away after a failure.
const RESTART: Duration = Duration::from_secs(1);

/// How long the driver sleeps where nothing is due.
const IDLE: Duration = Duration::from_secs(60 * 60);

type Arrived = (Which, u32, u32, Option<HttpResponse>);

/// Runs for as long as its filter is there.
pub(crate) async fn drive(filter: Weak<Filter>) {
    let Some((wake, clock)) = filter.upgrade().map(|filter| {
        let common = &filter.common;
        (
            Arc::clone(&common.wake),
            Arc::clone(&common.services.env().clock),
        )
    }) else {
        return;
    };
    let mut calls: FuturesUnordered<BoxFuture<'static, Arrived>> = FuturesUnordered::new();
    let mut timer = Timer::default();
    loop {
        let wait = {
            let Some(filter) = filter.upgrade() else {
                return;
            };
            while let Some(event) = filter.common.next_event() {
                match event {
                    Event::Call(which, call) if calls.len() < CALLS_MAX => {
                        calls.push(fetch(&filter, which, *call));
                    }
                    Event::Call(which, call) => {
                        arrived(&filter, (which, call.context, call.token, None));
                    }
                    Event::Queue(id) => {
                        if let Some(owner) = filter.common.owner_of(id) {
                            let told = filter.with(owner, |vm| vm.queue_ready(id));
                            let _told = filter.tell(told);
                        }
                    }
                }
            }
            timer.run(&filter, clock.monotonic())
        };
        let next = async {
            match calls.next().await {
                Some(next) => next,
                None => std::future::pending().await,
            }
        };
        let next = pin!(next);
        let woken = pin!(wake.notified());
        let happens = select(next, woken);
        let came = match select(happens, clock.sleep(wait)).await {
            Either::Left((Either::Left((came, _)), _)) => Some(came),
            _ => None,
        };
        if let Some(came) = came {
            let Some(filter) = filter.upgrade() else {
                return;
            };
            arrived(&filter, came);
        }
    }
}

fn arrived(filter: &Filter, (which, context, token, answer): Arrived) {
    let lives = filter.vms.get(which.vm).is_some_and(|slot| {
        let slot = lock(slot);
        slot.as_ref().is_some_and(|vm| vm.which == which)
    });
    if lives {
        let told = filter.with(which, |vm| vm.deliver(context, token, answer));
        let _told = filter.tell(told);
    }
}

fn fetch(filter: &Filter, which: Which, call: Outgoing) -> BoxFuture<'static, Arrived> {
    let services = &filter.common.services;
    let http = Arc::clone(&services.env().http);
    let max = services.limits().fetch_bytes;
    Box::pin(async move {
        let answer = http.fetch(call.request).await.ok();
        let answer = answer.filter(|answer| answer.body.len() <= max);
        (which, call.context, call.token, answer)
    })
}

/// Calls the root contexts that want to be.
#[derive(Default)]
struct Timer {
    /// The first machine has had a timer: it is started again if it is lost.
    wanted: bool,
    again: Option<Duration>,
}

impl Timer {
    /// Calls all that are due, and says how long none is.
    fn run(&mut self, filter: &Filter, now: Duration) -> Duration {
        let mut next: Option<Duration> = None;
        let mut sooner = |at: Duration| {
            if next.is_none_or(|next| at < next) {
                next = Some(at);
            }
        };
        for (at, slot) in filter.vms.iter().enumerate() {
            let mut slot = lock(slot);
            match slot.as_mut() {
                None if at == 0 && self.wanted => {
                    let again = *self.again.get_or_insert(now.saturating_add(RESTART));
                    if again > now {
                        sooner(again);
                        continue;
                    }
                    self.again = None;
                    match filter.start(at) {
                        Ok(vm) => *slot = Some(vm),
                        Err(_) => sooner(now.saturating_add(RESTART)),
                    }
                }
                None => continue,
                Some(vm) => {
                    if at == 0 {
                        self.again = None;
                    }
                    if vm.due.is_some_and(|due| due <= now) {
                        let tick = vm.host().tick;
                        vm.due = tick.map(|tick| now.saturating_add(tick));
                        if let Err(error) = vm.tick() {
                            filter.common.services.failed(&error);
                            *slot = None;
                            sooner(now.saturating_add(RESTART));
                            continue;
                        }
                    }
                }
            }
            if let Some(due) = slot.as_ref().and_then(|vm| vm.due) {
                self.wanted |= at == 0;
                sooner(due);
            }
        }
        next.map_or(IDLE, |next| next.saturating_sub(now))
    }
}
