//! What is written about exchanges: one record each, whatever came of it, and no secret in any of it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use adit_agent::{Client, Tunnel, TunnelOptions};
use adit_filters::{
    ConfigError, Env, Filter, FilterError, Hooks, OnRequest, Registry, RequestCx, Verdict,
};
use adit_plugins::identity::rstream_auth::{Hash, SALT_BYTES};
use adit_plugins::identity::token::Claims;
use adit_proxy::engine::Options;
use adit_tests::collector::{Collector, Export};
use adit_tests::engine::TestEngine;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// The longest a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(30);

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A policy with these filters, and logs to files and to the collector at `port`.
fn policy(filters: &str, port: u16) -> String {
    format!(
        "[policy.edge]\nfilters = [{filters}\n\
         {{ use = 'access-log', to = {{ file = 'access.jsonl' }} }},\n\
         {{ use = 'stream-summary', to = {{ file = 'streams.jsonl' }},\
            request-headers = ['accept', 'referer', 'x-custom'] }},\n\
         {{ use = 'otlp', endpoint = 'http://127.0.0.1:{port}' }}]\n\
         [project.default]\npolicies = ['edge']\n"
    )
}

/// A published tunnel with a service that does as the path says.
async fn publish(client: &Client, options: TunnelOptions) -> String {
    let mut tunnel = client.create_tunnel(options).await.unwrap();
    let host = tunnel.info().unwrap().hostname().unwrap().to_owned();
    tokio::spawn(async move { serve(&mut tunnel).await });
    host
}

async fn serve(tunnel: &mut Tunnel) {
    while let Ok(mut stream) = tunnel.accept().await {
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let head = String::from_utf8(head).unwrap();
            let answer = if head.starts_with("GET /close") {
                return;
            } else if head.starts_with("GET /hang") {
                "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegun".to_owned()
            } else if head.to_ascii_lowercase().contains("upgrade: websocket") {
                format!(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
                )
            } else {
                let parent = head
                    .lines()
                    .find_map(|line| line.strip_prefix("traceparent: "))
                    .unwrap_or("none");
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\
                     Content-Length: {}\r\n\r\n{parent}",
                    parent.len()
                )
            };
            let _the_visitor_may_be_gone = stream.write_all(answer.as_bytes()).await;
            let mut rest = Vec::new();
            let _until_it_is = stream.read_to_end(&mut rest).await;
        });
    }
}

/// Ends the engine, which writes and sends what is left, and gives back everything that came of it.
struct Written {
    access: Vec<Value>,
    streams: Vec<Value>,
    exports: Vec<Export>,
    texts: Vec<String>,
}

async fn end(engine: TestEngine, client: Client, collector: &Collector) -> Written {
    let metrics = engine.metrics().await;
    client.close().await;
    let TestEngine { engine, folder } = engine;
    engine.drain().await;
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let lines = |text: &str| {
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect()
    };
    let (access, streams) = (read("access.jsonl"), read("streams.jsonl"));
    let exports = collector.exports();
    let sent = exports
        .iter()
        .map(|export| format!("{}{}", export.head, String::from_utf8_lossy(&export.body)));
    Written {
        access: lines(&access),
        streams: lines(&streams),
        texts: sent
            .chain([access.clone(), streams.clone(), metrics])
            .collect(),
        exports,
    }
}

fn spans(exports: &[Export]) -> Vec<Span> {
    let traces = exports
        .iter()
        .filter(|export| export.head.starts_with("POST /v1/traces "));
    traces
        .map(|export| ExportTraceServiceRequest::decode(&export.body[..]).unwrap())
        .flat_map(|request| request.resource_spans)
        .flat_map(|all| all.scope_spans)
        .flat_map(|all| all.spans)
        .collect()
}

