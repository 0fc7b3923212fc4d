//! Filters built into Adit, one module each, in folders named for the stages of the chain.

pub mod identity;
pub mod log;
pub mod network;
pub mod tls;
pub mod upgrade;

use std::sync::Arc;

use adit_filters::Registry;

use identity::token::{Authority, TokenFactory};

/// What filters share with the engine around them.
#[derive(Clone, Debug)]
pub struct Services {
    /// Who is behind a token.
    pub authority: Arc<Authority>,
}

impl Services {
    /// The least an engine has.
    #[must_use]
    pub fn new(authority: Arc<Authority>) -> Self {
        Self { authority }
    }
}

/// Every filter kind built in.
#[must_use]
pub fn registry(services: &Services) -> Registry {
    Registry::new()
        .with::<network::trusted_ips::TrustedIps>()
        .with::<tls::policy::TlsPolicy>()
        .with_factory(Box::new(TokenFactory::new(Arc::clone(&services.authority))))
        .with::<upgrade::websocket::WebSocket>()
        .with::<upgrade::other::OtherUpgrade>()
        .with::<log::access_log::AccessLog>()
        .with::<log::stream_summary::StreamSummary>()
        .with::<log::otlp::Otlp>()
}
