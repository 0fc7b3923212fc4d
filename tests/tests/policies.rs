//! Policies as an operator writes them, seen by visitors: each refusal with its allowed twin.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::fs;

use adit_agent::TunnelOptions;
use adit_plugins::identity::token::Claims;
use adit_tests::engine::TestEngine;

/// A project whose one policy holds these filters.
fn policy(filters: &str) -> String {
    format!("[policy.edge]\nfilters = [{filters}]\n[project.default]\npolicies = [\"edge\"]\n")
}

#[tokio::test]
async fn addresses_that_are_not_trusted_get_403() {
    // edge behaviour X7
    for (allow, status) in [("198.51.100.0/24", 403), ("127.0.0.0/8", 200)] {
        let filter = format!("{{ use = \"trusted-ips\", allow = [\"{allow}\"] }}");
        let engine = TestEngine::start(&policy(&filter)).await;
        let client = engine.client().await;
        let host = engine.publish(&client, TunnelOptions::http()).await;
        assert_eq!(engine.get(&host, "/", "").await.0, status, "{allow}");
    }
}

#[tokio::test]
async fn a_tunnel_tightens_what_its_project_allows() {
    let filter = "{ use = \"trusted-ips\", allow = [\"127.0.0.0/8\"] }";
    let engine = TestEngine::start(&policy(filter)).await;
    let client = engine.client().await;
    for (own, status) in [("127.0.0.1", 200), ("127.9.9.9", 403)] {
        let options = TunnelOptions::http().trusted_ips([own]);
        let host = engine.publish(&client, options).await;
        assert_eq!(engine.get(&host, "/", "").await.0, status, "{own}");
    }
}

#[tokio::test]
async fn a_tunnel_with_token_auth_asks_for_a_token() {
    // edge behaviour T1, T2, T5, T6, T7, T8, T9
    let engine = TestEngine::start("").await;
    let client = engine.client().await;
    let host = engine
        .publish(&client, TunnelOptions::http().token_auth(true))
        .await;
    let token = engine.token(&Claims::default());
    let expired = engine.token(&Claims {
        exp: Some(1.0),
        ..Claims::default()
    });
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let query = |token: &str| format!("/a?rstream.token={token}&b=1");
    let cases = [
        ("/", String::new(), 401),
        ("/", bearer(&token), 200),
        ("/", bearer(&expired), 401),
        ("/", bearer("of-the-application"), 401),
        (&*query(&token), String::new(), 200),
        (&*query(&token), bearer("of-the-application"), 200),
        (&*query("wrong"), String::new(), 401),
        (
            &*format!("{}&rstream.token={token}", query(&token)),
            String::new(),
            401,
        ),
    ];
    for (path, fields, status) in &cases {
        let (got, answer) = engine.get(&host, path, fields).await;
        assert_eq!(got, *status, "{path} {fields}");
        if got == 200 {
            assert!(
                !answer.contains(&token),
                "a token reached the service: {answer}"
            );
            assert!(answer.contains("x-rstream-auth-method: token"), "{answer}");
            if path.contains("b=1") {
                assert!(answer.contains("GET /a?b=1 "), "{answer}");
            }
            if fields.contains("application") {
                assert!(answer.contains("of-the-application"), "{answer}");
            }
        } else {
            assert!(
                answer.to_lowercase().contains("www-authenticate: bearer"),
                "{answer}"
            );
        }
    }
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test]
async fn another_upgrade_needs_a_filter_that_knows_its_protocol() {
    let tokens = policy("{ use = \"upgrade\", tokens = [\"foo\"] }");
    let none = "[project.default]\nupgrades = []\n";
    // The service knows none of them and answers 200: it was asked.
    for (config, offered, status) in [
        ("", "foo", 200),
        ("", "tls/1.3", 501),
        (none, "foo", 501),
        (&*tokens, "foo", 200),
        (&*tokens, "bar", 501),
    ] {
        let engine = TestEngine::start(config).await;
        let client = engine.client().await;
        let host = engine.publish(&client, TunnelOptions::http()).await;
        let fields = format!("Connection: Upgrade\r\nUpgrade: {offered}\r\n");
        let (got, answer) = engine.get(&host, "/", &fields).await;
        assert_eq!(got, status, "{config} {offered}");
        let asked = answer.to_lowercase().contains("\r\nupgrade: foo\r\n");
        assert_eq!(asked, status == 200, "{answer}");
    }
}

