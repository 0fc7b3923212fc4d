//! Filters built into Adit, one module each, in folders named for the stages of the chain.

pub mod capacity;
pub mod identity;
pub mod local;
pub mod log;
pub mod network;
pub mod tls;
pub mod upgrade;
mod whose;

use std::sync::Arc;

use adit_filters::Registry;

use identity::challenge::{ChallengeFactory, Gate};
use identity::rstream_auth::{Desk, RstreamAuthFactory};
use identity::token::{Authority, TokenFactory};
use local::well_known::WellKnownFactory;
use log::Outlets;
use log::access_log::AccessLogFactory;
use log::stream_summary::StreamSummaryFactory;
use network::geoip::{Databases, GeoIpFactory};
use network::rate_limit::RateLimitFactory;
use tls::client_cert::ClientCertFactory;

/// What filters share with the engine around them.
#[derive(Clone, Debug)]
pub struct Services {
    /// Who is behind a token.
    pub authority: Arc<Authority>,
    /// Where users sign in; none where nobody can.
    pub desk: Option<Arc<Desk>>,
    /// Where browsers work; none where they are not asked to.
    pub gate: Option<Arc<Gate>>,
    /// Where addresses are.
    pub geoip: Databases,
    /// Where lines are written.
    pub outlets: Outlets,
}

impl Services {
    /// The least an engine has.
    #[must_use]
    pub fn new(authority: Arc<Authority>) -> Self {
        Self {
            authority,
            desk: None,
            gate: None,
            geoip: Databases::default(),
            outlets: Outlets::default(),
        }
    }
}

/// Every filter kind built in.
#[must_use]
pub fn registry(services: &Services) -> Registry {
    Registry::new()
        .with::<network::trusted_ips::TrustedIps>()
        .with_factory(Box::new(GeoIpFactory::new(services.geoip.clone())))
        .with_factory(Box::new(RateLimitFactory))
        .with::<tls::policy::TlsPolicy>()
        .with_factory(Box::new(ClientCertFactory::new(Arc::clone(
            &services.authority,
        ))))
        .with_factory(Box::new(TokenFactory::new(Arc::clone(&services.authority))))
        .with_factory(Box::new(WellKnownFactory::new(services.clone())))
        .with_factory(Box::new(ChallengeFactory::new(services.clone())))
        .with_factory(Box::new(RstreamAuthFactory::new(services.desk.clone())))
        .with::<upgrade::websocket::WebSocket>()
        .with::<upgrade::other::OtherUpgrade>()
        .with::<capacity::limits::Limits>()
        .with_factory(Box::new(AccessLogFactory::new(services.outlets.clone())))
        .with_factory(Box::new(StreamSummaryFactory::new(
            services.outlets.clone(),
        )))
        .with::<log::otlp::Otlp>()
}
