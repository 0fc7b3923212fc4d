//! The example plugins through a whole engine: each refusal with its allowed twin.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::fs;

use adit_agent::TunnelOptions;
use adit_plugins::identity::credentials::sha256;
use adit_tests::engine::TestEngine;
use adit_tests::flow::Flow;
use adit_tests::guests::guest;

/// Everything stands behind a proxy on this machine, that names visitors' addresses.
const FRONT: &str = "[front]\ntrusted = [\"127.0.0.1\"]\n";

/// A plugin from an example, with more of its table, and one filter of that kind with this table.
fn plugin(example: &str, more: &str, filter: &str) -> String {
    let file = guest(example);
    format!(
        "{FRONT}[plugin.p]\ncomponent = {file:?}\n{more}\n[policy.edge]\nfilters = [{{ use = \"p\"{filter} }}]\n\
         [project.default]\npolicies = [\"edge\"]\n"
    )
}

fn from(address: &str) -> String {
    format!("X-Forwarded-For: {address}\r\n")
}

#[tokio::test]
async fn a_filter_is_the_same_built_in_or_brought_along() {
    // edge behaviour X7: one table for both.
    let built_in = format!(
        "{FRONT}[policy.edge]\nfilters = [{{ use = \"trusted-ips\", allow = [\"10.0.0.0/8\", \"2001:db8::/32\"], deny = [\"10.9.0.0/16\"] }}]\n\
         [project.default]\npolicies = [\"edge\"]\n"
    );
    let twin = plugin(
        "trusted_ips",
        "stage = \"network\"",
        ", allow = [\"10.0.0.0/8\", \"2001:db8::/32\"], deny = [\"10.9.0.0/16\"]",
    );
    for rules in [built_in, twin] {
        let engine = TestEngine::start(&rules).await;
        let client = engine.client().await;
        let (host, arrived) = engine.publish_watched(&client, TunnelOptions::http()).await;
        for (address, status) in [
            ("10.1.2.3", 200),
            ("::ffff:10.1.2.3", 200),
            ("10.9.0.1", 403),
            ("11.0.0.1", 403),
            ("2001:db8::1", 200),
            ("2001:db9::1", 403),
        ] {
            let before = arrived.count();
            let (got, _) = engine.get(&host, "/", &from(address)).await;
            assert_eq!(got, status, "{address}\n{rules}");
            assert_eq!(arrived.count() - before, usize::from(status == 200));
        }
        // Open exchanges are judged again by both.
        let host = engine.publish_service(&client, TunnelOptions::http()).await;
        let address = from("10.1.2.3");
        let mut flow = Flow::begin(&engine, &host, "h1 websocket", &address)
            .await
            .unwrap();
        engine.rewrite(&rules.replace("10.9.0.0", "10.8.0.0"));
        engine.engine.reload().unwrap();
        assert!(flow.goes_on().await);
        engine.rewrite(&rules.replace("10.9.0.0", "10.1.0.0"));
        engine.engine.reload().unwrap();
        flow.ends().await;
    }
}

