//! Who the visitor is.

pub mod challenge;
pub mod credentials;
pub mod rstream_auth;
pub mod token;

use serde::Deserialize;

/// What a filter that authenticates does with a request that carries none of its proofs.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Missing {
    /// Refuses it.
    #[default]
    Refuse,
    /// Leaves it to a later filter of the chain, which must be there.
    Next,
}
