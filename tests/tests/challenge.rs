//! Challenges through a whole engine: who is asked to work, what comes of it, and who is not asked.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use adit_agent::TunnelOptions;
use adit_plugins::identity::token::Claims;
use adit_tests::browser::{Browser, solved};
use adit_tests::engine::{ENGINE_HOST, TestEngine};
use adit_tests::flow::Flow;
use serde_json::{Value, json};

/// Little work, since a debug build hashes slowly.
const EASY: &str = "[challenge]\nbits = 6\n";

fn challenging() -> TunnelOptions {
    TunnelOptions::http().with(|properties| properties.challenge_mode = Some(true))
}

#[tokio::test]
async fn a_browser_works_once_and_is_in() {
    // edge behaviour H1 over h1; the service's own page after it.
    let engine = TestEngine::start(EASY).await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, challenging()).await;
    let mut browser = Browser::new(&engine);
    let wanted = browser.url(&host, "/a?b=1");
    let sent = browser.ask("GET", &wanted, &[], "").await;
    assert_eq!(sent.status, 302);
    let begin = browser.url(ENGINE_HOST, "/rstream/challenge?request=");
    assert!(sent.location().starts_with(&begin), "{sent:#?}");
    let page = browser.ask("GET", sent.location(), &[], "").await;
    assert_eq!((page.status, arrived.count()), (200, 0));

    let back = solved(&page.body);
    let came = browser.ask("GET", &back, &[], "").await;
    assert_eq!((came.status, came.location()), (303, &*wanted));
    assert_eq!(arrived.count(), 0, "the callback is the edge's");
    assert_eq!(browser.ask("GET", &wanted, &[], "").await.status, 200);
    assert_eq!(browser.ask("POST", &wanted, &[], "").await.status, 200);
    let head = arrived.last().unwrap().to_ascii_lowercase();
    assert!(!head.contains("rstream_challenge"), "{head}");
    // A proof counts once, and a pass for its tunnel.
    let again = browser.ask("GET", &back, &[], "").await;
    assert_eq!((again.status, again.field("set-cookie")), (403, None));
    let (other, others) = engine.publish_watched(&client, challenging()).await;
    for cookie in &mut browser.jar {
        cookie.host.clone_from(&other);
    }
    let elsewhere = browser.url(&other, "/");
    assert_eq!(browser.ask("GET", &elsewhere, &[], "").await.status, 302);
    assert_eq!(others.count(), 0);
}

#[tokio::test]
async fn who_cannot_be_sent_to_a_page_is_refused() {
    // edge behaviour H3, H4
    let engine = TestEngine::start(EASY).await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, challenging()).await;
    let mut browser = Browser::new(&engine);
    let url = browser.url(&host, "/");
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        assert_eq!(
            browser.ask(method, &url, &[], "").await.status,
            403,
            "{method}"
        );
    }
    let socket = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    assert_eq!(browser.ask("GET", &url, &socket, "").await.status, 403);
    assert_eq!(arrived.count(), 0);
}

#[tokio::test]
async fn over_http2_it_is_the_same() {
    // edge behaviour H1, H4
    let engine = TestEngine::start(EASY).await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, challenging()).await;
    let mut h2 = engine.h2(&host).await.ready().await.unwrap();
    let uri = format!("https://{host}/");
    let request = http::Request::get(&uri).body(()).unwrap();
    let answer = h2.send_request(request, true).unwrap().0.await.unwrap();
    assert_eq!(answer.status(), 302);
    let mut request = http::Request::builder()
        .method("CONNECT")
        .uri(&uri)
        .body(())
        .unwrap();
    request
        .extensions_mut()
        .insert(h2::ext::Protocol::from_static("websocket"));
    h2 = h2.ready().await.unwrap();
    let answer = h2.send_request(request, false).unwrap().0.await.unwrap();
    assert_eq!((answer.status().as_u16(), arrived.count()), (403, 0));
}

#[tokio::test]
async fn who_has_a_token_is_not_asked() {
    // edge behaviour H5
    let engine = TestEngine::start(EASY).await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, challenging()).await;
    let token = engine.token(&Claims::default());
    let limited = engine.token(&Claims {
        permissions: Some(vec!["tunnels.resources.read-only".to_owned()]),
        ..Claims::default()
    });
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    for (fields, status) in [
        (bearer(&token), 200),
        (bearer(&limited), 302),
        (bearer("of-the-application"), 302),
    ] {
        assert_eq!(engine.get(&host, "/", &fields).await.0, status, "{fields}");
    }
    assert_eq!(arrived.count(), 1);
    assert!(!arrived.last().unwrap().contains(&token));
}

