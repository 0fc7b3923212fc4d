//! Who the visitor is.

pub mod token;
