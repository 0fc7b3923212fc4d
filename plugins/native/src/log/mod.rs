//! Writing down what happened.

mod record;
pub mod stream_summary;
