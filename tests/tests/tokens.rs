//! Tokens and stored credentials, from visitors, agents and users of the API, against a whole engine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_agent::TunnelOptions;
use adit_config::{Config, Problem};
use adit_plugins::identity::credentials::{PublicKey, sha256};
use adit_plugins::identity::token::{Claims, Resources, TokenKind};
use adit_tests::engine::{ENGINE_HOST, TestEngine};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Request;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// A token of user `u-1` within a boundary.
fn within(engine: &TestEngine, tunnels: Value) -> String {
    engine.token(&Claims {
        sub: Some("u-1".into()),
        resources: Some(Resources { tunnels }),
        ..Claims::default()
    })
}

/// A token for one path.
fn tok(engine: &TestEngine, path: &str) -> String {
    let connect = json!({ "params": { "path": path } });
    let scopes = json!({ "tunnels": { "connect": connect } });
    within(engine, json!({ "projects": ["default"], "scopes": scopes }))
}

#[tokio::test]
async fn a_tunnel_with_token_auth_takes_what_the_table_says() {
    let engine = TestEngine::start("").await;
    let client = engine.client().await;
    let options = TunnelOptions::http().token_auth(true);
    let (host, arrived) = engine.publish_watched(&client, options).await;
    let ping = tok(&engine, "/ping");
    let other = tok(&engine, "/other");
    let a = tok(&engine, "/a");
    let free = engine.token(&Claims::default());
    let expired = engine.token(&Claims {
        exp: Some(1.0),
        ..Claims::default()
    });
    let project =
        |id: &str| json!({ "projects": [id], "scopes": { "tunnels": { "connect": true } } });
    let disjoint = within(
        &engine,
        json!({ "AND": [project("default"), project("other")] }),
    );
    let here = within(
        &engine,
        json!({ "AND": [project("default"), project("default")] }),
    );
    let cannot = engine.token(&Claims {
        permissions: Some(vec!["tunnels.resources.read-only".into()]),
        resources: Some(Resources {
            tunnels: project("default"),
        }),
        ..Claims::default()
    });
    let foreign = "eyJhbGciOiJSUzI1NiJ9.e30.AAAA";
    let query = |token: &str| format!("/ping?a=1&rstream.token={token}");
    let cases = [
        // edge behaviour §14.2
        ("T1", "/ping".into(), String::new(), 401),
        ("T2", "/ping".into(), bearer(&ping), 200),
        ("T2 with a query", "/ping?b=2".into(), bearer(&ping), 200),
        ("T3", "/private".into(), bearer(&ping), 403),
        ("T4", "/ping".into(), bearer(&cannot), 403),
        ("T5", query(&ping), String::new(), 200),
        ("T6", query(&ping), bearer("app-own"), 200),
        (
            "T6 with a token of others",
            query(&ping),
            bearer(foreign),
            200,
        ),
        ("T7", "/ping".into(), bearer("app-own"), 401),
        (
            "T7 with a token of others",
            "/ping".into(),
            bearer(foreign),
            401,
        ),
        (
            "T8",
            format!("{}&rstream.token={ping}", query(&ping)),
            String::new(),
            401,
        ),
        ("T8 an empty one", query(""), String::new(), 401),
        ("T9", "/ping".into(), bearer(&expired), 401),
        ("T9 in the query", query(&expired), String::new(), 401),
        ("T10", query(&other), bearer(&ping), 200),
        ("T10 the header decides", query(&ping), bearer(&other), 403),
        (
            "T10 even against itself",
            query(&ping),
            bearer(&expired),
            401,
        ),
        ("T11", "/".into(), bearer(&disjoint), 403),
        ("T11 twin", "/".into(), bearer(&here), 200),
        ("T20 twin", "/a".into(), bearer(&a), 200),
        ("T20 encoded slash", "/a%2f..%2fb".into(), bearer(&a), 403),
        ("T20 dots", "/a/../b".into(), bearer(&a), 403),
        ("T20 NUL", "/a%00".into(), bearer(&a), 403),
    ];
    for (case, path, fields, status) in &cases {
        let before = arrived.count();
        let (got, answer) = engine.get(&host, path, fields).await;
        // What can be read in two ways may be refused before anybody asks for a token.
        let early = case.starts_with("T20") && *status == 403 && got == 400;
        assert!(got == *status || early, "{case}: {answer}");
        let challenge = answer
            .to_ascii_lowercase()
            .contains("www-authenticate: bearer realm=\"rstream\"");
        assert_eq!(challenge, *status == 401, "{case}: {answer}");
        assert_eq!(arrived.count() - before, usize::from(got == 200), "{case}");
        if got != 200 {
            continue;
        }
        let head = arrived.last().unwrap();
        assert!(!head.contains("rstream.token"), "{case}: {head}");
        assert!(!head.contains(&ping) && !head.contains(&free), "{case}");
        // What belongs to the application goes on as it came.
        let own = fields.contains("app-own") || fields.contains(foreign);
        let kept = head.to_ascii_lowercase().contains("authorization: bearer");
        assert_eq!(kept, own, "{case}: {head}");
        if path.contains("a=1") {
            assert!(head.starts_with("GET /ping?a=1 "), "{case}: {head}");
        }
    }
}

