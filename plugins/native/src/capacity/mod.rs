//! Filters about rates and shares.

pub mod limits;