#[tokio::test]
async fn a_key_is_the_only_way_in_and_says_who_it_is() {
    let hash = |key: &str| -> String {
        let hash = sha256(key.as_bytes());
        hash.iter().map(|octet| format!("{octet:02x}")).collect()
    };
    let keys = |ada: &str| {
        format!(
            ", keys = {{ ada = \"{}\", bob = \"{}\" }}",
            hash(ada),
            hash("key of bob")
        )
    };
    let more = "stage = \"identity\"\nestablish-identity = true";
    let engine = TestEngine::start(&plugin("api_key", more, &keys("key of ada"))).await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, TunnelOptions::http()).await;
    for (fields, status) in [
        ("", 401),
        ("X-Api-Key: key of eve\r\n", 401),
        ("X-Api-Key: key of ada\r\nX-Api-Key: key of bob\r\n", 401),
        ("X_Api_Key: key of ada\r\n", 401),
        ("Cookie: x-api-key=key of ada\r\n", 401),
    ] {
        assert_eq!(
            engine
                .get(&host, "/?x-api-key=key%20of%20ada", fields)
                .await
                .0,
            status,
            "{fields}"
        );
    }
    assert_eq!(arrived.count(), 0);
    let (status, answer) = engine.get(&host, "/", "X-Api-Key: key of ada\r\n").await;
    assert_eq!(status, 200);
    assert!(answer.contains("x-rstream-user-id: ada"), "{answer}");
    assert!(answer.contains("x-rstream-auth-method: plugin"), "{answer}");
    assert!(!answer.contains("key of"), "{answer}");

    // Who has tried too often waits.
    for _ in 0..30 {
        engine
            .get(
                &host,
                "/",
                "X-Forwarded-For: 192.0.2.9\r\nX-Api-Key: guess\r\n",
            )
            .await;
    }
    let (status, answer) = engine
        .get(
            &host,
            "/",
            "X-Forwarded-For: 192.0.2.9\r\nX-Api-Key: guess\r\n",
        )
        .await;
    assert_eq!(status, 429);
    assert!(answer.contains("retry-after: 60"), "{answer}");

    // A key that is taken away takes along what it has opened.
    let host = engine.publish_service(&client, TunnelOptions::http()).await;
    let mut of_ada = Flow::begin(&engine, &host, "h1 websocket", "X-Api-Key: key of ada\r\n")
        .await
        .unwrap();
    let mut of_bob = Flow::begin(&engine, &host, "h2 websocket", "x-api-key: key of bob\r\n")
        .await
        .unwrap();
    assert_eq!(
        Flow::begin(&engine, &host, "h2 websocket", "").await.err(),
        Some(401)
    );
    let without = keys("another key of ada");
    engine.rewrite(&plugin("api_key", more, &without));
    engine.engine.reload().unwrap();
    of_ada.ends().await;
    assert!(of_bob.goes_on().await);

    // Nobody says who somebody is without having been told to.
    engine.rewrite(&plugin(
        "api_key",
        "stage = \"identity\"",
        &keys("key of ada"),
    ));
    engine.engine.reload().unwrap();
    let (status, _) = engine.get(&host, "/up", "X-Api-Key: key of ada\r\n").await;
    assert_eq!(status, 500);
}

#[tokio::test]
async fn a_riddle_lets_in_who_solves_it_here() {
    let filter = ", question = \"The name of our cat?\", answer = \"Minka\", secret = \"a secret long enough\"";
    let engine = TestEngine::start(&plugin("riddle", "stage = \"identity\"", filter)).await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, TunnelOptions::http()).await;
    let (other, others) = engine.publish_watched(&client, TunnelOptions::http()).await;
    let (status, page) = engine.get(&host, "/a", "").await;
    assert_eq!(status, 403);
    assert!(page.contains("The name of our cat?"), "{page}");
    assert_eq!(engine.get(&host, "/a?riddle=Mimi", "").await.0, 403);
    assert_eq!(arrived.count(), 0);
    let (status, answer) = engine
        .get(&host, "//other.test/a?riddle=+%6dinka", "")
        .await;
    assert_eq!(status, 303);
    let back = format!(
        "location: https://{host}:{}//other.test/a\r\n",
        engine.port()
    );
    assert!(answer.contains(&back), "{answer}");
    let cookie = answer
        .lines()
        .find_map(|line| line.strip_prefix("set-cookie: "))
        .and_then(|cookie| cookie.split(';').next())
        .unwrap();
    let cookie = format!("Cookie: a=1; {cookie}\r\n");
    assert_eq!(engine.get(&host, "/a", &cookie).await.0, 200);
    let forged = cookie.replace("riddle=", "riddle=9");
    for (host, fields) in [
        (&other, cookie.clone()),
        (&host, forged),
        (&host, format!("{cookie}X-Forwarded-For: 192.0.2.1\r\n")),
    ] {
        assert_eq!(engine.get(host, "/a", &fields).await.0, 403, "{fields}");
    }
    assert_eq!((arrived.count(), others.count()), (1, 0));
}

#[tokio::test]
async fn a_plugin_alone_grants_websockets() {
    let rules = plugin(
        "ws_origin",
        "stage = \"upgrade\"",
        ", origins = [\"https://app.test\"]",
    ) + "upgrades = []\n";
    let engine = TestEngine::start(&rules).await;
    let client = engine.client().await;
    let host = engine.publish_service(&client, TunnelOptions::http()).await;
    for way in ["h1 websocket", "h2 websocket"] {
        let begin = async |fields| Flow::begin(&engine, &host, way, fields).await;
        let mut flow = begin("origin: https://app.test\r\n").await.unwrap();
        assert!(flow.goes_on().await);
        assert_eq!(
            begin("origin: https://evil.test\r\n").await.err(),
            Some(403)
        );
        assert_eq!(begin("").await.err(), Some(403));
        engine.engine.reload().unwrap();
        assert!(flow.goes_on().await);
        engine.rewrite(&rules.replace("app.test", "new.test"));
        engine.engine.reload().unwrap();
        flow.ends().await;
        engine.rewrite(&rules);
        engine.engine.reload().unwrap();
    }
}

