//! Requests written so that two readers could take them for different ones: each is refused, or judged
//! and passed on byte for byte.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use adit_agent::TunnelOptions;
use adit_plugins::identity::token::{Claims, Resources};
use adit_tests::engine::TestEngine;
use serde_json::json;

/// Ways to write a separator, a step up or a step aside that some server somewhere understands.
const STEPS: [&str; 25] = [
    "/../",
    "/..;/",
    "/..;x=1/",
    "/./../",
    "/%2e%2e/",
    "/%2E./",
    "/.%2e/",
    "/%2e%2e;/",
    "%2f..%2f",
    "%2F..%2F",
    "/..%2f",
    "/..%5c",
    "\\..\\",
    "%5c..%5c",
    "/..\\",
    "/%00/../",
    "%00/",
    "/%0a../",
    "/%252e%252e/",
    "/%25%32%65%25%32%65/",
    "/%c0%ae%c0%ae/",
    "/%u002e%u002e/",
    "//",
    "/;/",
    "/%ef%bc%8f../",
];

/// Where a step can stand: what the token allows is `/open` and everything beneath.
const FRAMES: [&str; 4] = [
    "/open{}admin",
    "/open/a{}admin",
    "{}open/admin",
    "/admin{}open/x",
];

#[tokio::test]
async fn a_hundred_confusing_paths_are_refused_or_passed_on_as_they_were_judged() {
    // edge behaviour T20
    let engine = TestEngine::start("").await;
    let client = engine.client().await;
    let options = TunnelOptions::http().token_auth(true);
    let (host, arrived) = engine.publish_watched(&client, options).await;
    let connect = json!({ "params": { "path": { "regex": "^/open(/|$)" } } });
    let tunnels = json!({ "scopes": { "tunnels": { "connect": connect } } });
    let token = engine.token(&Claims {
        resources: Some(Resources { tunnels }),
        ..Claims::default()
    });
    let bearer = format!("Authorization: Bearer {token}\r\n");
    // The twins: what is allowed passes, what is not is refused for that.
    assert_eq!(engine.get(&host, "/open/x", &bearer).await.0, 200);
    assert_eq!(engine.get(&host, "/admin", &bearer).await.0, 403);
    let mut h2 = engine.h2(&host).await;
    let mut tried = 0;
    for path in STEPS
        .iter()
        .flat_map(|step| FRAMES.map(|frame| frame.replace("{}", step)))
    {
        tried += 1;
        let before = arrived.count();
        let (status, _) = engine.get(&host, &path, &bearer).await;
        check(&path, status, before, &arrived);
        // What cannot be written as a URI no HTTP/2 client of this library can send.
        let Ok(uri) = http::Uri::try_from(format!("https://{host}{path}")) else {
            continue;
        };
        let before = arrived.count();
        let request = http::Request::get(uri)
            .header("authorization", format!("Bearer {token}"))
            .body(())
            .unwrap();
        h2 = h2.ready().await.unwrap();
        let (answer, _) = h2.send_request(request, true).unwrap();
        let status = answer.await.unwrap().status().as_u16();
        check(&path, status, before, &arrived);
    }
    assert_eq!(tried, 100);
}

fn check(path: &str, status: u16, before: usize, arrived: &adit_tests::engine::Arrived) {
    match status {
        400 | 403 => assert_eq!(arrived.count(), before, "{path} was refused and arrived"),
        200 => {
            assert!(path.starts_with("/open/"), "{path} was let in");
            let head = arrived.last().unwrap();
            let line = head.lines().next().unwrap();
            assert_eq!(line, format!("GET {path} HTTP/1.1"), "{path} was changed");
        }
        other => panic!("{path} was answered {other}"),
    }
}

#[tokio::test]
async fn a_visitor_cannot_say_who_or_where_it_is_under_any_alias() {
    // edge behaviour R21, R22
    let engine = TestEngine::start("").await;
    let client = engine.client().await;
    let options = TunnelOptions::http().token_auth(true);
    let (host, arrived) = engine.publish_watched(&client, options).await;
    let token = engine.token(&Claims {
        sub: Some("visitor".to_owned()),
        ..Claims::default()
    });
    let forged = [
        "X-Forwarded-For: 6.6.6.6\r\n",
        "X_Forwarded_For: 6.6.6.6\r\n",
        "X-Forwarded_For: 6.6.6.6\r\nX-Forwarded-For: 6.6.6.6\r\n",
        "Forwarded: for=6.6.6.6\r\n",
        "X-Rstream-User-Id: 6.6.6.6\r\n",
        "X_RSTREAM_USER_ID: 6.6.6.6\r\n",
        "x-rstream-user_id: 6.6.6.6\r\nX-Rstream-User-Id: 6.6.6.6\r\n",
        "X-Rstream-User-Email: 6.6.6.6\r\nX-Rstream-Anything: 6.6.6.6\r\n",
        "Cookie: rstream_auth=6.6.6.6; rstream_challenge=6.6.6.6\r\n",
        "Connection: X-Rstream-User-Id, X-Forwarded-For, Forwarded\r\n",
        "Connection: x-rstream-auth-method\r\nConnection: x-forwarded-proto\r\n",
    ];
    for fields in forged {
        let fields = format!("{fields}Authorization: Bearer {token}\r\n");
        assert_eq!(engine.get(&host, "/", &fields).await.0, 200, "{fields}");
        let head = arrived.last().unwrap().to_ascii_lowercase();
        assert!(!head.contains("6.6.6.6"), "{fields} arrived as {head}");
        assert!(head.contains("x-rstream-user-id: visitor\r\n"), "{head}");
        assert!(head.contains("x-rstream-auth-method: token\r\n"), "{head}");
        assert!(head.contains("x-forwarded-for: 127.0.0.1\r\n"), "{head}");
        assert!(head.contains("x-forwarded-proto: https\r\n"), "{head}");
        assert!(head.contains("forwarded: for=127.0.0.1;"), "{head}");
    }
}
