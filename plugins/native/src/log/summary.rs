//! One `stream.summary` record (engine-api §11).

use adit_filters::{Connection, Fields};
use http::HeaderName;
use serde_json::{Map, Value, json};

use super::entry::{Entry, country, milliseconds, protocol, region, rfc3339, text};
use super::failure::{failure, firewall};

/// What is the same in every record of one filter.
#[derive(Clone, Debug, Default)]
pub(super) struct Frame {
    pub(super) workspace: Option<String>,
    pub(super) cluster: Option<String>,
    pub(super) request_fields: Vec<HeaderName>,
    pub(super) response_fields: Vec<HeaderName>,
}

impl Frame {
    /// The event as JSON.
    pub(super) fn event(&self, entry: &Entry) -> Value {
        let tunnel = entry.connection.tunnel();
        let outcome = &entry.outcome;
        let id = outcome.request_id.to_string();
        let created = rfc3339(outcome.started);
        let subject = entry.who.as_ref().map(|who| who.subject.as_str());
        let user = subject.or(tunnel.user_id.as_deref());
        let object = json!({
            "stream_id": id,
            "created_at": created,
            "terminated_at": rfc3339(outcome.started + outcome.duration),
            "workspace_id": self.workspace,
            "project_id": text(&tunnel.project),
            "cluster_id": self.cluster,
            "user_id": user,
            "client_id": text(&tunnel.client_id),
            "tunnel_id": text(&tunnel.id),
            "request": self.request(entry),
            "firewall": firewall(entry),
            "routing": { "decision": "routed", "tunnel": routed(&entry.connection) },
            "response": self.response(entry),
        });
        without_nulls(json!({
            "type": "stream.summary",
            "id": id,
            "created_at": created,
            "workspace_id": self.workspace,
            "project_id": text(&tunnel.project),
            "cluster_id": self.cluster,
            "user_id": user,
            "object": object,
        }))
    }

    fn request(&self, entry: &Entry) -> Value {
        let info = entry.connection.info();
        let request = &entry.outcome.request;
        let published = entry.connection.tunnel().published;
        let tls = info.tls.as_ref().map(|tls| {
            json!({
                "version": tls.version, "cipher": text(&tls.cipher), "protocol": tls.alpn, "curve": tls.group,
            })
        });
        let (path, query) = (request.path(), request.query());
        let mut url = format!("https://{}{path}", request.host());
        if let Some(query) = &query {
            url.push('?');
            url.push_str(query);
        }
        json!({
            "entry": {
                "kind": if published { "published_tunnel" } else { "private_rstream" },
                "transport": "http",
            },
            "downstream": {
                "ip": entry.ip(),
                "geolocation": country(&entry.connection)
                    .map(|country| json!({ "country": country, "region": region(&entry.connection) })),
                "tls": tls,
            },
            "http": {
                "protocol": protocol(entry.outcome.version),
                "request": {
                    "method": request.method().as_str(),
                    "scheme": "https",
                    "host": text(request.host()),
                    "path": text(&path),
                    "query": query,
                    "url": url,
                    "headers": headers(request.fields(), &self.request_fields),
                    "userAgent": request.user_agent(),
                },
            },
        })
    }

    fn response(&self, entry: &Entry) -> Value {
        let outcome = &entry.outcome;
        let termination = json!({
            "by": outcome.termination.by.as_str(),
            "reason": outcome.termination.cause.as_str(),
            "message": outcome.termination.detail,
        });
        let http = outcome.status.map(|status| {
            let headers = headers(&outcome.response, &self.response_fields);
            json!({
                "protocol": protocol(outcome.version),
                "response": { "status": status, "headers": headers },
            })
        });
        let establish = outcome.establish.map(milliseconds);
        match (outcome.establish, &outcome.refusal) {
            (Some(after), None) => json!({
                "outcome": "connected",
                "established_at": rfc3339(outcome.started + after),
                "metrics": {
                    "establish_ms": establish,
                    "duration_ms": milliseconds(outcome.duration),
                    "upstream_bytes": outcome.bytes_up,
                    "downstream_bytes": outcome.bytes_down,
                },
                "termination": termination,
                "http": http,
            }),
            _ => json!({
                "outcome": "failed",
                "failure": failure(entry),
                "metrics": { "time_to_fail_ms": milliseconds(outcome.duration), "establish_ms": establish },
                "termination": termination,
                "http": http,
            }),
        }
    }
}

/// The tunnel, in the words of the record it has in the API.
fn routed(connection: &Connection) -> Value {
    let tunnel = connection.tunnel();
    let said = |field: &str| tunnel.record.get(field).cloned();
    json!({
        "tunnelId": text(&tunnel.id),
        "tunnelName": tunnel.name,
        "hostname": tunnel.hostname,
        "protocol": tunnel.protocol,
        "published": tunnel.published,
        "type": text(&tunnel.kind),
        "tlsMode": said("tls_mode"),
        "httpVersion": said("http_version"),
        "httpUseTls": said("http_use_tls").or_else(|| said("upstream_tls")),
        "upstreamTls": said("upstream_tls"),
        "tokenAuth": said("token_auth"),
        "mtls_auth": said("mtls_auth"),
    })
}

/// Fields as an object; several values of one name are joined as one field would have them.
fn headers(fields: &Fields, wanted: &[HeaderName]) -> Option<Value> {
    let mut shown: Map<String, Value> = Map::new();
    for (name, value) in fields.iter().filter(|(name, _)| wanted.contains(name)) {
        match shown.get_mut(name.as_str()) {
            Some(Value::String(before)) => {
                before.push_str(", ");
                before.push_str(&value);
            }
            _ => {
                shown.insert(name.as_str().to_owned(), Value::String(value.into_owned()));
            }
        }
    }
    (!shown.is_empty()).then_some(Value::Object(shown))
}

/// Readers of these records refuse null: what is unknown is left out, and so is an object of unknowns.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept: Map<String, Value> = map
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, without_nulls(value)))
                .collect();
            Value::Object(kept)
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}
