//! An instance as the functions it calls see it.

use wasmtime::{Caller, Memory};

use super::code::Export;
use super::{Kept, Params, Results};

/// Why an instance must not go on: it ends, and whoever called it hears this.
#[derive(Debug)]
pub struct Stop(pub(super) wasmtime::Error);

impl Stop {
    /// For this reason, in an operator's words.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self(wasmtime::Error::msg(reason.into()))
    }
}

/// The instance that calls a function of the host.
pub struct Guest<'a, H: 'static> {
    pub(super) caller: Caller<'a, Kept<H>>,
}

impl<H: Send + 'static> Guest<'_, H> {
    /// The host's side.
    pub fn host(&mut self) -> &mut H {
        &mut self.caller.data_mut().host
    }

    fn memory(&mut self) -> Option<Memory> {
        if let Some(memory) = self.caller.data().memory {
            return Some(memory);
        }
        // It is still starting.
        self.caller.get_export("memory")?.into_memory()
    }

    /// A copy of a part of its memory, if there is so much.
    pub fn read(&mut self, at: u32, length: u32) -> Option<Vec<u8>> {
        let memory = self.memory()?;
        let (at, length) = (at as usize, length as usize);
        let part = memory.data(&self.caller).get(at..at.checked_add(length)?)?;
        Some(part.to_vec())
    }

    /// Writes into its memory, if there is so much; else nothing is written.
    #[must_use]
    pub fn write(&mut self, at: u32, bytes: &[u8]) -> bool {
        let memory = self.memory();
        memory.is_some_and(|memory| memory.write(&mut self.caller, at as usize, bytes).is_ok())
    }

    /// Calls one of its functions while it waits for the host.
    ///
    /// # Errors
    /// What stopped it.
    pub fn call<P: Params, R: Results>(
        &mut self,
        export: &Export<P, R>,
        params: P,
    ) -> Result<R, Stop> {
        let known = self.caller.get_module_export(&export.index);
        let function = known
            .and_then(wasmtime::Extern::into_func)
            .ok_or_else(|| Stop::new("an export is gone"))?;
        let typed = function.typed::<P, R>(&self.caller).map_err(Stop)?;
        typed.call(&mut self.caller, params).map_err(Stop)
    }
}