// edge behaviour §14.2 T22
#[tokio::test]
async fn a_preflight_is_judged_like_anything_else() {
    let engine = TestEngine::start("").await;
    let client = engine.client().await;
    let options = TunnelOptions::http().token_auth(true);
    let (host, arrived) = engine.publish_watched(&client, options).await;
    let token = engine.token(&Claims::default());
    for (fields, status) in [(String::new(), 401), (bearer(&token), 200)] {
        let mut stream = engine.visit(&host, "http/1.1").await;
        let request = format!(
            "OPTIONS / HTTP/1.1\r\nHost: {host}\r\nOrigin: https://b.example\r\n\
             Access-Control-Request-Method: GET\r\n{fields}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(answer(&mut stream).await, status);
    }
    assert_eq!(arrived.count(), 1);
}

// edge behaviour §14.2 T9
#[tokio::test]
async fn a_token_is_judged_on_each_request_of_a_connection() {
    let engine = TestEngine::start("").await;
    let client = engine.client().await;
    let options = TunnelOptions::http().token_auth(true);
    let (host, arrived) = engine.publish_watched(&client, options).await;
    let good = engine.token(&Claims::default());
    let expired = engine.token(&Claims {
        exp: Some(1.0),
        ..Claims::default()
    });
    let mut h2 = engine.h2(&host).await;
    let mut plain = engine.visit(&host, "http/1.1").await;
    for (token, status) in [(&good, 200), (&expired, 401), (&good, 200)] {
        let request = Request::get(format!("https://{host}/"))
            .header("authorization", format!("Bearer {token}"))
            .body(())
            .unwrap();
        h2 = h2.ready().await.unwrap();
        let (response, _) = h2.send_request(request, true).unwrap();
        assert_eq!(response.await.unwrap().status(), status);
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n{}\r\n", bearer(token));
        plain.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(answer(&mut plain).await, status);
    }
    assert_eq!(arrived.count(), 4);
}

/// Status of the next answer, read whole.
async fn answer(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> u16 {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.unwrap();
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

// edge behaviour §14.2 T12, T13, T16, T17
#[tokio::test]
async fn a_list_shows_what_the_token_lets_see() {
    let engine = TestEngine::start("").await;
    let client = engine.client().await;
    for name in ["a", "b", "c"] {
        engine
            .publish(&client, TunnelOptions::http().name(name))
            .await;
    }
    let list = async |token: &str| {
        let (status, answer) = engine
            .get(ENGINE_HOST, "/api/tunnels", &bearer(token))
            .await;
        let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
        (status, body)
    };
    let named = |name: &str| json!({ "scopes": { "tunnels": { "list": { "filters": { "name": name } } } } });
    let (status, body) = list(&within(&engine, json!({ "OR": [named("a"), named("b")] }))).await;
    assert_eq!(status, 200);
    let shown: Vec<Value> = serde_json::from_str(&body).unwrap();
    let mut names: Vec<&str> = shown
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "b"]);

    let select = json!({ "select": { "name": true, "host": true } });
    let (_, body) = list(&within(
        &engine,
        json!({ "scopes": { "tunnels": { "list": select } } }),
    ))
    .await;
    let shown: Vec<serde_json::Map<String, Value>> = serde_json::from_str(&body).unwrap();
    assert_eq!(shown.len(), 3);
    for tunnel in &shown {
        // The first three are always there: clients reject an object without them.
        let known = ["client_id", "id", "status", "host", "name"];
        assert!(tunnel.contains_key("name"), "{body}");
        assert!(
            tunnel.keys().all(|key| known.contains(&key.as_str())),
            "{body}"
        );
    }

    let create = json!({ "scopes": { "tunnels": { "create": true } } });
    assert_eq!(list(&within(&engine, create)).await.0, 403);
    let token = engine.token(&Claims::default());
    let path = format!("/api/tunnels?rstream.token={token}");
    assert_eq!(engine.get(ENGINE_HOST, &path, "").await.0, 401);
    let (status, _) = engine
        .get(ENGINE_HOST, "/api/tunnels", &bearer(&token))
        .await;
    assert_eq!(status, 200);
}

// edge behaviour §14.2 T19
#[tokio::test]
async fn a_web_socket_is_opened_with_a_token_for_its_path() {
    let engine = TestEngine::start("").await;
    let client = engine.client().await;
    let options = TunnelOptions::http().token_auth(true);
    let (host, arrived) = engine.publish_echoing(&client, options).await;
    let token = tok(&engine, "/ws");
    let told = || {
        arrived
            .last()
            .is_some_and(|head| head.contains("rstream.token"))
    };
    for (target, status) in [
        (format!("/ws?rstream.token={token}"), 101),
        (format!("/other?rstream.token={token}"), 403),
        ("/ws".to_owned(), 401),
    ] {
        let mut stream = engine.visit(&host, "http/1.1").await;
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(answer(&mut stream).await, status, "{target}");
        assert!(!told(), "{target}");

        let mut h2 = engine.h2(&host).await;
        // The settings that allow an extended CONNECT come with the first answer at the latest.
        let (first, _) = h2
            .send_request(
                Request::get(format!("https://{host}/")).body(()).unwrap(),
                true,
            )
            .unwrap();
        assert_eq!(first.await.unwrap().status(), 401);
        let request = Request::connect(format!("https://{host}{target}"))
            .extension(h2::ext::Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13")
            .body(())
            .unwrap();
        h2 = h2.ready().await.unwrap();
        let (response, _open) = h2.send_request(request, false).unwrap();
        let expected = if status == 101 { 200 } else { status };
        assert_eq!(response.await.unwrap().status(), expected, "{target}");
        assert!(!told(), "{target}");
    }
    assert_eq!(arrived.count(), 2);
}

/// An application with a key of its own.
struct Application(EcdsaKeyPair);

impl Application {
    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap())
    }

    /// Its table in the credentials file.
    fn table(&self, id: &str, more: &str) -> String {
        let secret = hex(self.0.to_pkcs8v1().unwrap().as_ref());
        let key = hex(PublicKey::of_secret(&secret).unwrap().der());
        format!("[[credential]]\nid = \"{id}\"\npublic-key = \"{key}\"\n{more}\n")
    }

    /// A token with what every application's has, and `more`.
    fn token(&self, id: &str, more: &Value) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let mut claims = json!({ "type": "app", "clientId": id, "iat": now, "exp": now + 600 });
        let all = claims.as_object_mut().unwrap();
        all.extend(more.as_object().unwrap().clone());
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES512","typ":"JWT"}"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self
            .0
            .sign(&SystemRandom::new(), signed.as_bytes())
            .unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// An engine with these stored credentials.
async fn with_credentials(text: &str) -> TestEngine {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("credentials.toml"), text).unwrap();
    TestEngine::start_in(folder, CREDENTIALS).await
}

