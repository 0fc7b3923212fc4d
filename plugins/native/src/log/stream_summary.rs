//! `stream-summary`: one JSON record for each exchange, whatever came of it, in the shape of rstream's event of that
//! name (engine-api §11).

use std::sync::Arc;

use adit_config::{Problem, Section};
use adit_filters::{ConfigError, Env, Factory, Hooks, LogCx, OnLog, Stage};
use serde::Deserialize;

use super::entry::Entry;
use super::headers::LoggedNames;
use super::summary::Frame;
use super::writer::{Outlets, Target, Writer, default_queue};

/// Where records go, how many may wait, and what is in them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Where lines are written.
    #[serde(default)]
    pub to: Target,
    /// How many records may wait to be written.
    #[serde(default = "default_queue")]
    pub queue: usize,
    /// Which fields of a request are in its record.
    #[serde(default = "LoggedNames::of_requests")]
    pub request_headers: LoggedNames,
    /// Which fields of the answer are.
    #[serde(default = "LoggedNames::of_responses")]
    pub response_headers: LoggedNames,
    /// `workspace_id` of every record.
    pub workspace_id: Option<String>,
    /// `cluster_id` of every record.
    pub cluster_id: Option<String>,
}

/// The filter.
pub struct StreamSummary {
    writer: Writer,
    frame: Frame,
}

impl OnLog for StreamSummary {
    fn on_log(&self, cx: &LogCx<'_>) {
        self.writer.write(Entry::of(cx));
    }
}

impl StreamSummary {
    fn new(config: Config, outlets: &Outlets, env: &Env) -> Result<Self, ConfigError> {
        for (key, id) in [
            ("workspace-id", &config.workspace_id),
            ("cluster-id", &config.cluster_id),
        ] {
            if id.as_deref() == Some("") {
                let message = format!("`{key}` is empty, write an id or leave the key out");
                return Err(ConfigError::at(key, message));
            }
        }
        let frame = Frame {
            workspace: config.workspace_id,
            cluster: config.cluster_id,
            request_fields: config.request_headers.into_names(),
            response_fields: config.response_headers.into_names(),
        };
        let name = StreamSummaryFactory::NAME;
        let writer = outlets.writer(name, config.to, config.queue, env, line(&frame))?;
        Ok(Self { writer, frame })
    }

    fn hooks(self) -> Hooks {
        let Frame {
            request_fields,
            response_fields,
            ..
        } = self.frame.clone();
        Hooks::new()
            .at(Stage::Log)
            .logs_fields(request_fields, response_fields)
            .log(Arc::new(self))
    }
}

/// Makes `stream-summary` filters.
#[derive(Debug)]
pub struct StreamSummaryFactory(Outlets);

impl StreamSummaryFactory {
    /// What `use = "…"` calls the filter.
    pub const NAME: &'static str = "stream-summary";

    /// Makes filters that write to these.
    #[must_use]
    pub fn new(outlets: Outlets) -> Self {
        Self(outlets)
    }
}

impl Factory for StreamSummaryFactory {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn stage(&self) -> Stage {
        Stage::Log
    }

    fn build(&self, section: &Section, env: &mut Env) -> Result<Hooks, Vec<Problem>> {
        StreamSummary::new(section.deserialize()?, &self.0, env)
            .map(StreamSummary::hooks)
            .map_err(|error| vec![section.problem(error.key.as_deref(), error.message)])
    }
}

