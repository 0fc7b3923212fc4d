//! An instance as the functions it calls see it.

use wasmtime::{Caller, Memory, Trap};

use super::code::Export;
use super::{Kept, Params, Results};

/// How many bytes the host works on for one fuel, which is about one instruction of the guest.
const BYTES_OF_FUEL: usize = 4;

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

    /// Takes fuel for work that the host does for it on so many bytes.
    ///
    /// # Errors
    /// It has too little left.
    pub fn charge(&mut self, bytes: usize) -> Result<(), Stop> {
        let asked = u64::try_from(bytes / BYTES_OF_FUEL).unwrap_or(u64::MAX);
        let fuel = self.caller.get_fuel().map_err(Stop)?;
        let left = fuel.checked_sub(asked);
        self.caller
            .set_fuel(left.unwrap_or_default())
            .map_err(Stop)?;
        match left {
            Some(_) => Ok(()),
            None => Err(Stop(Trap::OutOfFuel.into())),
        }
    }

    /// A copy of a part of its memory, if there is so much. It is charged for.
    ///
    /// # Errors
    /// As [`charge`](Self::charge).
    pub fn read(&mut self, at: u32, length: u32) -> Result<Option<Vec<u8>>, Stop> {
        let Some(memory) = self.memory() else {
            return Ok(None);
        };
        let (at, length) = (at as usize, length as usize);
        let Some(end) = at.checked_add(length) else {
            return Ok(None);
        };
        if end > memory.data_size(&self.caller) {
            return Ok(None);
        }
        self.charge(length)?;
        let part = memory.data(&self.caller).get(at..end);
        Ok(part.map(<[u8]>::to_vec))
    }

    /// Writes into its memory, if there is so much; else nothing is written. It is charged for.
    ///
    /// # Errors
    /// As [`charge`](Self::charge).
    pub fn write(&mut self, at: u32, bytes: &[u8]) -> Result<bool, Stop> {
        self.charge(bytes.len())?;
        let memory = self.memory();
        Ok(memory.is_some_and(|memory| memory.write(&mut self.caller, at as usize, bytes).is_ok()))
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
