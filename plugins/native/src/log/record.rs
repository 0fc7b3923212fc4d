//! One `stream.summary` record (engine-api §11).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit_filters::{Cause, Connection, Outcome, Reason, Refusal};
use http::Version;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::identity::token::{QUERY_TOKEN, TokenProof, TokenSource};

/// What is kept of an exchange until it is written: copies, so that the data path neither formats nor waits.
pub(super) struct Record {
    pub(super) connection: Arc<Connection>,
    pub(super) outcome: Outcome,
    pub(super) proof: Option<TokenProof>,
    pub(super) subject: Option<String>,
}

impl Record {
    /// The event as JSON. It names no header, and the query comes without secrets.
    pub(super) fn event(&self) -> Value {
        let tunnel = self.connection.tunnel();
        let outcome = &self.outcome;
        let created = rfc3339(outcome.started);
        let object = without_nulls(json!({
            "stream_id": outcome.stream_id,
            "created_at": created,
            "terminated_at": rfc3339(outcome.started + outcome.duration),
            "project_id": text(&tunnel.project),
            "user_id": self.subject.as_deref().or(tunnel.user_id.as_deref()),
            "client_id": text(&tunnel.client_id),
            "tunnel_id": text(&tunnel.id),
            "request": self.request(),
            "firewall": self.firewall(),
            "routing": { "decision": "routed", "tunnel": {
                "tunnelId": text(&tunnel.id),
                "tunnelName": tunnel.name,
                "hostname": tunnel.hostname,
                "protocol": tunnel.protocol,
                "published": tunnel.published,
                "type": text(&tunnel.kind),
            } },
            "response": self.response(),
        }));
        without_nulls(json!({
            "type": "stream.summary",
            "id": outcome.stream_id,
            "created_at": created,
            "project_id": text(&tunnel.project),
            "object": object,
        }))
    }

    fn request(&self) -> Value {
        let info = self.connection.info();
        let outcome = &self.outcome;
        let published = self.connection.tunnel().published;
        let tls = info.tls.as_ref().map(|tls| {
            json!({
                "version": tls.version, "cipher": text(&tls.cipher), "protocol": tls.alpn, "curve": tls.group,
            })
        });
        let query = outcome.query.as_deref().map(without_secrets);
        json!({
            "entry": {
                "kind": if published { "published_tunnel" } else { "private_rstream" },
                "transport": "http",
            },
            "downstream": { "ip": info.peer.ip().to_canonical().to_string(), "tls": tls },
            "http": {
                "protocol": protocol(outcome.version),
                "request": {
                    "method": outcome.method.as_str(),
                    "scheme": text(&outcome.scheme),
                    "host": text(&outcome.host),
                    "path": text(&outcome.path),
                    "query": query,
                    "userAgent": outcome.user_agent,
                },
            },
        })
    }

    fn firewall(&self) -> Value {
        match &self.outcome.refusal {
            Some(refusal) if refusal.by.is_some() => {
                json!({ "decision": "denied", "rule": self.rule(), "failure": self.failure(refusal) })
            }
            _ => json!({ "decision": "allowed", "rule": self.rule() }),
        }
    }

    fn rule(&self) -> Value {
        match &self.proof {
            None => json!({ "kind": "none" }),
            Some(proof) => json!({
                "kind": "token",
                "source": proof.source.as_str(),
                "tokenType": proof.kind.map_or("unknown", |kind| kind.as_str()),
            }),
        }
    }