const CREDENTIALS: &str = "credentials = \"credentials.toml\"\n";

#[tokio::test]
async fn agents_visitors_and_the_api_take_the_same_tokens() {
    let (full, limited, stranger) = (Application::new(), Application::new(), Application::new());
    let pat = |user: &str| Claims {
        kind: Some(TokenKind::Pat),
        user_id: Some(user.to_owned()),
        ..Claims::default()
    };
    let signer = TestEngine::start("").await;
    let (known, unknown) = (signer.token(&pat("ada")), signer.token(&pat("eve")));
    let hash = hex(&sha256(known.as_bytes()));
    let engine = with_credentials(&format!(
        "{}{}[[credential]]\nid = \"pat-1\"\nuser = \"ada\"\ntoken-sha256 = [\"{hash}\"]\n",
        full.table("full", ""),
        limited.table(
            "limited",
            "permissions = [\"tunnels.streams.create-delete\"]"
        ),
    ))
    .await;
    let publisher = engine.client().await;
    let options = TunnelOptions::http().token_auth(true);
    let host = engine.publish(&publisher, options).await;
    // Whether an agent is let in and may open a tunnel, and what the API and a visitor get.
    for (case, token, agent, api, visitor) in [
        (
            "application",
            full.token("full", &json!({})),
            true,
            200,
            200,
        ),
        (
            "application that limits itself",
            full.token(
                "full",
                &json!({ "permissions": ["tunnels.resources.read-only"] }),
            ),
            false,
            200,
            403,
        ),
        (
            "application that is limited",
            limited.token("limited", &json!({ "permissions": null })),
            false,
            403,
            200,
        ),
        ("personal", known, true, 200, 200),
        ("personal and unknown", unknown, false, 401, 401),
        (
            "unknown application",
            stranger.token("nobody", &json!({})),
            false,
            401,
            401,
        ),
        (
            "application by another's id",
            limited.token("full", &json!({})),
            false,
            401,
            401,
        ),
    ] {
        let opened = match engine.client_with(token.clone()).await {
            Ok(client) => client.create_tunnel(TunnelOptions::http()).await.is_ok(),
            Err(_) => false,
        };
        assert_eq!(opened, agent, "{case}");
        let fields = bearer(&token);
        let (status, answer) = engine.get(ENGINE_HOST, "/api/tunnels", &fields).await;
        assert_eq!(status, api, "{case}: {answer}");
        let (status, answer) = engine.get(&host, "/", &fields).await;
        assert_eq!(status, visitor, "{case}: {answer}");
    }
}

