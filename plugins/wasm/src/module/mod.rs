//! Core modules on the engine of components: for a host of another interface than `adit:filter`, which need not name
//! what it runs on.
//!
//! A module is compiled with the [functions](Imports) its host offers, and started as often as its host likes. Each
//! instance takes a place of the same pool as a component's, and is held to the same limits of memory and fuel. It is
//! worked on by one caller at a time and never waits: what takes time is the host's to arrange between two calls.

mod code;
mod guest;
mod imports;
mod instance;
mod services;

use wasmtime::{Memory, StoreLimits};

pub use self::code::{Export, Module, ModuleError};
pub use self::guest::{Guest, Stop};
pub use self::imports::{Function, Imports};
pub use self::instance::Instance;
pub use self::services::{FieldRefused, Services, own_field, retarget};

/// What a call is given. Numbers and tuples of them have it.
pub trait Params: wasmtime::WasmParams {}
impl<P: wasmtime::WasmParams> Params for P {}

/// What a call answers. Nothing and single numbers have it.
pub trait Results: wasmtime::WasmResults {}
impl<R: wasmtime::WasmResults> Results for R {}

/// The host's side of one instance.
pub(crate) struct Kept<H> {
    host: H,
    limits: StoreLimits,
    /// Known once the instance is there.
    memory: Option<Memory>,
}

/// Whether a file begins as a core module does, and not as a component.
#[must_use]
pub fn is_core_module(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\0asm\x01\0\0\0")
}
