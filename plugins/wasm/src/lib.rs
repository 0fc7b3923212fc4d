//! Filters in WebAssembly: components of the WIT package `adit:filter`, run like native filters.

// What the generator writes is not held to what we hold ourselves to.
#[allow(
    missing_docs,
    unreachable_pub,
    unnameable_types,
    reason = "generated from the WIT, which has the documentation"
)]
mod bindings;
mod component;
mod convert;
mod factory;
mod filter;
mod handles;
mod host;
mod inspect;
mod instance;
mod limits;
pub mod module;
mod needs;
mod output;
mod runtime;
mod shared;
mod spent;
mod state;

pub use component::{COMPONENT_BYTES_MAX, Component, ComponentError};
pub use factory::{Plugin, Settings as PluginSettings};
pub use inspect::Import;
pub use limits::Limits;
pub use runtime::{Runtime, RuntimeError, Settings};
pub use shared::Grants;
pub use spent::Spent;
