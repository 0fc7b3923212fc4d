//! What a tunnel asks for about addresses and places, beside what its project allows.

use std::sync::Arc;

use adit_config::Section;
use adit_filters::{Filter, Placed};
use adit_plugins::network::geoip::{Database, GeoIp, GeoIpFactory, NotAPlace, Place, Rules};
use adit_plugins::network::trusted_ips::{self, Network, TrustedIps};

use super::{AssembleError, from_tunnel};
use crate::properties::Effective;

/// What a filter of the operator's lets in: a tunnel's list that shares nothing with it lets nobody in.
#[derive(Clone, Debug)]
pub(super) enum Admits {
    /// Visitors in these countries, by their codes.
    Countries(Vec<String>),
    /// Visitors from these networks.
    Networks(Vec<Network>),
}

impl Admits {
    /// Reads it from a filter's table, if the filter is a list of this kind.
    pub(super) fn read(kind: &str, section: &Section) -> Option<Self> {
        match kind {
            TrustedIps::NAME => {
                let config: trusted_ips::Config = section.deserialize().ok()?;
                config.allow.map(Self::Networks)
            }
            GeoIpFactory::NAME => GeoIpFactory::countries(section).map(Self::Countries),
            _ => None,
        }
    }
}

/// The filter of a tunnel's `trusted_ips`.
pub(super) fn trusted(
    asked: &Effective,
    project: &[Admits],
) -> Result<Option<Placed>, AssembleError> {
    if asked.trusted_ips.is_empty() {
        return Ok(None);
    }
    let own = asked.trusted_ips.iter().copied();
    let own: Vec<Network> = own.map(Network::from).collect();
    let shares = |allowed: &[Network]| {
        let mut own = own.iter();
        own.any(|network| allowed.iter().any(|other| network.overlaps(other)))
    };
    for admits in project {
        if let Admits::Networks(allowed) = admits
            && !shares(allowed)
        {
            return Err(AssembleError::NobodyTrusted);
        }
    }
    let config = trusted_ips::Config {
        allow: Some(own),
        deny: Vec::new(),
    };
    let filter = TrustedIps::from_config(config)
        .map_err(|error| AssembleError::TrustedIps(error.message))?;
    let hooks = Filter::hooks(Arc::new(filter));
    Ok(Some(from_tunnel("trusted-ips", "trusted_ips", hooks)))
}

/// The filter of a tunnel's `geoip`.
pub(super) fn placed(
    asked: &Effective,
    project: &[Admits],
    database: Option<&Arc<Database>>,
) -> Result<Option<Placed>, AssembleError> {
    if asked.geoip.is_empty() {
        return Ok(None);
    }
    for admits in project {
        if let Admits::Countries(allowed) = admits
            && !asked.geoip.iter().any(|code| allowed.contains(code))
        {
            return Err(AssembleError::NobodyThere);
        }
    }
    let database = database.ok_or(AssembleError::Missing(GeoIpFactory::NAME))?;
    let places: Result<Vec<Place>, NotAPlace> =
        asked.geoip.iter().map(|code| code.parse()).collect();
    let places = places.map_err(|error| AssembleError::GeoIp(error.to_string()))?;
    let rules = Rules::new(Some(places), Vec::new())
        .map_err(|error| AssembleError::GeoIp(error.message))?;
    let hooks = GeoIp::new(rules, Arc::clone(database)).hooks();
    Ok(Some(from_tunnel(GeoIpFactory::NAME, "geoip", hooks)))
}