    fn failure(&self, refusal: &Refusal) -> Value {
        let source = self
            .proof
            .map_or(TokenSource::Unknown, |proof| proof.source)
            .as_str();
        let message = self.message(refusal);
        let token = |reason: &str| json!({ "kind": "unauthorized", "why": { "reason": reason, "source": source }, "message": message });
        let denied = |policy: &str, value: Option<&str>| {
            let why = json!({ "reason": "policy_denied", "policy": policy, "value": value, "source": source });
            json!({ "kind": "unauthorized", "why": why, "message": message })
        };
        let refused =
            |reason: &str| json!({ "kind": "refused", "reason": reason, "message": message });
        match refusal.reason {
            Reason::MissingToken | Reason::Login => token("missing_token"),
            Reason::InvalidToken => token("invalid_token"),
            Reason::ExpiredToken => token("expired_token"),
            Reason::InsufficientScope => token("insufficient_scope"),
            Reason::Ip => {
                let peer = self.connection.info().peer.ip().to_canonical().to_string();
                denied("ip", Some(&peer))
            }
            Reason::Country => denied("geo", None),
            Reason::Mtls => denied("mtls", None),
            Reason::Challenge => denied("challenge", None),
            Reason::AmbiguousCredentials | Reason::Origin => {
                denied("other", Some(refusal.reason.as_str()))
            }
            Reason::Capacity | Reason::RateLimited => refused("capacity"),
            Reason::Policy | Reason::Misdirected => refused("policy"),
            Reason::Unsupported => refused("unsupported"),
            Reason::NotFound => {
                json!({ "kind": "not_found", "resource": "route", "message": message })
            }
            Reason::Unavailable if self.outcome.termination.cause == Cause::Timeout => {
                json!({ "kind": "timeout", "message": message })
            }
            Reason::Unavailable => json!({ "kind": "io", "message": message }),
            Reason::Plugin => json!({ "kind": "internal", "message": message }),
            _ => refused("other"),
        }
    }

    fn message(&self, refusal: &Refusal) -> String {
        let mut message = refusal.reason.as_str().to_owned();
        for (before, part) in [
            (" by ", refusal.by.as_deref()),
            (": ", refusal.detail.as_deref()),
        ] {
            if let Some(part) = part {
                message.push_str(before);
                message.push_str(part);
            }
        }
        message
    }

    fn response(&self) -> Value {
        let outcome = &self.outcome;
        let termination = json!({ "by": outcome.termination.by.as_str(), "reason": outcome.termination.cause.as_str() });
        let http = outcome.status.map(|status| {
            json!({ "protocol": protocol(outcome.version), "response": { "status": status } })
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
            (_, refusal) => json!({
                "outcome": "failed",
                "failure": match refusal {
                    Some(refusal) => self.failure(refusal),
                    None => self.unnamed_failure(),
                },
                "metrics": { "time_to_fail_ms": milliseconds(outcome.duration), "establish_ms": establish },
                "termination": termination,
                "http": http,
            }),
        }
    }

    /// Nobody refused, and yet nothing was reached.
    fn unnamed_failure(&self) -> Value {
        match self.outcome.termination.cause {
            Cause::Timeout => json!({ "kind": "timeout" }),
            Cause::Reset | Cause::Error => json!({ "kind": "io" }),
            Cause::Closed | Cause::Unknown => {
                json!({ "kind": "refused", "reason": "other", "message": "answered at the edge" })
            }
        }
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "h2",
        Version::HTTP_3 => "h3",
        _ => "http/1.1",
    }
}

/// The edge redacts the query; a token is not allowed to depend on that.
fn without_secrets(query: &str) -> String {
    let secret = |pair: &&str| {
        let name = pair.split_once('=').map_or(*pair, |(name, _)| name);
        percent_encoding::percent_decode_str(name).eq(QUERY_TOKEN.bytes())
    };
    query
        .split('&')
        .filter(|pair| !secret(pair))
        .collect::<Vec<_>>()
        .join("&")
}

/// Fields that must not be empty are left out instead.
fn text(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn milliseconds(duration: Duration) -> f64 {
    // To the microsecond: more digits are noise.
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn rfc3339(time: SystemTime) -> Option<String> {
    OffsetDateTime::from(time).format(&Rfc3339).ok()
}

/// Readers of these records refuse null: what is unknown is left out.
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
        other => other,
    }
}
