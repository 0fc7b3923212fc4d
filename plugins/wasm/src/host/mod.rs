//! What the WIT lets a component import.

mod context;
mod fields;
mod services;
