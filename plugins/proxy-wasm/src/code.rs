//! A proxy-wasm module, compiled, and what it exports.

use std::sync::Arc;

use adit_wasm::module::{Export, Module, ModuleError, is_core_module};
use adit_wasm::{Limits, Runtime};

use crate::calls;
use crate::host::Host;

/// What a module of this ABI exports, never called.
const MARK: &str = "proxy_abi_version_0_2_1";

/// How the marks of all versions begin.
const MARKS: &str = "proxy_abi_version_";

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AbiError {
    /// It cannot be run.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// It is of another version of the ABI.
    #[error("it is a proxy-wasm module of another ABI, `{0}`; this engine has 0.2.1")]
    Version(String),
    /// It is of no version of the ABI.
    #[error("it is no WebAssembly component, nor a proxy-wasm module: it does not export `{MARK}`")]
    NoMark,
}

/// Whether a file is to be taken for a proxy-wasm module, and not for a component.
#[must_use]
pub fn is_proxy_wasm(bytes: &[u8]) -> bool {
    is_core_module(bytes)
}

/// A function that a module may export.
type Maybe<P, R> = Option<Export<P, R>>;

/// What a module exports.
pub(crate) struct Exports {
    pub(crate) initialize: Maybe<(), ()>,
    pub(crate) main: Maybe<(u32, u32), u32>,
    pub(crate) start: Maybe<(), ()>,
    pub(crate) allocate: Maybe<u32, u32>,
    pub(crate) context_create: Maybe<(u32, u32), ()>,
    pub(crate) vm_start: Maybe<(u32, u32), u32>,
    pub(crate) configure: Maybe<(u32, u32), u32>,
    pub(crate) tick: Maybe<u32, ()>,
    pub(crate) queue_ready: Maybe<(u32, u32), ()>,
    pub(crate) headers: [Maybe<(u32, u32, u32), u32>; 2],
    pub(crate) body: [Maybe<(u32, u32, u32), u32>; 2],
    pub(crate) trailers: [Maybe<(u32, u32), u32>; 2],
    pub(crate) call_response: Maybe<(u32, u32, u32, u32, u32), ()>,
    pub(crate) done: Maybe<u32, u32>,
    pub(crate) log: Maybe<u32, ()>,
    pub(crate) delete: Maybe<u32, ()>,
}

/// A module, compiled, and what it exports.
pub(crate) struct Code {
    pub(crate) module: Module<Host>,
    pub(crate) exports: Arc<Exports>,
}

impl Code {
    pub(crate) fn new(runtime: &Runtime, bytes: &[u8], limits: &Limits) -> Result<Self, AbiError> {
        let rest = (
            calls::wasi::MODULE,
            calls::wasi::otherwise as fn(&str) -> i32,
        );
        let module = match Module::new(runtime, bytes, limits, calls::offer, rest) {
            // A module without anything is no module of anybody's.
            Err(ModuleError::NoMemory) => return Err(AbiError::NoMark),
            other => other?,
        };
        if !module.exports().any(|name| name == MARK) {
            let other = module.exports().find(|name| name.starts_with(MARKS));
            return Err(match other {
                Some(other) => AbiError::Version(other.to_owned()),
                None => AbiError::NoMark,
            });
        }
        let allocate = module
            .export("proxy_on_memory_allocate")
            .or_else(|| module.export("malloc"));
        let exports = Exports {
            initialize: module.export("_initialize"),
            main: module.export("main"),
            start: module.export("_start"),
            allocate,
            context_create: module.export("proxy_on_context_create"),
            vm_start: module.export("proxy_on_vm_start"),
            configure: module.export("proxy_on_configure"),
            tick: module.export("proxy_on_tick"),
            queue_ready: module.export("proxy_on_queue_ready"),
            headers: ["proxy_on_request_headers", "proxy_on_response_headers"]
                .map(|name| module.export(name)),
            body: ["proxy_on_request_body", "proxy_on_response_body"]
                .map(|name| module.export(name)),
            trailers: ["proxy_on_request_trailers", "proxy_on_response_trailers"]
                .map(|name| module.export(name)),
            call_response: module.export("proxy_on_http_call_response"),
            done: module.export("proxy_on_done"),
            log: module.export("proxy_on_log"),
            delete: module.export("proxy_on_delete"),
        };
        Ok(Self {
            module,
            exports: Arc::new(exports),
        })
    }
}
