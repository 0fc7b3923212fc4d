//! A proof of work that browsers do by themselves (edge-behaviour §7.5).
//!
//! A visitor without a pass is sent to the engine's own host (`gate`), where a page works for a moment, and comes back
//! with its proof, which counts once; the tunnel's host gives it a pass. Nothing is kept for visitors who never come
//! back: what they wanted goes through the browser, sealed. It says nothing about who somebody is.

mod filter;
mod gate;
mod page;
mod spent;
#[cfg(test)]
mod tests;
mod work;

pub use filter::{ChallengeFactory, NAME};
pub use gate::{
    CALLBACK_PATH, Created, Gate, GateSettings, NotHere, PAGE_PATH, REQUEST_LIFE, URL_BYTES_MAX,
};
pub use spent::SPENT_MAX;
pub use work::{PIECES, PROOF_BYTES_MAX};
