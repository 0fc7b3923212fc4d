//! The properties of a tunnel: what may be asked for, and what comes of it.
//!
//! Three steps, so that answers are the same every time. [`Asked::parse`] looks at the whole set and
//! reports the first rule it breaks; the caller then looks for conflicts and permissions; finally
//! [`Asked::admit`] applies the project's policy and refuses what this engine does not do. Nothing
//! that was asked for is ever left out silently.
//!
//! Private tunnels carry the dialer's bytes as they are, whatever their protocol.

mod fields;
mod offer;
mod rules;

use std::collections::BTreeMap;

use adit_config::PublicAccess;
use adit_protocol::message::TunnelProperties;
use adit_protocol::{ErrorCode, ProtocolError};
use ipnet::IpNet;

pub use fields::{HttpVersion, Kind, Protocol, TlsVersion};
pub use offer::{Features, Offer};

/// Most labels of a tunnel.
pub const LABELS_MAX: usize = 64;

/// Longest key of a label, in bytes.
pub const LABEL_KEY_BYTES_MAX: usize = 128;

/// Longest value of a label, in bytes.
pub const LABEL_VALUE_BYTES_MAX: usize = 512;

/// Longest name of a tunnel, in bytes.
pub const NAME_BYTES_MAX: usize = 63;

/// The properties in effect, as far as the agent has a say in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The tunnel's name, unique among the live tunnels of its project.
    pub name: Option<String>,
    /// Bytes or packets.
    pub kind: Kind,
    /// Reachable from the Internet.
    pub publish: bool,
    /// What visitors speak; none for a private tunnel of raw bytes.
    pub protocol: Option<Protocol>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Networks visitors must come from; empty if the agent did not ask.
    pub trusted_ips: Vec<IpNet>,
    /// What the service behind an HTTP tunnel speaks; none where TLS to it decides by ALPN.
    pub http_version: Option<HttpVersion>,
    /// The leg to the service is TLS.
    pub upstream_tls: bool,
    /// Countries visitors must be in, as ISO 3166-1 alpha-2 codes; empty if the agent did not ask.
    pub geoip: Vec<String>,
    /// Lowest TLS version visitors may speak; none leaves it to the project and the engine.
    pub tls_min_version: Option<TlsVersion>,
    /// Cipher suites of TLS 1.2 that visitors may use; empty leaves it to the project and the engine.
    pub tls_ciphers: Vec<String>,
    /// Visitors can prove themselves by a client certificate.
    pub mtls_auth: bool,
    /// Visitors can prove themselves by a token.
    pub token_auth: bool,
    /// Visitors can prove themselves by signing in.
    pub rstream_auth: bool,
    /// Browsers must pass a challenge first.
    pub challenge_mode: bool,
    /// The agent permits a path through another region.
    pub allow_cross_region_routing: bool,
}

/// A coherent request, not yet granted.
#[derive(Clone, Debug)]
pub struct Asked {
    effective: Effective,
    hostname: Option<String>,
    token_auth: Option<bool>,
    rstream_auth: Option<bool>,
    unsupported: Option<&'static str>,
}

impl Asked {
    /// Reads a request. `host_asks` says that the client is of a revision which asks for its host
    /// name in `host`.
    ///
    /// # Errors
    ///
    /// Class 2000, for the first rule broken in the fixed order of rules.
    pub fn parse(properties: &TunnelProperties, host_asks: bool) -> Result<Self, ProtocolError> {
        let fields = fields::Fields::read(properties, host_asks)?;
        rules::check(&fields)?;
        let unsupported = rules::unsupported(&fields);
        let http = fields.protocol == Some(Protocol::Http);
        let upstream_tls = fields.upstream_tls();
        let http_version = if http && !upstream_tls {
            Some(fields.http_version.unwrap_or(HttpVersion::Http1))
        } else {
            fields.http_version
        };
        Ok(Self {
            effective: Effective {
                name: fields.name,
                kind: fields.kind,
                publish: fields.publish,
                protocol: fields.protocol,
                labels: properties.labels.clone(),
                trusted_ips: fields.trusted_ips,
                geoip: fields.geoip,
                tls_min_version: fields.tls_min_version,
                tls_ciphers: fields.tls_ciphers,
                mtls_auth: fields.mtls_auth,
                http_version,
                upstream_tls,
                token_auth: fields.token_auth.unwrap_or(false),
                rstream_auth: fields.rstream_auth.unwrap_or(false),
                challenge_mode: fields.challenge_mode,
                allow_cross_region_routing: properties.allow_cross_region_routing.unwrap_or(false),
            },
            hostname: fields.hostname,
            token_auth: fields.token_auth,
            rstream_auth: fields.rstream_auth,
            unsupported,
        })
    }

