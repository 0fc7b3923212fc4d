//! The engine as a library.

pub mod edge;
pub mod render;
