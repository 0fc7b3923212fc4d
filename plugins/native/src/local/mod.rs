//! Paths the edge answers itself.

pub mod well_known;
