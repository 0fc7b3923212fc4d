//! Beside the data path: timers, queues, and the calls that no exchange waits for.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt as _};

use crate::common::{Event, lock};
use crate::filter::{Filter, RESTART};
use crate::under_way::{Arrived, Call};

/// How many calls of one filter may be under way that no exchange waits for; more have failed at once.
const CALLS_MAX: usize = 64;

/// How many events are seen to before others get their turn.
const ROUND: usize = 64;

/// How long the driver sleeps where nothing is due.
const IDLE: Duration = Duration::from_secs(60 * 60);

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
    let mut calls: FuturesUnordered<Call> = FuturesUnordered::new();
    let mut timer = Timer::default();
    loop {
        let wait = {
            let Some(filter) = filter.upgrade() else {
                return;
            };
            for event in filter.common.events(ROUND) {
                match event {
                    Event::Call(call) if calls.len() < CALLS_MAX => calls.push(call),
                    Event::Call(call) => {
                        arrived(&filter, (call.which, call.context, call.token, None));
                    }
                    Event::Queue(id) => {
                        let owner = filter.common.owner_of(id);
                        if let Some(owner) = owner.and_then(|owner| filter.living(owner)) {
                            let told = filter.with(owner, |vm| vm.queue_ready(id));
                            let _told = filter.tell(told);
                        }
                    }
                }
            }
            timer.run(&filter, clock.monotonic())
        };
        // What a callback brings about by itself, again and again, keeps nobody else from working.
        breathe().await;
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

/// Lets others have their turn.
async fn breathe() {
    let mut first = true;
    poll_fn(|cx| match std::mem::take(&mut first) {
        true => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        false => Poll::Ready(()),
    })
    .await;
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
                        let ticked = vm.tick();
                        let tick = vm.host().tick;
                        let clock = &filter.common.services.env().clock;
                        // From its end on: one that takes longer than its period does not come at once again.
                        vm.due = tick.map(|tick| clock.monotonic().saturating_add(tick));
                        if let Err(error) = ticked {
                            filter.common.services.failed(&error);
                            filter.lose(&mut slot);
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
