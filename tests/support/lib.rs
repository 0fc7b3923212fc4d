//! What the behaviour tests share: an edge in memory, origins behind it and visitors in front.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "support of tests: a failure here is the failure of the test"
)]

pub mod account;
pub mod browser;
pub mod certificate;
pub mod collector;
pub mod edge;
pub mod engine;
pub mod flow;
pub mod guests;
pub mod mmdb;
pub mod origin;
pub mod provider;
pub mod service;
pub mod site;
pub mod visitor;
