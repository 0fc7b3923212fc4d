//! One instance of a core module.

use adit_filters::FilterError;
use tokio::sync::OwnedSemaphorePermit;
use wasmtime::{Extern, Instance as Linked, Store, StoreLimitsBuilder};

use super::code::{Export, Module};
use super::{Kept, Params, Results};
use crate::instance::failed;
use crate::limits::Limits;

/// One instance of a core module. After an error it is of no more use than to be asked for the host's side.
pub struct Instance<H: 'static> {
    store: Store<Kept<H>>,
    linked: Linked,
    _place: OwnedSemaphorePermit,
}

impl<H: Send + 'static> Instance<H> {
    /// Starts an instance; nothing of it is called but what the module says must be.
    ///
    /// # Errors
    /// [`FilterError::Full`] if no place is free, or what stopped it.
    pub fn start(module: &Module<H>, limits: &Limits, host: H) -> Result<Self, FilterError> {
        let place = module
            .pool
            .place()
            .map_err(|limit| FilterError::Full { limit })?;
        let kept = Kept {
            host,
            limits: StoreLimitsBuilder::new()
                .memory_size(limits.memory)
                .trap_on_grow_failure(true)
                .build(),
            memory: None,
        };
        let mut store = Store::new(&module.pool.engine, kept);
        store.limiter(|kept| &mut kept.limits);
        let linked = store
            .set_fuel(limits.fuel_start)
            .and_then(|()| module.pre.instantiate(&mut store))
            .map_err(|error| failed(&error))?;
        let memory = linked.get_memory(&mut store, "memory");
        store.data_mut().memory = memory;
        Ok(Self {
            store,
            linked,
            _place: place,
        })
    }

    /// Calls one of its functions with so much fuel.
    ///
    /// # Errors
    /// What stopped it.
    pub fn call<P: Params, R: Results>(
        &mut self,
        export: &Export<P, R>,
        fuel: u64,
        params: P,
    ) -> Result<R, FilterError> {
        let Self { store, linked, .. } = self;
        let called = || {
            store.set_fuel(fuel)?;
            let function = linked
                .get_module_export(&mut *store, &export.index)
                .and_then(Extern::into_func)
                .ok_or_else(|| wasmtime::Error::msg("an export is gone"))?;
            let typed = function.typed::<P, R>(&*store)?;
            typed.call(&mut *store, params)
        };
        called().map_err(|error| failed(&error))
    }

    /// The host's side.
    pub fn host(&mut self) -> &mut H {
        &mut self.store.data_mut().host
    }
}
