//! Writing down what happened.

pub mod access_log;
mod entry;
mod failure;
mod file;
mod headers;
pub mod otlp;
pub mod stream_summary;
mod summary;
#[cfg(test)]
mod testing;
mod writer;

pub use headers::{LoggedName, LoggedNames};
pub use writer::{Outlets, QUEUE_DEFAULT, QUEUE_MAX, Target};