    /// The host name asked for, if any, of valid form or not.
    #[must_use]
    pub fn hostname(&self) -> Option<&str> {
        self.hostname.as_deref()
    }

    /// The properties so far, for conflicts and permissions.
    #[must_use]
    pub fn effective(&self) -> &Effective {
        &self.effective
    }

    /// Applies what the project demands of public tunnels, then what the engine can do.
    ///
    /// # Errors
    ///
    /// Class 1000 if the project does not permit it, class 5000 for a feature not offered.
    pub fn admit(self, offer: &Offer) -> Result<Effective, ProtocolError> {
        let unsupported = self.unsupported;
        let effective = self.required(offer)?;
        let lacks = match unsupported {
            Some(feature) => Some(format!("unsupported: this engine does not offer {feature}")),
            None => offer.lacks(&effective),
        };
        match lacks {
            Some(text) => Err(ProtocolError::new(ErrorCode::FEATURE_NOT_AVAILABLE, text)),
            None => Ok(effective),
        }
    }

    /// What the project demands of public tunnels, applied.
    fn required(mut self, offer: &Offer) -> Result<Effective, ProtocolError> {
        if self.effective.publish {
            match offer.access {
                PublicAccess::Allowed => {}
                PublicAccess::Forbidden => {
                    return Err(unauthorized("the project forbids public tunnels"));
                }
                PublicAccess::AuthRequired => self.require_proof(offer)?,
            }
        }
        Ok(self.effective)
    }

    /// Where nothing was said about proofs, the methods that the project has are turned on
    /// (edge-behaviour §7.7).
    fn require_proof(&mut self, offer: &Offer) -> Result<(), ProtocolError> {
        let effective = &mut self.effective;
        if effective.authenticates() {
            return Ok(());
        }
        if effective.protocol == Some(Protocol::Http) {
            effective.token_auth = self.token_auth.is_none();
            effective.rstream_auth = self.rstream_auth.is_none() && offer.login();
        }
        match effective.authenticates() {
            true => Ok(()),
            false => Err(unauthorized(NEEDS_PROOF)),
        }
    }
}

/// Why a tunnel that anybody could enter is refused.
pub(crate) const NEEDS_PROOF: &str = "the project requires authentication on public tunnels, set `token_auth`, `rstream_auth` or `mtls_auth`";

impl Effective {
    /// Whether visitors must prove who they are.
    #[must_use]
    pub fn authenticates(&self) -> bool {
        self.token_auth || self.rstream_auth || self.mtls_auth
    }

    /// The properties as an agent is told them, without what only the engine knows: id, creation
    /// date, host name and port.
    #[must_use]
    pub fn to_message(&self) -> TunnelProperties {
        let http = self.protocol == Some(Protocol::Http) && self.publish;
        TunnelProperties {
            name: self.name.clone(),
            r#type: Some(self.kind.as_str().to_owned()),
            publish: Some(self.publish),
            protocol: self.protocol.map(|protocol| protocol.as_str().to_owned()),
            labels: self.labels.clone(),
            trusted_ips: self.trusted_ips.iter().map(IpNet::to_string).collect(),
            http_version: self.http_version.map(|version| version.as_str().to_owned()),
            geoip: self.geoip.clone(),
            tls_min_version: self
                .tls_min_version
                .map(|version| version.as_str().to_owned()),
            tls_ciphers: self.tls_ciphers.clone(),
            mtls_auth: http.then_some(self.mtls_auth),
            token_auth: http.then_some(self.token_auth),
            rstream_auth: http.then_some(self.rstream_auth),
            challenge_mode: http.then_some(self.challenge_mode),
            upstream_tls: http.then_some(self.upstream_tls),
            allow_cross_region_routing: Some(self.allow_cross_region_routing),
            ..TunnelProperties::default()
        }
    }
}

fn unauthorized(text: &str) -> ProtocolError {
    ProtocolError::new(ErrorCode::UNAUTHORIZED, text)
}

#[cfg(test)]
mod tests;
