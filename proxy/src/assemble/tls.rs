//! What tunnels add to the handshakes of their visitors.

use std::sync::Arc;

use adit_filters::{Filter as _, Handshake, KeyExchange, Placed, TlsVersion};
use adit_plugins::tls::policy::{self, MinVersion, TlsPolicy};

use super::{AssembleError, ProjectChain, from_tunnel};
use crate::properties::{self, Effective};

/// The tunnel's own demands of TLS, which can only add to the project's (edge-behaviour §5.2).
pub(super) fn policy(
    project: &ProjectChain,
    asked: &Effective,
) -> Result<Option<Placed>, AssembleError> {
    let min_version = asked.tls_min_version.map(|version| match version {
        properties::TlsVersion::Tls12 => MinVersion::Tls12,
        properties::TlsVersion::Tls13 => MinVersion::Tls13,
    });
    let enforced = enforced(project);
    let demands = enforced.filter_map(|placed| placed.hooks.demands());
    let lowest = demands.map(Handshake::min_version).max();
    if min_version == Some(MinVersion::Tls12) && lowest == Some(TlsVersion::Tls13) {
        return Err(AssembleError::BelowProject {
            project: properties::TlsVersion::Tls13,
        });
    }
    let ciphers = &asked.tls_ciphers;
    if min_version.is_none() && ciphers.is_empty() {
        return Ok(None);
    }
    let filter = TlsPolicy::from_config(policy::Config {
        min_version,
        cipher_suites: (!ciphers.is_empty()).then(|| ciphers.clone()),
        ..policy::Config::default()
    })
    .map_err(|error| AssembleError::TlsPolicy(error.message))?;
    let property = match min_version {
        Some(_) => "tls_min_version",
        None => "tls_ciphers",
    };
    let hooks = Arc::new(filter).hooks();
    Ok(Some(from_tunnel("tls-policy", property, hooks)))
}

/// How a project wants keys agreed on; the strictest, if several of its filters say.
pub(super) fn key_exchange(project: &ProjectChain) -> Option<KeyExchange> {
    enforced(project)
        .filter_map(|placed| placed.hooks.demands()?.key_exchange())
        .max()
}

/// Filters that are not merely on trial.
pub(super) fn enforced(project: &ProjectChain) -> impl Iterator<Item = &Placed> {
    project.filters.iter().filter(|placed| !placed.dry_run)
}