#[tokio::test]
async fn a_challenge_comes_before_signing_in() {
    // edge behaviour H7
    let folder = tempfile::tempdir().unwrap();
    let accounts = folder.path().join("accounts.toml");
    std::fs::write(&accounts, "").unwrap();
    let engine = TestEngine::start(&format!("{EASY}[login]\naccounts = {accounts:?}\n")).await;
    let client = engine.client().await;
    let both = challenging().with(|properties| properties.rstream_auth = Some(true));
    let (host, arrived) = engine.publish_watched(&client, both).await;
    let mut browser = Browser::new(&engine);
    let url = browser.url(&host, "/");
    let sent = browser.ask("GET", &url, &[], "").await;
    assert!(sent.location().contains("/rstream/challenge?"), "{sent:#?}");
    let page = browser.ask("GET", sent.location(), &[], "").await;
    assert_eq!(
        browser
            .ask("GET", &solved(&page.body), &[], "")
            .await
            .status,
        303
    );
    let sent = browser.ask("GET", &url, &[], "").await;
    assert_eq!(sent.status, 302);
    assert!(sent.location().contains("/rstream/auth?"), "{sent:#?}");
    assert_eq!(arrived.count(), 0);
}

#[tokio::test]
async fn without_a_page_to_work_on_no_tunnel_can_ask_for_it() {
    // edge behaviour C30
    let engine = TestEngine::start("[challenge]\nenabled = false\n").await;
    let client = engine.client().await;
    let error = client.create_tunnel(challenging()).await.unwrap_err();
    assert!(error.to_string().contains("`challenge_mode`"), "{error}");
    assert_eq!(
        engine.get(ENGINE_HOST, "/rstream/challenge", "").await.0,
        404
    );
}

#[tokio::test]
async fn challenges_are_made_for_those_who_may_connect() {
    // edge behaviour H6
    let engine = TestEngine::start(EASY).await;
    let client = engine.client().await;
    let (host, _) = engine.publish_watched(&client, challenging()).await;
    let mut browser = Browser::new(&engine);
    let url = browser.url(ENGINE_HOST, "/api/rstream/challenge/requests");
    let good = format!("Bearer {}", engine.token(&Claims::default()));
    let reader = engine.token(&Claims {
        permissions: Some(vec!["tunnels.resources.read-only".to_owned()]),
        ..Claims::default()
    });
    let reader = format!("Bearer {reader}");
    let body = |host: &str, target: &str| {
        let destination = json!({ "targetUrl": target, "tunnelHost": host });
        json!({ "returnUrl": "https://x.test/", "destination": destination }).to_string()
    };
    let here = format!("https://{host}/page?x=1");
    let cases = [
        ("Bearer nonsense", body(&host, &here), 401),
        (&*reader, body(&host, &here), 403),
        (&*good, body("nobody.test", &here), 404),
        (&*good, body(&host, "https://elsewhere.test/"), 400),
        (&*good, "{}".to_owned(), 400),
        (&*good, body(&host, &here), 201),
    ];
    for (authorization, body, status) in cases {
        let fields = [
            ("Authorization", authorization),
            ("Content-Type", "application/json"),
        ];
        let answer = browser.ask("POST", &url, &fields, &body).await;
        assert_eq!(answer.status, status, "{answer:#?}");
        if status == 201 {
            let created: Value = serde_json::from_str(&answer.body).unwrap();
            let page = created["url"].as_str().unwrap();
            assert_eq!(browser.ask("GET", page, &[], "").await.status, 200);
        }
    }
}

#[tokio::test]
async fn who_has_worked_stays_and_who_was_not_asked_to_does_not() {
    let rules = |off: &str| {
        format!(
            "{EASY}[policy.edge]\nfilters = [{{ use = \"challenge\", optional = true }}]\n\
             [project.default]\npolicies = [\"edge\"]\noff = [{off}]\n"
        )
    };
    let engine = TestEngine::start(&rules("")).await;
    let client = engine.client().await;
    let host = engine.publish_service(&client, TunnelOptions::http()).await;
    let mut browser = Browser::new(&engine);
    let page = browser.open(&browser.url(&host, "/up")).await;
    let back = solved(&page.body);
    assert_eq!(browser.ask("GET", &back, &[], "").await.status, 303);
    let pass = browser.cookies(&host);
    let token = format!(
        "Authorization: Bearer {}\r\n",
        engine.token(&Claims::default())
    );
    let mut stay = Vec::new();
    for fields in [&pass, &token] {
        let flow = Flow::begin(&engine, &host, "h1 websocket", fields).await;
        stay.push(flow.unwrap());
    }
    engine.rewrite(&rules("\"edge/challenge\""));
    engine.engine.reload().unwrap();
    let mut unasked = Flow::begin(&engine, &host, "h1 websocket", "")
        .await
        .unwrap();
    engine.rewrite(&rules(""));
    engine.engine.reload().unwrap();
    unasked.ends().await;
    for flow in &mut stay {
        assert!(flow.goes_on().await);
    }
}