fn log_count(exports: &[Export]) -> usize {
    let logs = exports
        .iter()
        .filter(|export| export.head.starts_with("POST /v1/logs "));
    logs.map(|export| ExportLogsServiceRequest::decode(&export.body[..]).unwrap())
        .flat_map(|request| request.resource_logs)
        .flat_map(|all| all.scope_logs)
        .map(|all| all.log_records.len())
        .sum()
}

// edge-behaviour §14.7 X19: exactly one record, with its cause.
#[tokio::test]
async fn every_exchange_leaves_one_record_that_says_who_decided_and_why() {
    let collector = Collector::start().await;
    let filters = "{ use = 'trusted-ips', allow = ['127.0.0.0/8'] },\
                   { use = 'websocket', origins = ['https://app.example.com'] },\
                   { use = 'trusted-ips', name = 'trial', deny = ['127.0.0.1'], dry-run = true },";
    let engine = TestEngine::start(&policy(filters, collector.port)).await;
    let client = engine.client().await;
    let open = publish(&client, TunnelOptions::http()).await;
    let guarded = publish(&client, TunnelOptions::http().token_auth(true)).await;
    let fenced = publish(&client, TunnelOptions::http().trusted_ips(["127.9.9.9"])).await;
    let token = format!(
        "Authorization: Bearer {}\r\n",
        engine.token(&Claims::default())
    );
    let expired = engine.token(&Claims {
        exp: Some(1.0),
        ..Claims::default()
    });
    let expired = format!("Authorization: Bearer {expired}\r\n");
    let evil = format!("Origin: https://evil.example.com\r\n{UPGRADE}");
    let other = "Connection: Upgrade\r\nUpgrade: foo\r\n";
    // Status, deciding filter, reason, kind of failure in the summary.
    let cases = [
        (&open, "/", "", 200, None, None),
        (&guarded, "/", &*token, 200, None, None),
        (
            &guarded,
            "/",
            "",
            401,
            Some(("tunnel/token", "missing-token")),
            Some("unauthorized"),
        ),
        (
            &guarded,
            "/",
            &*expired,
            401,
            Some(("tunnel/token", "expired-token")),
            Some("unauthorized"),
        ),
        (
            &fenced,
            "/",
            "",
            403,
            Some(("tunnel/trusted-ips", "ip")),
            Some("unauthorized"),
        ),
        (
            &open,
            "/",
            &*evil,
            403,
            Some(("edge/websocket", "origin")),
            Some("unauthorized"),
        ),
        (
            &open,
            "/close",
            "",
            502,
            Some(("edge", "upstream-error")),
            Some("io"),
        ),
        (&open, "/", other, 200, None, None),
    ];
    for (host, path, fields, status, _, _) in &cases {
        assert_eq!(
            engine.get(host, path, fields).await.0,
            *status,
            "{host}{path} {fields}"
        );
    }
    // An upgrade, ended by the visitor.
    let mut stream = engine.visit(&open, "http/1.1").await;
    let origin = "Origin: https://app.example.com\r\n";
    let request = format!("GET /socket HTTP/1.1\r\nHost: {open}\r\n{origin}{UPGRADE}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_buf(&mut head).await.unwrap();
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{head:?}");
    stream.write_all(b"words").await.unwrap();
    stream.shutdown().await.unwrap();
    let _until_it_ends = stream.read_to_end(&mut head).await;
    // A visitor that leaves in the middle of the answer.
    let mut stream = engine.visit(&open, "http/1.1").await;
    let request = format!("GET /hang HTTP/1.1\r\nHost: {open}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"begun") {
        stream.read_buf(&mut head).await.unwrap();
    }
    drop(stream);

    let written = end(engine, client, &collector).await;
    let count = cases.len() + 2;
    assert_eq!(written.access.len(), count, "{:#?}", written.access);
    assert_eq!(written.streams.len(), count);
    let spans = spans(&written.exports);
    assert_eq!((spans.len(), log_count(&written.exports)), (count, count));
    let summary_of = |line: &Value| {
        let mut streams = written.streams.iter();
        let id = &line["request_id"];
        let found = streams.find(|event| event["id"] == *id).unwrap();
        found["object"].clone()
    };
    for (at, (host, path, _, status, decided, kind)) in cases.iter().enumerate() {
        // Lines are written in the order in which exchanges end, and these were one after another.
        let line = &written.access[at];
        assert_eq!(line["status"], *status, "{line}");
        assert_eq!(line["path"], *path, "{line}");
        assert!(
            line["host"].as_str().unwrap().starts_with(host.as_str()),
            "{line}"
        );
        let decision = line["filter"].as_str().zip(line["reason"].as_str());
        assert_eq!(decision, *decided, "{line}");
        assert_eq!(line["dry_run"][0], "ip by edge/trial", "{line}");
        let summary = summary_of(line);
        assert_eq!(summary["routing"]["decision"], "routed");
        assert_eq!(summary["firewall"]["dryRun"][0]["filter"], "edge/trial");
        let by_filter = decided.is_some_and(|(by, _)| by != "edge");
        let decision = if by_filter { "denied" } else { "allowed" };
        assert_eq!(summary["firewall"]["decision"], decision, "{summary}");
        assert_eq!(
            summary["response"]["failure"]["kind"].as_str(),
            *kind,
            "{summary}"
        );
    }
    let by_path = |path: &str| {
        let mut lines = written.access.iter();
        lines.find(|line| line["path"] == path).unwrap()
    };
    let socket = by_path("/socket");
    assert_eq!(
        (&socket["status"], &socket["upgrade"]),
        (&101.into(), &"websocket".into())
    );
    assert_eq!(socket["bytes_in"], 5, "{socket}");
    assert_eq!(summary_of(socket)["response"]["outcome"], "connected");
    let hang = summary_of(by_path("/hang"));
    assert_eq!(
        hang["response"]["termination"]["by"], "downstream",
        "{hang}"
    );
    assert_eq!(hang["response"]["metrics"]["downstream_bytes"], 5, "{hang}");
    let with_token = summary_of(&written.access[1]);
    let rule = &with_token["firewall"]["rule"];
    assert_eq!(
        (&rule["kind"], &rule["source"]),
        (&"token".into(), &"authorization".into())
    );
    assert_eq!(with_token["routing"]["tunnel"]["tokenAuth"], true);
}

#[tokio::test]
async fn no_secret_is_in_anything_that_is_written() {
    let collector = Collector::start().await;
    let engine = TestEngine::start(&policy("", collector.port)).await;
    let client = engine.client().await;
    let open = publish(&client, TunnelOptions::http()).await;
    let guarded = publish(&client, TunnelOptions::http().token_auth(true)).await;
    let claims = Claims {
        user_id: Some("somebody-of-that-name".to_owned()),
        ..Claims::default()
    };
    let token = engine.token(&claims);
    let wrong = format!("{token}x");
    let escaped: String = token.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let mut sent = 0;
    for host in [&open, &guarded] {
        for secret in [token.as_str(), wrong.as_str(), escaped.as_str()] {
            for (path, fields) in [
                (format!("/?rstream.token={secret}"), String::new()),
                (format!("/?rstream%2etoken={secret}&a=1"), String::new()),
                (format!("/?rstream.%74oken={secret}"), String::new()),
                (
                    format!("/?redirect=https://x/%3Ftoken%3D{secret}"),
                    String::new(),
                ),
                (format!("/?{secret}"), String::new()),
                (format!("/reset/{secret}"), String::new()),
                (
                    "/".to_owned(),
                    format!("Authorization: Bearer {secret}\r\n"),
                ),
                ("/".to_owned(), format!("Authorization: Basic {secret}\r\n")),
                (
                    "/".to_owned(),
                    format!("Proxy-Authorization: Bearer {secret}\r\n"),
                ),
                (
                    "/".to_owned(),
                    format!("Cookie: rstream_auth={secret}; a={secret}\r\n"),
                ),
                ("/".to_owned(), format!("User-Agent: {secret}\r\n")),
                ("/".to_owned(), format!("Accept: {secret}\r\n")),
                ("/".to_owned(), format!("X-Custom: a={secret}\r\n")),
                (
                    "/".to_owned(),
                    format!("Referer: https://x/?code={secret}\r\n"),
                ),
                (
                    "/".to_owned(),
                    format!("traceparent: {secret}\r\ntracestate: a={secret}\r\n"),
                ),
            ] {
                let (status, _) = engine.get(host, &path, &fields).await;
                assert!(matches!(status, 200 | 401), "{status} {path} {fields}");
                sent += 1;
            }
        }
    }
    let written = end(engine, client, &collector).await;
    assert_eq!((written.access.len(), written.streams.len()), (sent, sent));
    assert_eq!(spans(&written.exports).len(), sent);
    // The parts of a token that are secret: its signature, and what is said in it.
    let parts: Vec<&str> = token.split('.').skip(1).collect();
    let hidden: Vec<String> = parts
        .iter()
        .map(|part| part.bytes().map(|byte| format!("%{byte:02x}")).collect())
        .collect();
    for text in &written.texts {
        for part in parts
            .iter()
            .copied()
            .chain(hidden.iter().map(String::as_str))
        {
            assert!(!text.contains(part), "{part} in {text}");
        }
    }
}

#[tokio::test]
async fn a_service_is_told_the_trace_its_span_is_in() {
    let collector = Collector::start().await;
    let engine = TestEngine::start(&policy("", collector.port)).await;
    let client = engine.client().await;
    let host = publish(&client, TunnelOptions::http()).await;
    let theirs = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let (_, answer) = engine
        .get(&host, "/", &format!("traceparent: {theirs}\r\n"))
        .await;
    let told = answer.rsplit("\r\n").next().unwrap().to_owned();
    let written = end(engine, client, &collector).await;
    let spans = spans(&written.exports);
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let expected = format!(
        "00-{}-{}-01",
        hex(&spans[0].trace_id),
        hex(&spans[0].span_id)
    );
    assert_eq!(told, expected);
    assert!(
        !told.contains("0af7651916cd43dd8448eb211c80319c"),
        "nobody trusts that visitor"
    );
}

#[tokio::test]
async fn a_collector_that_is_away_costs_visitors_nothing_and_is_found_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let engine = TestEngine::start(&policy("", address.port())).await;
    let client = engine.client().await;
    let host = publish(&client, TunnelOptions::http()).await;
    for _ in 0..3 {
        assert_eq!(engine.get(&host, "/", "").await.0, 200);
    }
    let mut collector = Collector::on(TcpListener::bind(address).await.unwrap());
    let came = tokio::time::timeout(PATIENCE, collector.received(2)).await;
    assert!(came.is_ok(), "the collector was not found again");
    let written = end(engine, client, &collector).await;
    assert_eq!(spans(&written.exports).len(), 3);
}

