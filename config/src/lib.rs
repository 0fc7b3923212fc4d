//! The engine's configuration: TOML text to typed values, every problem with its position.

mod problem;
mod secret;
mod section;
mod tree;

pub use problem::{Place, Problem};
pub use secret::Secret;
pub use section::Section;