#[tokio::test]
async fn what_one_phase_keeps_another_finds() {
    let engine = TestEngine::start(&plugin("ab_router", "", ", percent = 100")).await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, TunnelOptions::http()).await;
    let (status, answer) = engine.get(&host, "/", "").await;
    assert_eq!(status, 200);
    assert!(answer.contains("set-cookie: variant=b; Path=/"), "{answer}");
    assert!(arrived.last().unwrap().contains("x-variant: b"));
    let (_, answer) = engine.get(&host, "/", "Cookie: variant=a\r\n").await;
    assert!(!answer.contains("set-cookie"), "{answer}");
    assert!(arrived.last().unwrap().contains("x-variant: a"));
}

#[tokio::test]
async fn words_are_blacked_out_across_pieces() {
    let engine = TestEngine::start(&plugin("redact", "", ", words = [\"host\", \"h\"]")).await;
    let client = engine.client().await;
    let (host, _) = engine.publish_watched(&client, TunnelOptions::http()).await;
    let (status, answer) = engine.get(&host, "/", "X-Word: ghosts\r\n").await;
    assert_eq!(status, 200);
    assert!(answer.contains("x-word: g****s"), "{answer}");
}

#[tokio::test]
async fn mistakes_in_tables_are_shown_where_they_are() {
    let engine = TestEngine::start(&plugin("geo_block", "", ", countries = [\"DE\"]")).await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, TunnelOptions::http()).await;
    // Nobody has said where the visitor is.
    assert_eq!(engine.get(&host, "/", "").await.0, 403);
    assert_eq!(arrived.count(), 0);
    for (filter, expected) in [
        (
            ", countries = [\"DE\", \"fr\"]",
            ": policy.edge.filters.0.countries.1: use two capital letters",
        ),
        (
            ", countries = \"DE\"",
            ": policy.edge.filters.0.countries: \"DE\" is not of type \"array\"",
        ),
        (
            "",
            ": policy.edge.filters.0: \"countries\" is a required property",
        ),
        (
            ", countries = [], more = 1",
            ": policy.edge.filters.0: Additional properties are not allowed ('more' was unexpected)",
        ),
    ] {
        engine.rewrite(&plugin("geo_block", "", filter));
        let error = engine.engine.reload().unwrap_err().lines().join("\n");
        assert!(error.contains(expected), "{filter}: {error}");
    }
    for (more, expected) in [
        (
            "stage = \"front\"",
            "plugin.p.stage: `front` is not a stage, use one of `network`",
        ),
        ("sha256 = \"00\"", "plugin.p.sha256: "),
        (
            "allow-hosts = [\"https://a.test\"]",
            "plugin.p.allow-hosts: `https://a.test` is not a host",
        ),
        ("limits.memory = \"900MiB\"", "plugin.p.component: "),
        (
            "limits.memmory = \"9MiB\"",
            "plugin.p.limits.memmory: unknown key",
        ),
    ] {
        engine.rewrite(&plugin("geo_block", more, ", countries = [\"DE\"]"));
        let error = engine.engine.reload().unwrap_err().lines().join("\n");
        assert!(error.contains(expected), "{more}: {error}");
    }
    let file = engine.folder.path().join("broken.wasm");
    let rules = plugin("geo_block", "", ", countries = [\"DE\"]");
    let rules = rules.replace(guest("geo_block").to_str().unwrap(), file.to_str().unwrap());
    engine.rewrite(&rules);
    for (bytes, expected) in [
        (None, "cannot be read: "),
        (Some(&b""[..]), "it is no WebAssembly component"),
        (Some(b"\0asm\x01\0\0\0"), "it is no WebAssembly component"),
        (Some(b"\0asm\x0d\0\x01\0"), "it is no filter"),
    ] {
        if let Some(bytes) = bytes {
            fs::write(&file, bytes).unwrap();
        }
        let error = engine.engine.reload().unwrap_err().lines().join("\n");
        assert!(error.contains(expected), "{bytes:?}: {error}");
        assert!(error.contains("broken.wasm"), "{error}");
    }
    // What was there before is still there.
    assert_eq!(engine.get(&host, "/", "").await.0, 403);
}