#[tokio::test]
async fn a_page_that_says_no_is_a_refusal_in_every_log() {
    let folder = tempfile::tempdir().unwrap();
    let hash = Hash::of("a password", [7; SALT_BYTES]);
    let account = format!("[account.ada]\npassword = '{}'\n", hash.as_str());
    fs::write(folder.path().join("accounts.toml"), account).unwrap();
    let more = format!("[login]\naccounts = 'accounts.toml'\n{}", policy("", 1));
    let engine = TestEngine::start_in(folder, &more).await;
    let client = engine.client().await;
    let login = TunnelOptions::http().with(|asked| asked.rstream_auth = Some(true));
    let work = TunnelOptions::http().with(|asked| asked.challenge_mode = Some(true));
    for (options, reason) in [(login, "login"), (work, "challenge")] {
        let host = publish(&client, options).await;
        let (status, _) = engine.get(&host, "/", "Accept: text/html\r\n").await;
        assert_eq!(status, 302, "{reason}");
    }
    let metrics = engine.metrics().await;
    for filter in ["tunnel/rstream-auth", "tunnel/challenge"] {
        assert!(metrics.contains(filter), "{metrics}");
    }
    let TestEngine { engine, folder, .. } = engine;
    engine.drain().await;
    let lines = |name: &str| -> Vec<serde_json::Value> {
        let text = fs::read_to_string(folder.path().join(name)).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    for (line, [filter, reason]) in lines("access.jsonl").iter().zip([
        ["tunnel/rstream-auth", "login"],
        ["tunnel/challenge", "challenge"],
    ]) {
        let said = (&line["filter"], &line["reason"], &line["status"]);
        assert_eq!(
            said,
            (&filter.into(), &reason.into(), &302.into()),
            "{line}"
        );
    }
    let decisions: Vec<_> = lines("streams.jsonl")
        .iter()
        .map(|line| line["object"]["firewall"]["decision"].clone())
        .collect();
    assert_eq!(decisions, ["denied", "denied"]);
}

/// Cannot decide, and quotes the visitor about it.
struct Quotes;

impl OnRequest for Quotes {
    async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        let Some(quoted) = cx.head.headers.get("x-quoted") else {
            return Ok(Verdict::Continue);
        };
        let quoted = format!("no such thing\n{}", quoted.to_str().unwrap());
        Err(FilterError::Unavailable {
            service: "oracle",
            source: Some(quoted.into()),
        })
    }
}

