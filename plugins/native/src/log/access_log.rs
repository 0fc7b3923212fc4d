//! `access-log`: one line of JSON for each exchange, flat and for people.

use std::sync::Arc;

use adit_config::{Problem, Section};
use adit_filters::{ConfigError, Env, Factory, Hooks, LogCx, OnLog, Refusal, Stage};
use serde::Deserialize;
use serde::ser::{SerializeMap as _, Serializer as _};
use serde_json::{Value, json};

use super::entry::{Decision, Entry, country, milliseconds, protocol, rfc3339, text};
use super::writer::{Outlets, Target, Writer, default_queue};

/// Where lines go, how many may wait, and what is in them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Where lines are written.
    #[serde(default)]
    pub to: Target,
    /// How many lines may wait to be written.
    #[serde(default = "default_queue")]
    pub queue: usize,
    /// What is in a line; everything without it.
    pub fields: Option<Vec<Field>>,
}

macro_rules! fields {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What can be in a line, in the order it is written. What is not known of an exchange is left out.
        #[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
        pub enum Field { $($(#[$doc])* #[serde(rename = $name)] $variant,)* }

        impl Field {
            /// Every field, in the order it is written.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its key in the line.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}
fields! {
    /// When the request arrived, RFC 3339.
    Time = "time",
    /// The method.
    Method = "method",
    /// The host asked for.
    Host = "host",
    /// The path.
    Path = "path",
    /// The query, secrets left out.
    Query = "query",
    /// The status of the answer.
    Status = "status",
    /// Bytes from the visitor, heads not counted.
    BytesIn = "bytes_in",
    /// Bytes to the visitor, heads not counted.
    BytesOut = "bytes_out",
    /// From the request's head to the end of both directions, in milliseconds.
    Duration = "duration_ms",
    /// The visitor's address.
    ClientIp = "client_ip",
    /// The country it is in.
    Country = "country",
    /// Who the visitor is.
    Identity = "identity",
    /// How that was proved.
    IdentityMethod = "identity_method",
    /// The filter that dealt with the exchange in the service's place; `edge` where none did and none let it through.
    Filter = "filter",
    /// Why.
    Reason = "reason",
    /// More about why, or about how it ended.
    Detail = "detail",
    /// What filters on trial would have refused.
    DryRun = "dry_run",
    /// Filters that could not decide and were passed over.
    Lapsed = "lapsed",
    /// The tunnel's name, or its id.
    Tunnel = "tunnel",
    /// The tunnel's project.
    Project = "project",
    /// The request's name.
    RequestId = "request_id",
    /// The visitor's TLS version.
    Tls = "tls",
    /// The visitor's HTTP version.
    Protocol = "protocol",
    /// The protocol it left HTTP for.
    Upgrade = "upgrade",
    /// Who ended it, where it did not end in order.
    EndedBy = "ended_by",
    /// How it ended then.
    Ended = "ended",
    /// The visitor's program.
    UserAgent = "user_agent",
}

impl Field {
    fn value(self, entry: &Entry) -> Value {
        let (outcome, connection) = (&entry.outcome, &entry.connection);
        let (request, tunnel) = (&outcome.request, connection.tunnel());
        let decision = || entry.decision();
        let broken = || Some(&outcome.termination).filter(|end| end.detail.is_some());
        match self {
            Self::Time => json!(rfc3339(outcome.started)),
            Self::Method => json!(request.method().as_str()),
            Self::Host => json!(text(request.host())),
            Self::Path => json!(request.path()),
            Self::Query => json!(request.query()),
            Self::Status => json!(outcome.status),
            Self::BytesIn => json!(outcome.bytes_up),
            Self::BytesOut => json!(outcome.bytes_down),
            Self::Duration => json!(milliseconds(outcome.duration)),
            Self::ClientIp => json!(entry.ip()),
            Self::Country => json!(country(connection)),
            Self::Identity => json!(entry.who.as_ref().map(|who| &who.subject)),
            Self::IdentityMethod => json!(entry.who.as_ref().map(|who| who.method)),
            Self::Filter => json!(decision().map(|decision| decision.by.unwrap_or("edge"))),
            Self::Reason => json!(decision().map(|decision| decision.reason)),
            Self::Detail => {
                let detail = decision().and_then(|decision| decision.detail);
                json!(detail.or_else(|| broken()?.detail.clone()))
            }
            Self::DryRun => messages(&entry.trials),
            Self::Lapsed => messages(&entry.lapses),
            Self::Tunnel => json!(tunnel.name.as_deref().or(text(&tunnel.id))),
            Self::Project => json!(text(&tunnel.project)),
            Self::RequestId => json!(outcome.request_id.to_string()),
            Self::Tls => json!(connection.info().tls.as_ref().map(|tls| tls.version)),
            Self::Protocol => json!(protocol(outcome.version)),
            Self::Upgrade => json!(outcome.upgrade.map(|upgrade| upgrade.as_str())),
            Self::EndedBy => json!(broken().map(|end| end.by.as_str())),
            Self::Ended => json!(broken().map(|end| end.cause.as_str())),
            Self::UserAgent => json!(request.user_agent()),
        }
    }
}

/// Refusals that did not come into effect, if there are any.
fn messages(refusals: &[Refusal]) -> Value {
    let messages = refusals
        .iter()
        .map(|refusal| Decision::of(refusal).message());
    match refusals {
        [] => Value::Null,
        _ => messages.collect(),
    }
}

/// The filter.
pub struct AccessLog {
    writer: Writer,
}

impl OnLog for AccessLog {
    fn on_log(&self, cx: &LogCx<'_>) {
        self.writer.write(Entry::of(cx));
    }
}

impl AccessLog {
    fn new(config: Config, outlets: &Outlets, env: &Env) -> Result<Self, ConfigError> {
        let fields = match config.fields {
            None => Field::ALL.to_vec(),
            Some(fields) if fields.is_empty() => {
                let message = "`fields` is empty: name one, or leave it out to write all";
                return Err(ConfigError::at("fields", message));
            }
            Some(fields) => {
                let in_order = Field::ALL.iter().copied();
                in_order.filter(|field| fields.contains(field)).collect()
            }
        };
        let name = AccessLogFactory::NAME;
        let writer = outlets.writer(name, config.to, config.queue, env, line(fields))?;
        Ok(Self { writer })
    }

    fn hooks(self) -> Hooks {
        Hooks::new().at(Stage::Log).log(Arc::new(self))
    }
}

/// Makes `access-log` filters.
#[derive(Debug)]
pub struct AccessLogFactory(Outlets);

impl AccessLogFactory {
    /// What `use = "…"` calls the filter.
    pub const NAME: &'static str = "access-log";

    /// Makes filters that write to these.
    #[must_use]
    pub fn new(outlets: Outlets) -> Self {
        Self(outlets)
    }
}

impl Factory for AccessLogFactory {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn stage(&self) -> Stage {
        Stage::Log
    }

    fn build(&self, section: &Section, env: &mut Env) -> Result<Hooks, Vec<Problem>> {
        AccessLog::new(section.deserialize()?, &self.0, env)
            .map(AccessLog::hooks)
            .map_err(|error| vec![section.problem(error.key.as_deref(), error.message)])
    }
}

fn line(fields: Vec<Field>) -> impl Fn(&Entry, &mut Vec<u8>) + Send + Sync + 'static {
    move |entry, line| {
        // A line is made of texts and numbers, and memory takes them all.
        let _never_fails = write(&fields, entry, line);
    }
}

fn write(fields: &[Field], entry: &Entry, line: &mut Vec<u8>) -> serde_json::Result<()> {
    let mut serializer = serde_json::Serializer::new(line);
    let mut map = serializer.serialize_map(None)?;
    for field in fields {
        let value = field.value(entry);
        if !value.is_null() {
            map.serialize_entry(field.as_str(), &value)?;
        }
    }
    map.end()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use adit_filters::env::fake::Fake;
    use adit_filters::{
        By, Cause, Failure, FailureKind, Outcome, Reason, Settled, Settlement, Termination, Upgrade,
    };

    use super::super::entry::DETAIL_BYTES_MAX;
    use super::super::testing::{Sink, TOKEN, outcome, refused, run};
    use super::super::writer::to_sink;
    use super::*;
    use crate::identity::token::{TokenKind, TokenProof, TokenSource};

    async fn log(fields: &[Field], proof: Option<TokenProof>, outcomes: Vec<Outcome>) -> String {
        let fake = Fake::default();
        let sink = Sink::default();
        let out = Box::new(sink.clone());
        let writer = to_sink(out, 8, &fake.env(), line(fields.to_vec())).unwrap();
        run(AccessLog { writer }.hooks(), proof, outcomes).await;
        for (_, job) in fake.jobs.take_blocking() {
            job();
        }
        let text = sink.text();
        assert!(
            !text.contains(TOKEN) && !text.contains("c2lnbmF0dXJl"),
            "{text}"
        );
        text
    }

    #[tokio::test]
    async fn an_exchange_becomes_one_flat_line() {
        let proof = TokenProof {
            source: TokenSource::Query,
            kind: Some(TokenKind::Auth),
        };
        let line = log(Field::ALL, Some(proof), vec![outcome()]).await;
        let expected = concat!(
            r#"{"time":"2027-01-15T08:00:00Z","method":"GET","host":"a.example","path":"/x","#,
            r#""query":"a=1&rstream.token=REDACTED&rstream%2Etoken=REDACTED","status":200,"#,
            r#""bytes_in":10,"bytes_out":20,"duration_ms":1500.0,"client_ip":"192.0.2.1","#,
            r#""identity":"u-9","identity_method":"token","tunnel":"shop","project":"default","#,
            r#""request_id":"00000000000000a1","tls":"TLSv1.3","protocol":"h2","user_agent":"curl/8"}"#,
            "\n"
        );
        assert_eq!(line, expected);
    }

    #[tokio::test]
    async fn who_decided_and_why_is_in_the_line() {
        let fields = [
            Field::Filter,
            Field::Reason,
            Field::Detail,
            Field::Upgrade,
            Field::EndedBy,
            Field::Ended,
        ];
        let mut detailed = refused(Reason::Plugin, Some("edge/f"));
        detailed.refusal.as_mut().unwrap().detail = Some("plugin stopped".into());
        let cases = [
            (outcome(), "{}"),
            (
                refused(Reason::Ip, Some("edge/f")),
                r#"{"filter":"edge/f","reason":"ip"}"#,
            ),
            (
                detailed,
                r#"{"filter":"edge/f","reason":"plugin","detail":"plugin stopped"}"#,
            ),
            (
                refused(Reason::Unsupported, None),
                r#"{"filter":"edge","reason":"unsupported"}"#,
            ),
            (
                Outcome {
                    settled: Some(Settled {
                        by: "edge/l".into(),
                        how: Settlement::Redirected,
                    }),
                    ..outcome()
                },
                r#"{"filter":"edge/l","reason":"redirected"}"#,
            ),
            (
                Outcome {
                    failure: Some(Failure {
                        kind: FailureKind::Io,
                        detail: "refused".into(),
                    }),
                    ..outcome()
                },
                r#"{"filter":"edge","reason":"upstream-error","detail":"refused"}"#,
            ),
            (
                Outcome {
                    upgrade: Some(Upgrade::WebSocket),
                    termination: Termination {
                        detail: Some("broke".into()),
                        ..Termination::new(By::Downstream, Cause::Reset)
                    },
                    ..outcome()
                },
                r#"{"detail":"broke","upgrade":"websocket","ended_by":"downstream","ended":"reset"}"#,
            ),
        ];
        for (outcome, expected) in cases {
            assert_eq!(log(&fields, None, vec![outcome]).await.trim_end(), expected);
        }
    }

    #[tokio::test]
    async fn why_is_told_on_one_line_of_bounded_length_and_without_secrets() {
        let max = DETAIL_BYTES_MAX;
        let cases = [
            ("é".repeat(max / 2), "é".repeat(max / 2)),
            ("é".repeat(max), format!("{}…", "é".repeat((max - 3) / 2))),
            (format!("said\r\n{TOKEN}"), "said\\r\\nREDACTED".to_owned()),
            // A token is known as one before its end is cut off.
            (
                format!("{} {TOKEN}", "x".repeat(max - 30)),
                format!("{} REDACTED", "x".repeat(max - 30)),
            ),
        ];
        for (detail, shown) in cases {
            let mut outcome = refused(Reason::Plugin, Some("edge/f"));
            outcome.refusal.as_mut().unwrap().detail = Some(detail);
            let line = log(&[Field::Detail], None, vec![outcome]).await;
            assert_eq!(line, format!("{{\"detail\":\"{shown}\"}}\n"));
        }
    }
}