#[tokio::test]
async fn an_upgrade_needs_its_filter_and_an_origin_it_knows() {
    let none = "[project.default]\nupgrades = []\n";
    let origins = policy("{ use = \"websocket\", origins = [\"https://app.example.com\"] }");
    let ours = "Origin: https://app.example.com\r\n";
    let theirs = "Origin: https://evil.example.com\r\n";
    // The service does not know WebSocket and answers 200: it was asked.
    for (config, fields, status) in [
        (none, "", 501),
        ("", "", 200),
        (&origins, ours, 200),
        (&origins, theirs, 403),
    ] {
        let engine = TestEngine::start(config).await;
        let client = engine.client().await;
        let host = engine.publish(&client, TunnelOptions::http()).await;
        let fields = format!("{fields}{UPGRADE}");
        let mut stream = engine.visit(&host, "http/1.1").await;
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert_eq!(answer, format!("HTTP/1.1 {status}"), "{config}");
    }
}

#[tokio::test]
async fn a_reload_changes_live_tunnels_and_a_bad_one_nothing() {
    let engine = TestEngine::start("").await;
    let client = engine.client().await;
    let host = engine.publish(&client, TunnelOptions::http()).await;
    assert_eq!(engine.get(&host, "/", "").await.0, 200);

    let closed = "{ use = \"trusted-ips\", allow = [\"198.51.100.0/24\"], optional = true }";
    engine.rewrite(&policy(closed));
    engine.engine.reload().unwrap();
    assert_eq!(engine.get(&host, "/", "").await.0, 403);

    // Five mistakes, each with its place.
    engine.rewrite(
        "[policy.edge]\nfilters = [\n  { use = \"trusted-ips\", allow = [\"300.0.0.1\"] },\n  \
         { use = \"nothing\" },\n]\n[timeouts]\ndrain = \"soon\"\n[project.default]\n\
         policies = [\"missing\"]\ncolour = \"red\"\n",
    );
    let error = engine.engine.reload().unwrap_err().to_string();
    let named: Vec<&str> = error
        .lines()
        .filter(|line| line.contains("engine.toml:"))
        .collect();
    assert!(named.len() >= 5, "{error}");
    assert_eq!(engine.get(&host, "/", "").await.0, 403);

    // The operator's switch.
    engine.rewrite(&format!("{}off = [\"edge/trusted-ips\"]\n", policy(closed)));
    engine.engine.reload().unwrap();
    assert_eq!(engine.get(&host, "/", "").await.0, 200);
}

#[tokio::test]
async fn each_exchange_leaves_one_summary_without_secrets() {
    // edge behaviour X19
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("summary.jsonl");
    let filter = format!("{{ use = \"stream-summary\", to = {{ file = {file:?} }} }}");
    let engine = TestEngine::start(&policy(&filter)).await;
    let client = engine.client().await;
    let host = engine
        .publish(&client, TunnelOptions::http().token_auth(true))
        .await;
    let token = engine.token(&Claims::default());
    let fields = format!("Authorization: Bearer {token}\r\nUser-Agent: tests\r\n");
    assert_eq!(engine.get(&host, "/a?x=1", &fields).await.0, 200);
    assert_eq!(engine.get(&host, "/b", "").await.0, 401);
    let refused = TunnelOptions::http().trusted_ips(["198.51.100.1"]);
    let elsewhere = engine.publish(&client, refused).await;
    assert_eq!(engine.get(&elsewhere, "/c", "").await.0, 403);
    engine.engine.drain().await;
    let text = fs::read_to_string(&file).unwrap();
    assert!(!text.contains(&token), "{text}");
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3, "{text}");
    let decision = |at: usize| lines[at]["object"]["firewall"]["decision"].clone();
    assert_eq!(decision(0), "allowed", "{text}");
    assert_eq!(
        (decision(1), decision(2)),
        ("denied".into(), "denied".into()),
        "{text}"
    );
}