impl Filter for Quotes {
    const NAME: &'static str = "quotes";
    type Config = Value;

    fn new(_: Value, _: &mut Env) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    fn hooks(self: Arc<Self>) -> Hooks {
        Hooks::new().request(self)
    }
}

#[tokio::test]
async fn what_a_filter_says_about_a_refusal_is_written_briefly_and_never_shown() {
    let collector = Collector::start().await;
    let options = Options {
        filters: Some(Box::new(Registry::with::<Quotes>)),
        ..Options::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let config = policy("{ use = 'quotes' },", collector.port);
    let engine = TestEngine::start_with(folder, &config, options).await;
    let client = engine.client().await;
    let host = publish(&client, TunnelOptions::http()).await;
    let token = engine.token(&Claims::default());
    let quoted = format!("X-Quoted: {token} {}\r\n", "x".repeat(4000));
    let (status, answer) = engine.get(&host, "/", &quoted).await;
    assert_eq!(status, 503);
    assert!(
        !answer.contains("oracle") && !answer.contains("xxx"),
        "{answer}"
    );
    assert_eq!(engine.get(&host, "/", "").await.0, 200);
    let written = end(engine, client, &collector).await;
    // One line for each, whatever was quoted.
    assert_eq!((written.access.len(), written.streams.len()), (2, 2));
    let line = &written.access[0];
    assert_eq!(line["filter"], "edge/quotes", "{line}");
    assert_eq!(line["reason"], "unavailable", "{line}");
    let detail = line["detail"].as_str().unwrap();
    let begins = "`oracle` did not answer: no such thing\nREDACTED xxx";
    assert!(
        detail.starts_with(begins) && detail.ends_with("x…"),
        "{detail}"
    );
    assert!(detail.len() <= 512, "{}", detail.len());
    let summary = &written.streams[0]["object"];
    assert_eq!(summary["firewall"]["filter"], "edge/quotes", "{summary}");
    let message = summary["response"]["failure"]["message"].as_str().unwrap();
    assert_eq!(message, format!("unavailable by edge/quotes: {detail}"));
    let open = &written.access[1];
    assert_eq!(
        (open.get("filter"), open.get("detail")),
        (None, None),
        "{open}"
    );
    let secret = token.split('.').nth(2).unwrap();
    assert!(written.texts.iter().all(|text| !text.contains(secret)));
}
