//! The engine as a library.

pub mod api;
pub mod edge;
pub mod listen;
pub mod metrics;
pub mod render;
pub mod tls;