#[tokio::test]
async fn a_revoked_credential_counts_no_longer_and_a_bad_file_changes_nothing() {
    let app = Application::new();
    let engine = with_credentials(&app.table("app", "")).await;
    let client = engine.client().await;
    let options = TunnelOptions::http().token_auth(true);
    let host = engine.publish(&client, options).await;
    let fields = bearer(&app.token("app", &json!({})));
    assert_eq!(engine.get(&host, "/", &fields).await.0, 200);

    let file = engine.folder.path().join("credentials.toml");
    fs::write(&file, app.table("app", "revoked = \"very\"")).unwrap();
    let error = engine.engine.reload().unwrap_err().to_string();
    assert!(
        error.contains("credentials.toml:4:11: credential.0.revoked"),
        "{error}"
    );
    assert_eq!(engine.get(&host, "/", &fields).await.0, 200);

    // An agent of that application, and its tunnel.
    let token = app.token("app", &json!({}));
    let agent = engine.client_with(token).await.unwrap();
    let theirs = engine.publish(&agent, TunnelOptions::http()).await;
    assert_eq!(engine.get(&theirs, "/", "").await.0, 200);

    fs::write(&file, app.table("app", "revoked = true")).unwrap();
    engine.engine.reload().unwrap();
    assert_eq!(engine.get(&host, "/", &fields).await.0, 401);
    let gone = async {
        while engine.get(&theirs, "/", "").await.0 == 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .unwrap();

    // Without a reload, the file is noticed to have changed.
    fs::write(&file, app.table("app", "")).unwrap();
    let noticed = async {
        while engine.get(&host, "/", &fields).await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), noticed)
        .await
        .unwrap();

    // Who is in the file is in no other.
    engine.rewrite("");
    engine.engine.reload().unwrap();
    assert_eq!(engine.get(&host, "/", &fields).await.0, 401);
    engine.rewrite("credentials = \"gone.toml\"\n");
    let error = engine.engine.reload().unwrap_err().to_string();
    assert!(error.contains("gone.toml: cannot be read"), "{error}");
}

#[tokio::test]
async fn an_audience_is_asked_of_tokens_that_name_one() {
    let engine = TestEngine::start("audience = [\"adit\"]\n").await;
    for (aud, status) in [(None, 200), (Some("adit"), 200), (Some("other"), 401)] {
        let aud = aud.map(|aud| json!(aud));
        let token = engine.token(&Claims {
            aud: aud.map(|aud| serde_json::from_value(aud).unwrap()),
            ..Claims::default()
        });
        let (got, answer) = engine
            .get(ENGINE_HOST, "/api/tunnels", &bearer(&token))
            .await;
        assert_eq!(got, status, "{answer}");
    }
}

#[tokio::test]
async fn a_check_names_every_mistake_of_the_credentials_too() {
    let app = Application::new();
    let engine = with_credentials(&app.table("app", "")).await;
    let folder = engine.folder.path();
    fs::write(
        folder.join("credentials.toml"),
        app.table("app", "projects = [\"shop\"]\npermissions = [\"all\"]"),
    )
    .unwrap();
    let load = || Config::load(&folder.join("engine.toml"), std::iter::empty());
    let shown = |problems: &[Problem]| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        lines.join("\n")
    };
    let found = shown(&adit_proxy::engine::check(&load().unwrap()).unwrap_err());
    for place in ["credentials.toml:4:13: ", "credentials.toml:5:16: "] {
        assert!(found.contains(place), "{found}");
    }
    // Also beside those of the engine's own file.
    engine.rewrite(&format!("{CREDENTIALS}[timeouts]\ndrain = \"soon\"\n"));
    let found = shown(&adit_proxy::engine::every_problem(load().unwrap_err()));
    for place in ["credentials.toml:4:13: ", "timeouts.drain"] {
        assert!(found.contains(place), "{found}");
    }
    // Where the projects are not known whole, nobody is told that one is missing.
    engine.rewrite(&format!("{CREDENTIALS}[project.shop]\ncolour = \"red\"\n"));
    let found = shown(&adit_proxy::engine::every_problem(load().unwrap_err()));
    assert!(!found.contains("credentials.toml"), "{found}");
}
