//! A credential may be good for one exact tunnel. What the request leaves open is then filled in, so
//! that a bare request yields that tunnel; what it says otherwise is left, and refused later.

use adit_protocol::message::TunnelProperties;
use serde_json::{Map, Value};

/// Fills unset properties with pinned values, named as in the Engine API.
pub(super) fn fill(properties: &mut TunnelProperties, pinned: &Map<String, Value>) {
    for (key, value) in pinned {
        match key.as_str() {
            "name" => fill_text(&mut properties.name, value),
            "type" => fill_text(&mut properties.r#type, value),
            "protocol" => fill_text(&mut properties.protocol, value),
            "hostname" => fill_text(&mut properties.hostname, value),
            "http_version" => fill_text(&mut properties.http_version, value),
            "tls_mode" => fill_text(&mut properties.tls_mode, value),
            "tls_min_version" => fill_text(&mut properties.tls_min_version, value),
            "publish" => fill_switch(&mut properties.publish, value),
            "upstream_tls" => fill_switch(&mut properties.upstream_tls, value),
            "token_auth" => fill_switch(&mut properties.token_auth, value),
            "rstream_auth" => fill_switch(&mut properties.rstream_auth, value),
            "challenge_mode" => fill_switch(&mut properties.challenge_mode, value),
            "mtls_auth" => fill_switch(&mut properties.mtls_auth, value),
            "datagram_guaranteed_delivery" => {
                fill_switch(&mut properties.datagram_guaranteed_delivery, value);
            }
            "allow_cross_region_routing" => {
                fill_switch(&mut properties.allow_cross_region_routing, value);
            }
            "geo_ip" => fill_list(&mut properties.geoip, value),
            "trusted_ips" => fill_list(&mut properties.trusted_ips, value),
            "tls_alpns" => fill_list(&mut properties.tls_alpns, value),
            "tls_ciphers" => fill_list(&mut properties.tls_ciphers, value),
            "labels" => fill_labels(properties, value),
            "port" => {
                let port = value.as_u64().and_then(|port| u32::try_from(port).ok());
                properties.port = properties.port.or(port);
            }
            // Whatever else is pinned is compared with the tunnel as it comes out.
            _ => {}
        }
    }
}

fn fill_text(field: &mut Option<String>, value: &Value) {
    if field.as_deref().is_none_or(str::is_empty) {
        *field = value.as_str().map(str::to_owned).or(field.take());
    }
}

fn fill_switch(field: &mut Option<bool>, value: &Value) {
    *field = field.or(value.as_bool());
}

fn fill_list(field: &mut Vec<String>, value: &Value) {
    if let (true, Some(items)) = (field.is_empty(), value.as_array()) {
        let texts = items.iter().filter_map(Value::as_str);
        field.extend(texts.map(str::to_owned));
    }
}

fn fill_labels(properties: &mut TunnelProperties, value: &Value) {
    for (key, text) in value.as_object().into_iter().flatten() {
        if let Some(text) = text.as_str() {
            let label = properties.labels.entry(key.clone());
            label.or_insert_with(|| text.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_unset_is_filled() {
        let pinned = json!({
            "name": "web",
            "type": "bytestream",
            "publish": false,
            "port": 7000,
            "trusted_ips": ["10.0.0.0/8"],
            "geo_ip": ["DE"],
            "labels": { "a": "1", "b": "2" },
            "status": "online",
        });
        let mut bare = TunnelProperties::default();
        fill(&mut bare, pinned.as_object().unwrap());
        assert_eq!(bare.name.as_deref(), Some("web"));
        assert_eq!(bare.r#type.as_deref(), Some("bytestream"));
        assert_eq!((bare.publish, bare.port), (Some(false), Some(7000)));
        assert_eq!(bare.trusted_ips, ["10.0.0.0/8"]);
        assert_eq!(bare.geoip, ["DE"]);
        assert_eq!(bare.labels.len(), 2);

        let mut own = TunnelProperties {
            name: Some("other".to_owned()),
            publish: Some(true),
            trusted_ips: vec!["192.0.2.1".to_owned()],
            labels: [("a".to_owned(), "9".to_owned())].into(),
            ..TunnelProperties::default()
        };
        fill(&mut own, pinned.as_object().unwrap());
        assert_eq!(own.name.as_deref(), Some("other"));
        assert_eq!(own.publish, Some(true));
        assert_eq!(own.trusted_ips, ["192.0.2.1"]);
        assert_eq!(own.labels.get("a").map(String::as_str), Some("9"));
        assert_eq!(own.labels.get("b").map(String::as_str), Some("2"));
    }
}
