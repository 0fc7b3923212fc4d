//! Filters built into Adit, one module each, in folders named for the stages of the chain.

pub mod identity;
pub mod log;
pub mod network;
pub mod upgrade;

use std::sync::Arc;

use adit_filters::Registry;

use identity::token::{Authority, TokenFactory};

/// Every filter kind built in. `authority` is the one tokens are judged by.
#[must_use]
pub fn registry(authority: Arc<Authority>) -> Registry {
    Registry::new()
        .with::<network::trusted_ips::TrustedIps>()
        .with_factory(Box::new(TokenFactory::new(authority)))
        .with::<upgrade::websocket::WebSocket>()
        .with::<upgrade::other::OtherUpgrade>()
        .with::<log::stream_summary::StreamSummary>()
}
