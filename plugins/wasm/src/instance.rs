//! One instance of a component, and how long and how much it may work.

use std::future::{Future as _, poll_fn};
use std::sync::Arc;
use std::task::Poll;

use adit_filters::FilterError;
use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::{Instance as Linked, Resource};
use wasmtime::{Store, Trap};

use crate::component::{Component, one_line};
use crate::handles::ExchangeHandle;
use crate::shared::Shared;
use crate::state::{Call, State};

/// After how much fuel others get their turn, in hooks that may wait.
const YIELD_FUEL: u64 = 1_000_000;

/// One instance.
pub(crate) struct Instance {
    pub(crate) store: Store<State>,
    pub(crate) linked: Linked,
    /// Hooks it has served.
    pub(crate) uses: u32,
    /// Fuel the current hook was given.
    lent: u64,
    _place: OwnedSemaphorePermit,
}

/// What the plugin says is wrong with a filter's table.
#[derive(Debug)]
pub(crate) struct Rejected {
    pub(crate) key: Option<String>,
    pub(crate) message: String,
}

/// The one exchange that a call is about.
pub(crate) fn exchange() -> Resource<ExchangeHandle> {
    Resource::new_borrow(0)
}

impl Instance {
    /// An instance that has not been told its configuration.
    pub(crate) async fn bare(
        component: &Component,
        shared: &Arc<Shared>,
    ) -> Result<Self, FilterError> {
        let place = component
            .pool
            .place()
            .map_err(|limit| FilterError::Full { limit })?;
        let state = State::new(Arc::clone(shared));
        let mut store = Store::new(&component.pool.engine, state);
        store.limiter(State::limiter);
        let limits = shared.limits;
        store.data_mut().calls_left = limits.host_calls;
        let fueled = store.set_fuel(limits.fuel_start);
        let linked = match fueled {
            Ok(()) => component.code.pre.instantiate_async(&mut store).await,
            Err(error) => Err(error),
        };
        let linked = linked.map_err(|error| failed(&error))?;
        Ok(Self {
            store,
            linked,
            uses: 0,
            lent: 0,
            _place: place,
        })
    }

    /// An instance that knows its configuration.
    pub(crate) async fn start(
        component: &Component,
        shared: &Arc<Shared>,
        config: &str,
    ) -> Result<Self, FilterError> {
        let mut instance = Self::bare(component, shared).await?;
        match instance.configure(component, config).await? {
            Ok(()) => Ok(instance),
            Err(Rejected { message, .. }) => Err(FilterError::Plugin {
                reason: format!("it took its configuration before and does not now: {message}"),
            }),
        }
    }

    pub(crate) async fn schema(&mut self, component: &Component) -> Result<String, FilterError> {
        let Self { store, linked, .. } = self;
        let asked = async {
            let guest = component.code.exports.plugin.load(&mut *store, linked)?;
            guest.call_schema(&mut *store).await
        };
        asked.await.map_err(|error| failed(&error))
    }

    /// Tells the instance its configuration, and hears what is wrong with that.
    pub(crate) async fn configure(
        &mut self,
        component: &Component,
        config: &str,
    ) -> Result<Result<(), Rejected>, FilterError> {
        let Self { store, linked, .. } = self;
        let asked = async {
            let guest = component.code.exports.plugin.load(&mut *store, linked)?;
            guest.call_configure(&mut *store, config).await
        };
        let said = asked.await.map_err(|error| failed(&error))?;
        Ok(said.map_err(|wrong| Rejected {
            key: wrong.key,
            message: wrong.message,
        }))
    }

    /// Lends a call to the instance for a hook that may wait. Whatever comes of it, the call comes back.
    pub(crate) async fn wait_for<R>(
        &mut self,
        call: Call,
        fuel: u64,
        hook: impl AsyncFnOnce(&mut Store<State>, &Linked) -> wasmtime::Result<R>,
    ) -> (Result<R, FilterError>, Call) {
        let shared = self.lend(call, fuel, true);
        let limit = shared.limits.wait;
        let answer = {
            let Self { store, linked, .. } = self;
            let mut asked = std::pin::pin!(hook(store, linked));
            // Nearly all answer at once, and need no timer.
            let at_once = poll_fn(|cx| Poll::Ready(asked.as_mut().poll(cx))).await;
            let answer = match at_once {
                Poll::Ready(answer) => Some(answer),
                Poll::Pending => match select(asked, shared.env.clock.sleep(limit)).await {
                    Either::Left((answer, _)) => Some(answer),
                    Either::Right(((), _)) => None,
                },
            };
            match answer {
                Some(answer) => answer.map_err(|error| failed(&error)),
                None => Err(FilterError::Plugin {
                    reason: format!("it did not answer within {limit:?}"),
                }),
            }
        };
        (answer, self.take_back())
    }

    /// The same for a hook that may not wait.
    pub(crate) fn at_once<R>(
        &mut self,
        call: Call,
        fuel: u64,
        hook: impl AsyncFnOnce(&mut Store<State>, &Linked) -> wasmtime::Result<R>,
    ) -> (Result<R, FilterError>, Call) {
        let _shared = self.lend(call, fuel, false);
        let answer = {
            let Self { store, linked, .. } = self;
            match hook(store, linked).now_or_never() {
                Some(answer) => answer.map_err(|error| failed(&error)),
                None => Err(FilterError::Plugin {
                    reason: "it waited in a phase that may not".to_owned(),
                }),
            }
        };
        (answer, self.take_back())
    }

    fn lend(&mut self, call: Call, fuel: u64, waits: bool) -> Arc<Shared> {
        self.uses += 1;
        self.lent = fuel;
        // Neither can fail: the engine counts fuel, and the interval is none or more than 0.
        let _ = self.store.set_fuel(fuel);
        let _ = self
            .store
            .fuel_async_yield_interval(waits.then_some(YIELD_FUEL));
        let state = self.store.data_mut();
        state.calls_left = state.shared.limits.host_calls;
        state.call = Call { waits, ..call };
        Arc::clone(&state.shared)
    }

    fn take_back(&mut self) -> Call {
        if let Some(spent) = &self.store.data().shared.spent {
            let left = self.store.get_fuel().unwrap_or_default();
            spent.hook(self.lent.saturating_sub(left));
        }
        std::mem::take(&mut self.store.data_mut().call)
    }
}

/// What stopped the plugin's code, in an operator's words.
pub(crate) fn failed(error: &wasmtime::Error) -> FilterError {
    let reason = match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => "it worked longer than its fuel lasts".to_owned(),
        Some(Trap::StackOverflow) => "its stack overflowed".to_owned(),
        // What a language keeps on a stack of its own lies at the beginning of memory: it overflows to below that.
        Some(Trap::MemoryOutOfBounds) => {
            "it reached outside its memory: by mistake, or its stack overflowed".to_owned()
        }
        Some(Trap::UnreachableCodeReached) => "it panicked".to_owned(),
        Some(trap) => format!("it trapped: {trap}"),
        None => one_line(error),
    };
    FilterError::Plugin { reason }
}
