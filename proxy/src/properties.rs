//! The properties of a tunnel: what may be asked for, and what comes of it.
//!
//! Three steps, so that answers are the same every time. [`Asked::parse`] looks at the whole set and
//! reports the first rule it breaks; the caller then looks for conflicts and permissions; finally
//! [`Asked::admit`] applies the project's policy and refuses what this engine does not do. Nothing
//! that was asked for is ever left out silently.
//!
//! Private tunnels carry the dialer's bytes as they are, whatever their protocol.

mod fields;
mod rules;

use std::collections::BTreeMap;

use adit_config::PublicAccess;
use adit_protocol::message::TunnelProperties;
use adit_protocol::{ErrorCode, ProtocolError};
use ipnet::IpNet;

pub use fields::{HttpVersion, Kind, Protocol};

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
    /// Visitors must show a token.
    pub token_auth: bool,
    /// The agent permits a path through another region.
    pub allow_cross_region_routing: bool,
}

/// A coherent request, not yet granted.
#[derive(Clone, Debug)]
pub struct Asked {
    effective: Effective,
    hostname: Option<String>,
    token_auth: Option<bool>,
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
                http_version,
                upstream_tls,
                token_auth: fields.token_auth.unwrap_or(false),
                allow_cross_region_routing: properties.allow_cross_region_routing.unwrap_or(false),
            },
            hostname: fields.hostname,
            token_auth: fields.token_auth,
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
    pub fn admit(mut self, access: PublicAccess) -> Result<Effective, ProtocolError> {
        if self.effective.publish {
            match access {
                PublicAccess::Allowed => {}
                PublicAccess::Forbidden => {
                    return Err(unauthorized("the project forbids public tunnels"));
                }
                PublicAccess::AuthRequired => self.require_token()?,
            }
        }
        match self.unsupported {
            Some(feature) => Err(ProtocolError::new(
                ErrorCode::FEATURE_NOT_AVAILABLE,
                format!("unsupported: this engine does not offer {feature}"),
            )),
            None => Ok(self.effective),
        }
    }

    fn require_token(&mut self) -> Result<(), ProtocolError> {
        let http = self.effective.protocol == Some(Protocol::Http);
        if !http || self.token_auth == Some(false) {
            return Err(unauthorized(
                "the project requires authentication on public tunnels, set `token_auth`",
            ));
        }
        self.effective.token_auth = true;
        Ok(())
    }
}

impl Effective {
    /// The properties as an agent is told them, without what only the engine knows: id, creation
    /// date, host name and port.
    #[must_use]
    pub fn to_message(&self) -> TunnelProperties {
        let http = self.protocol == Some(Protocol::Http);
        TunnelProperties {
            name: self.name.clone(),
            r#type: Some(self.kind.as_str().to_owned()),
            publish: Some(self.publish),
            protocol: self.protocol.map(|protocol| protocol.as_str().to_owned()),
            labels: self.labels.clone(),
            trusted_ips: self.trusted_ips.iter().map(IpNet::to_string).collect(),
            http_version: self.http_version.map(|version| version.as_str().to_owned()),
            token_auth: (http && self.publish).then_some(self.token_auth),
            upstream_tls: (http && self.publish).then_some(self.upstream_tls),
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
