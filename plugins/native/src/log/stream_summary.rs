//! `stream-summary`: one JSON line for each exchange, whatever came of it.
//!
//! The data path only copies what the line is made of into a bounded queue; a thread beside it formats and writes.
//! When that thread cannot keep up, lines are dropped and counted: visitors do not wait for a disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use adit_filters::env::Counter;
use adit_filters::{ConfigError, Env, Filter, Hooks, Identity, LogCx, OnLog, Stage};
use serde::Deserialize;

use super::record::Record;
use crate::identity::token::TokenProof;

/// How many records wait at most, unless the configuration says otherwise. Each is a kilobyte or so.
pub const QUEUE_DEFAULT: usize = 4096;

/// The longest queue that can be configured.
pub const QUEUE_MAX: usize = 65_536;

/// How long the writer gathers records before it writes again: it is woken fifty times a second at most.
const GATHER: Duration = Duration::from_millis(20);

/// How many records are written at once: what is gathered in memory stays near a megabyte.
const BATCH_MAX: usize = 1024;

/// Where records go, and how many may wait.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Where lines are written.
    #[serde(default)]
    pub to: Target,
    /// How many records may wait to be written.
    #[serde(default = "default_queue")]
    pub queue: usize,
}

fn default_queue() -> usize {
    QUEUE_DEFAULT
}

/// Where lines are written.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
    /// The end of a file, made if it is not there. A reload opens it anew.
    File(PathBuf),
}

/// The filter.
pub struct StreamSummary {
    queue: SyncSender<Record>,
    dropped: Arc<dyn Counter>,
}

impl StreamSummary {
    /// Writes to `sink`.
    ///
    /// # Errors
    /// If the writer or its metrics cannot be had.
    pub fn to_sink(
        sink: Box<dyn Write + Send>,
        queue: usize,
        env: &Env,
    ) -> Result<Self, ConfigError> {
        let failed = |error: &dyn std::error::Error| ConfigError {
            key: None,
            message: error.to_string(),
        };
        let counter = |name: &str, help: &str| {
            env.metrics
                .counter(name, help, &[])
                .map_err(|error| failed(&error))
        };
        let dropped = counter(
            "log_dropped_total",
            "Log records dropped because too many were waiting",
        )?;
        let lost = counter(
            "log_lost_total",
            "Log records lost because they could not be written",
        )?;
        let (sender, receiver) = sync_channel(queue);
        let job = Box::new(move || write_all(&receiver, sink, &*lost));
        env.jobs
            .spawn_blocking(Self::NAME, job)
            .map_err(|error| failed(&error))?;
        Ok(Self {
            queue: sender,
            dropped,
        })
    }
}

impl OnLog for StreamSummary {
    fn on_log(&self, cx: &LogCx<'_>) {
        let record = Record {
            connection: cx.exchange.connection().clone(),
            outcome: cx.outcome.clone(),
            proof: cx.exchange.fact::<TokenProof>().copied(),
            subject: cx
                .exchange
                .fact::<Identity>()
                .map(|identity| identity.subject.clone()),
        };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.queue.try_send(record)
        {
            self.dropped.add(&[], 1);
        }
    }
}

impl Filter for StreamSummary {
    const NAME: &'static str = "stream-summary";
    const STAGE: Stage = Stage::Log;
    type Config = Config;

    fn new(config: Config, env: &mut Env) -> Result<Self, ConfigError> {
        let Config { to, queue } = config;
        if queue == 0 || queue > QUEUE_MAX {
            let message = format!("`queue` must be between 1 and {QUEUE_MAX} records");
            return Err(ConfigError::at("queue", message));
        }
        let sink: Box<dyn Write + Send> = match to {
            Target::Stdout => Box::new(io::stdout()),
            Target::Stderr => Box::new(io::stderr()),
            Target::File(path) => Box::new(open(&path).map_err(|error| {
                ConfigError::at(
                    "to",
                    format!("`{}` cannot be opened to append: {error}", path.display()),
                )
            })?),
        };
        Self::to_sink(sink, queue, env)
    }

