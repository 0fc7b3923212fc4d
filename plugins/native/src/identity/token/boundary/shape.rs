//! The shapes a boundary's JSON is made of, read strictly.

use serde_json::{Map, Value};

use super::parse::BoundaryError;

/// Fields of a tunnel in the Engine API (engine-api §3.4).
pub(super) const FIELDS: [&str; 34] = [
    "allow_cross_region_routing",
    "challenge_mode",
    "client_id",
    "cluster_id",
    "creation_date",
    "datagram_guaranteed_delivery",
    "geo_ip",
    "host",
    "hostname",
    "http_use_tls",
    "http_version",
    "id",
    "labels",
    "mtls_auth",
    "name",
    "plan",
    "port",
    "project_id",
    "protocol",
    "provider",
    "publish",
    "region",
    "rstream_auth",
    "status",
    "tls_alpns",
    "tls_ciphers",
    "tls_min_version",
    "tls_mode",
    "token_auth",
    "trusted_ips",
    "type",
    "upstream_tls",
    "user_id",
    "workspace_id",
];

/// Those that a client does not choose: a condition on creation cannot name them.
pub(super) const ASSIGNED: [&str; 11] = [
    "client_id",
    "cluster_id",
    "creation_date",
    "id",
    "plan",
    "project_id",
    "provider",
    "region",
    "status",
    "user_id",
    "workspace_id",
];

pub(super) fn object<'a>(
    value: &'a Value,
    at: &'static str,
) -> Result<&'a Map<String, Value>, BoundaryError> {
    value.as_object().ok_or(BoundaryError::Expected {
        at,
        expected: "an object",
    })
}

pub(super) fn keys(
    object: &Map<String, Value>,
    at: &'static str,
    known: &[&str],
) -> Result<(), BoundaryError> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(BoundaryError::UnknownKey {
            at,
            key: key.clone(),
        }),
        None => Ok(()),
    }
}

/// The value of a key that must stand alone, if it is there.
pub(super) fn only<'a>(
    object: &'a Map<String, Value>,
    key: &str,
    at: &'static str,
) -> Result<Option<&'a Value>, BoundaryError> {
    let Some(value) = object.get(key) else {
        return Ok(None);
    };
    match object.keys().find(|other| *other != key) {
        Some(other) => Err(BoundaryError::UnknownKey {
            at,
            key: other.clone(),
        }),
        None => Ok(Some(value)),
    }
}

pub(super) fn list<'a>(value: &'a Value, at: &'static str) -> Result<&'a [Value], BoundaryError> {
    match value.as_array() {
        Some(items) if !items.is_empty() => Ok(items),
        _ => Err(BoundaryError::Expected {
            at,
            expected: "a list that is not empty",
        }),
    }
}

pub(super) fn texts(value: &Value, at: &'static str) -> Result<Vec<String>, BoundaryError> {
    let wrong = BoundaryError::Expected {
        at,
        expected: "a list of texts that is not empty",
    };
    let texts: Option<Vec<String>> = list(value, at)?
        .iter()
        .map(|text| {
            text.as_str()
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        })
        .collect();
    texts.ok_or(wrong)
}
