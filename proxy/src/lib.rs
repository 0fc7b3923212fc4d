//! The engine as a library.

pub mod admin;
pub mod agents;
pub mod api;
pub mod assemble;
pub mod edge;
pub mod engine;
pub mod env;
pub mod listen;
pub mod metrics;
pub mod names;
pub mod properties;
pub mod render;
pub mod route;
pub mod store;
pub mod tls;
pub mod usage;