    fn hooks(self: Arc<Self>) -> Hooks {
        Hooks::new().at(Self::STAGE).log(self)
    }
}

fn open(path: &std::path::Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Addresses and paths of visitors are not for everyone on the machine.
        options.mode(0o640);
    }
    options.open(path)
}

/// Writes until the filter is gone and the queue is empty.
fn write_all(queue: &Receiver<Record>, mut sink: Box<dyn Write + Send>, lost: &dyn Counter) {
    let mut lines = Vec::new();
    let mut failing = false;
    while let Ok(first) = queue.recv() {
        let mut count = 0;
        for record in std::iter::once(first).chain(queue.try_iter().take(BATCH_MAX)) {
            count += 1;
            // A record is made of texts and numbers: writing it to memory cannot fail.
            if serde_json::to_writer(&mut lines, &record.event()).is_ok() {
                lines.push(b'\n');
            }
        }
        let written = sink.write_all(&lines).and_then(|()| sink.flush());
        lines.clear();
        match written {
            Ok(()) => failing = false,
            Err(error) => {
                lost.add(&[], count);
                if !failing {
                    tracing::warn!(%error, "stream summaries cannot be written");
                }
                failing = true;
            }
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the writer has a thread of its own, which no task waits for"
        )]
        std::thread::sleep(GATHER);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use std::net::SocketAddr;
    use std::sync::Mutex;
    use std::time::SystemTime;

    use adit_filters::env::fake::Fake;
    use adit_filters::{
        By, Cause, Chain, Connected, ConnectionInfo, Decision, FilterError, Hooks, OnRequest,
        Outcome, Placed, Reason, Refusal, RequestCx, Termination, TlsInfo, Transport, TunnelInfo,
        Verdict,
    };
    use serde_json::{Value, json};

    use super::*;
    use crate::identity::token::{TokenKind, TokenSource};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);
    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::other("full"))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Proves(Option<TokenProof>);
    impl OnRequest for Proves {
        async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
            if let Some(proof) = self.0 {
                cx.exchange.establish(proof).unwrap();
                cx.exchange
                    .establish(Identity {
                        subject: "u-9".into(),
                        method: "token",
                        ..Identity::default()
                    })
                    .unwrap();
            }
            Ok(Verdict::Continue)
        }
    }

    fn outcome() -> Outcome {
        Outcome {
            method: http::Method::GET,
            scheme: "https".into(),
            host: "a.example".into(),
            path: "/x".into(),
            query: Some("a=1&rstream.token=SECRET&rstream%2Etoken=SECRET".into()),
            version: http::Version::HTTP_2,
            status: Some(200),
            started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            duration: Duration::from_millis(1500),
            establish: Some(Duration::from_micros(2500)),
            bytes_up: 10,
            bytes_down: 20,
            refusal: None,
            termination: Termination {
                by: By::Upstream,
                cause: Cause::Closed,
            },
            upgrade: None,
            stream_id: "s-1".into(),
            user_agent: Some("curl/8".into()),
        }
    }

    fn refused(reason: Reason, by: Option<&str>) -> Outcome {
        let refusal = Some(Refusal {
            by: by.map(Arc::from),
            ..Refusal::edge(reason)
        });
        Outcome {
            refusal,
            establish: None,
            status: Some(403),
            ..outcome()
        }
    }

    /// Logs outcomes through a chain and gives back the lines, and how many were dropped.
    async fn log(
        proof: Option<TokenProof>,
        outcomes: &[Outcome],
        queue: usize,
    ) -> (Vec<Value>, Option<f64>) {
        let fake = Fake::default();
        let sink = Sink::default();
        let filter = StreamSummary::to_sink(Box::new(sink.clone()), queue, &fake.env()).unwrap();
        let chain = Chain::compile(vec![
            Placed::new("p", Hooks::new().request(Arc::new(Proves(proof)))),
            Placed::new("log", Arc::new(filter).hooks()),
        ])
        .unwrap();
        let peer: SocketAddr = "[::ffff:192.0.2.1]:4000".parse().unwrap();
        let tls = TlsInfo {
            version: "TLSv1.3",
            alpn: Some("h2".into()),
            ..TlsInfo::default()
        };
        let info = ConnectionInfo {
            id: 1,
            peer,
            transport: Transport::Tls,
            hello: None,
            tls: Some(tls),
        };
        let tunnel = TunnelInfo {
            id: "t-1".into(),
            project: "default".into(),
            published: true,
            ..TunnelInfo::default()
        };
        let Connected::Admitted(connection) = chain.connect(Arc::new(info), Arc::new(tunnel)).await
        else {
            panic!()
        };
        for outcome in outcomes {
            let mut exchange = chain.exchange(connection.clone());
            let mut head = http::Request::get("https://a.example/x")
                .body(())
                .unwrap()
                .into_parts()
                .0;
            assert!(matches!(
                chain.request(&mut head, &mut exchange, None).await,
                Decision::Pass { .. }
            ));
            chain.log(&exchange, outcome);
        }
        drop(chain); // the filter goes, so the writer ends once the queue is empty
        for (_, job) in fake.jobs.take_blocking() {
            job();
        }
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let lines = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        (lines, fake.metrics.value("log_dropped_total{}"))
    }

    // edge-behaviour §14.7 X19: one record, with cause, `firewall.decision` and `routing.decision`.
    #[tokio::test]
    async fn an_exchange_becomes_one_line_with_the_whole_tree() {
        let proof = TokenProof {
            source: TokenSource::Query,
            kind: Some(TokenKind::Auth),
        };
        let (lines, dropped) = log(Some(proof), &[outcome()], 8).await;
        let expected = json!({
            "type": "stream.summary",
            "id": "s-1",
            "created_at": "2027-01-15T08:00:00Z",
            "project_id": "default",
            "object": {
                "stream_id": "s-1",
                "created_at": "2027-01-15T08:00:00Z",
                "terminated_at": "2027-01-15T08:00:01.5Z",
                "project_id": "default",
                "user_id": "u-9",
                "tunnel_id": "t-1",
                "request": {
                    "entry": { "kind": "published_tunnel", "transport": "http" },
                    "downstream": { "ip": "192.0.2.1", "tls": { "version": "TLSv1.3", "protocol": "h2" } },
                    "http": { "protocol": "h2", "request": {
                        "method": "GET", "scheme": "https", "host": "a.example", "path": "/x", "query": "a=1",
                        "userAgent": "curl/8",
                    } },
                },
                "firewall": {
                    "decision": "allowed",
                    "rule": { "kind": "token", "source": "query", "tokenType": "auth" },
                },
                "routing": { "decision": "routed", "tunnel": { "tunnelId": "t-1", "published": true } },
                "response": {
                    "outcome": "connected",
                    "established_at": "2027-01-15T08:00:00.0025Z",
                    "metrics": {
                        "establish_ms": 2.5, "duration_ms": 1500.0, "upstream_bytes": 10, "downstream_bytes": 20,
                    },
                    "termination": { "by": "upstream", "reason": "closed" },
                    "http": { "protocol": "h2", "response": { "status": 200 } },
                },
            },
        });
        assert_eq!(lines, [expected]);
        assert_eq!(dropped, None);
    }

    #[tokio::test]
    async fn a_refusal_names_its_cause() {
        let filter = Some("edge/f");
        let cases = [
            (
                Reason::MissingToken,
                filter,
                "denied",
                json!({ "reason": "missing_token", "source": "unknown" }),
            ),
            (
                Reason::InsufficientScope,
                filter,
                "denied",
                json!({ "reason": "insufficient_scope", "source": "unknown" }),
            ),
            // edge-behaviour §14.7 X7, X10
            (
                Reason::Ip,
                filter,
                "denied",
                json!({ "reason": "policy_denied", "policy": "ip", "value": "192.0.2.1", "source": "unknown" }),
            ),
            (
                Reason::Country,
                filter,
                "denied",
                json!({ "reason": "policy_denied", "policy": "geo", "source": "unknown" }),
            ),
            (
                Reason::Origin,
                filter,
                "denied",
                json!({ "reason": "policy_denied", "policy": "other", "value": "origin", "source": "unknown" }),
            ),
            (Reason::Capacity, filter, "denied", json!("capacity")),
            (Reason::Policy, filter, "denied", json!("policy")),
            (Reason::Plugin, filter, "denied", json!("internal")),
            // The edge itself: no filter is to blame.
            (Reason::Capacity, None, "allowed", json!("capacity")),
            (Reason::Unavailable, None, "allowed", json!("io")),
            (Reason::NotFound, None, "allowed", json!("not_found")),
        ];
        for (reason, by, decision, cause) in cases {
            let (lines, _) = log(None, &[refused(reason, by)], 8).await;
            let object = lines.first().unwrap().get("object").unwrap();
            let at = |pointer: &str| object.pointer(pointer).cloned();
            assert_eq!(at("/firewall/decision"), Some(json!(decision)), "{reason}");
            let failure = at("/response/failure").unwrap();
            let named = failure
                .get("why")
                .or(failure.get("reason"))
                .or(failure.get("kind"));
            assert_eq!(named, Some(&cause), "{reason}");
            if decision == "denied" {
                assert_eq!(at("/firewall/failure"), Some(failure), "{reason}");
            }
            assert_eq!(at("/response/outcome"), Some(json!("failed")));
        }
    }

    #[tokio::test]
    async fn a_timeout_is_told_from_a_broken_connection_and_a_local_answer() {
        for (cause, kind) in [
            (Cause::Timeout, "timeout"),
            (Cause::Reset, "io"),
            (Cause::Closed, "refused"),
        ] {
            let termination = Termination {
                by: By::Server,
                cause,
            };
            let (lines, _) = log(
                None,
                &[Outcome {
                    establish: None,
                    termination,
                    ..outcome()
                }],
                8,
            )
            .await;
            let failure = lines
                .first()
                .unwrap()
                .pointer("/object/response/failure/kind")
                .cloned();
            assert_eq!(failure, Some(json!(kind)));
        }
    }

    #[tokio::test]
    async fn records_beyond_the_queue_are_dropped_and_counted() {
        let outcomes = vec![outcome(); 5];
        let (lines, dropped) = log(None, &outcomes, 3).await;
        assert_eq!((lines.len(), dropped), (3, Some(2.0)));
    }

    #[tokio::test]
    async fn records_that_cannot_be_written_are_counted() {
        let fake = Fake::default();
        let filter = StreamSummary::to_sink(Box::new(Broken), 8, &fake.env()).unwrap();
        let chain = Chain::compile(vec![Placed::new("log", Arc::new(filter).hooks())]).unwrap();
        let peer: SocketAddr = "192.0.2.1:4000".parse().unwrap();
        let info = ConnectionInfo {
            id: 1,
            peer,
            transport: Transport::Tls,
            hello: None,
            tls: None,
        };
        let Connected::Admitted(connection) = chain.connect(Arc::new(info), Arc::default()).await
        else {
            panic!()
        };
        chain.log(&chain.exchange(connection), &outcome());
        drop(chain);
        fake.jobs
            .take_blocking()
            .into_iter()
            .for_each(|(_, job)| job());
        assert_eq!(fake.metrics.value("log_lost_total{}"), Some(1.0));
    }

    #[test]
    fn a_file_is_appended_to_and_one_that_cannot_be_opened_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("streams.jsonl");
        std::fs::write(&path, "before\n").unwrap();
        let open = |path: PathBuf, queue| {
            StreamSummary::new(
                Config {
                    to: Target::File(path),
                    queue,
                },
                &mut Fake::default().env(),
            )
            .err()
        };
        assert!(open(path.clone(), 1).is_none());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before\n");
        assert_eq!(
            open(folder.path().join("no/such"), 1)
                .unwrap()
                .key
                .as_deref(),
            Some("to")
        );
        assert_eq!(open(path.clone(), 0).unwrap().key.as_deref(), Some("queue"));
        assert!(open(path.clone(), QUEUE_MAX).is_none());
        assert_eq!(
            open(path, QUEUE_MAX + 1).unwrap().key.as_deref(),
            Some("queue")
        );
    }
}
