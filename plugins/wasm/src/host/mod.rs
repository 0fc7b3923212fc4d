//! What the WIT lets a component import.

mod context;
mod fields;
mod services;

pub use context::retarget;
pub use fields::{FieldRefused, own_field};