fn line(frame: &Frame) -> impl Fn(&Entry, &mut Vec<u8>) + Send + Sync + 'static {
    let frame = frame.clone();
    move |entry, line| {
        // A record is made of texts and numbers, and memory takes them all.
        let _never_fails = serde_json::to_writer(line, &frame.event(entry));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

    use adit_filters::env::fake::Fake;
    use adit_filters::{
        By, Cause, Failure, FailureKind, Outcome, Reason, Settled, Settlement, Termination,
    };
    use serde_json::{Value, json};

    use super::super::headers::LoggedName;
    use super::super::testing::{Sink, TOKEN, outcome, refused, run};
    use super::super::writer::to_sink;
    use super::*;
    use crate::identity::token::{TokenKind, TokenProof, TokenSource};

    /// Logs outcomes through a chain and gives back the lines.
    async fn log(proof: Option<TokenProof>, outcomes: Vec<Outcome>) -> Vec<Value> {
        let fake = Fake::default();
        let sink = Sink::default();
        let frame = Frame {
            workspace: Some("w-1".into()),
            cluster: None,
            request_fields: vec![http::header::ACCEPT],
            response_fields: vec![http::header::CONTENT_TYPE],
        };
        let out = Box::new(sink.clone());
        let writer = to_sink(out, 8, &fake.env(), line(&frame)).unwrap();
        let filter = StreamSummary { writer, frame };
        run(filter.hooks(), proof, outcomes).await;
        for (_, job) in fake.jobs.take_blocking() {
            job();
        }
        let text = sink.text();
        assert!(
            !text.contains(TOKEN) && !text.contains("c2lnbmF0dXJl"),
            "{text}"
        );
        sink.lines()
    }

    // edge-behaviour §14.7 X19: one record, with cause, `firewall.decision` and `routing.decision`.
    #[tokio::test]
    async fn an_exchange_becomes_one_line_with_the_whole_tree() {
        let proof = TokenProof {
            source: TokenSource::Query,
            kind: Some(TokenKind::Auth),
        };
        let query = "a=1&rstream.token=REDACTED&rstream%2Etoken=REDACTED";
        let expected = json!({
            "type": "stream.summary",
            "id": "00000000000000a1",
            "created_at": "2027-01-15T08:00:00Z",
            "workspace_id": "w-1",
            "project_id": "default",
            "user_id": "u-9",
            "object": {
                "stream_id": "00000000000000a1",
                "created_at": "2027-01-15T08:00:00Z",
                "terminated_at": "2027-01-15T08:00:01.5Z",
                "workspace_id": "w-1",
                "project_id": "default",
                "user_id": "u-9",
                "tunnel_id": "t-1",
                "request": {
                    "entry": { "kind": "published_tunnel", "transport": "http" },
                    "downstream": { "ip": "192.0.2.1", "tls": { "version": "TLSv1.3", "protocol": "h2" } },
                    "http": { "protocol": "h2", "request": {
                        "method": "GET", "scheme": "https", "host": "a.example", "path": "/x",
                        "query": query,
                        "url": format!("https://a.example/x?{query}"),
                        "headers": { "accept": "text/html, */*" },
                        "userAgent": "curl/8",
                    } },
                },
                "firewall": {
                    "decision": "allowed",
                    "rule": { "kind": "token", "source": "query", "tokenType": "auth" },
                },
                "routing": { "decision": "routed", "tunnel": {
                    "tunnelId": "t-1", "tunnelName": "shop", "published": true, "httpVersion": "h2c",
                    "httpUseTls": false, "upstreamTls": false, "tokenAuth": true,
                } },
                "response": {
                    "outcome": "connected",
                    "established_at": "2027-01-15T08:00:00.0025Z",
                    "metrics": {
                        "establish_ms": 2.5, "duration_ms": 1500.0, "upstream_bytes": 10, "downstream_bytes": 20,
                    },
                    "termination": { "by": "upstream", "reason": "closed" },
                    "http": { "protocol": "h2", "response": {
                        "status": 200, "headers": { "content-type": "text/plain" },
                    } },
                },
            },
        });
        assert_eq!(log(Some(proof), vec![outcome()]).await, [expected]);
    }

    #[tokio::test]
    async fn a_refusal_names_its_cause_and_rule() {
        let filter = Some("edge/f");
        let token = json!({ "kind": "token", "source": "unknown", "tokenType": "unknown" });
        let none = json!({ "kind": "none" });
        let why = |reason: &str| json!({ "reason": reason, "source": "unknown" });
        let policy = |policy: &str, value: Option<&str>| {
            let mut why =
                json!({ "reason": "policy_denied", "policy": policy, "source": "unknown" });
            if let (Some(why), Some(value)) = (why.as_object_mut(), value) {
                why.insert("value".into(), value.into());
            }
            why
        };
        let cases = [
            (
                Reason::MissingToken,
                filter,
                "denied",
                why("missing_token"),
                &token,
            ),
            (
                Reason::InvalidToken,
                filter,
                "denied",
                why("invalid_token"),
                &token,
            ),
            (
                Reason::ExpiredToken,
                filter,
                "denied",
                why("expired_token"),
                &token,
            ),
            (
                Reason::InsufficientScope,
                filter,
                "denied",
                why("insufficient_scope"),
                &token,
            ),
            (
                Reason::Login,
                filter,
                "denied",
                json!({ "reason": "missing_token", "source": "rstream_auth" }),
                &json!({ "kind": "rstream_auth", "source": "rstream_auth" }),
            ),
            (
                Reason::Mtls,
                filter,
                "denied",
                policy("mtls", None),
                &json!({ "kind": "mtls" }),
            ),
            // edge-behaviour §14.7 X7, X10
            (
                Reason::Ip,
                filter,
                "denied",
                policy("ip", Some("192.0.2.1")),
                &none,
            ),
            (
                Reason::Country,
                filter,
                "denied",
                policy("geo", None),
                &none,
            ),
            (
                Reason::Challenge,
                filter,
                "denied",
                policy("challenge", None),
                &none,
            ),
            (
                Reason::Origin,
                filter,
                "denied",
                policy("other", Some("origin")),
                &none,
            ),
            (Reason::Capacity, filter, "denied", json!("capacity"), &none),
            (
                Reason::RateLimited,
                filter,
                "denied",
                json!("capacity"),
                &none,
            ),
            (Reason::Policy, filter, "denied", json!("policy"), &none),
            (Reason::TooLarge, filter, "denied", json!("other"), &none),
            (Reason::Plugin, filter, "denied", json!("internal"), &none),
            // The edge itself: no filter is to blame.
            (Reason::Capacity, None, "allowed", json!("capacity"), &none),
            (Reason::Unavailable, None, "allowed", json!("io"), &none),
            (Reason::NotFound, None, "allowed", json!("not_found"), &none),
        ];
        for (reason, by, decision, cause, rule) in cases {
            let lines = log(None, vec![refused(reason, by)]).await;
            let object = lines.first().unwrap().get("object").unwrap();
            let at = |pointer: &str| object.pointer(pointer).cloned();
            assert_eq!(at("/firewall/decision"), Some(json!(decision)), "{reason}");
            assert_eq!(at("/firewall/rule").as_ref(), Some(rule), "{reason}");
            let failure = at("/response/failure").unwrap();
            let named = failure
                .get("why")
                .or(failure.get("reason"))
                .or(failure.get("kind"));
            assert_eq!(named, Some(&cause), "{reason}");
            let message = by.map_or(reason.as_str().to_owned(), |by| format!("{reason} by {by}"));
            assert_eq!(failure.get("message"), Some(&json!(message)));
            let told = (decision == "denied").then_some(failure);
            assert_eq!(at("/firewall/failure"), told, "{reason}");
            assert_eq!(at("/response/outcome"), Some(json!("failed")));
        }
    }

    #[tokio::test]
    async fn what_failed_is_told_from_what_was_answered_or_ended() {
        let failed = |kind| Outcome {
            establish: None,
            failure: Some(Failure {
                kind,
                detail: "because".into(),
            }),
            ..outcome()
        };
        let settled = |how| Outcome {
            establish: None,
            settled: Some(Settled {
                by: "edge/f".into(),
                how,
            }),
            ..outcome()
        };
        let ended = |cause| Outcome {
            establish: None,
            termination: Termination {
                detail: Some("so".into()),
                ..Termination::new(By::Downstream, cause)
            },
            ..outcome()
        };
        let cases = [
            (
                failed(FailureKind::Timeout(Duration::from_secs(30))),
                json!({ "kind": "timeout", "timeoutMs": 30_000, "message": "timeout: because" }),
            ),
            (
                failed(FailureKind::Io),
                json!({ "kind": "io", "message": "upstream-error: because" }),
            ),
            (
                failed(FailureKind::Offline),
                json!({ "kind": "not_found", "resource": "client", "message": "offline: because" }),
            ),
            (
                failed(FailureKind::Capacity),
                json!({ "kind": "refused", "reason": "capacity", "message": "capacity: because" }),
            ),
            (
                failed(FailureKind::Unsupported),
                json!({ "kind": "refused", "reason": "unsupported", "message": "unsupported: because" }),
            ),
            (
                settled(Settlement::Answered),
                json!({ "kind": "refused", "reason": "other", "message": "answered by edge/f" }),
            ),
            (
                settled(Settlement::Closed),
                json!({ "kind": "refused", "reason": "policy", "message": "closed by edge/f" }),
            ),
            (
                ended(Cause::Timeout),
                json!({ "kind": "timeout", "message": "so" }),
            ),
            (
                ended(Cause::Reset),
                json!({ "kind": "io", "message": "so" }),
            ),
            (
                ended(Cause::Closed),
                json!({ "kind": "refused", "reason": "other", "message": "so" }),
            ),
        ];
        for (outcome, expected) in cases {
            let lines = log(None, vec![outcome]).await;
            let object = lines.first().unwrap().get("object").unwrap();
            assert_eq!(object.pointer("/response/failure"), Some(&expected));
            let denied = object.pointer("/firewall/decision") == Some(&json!("denied"));
            assert_eq!(denied, expected.get("reason") == Some(&json!("policy")));
        }
    }

    #[test]
    fn fields_that_carry_credentials_cannot_be_asked_for() {
        for name in [
            "Authorization",
            "cookie",
            "Set-Cookie",
            "Proxy-Authorization",
            "x-api-key",
        ] {
            assert!(LoggedName::try_from(name.to_owned()).is_err(), "{name}");
        }
        assert!(LoggedName::try_from("X-Request-Id".to_owned()).is_ok());
        assert!(LoggedName::try_from("a b".to_owned()).is_err());
        let names = |count| {
            let name = LoggedName::try_from("accept".to_owned()).unwrap();
            LoggedNames::try_from(vec![name; count])
        };
        let max = adit_filters::LOGGED_FIELDS_MAX;
        assert!(names(max).is_ok() && names(max + 1).is_err());
    }
}
