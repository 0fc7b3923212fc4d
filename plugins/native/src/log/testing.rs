//! Exchanges for tests of what is written about them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use adit_filters::{
    By, Cause, Chain, Connected, ConnectionInfo, Decision, Fields, FilterError, Hooks, Identity,
    LogCx, OnLog, OnRequest, Outcome, Placed, Reason, Refusal, RequestCx, RequestId, RequestLine,
    Termination, TlsInfo, Transport, TunnelInfo, Verdict,
};
use serde_json::{Map, Value, json};

use super::entry::Entry;
use crate::identity::token::TokenProof;

/// A token as this engine gives out: in no test may any of it be written.
pub(super) const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1LTkifQ.c2lnbmF0dXJl";

/// Memory that lines are written to.
#[derive(Clone, Default)]
pub(super) struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    pub(super) fn lines(&self) -> Vec<Value> {
        let text = self.text();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says that the visitor has proved this.
struct Proves(TokenProof);
impl OnRequest for Proves {
    async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        cx.exchange.establish(self.0).unwrap();
        let identity = Identity {
            subject: "u-9".into(),
            method: "token",
            ..Identity::default()
        };
        cx.exchange.establish(identity).unwrap();
        Ok(Verdict::Continue)
    }
}

/// What was asked for in [`outcome`].
pub(super) fn head() -> http::request::Parts {
    http::Request::get(format!(
        "https://a.example/x?a=1&rstream.token={TOKEN}&rstream%2Etoken={TOKEN}"
    ))
    .version(http::Version::HTTP_2)
    .header("user-agent", "curl/8")
    .header("accept", "text/html")
    .header("accept", "*/*")
    .header("authorization", format!("Bearer {TOKEN}"))
    .header("cookie", format!("a={TOKEN}"))
    .body(())
    .unwrap()
    .into_parts()
    .0
}

/// An exchange that went well.
pub(super) fn outcome() -> Outcome {
    let answer = http::Response::builder()
        .header("content-type", "text/plain")
        .header("set-cookie", TOKEN)
        .body(())
        .unwrap();
    Outcome {
        request: RequestLine::of(&head(), &[http::header::ACCEPT]),
        version: http::Version::HTTP_2,
        status: Some(200),
        response: Fields::of(answer.headers(), &[http::header::CONTENT_TYPE]),
        started: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
        duration: Duration::from_millis(1500),
        establish: Some(Duration::from_micros(2500)),
        bytes_up: 10,
        bytes_down: 20,
        refusal: None,
        settled: None,
        failure: None,
        termination: Termination::new(By::Upstream, Cause::Closed),
        upgrade: None,
        request_id: RequestId::new(0xa1),
    }
}

/// One that was refused.
pub(super) fn refused(reason: Reason, by: Option<&str>) -> Outcome {
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

/// Runs exchanges through a chain that ends with `log`, and lets go of it.
pub(super) async fn run(log: Hooks, proof: Option<TokenProof>, outcomes: Vec<Outcome>) {
    let mut filters = Vec::new();
    if let Some(proof) = proof {
        let proves = Hooks::new().request(Arc::new(Proves(proof)));
        filters.push(Placed::new("edge/proves", proves));
    }
    filters.push(Placed::new("edge/log", log));
    let chain = Chain::compile(filters).unwrap();
    let peer: SocketAddr = "[::ffff:192.0.2.1]:4000".parse().unwrap();
    let info = Arc::new(ConnectionInfo {
        id: 1,
        peer,
        transport: Transport::Tls,
        hello: None,
        tls: Some(TlsInfo {
            version: "TLSv1.3",
            alpn: Some("h2".into()),
            ..TlsInfo::default()
        }),
    });
    let record: Map<String, Value> = json!({
        "http_version": "h2c", "upstream_tls": false, "token_auth": true, "labels": { "a": "b" },
    })
    .as_object()
    .unwrap()
    .clone();
    let tunnel = Arc::new(TunnelInfo {
        id: "t-1".into(),
        name: Some("shop".into()),
        project: "default".into(),
        published: true,
        record,
        ..TunnelInfo::default()
    });
    for outcome in outcomes {
        let connected = chain.connect(Arc::clone(&info), Arc::clone(&tunnel)).await;
        let Connected::Admitted(connection) = connected else {
            panic!("nobody refuses here")
        };
        let mut exchange = chain.exchange(connection);
        let decision = chain.request(&mut head(), &mut exchange, None).await;
        assert!(matches!(decision, Decision::Pass { .. }));
        chain.log(&exchange, &Arc::new(outcome));
    }
}

/// What filters that write lines make of `outcomes`.
pub(super) async fn entries(outcomes: Vec<Outcome>) -> Vec<Entry> {
    #[derive(Default)]
    struct Collects(Mutex<Vec<Entry>>);
    impl OnLog for Collects {
        fn on_log(&self, cx: &LogCx<'_>) {
            self.0.lock().unwrap().push(Entry::of(cx));
        }
    }
    let collects = Arc::new(Collects::default());
    let log: Arc<Collects> = Arc::clone(&collects);
    run(Hooks::new().log(log), None, outcomes).await;
    std::mem::take(&mut *collects.0.lock().unwrap())
}
