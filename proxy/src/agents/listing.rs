//! Agents and tunnels as the Engine API lists them. Absent fields are left out, never null.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::properties::{Effective, HttpVersion, Protocol, TlsVersion};
use crate::route::Tunnel;
use adit_filters::TunnelInfo;

/// An agent.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct ClientRecord {
    /// Given by the engine, one for each control channel.
    pub id: String,
    /// Always `online`: agents that are gone are not listed.
    pub status: &'static str,
    /// Owner of the credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The project it entered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// Software, as it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Release channel, as it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Version, as it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Operating system, as it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// Architecture, as it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// Revision of the protocol it speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol_version: Option<String>,
}

/// A tunnel.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct TunnelRecord {
    /// Given by the engine.
    pub id: String,
    /// The agent that serves it.
    pub client_id: String,
    /// Always `online`: tunnels that have ended are not listed.
    pub status: &'static str,
    /// Who opened it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The project it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// When it was opened, RFC 3339 in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_date: Option<String>,
    /// Name chosen by the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `bytestream` or `datagram`.
    pub r#type: &'static str,
    /// Published rather than private.
    pub publish: bool,
    /// What visitors speak.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<&'static str>,
    /// Free labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Networks let in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trusted_ips: Vec<String>,
    /// Countries let in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub geo_ip: Vec<String>,
    /// Public authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Public host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Public port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// What the service speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_version: Option<&'static str>,
    /// The leg to the service is TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_tls: Option<bool>,
    /// Lowest TLS version of visitors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_min_version: Option<&'static str>,
    /// Cipher suites of TLS 1.2 that visitors may use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tls_ciphers: Vec<String>,
    /// A path through another region is permitted.
    pub allow_cross_region_routing: bool,
    /// Visitors must show a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_auth: Option<bool>,
    /// Visitors must log in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rstream_auth: Option<bool>,
    /// Visitors must pass a challenge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub challenge_mode: Option<bool>,
    /// Visitors must show a client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtls_auth: Option<bool>,
}

impl TunnelRecord {
    /// A live tunnel.
    #[must_use]
    pub fn of(tunnel: &Tunnel, public_port: u16) -> Self {
        let opened = Self::opened(
            &tunnel.info,
            &tunnel.properties,
            tunnel.created,
            public_port,
        );
        Self {
            tls_min_version: tunnel.tls_min_version().map(TlsVersion::as_str),
            ..opened
        }
    }

    /// A tunnel that opens at `created`.
    pub(super) fn opened(
        info: &TunnelInfo,
        properties: &Effective,
        created: SystemTime,
        public_port: u16,
    ) -> Self {
        Self {
            creation_date: rfc3339(created),
            ..Self::planned(info, properties, public_port)
        }
    }

    /// The tunnel in the shape boundaries are written in.
    #[must_use]
    pub fn to_map(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            // Nothing in a record fails to serialise; a boundary with filters refuses the empty map.
            _ => Map::new(),
        }
    }

    /// A tunnel that is not open yet, for the question whether it may be.
    pub(super) fn planned(info: &TunnelInfo, properties: &Effective, public_port: u16) -> Self {
        let http = info.published && properties.protocol.is_some();
        let host = info.hostname.as_ref();
        Self {
            id: info.id.clone(),
            client_id: info.client_id.clone(),
            status: "online",
            user_id: info.user_id.clone(),
            project_id: Some(info.project.clone()),
            creation_date: None,
            name: info.name.clone(),
            r#type: properties.kind.as_str(),
            publish: info.published,
            protocol: properties.protocol.map(Protocol::as_str),
            labels: info.labels.clone(),
            trusted_ips: properties
                .trusted_ips
                .iter()
                .map(ToString::to_string)
                .collect(),
            geo_ip: properties.geoip.clone(),
            host: host.map(|host| authority(host, public_port)),
            hostname: host.cloned(),
            port: host.map(|_| public_port),
            http_version: properties.http_version.map(HttpVersion::as_str),
            upstream_tls: http.then_some(properties.upstream_tls),
            tls_min_version: properties.tls_min_version.map(TlsVersion::as_str),
            tls_ciphers: properties.tls_ciphers.clone(),
            allow_cross_region_routing: properties.allow_cross_region_routing,
            token_auth: http.then_some(properties.token_auth),
            rstream_auth: http.then_some(properties.rstream_auth),
            challenge_mode: http.then_some(properties.challenge_mode),
            mtls_auth: http.then_some(properties.mtls_auth),
        }
    }
}

/// `host`, with `:port` if it is not the default one.
pub(super) fn authority(host: &str, port: u16) -> String {
    if port == adit_protocol::DEFAULT_PORT {
        host.to_owned()
    } else {
        format!("{host}:{port}")
    }
}

fn rfc3339(instant: SystemTime) -> Option<String> {
    let whole = OffsetDateTime::from(instant).replace_nanosecond(0).ok()?;
    whole.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_end_in_z() {
        let instant = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_500);
        assert_eq!(rfc3339(instant).unwrap(), "2023-11-14T22:13:20Z");
    }

    #[test]
    fn absent_fields_are_left_out() {
        let json = serde_json::to_string(&ClientRecord {
            id: "c1".to_owned(),
            status: "online",
            ..ClientRecord::default()
        });
        assert_eq!(json.unwrap(), r#"{"id":"c1","status":"online"}"#);
    }
}
