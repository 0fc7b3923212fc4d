//! Plugins that do what no filter should: each misdeed costs its own exchange, is told with the filter's name, and
//! leaves nothing behind.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::fs;
use std::time::Duration;

use adit_agent::TunnelOptions;
use adit_tests::engine::TestEngine;
use adit_tests::flow::Flow;
use adit_tests::guests::guest;
use tokio::net::TcpListener;

/// Little of everything, so that a test reaches it soon.
const LIMITS: &str = "limits = { wait = \"500ms\", memory = \"3MiB\", decide-fuel = 3000000, piece-fuel = 3000000, \
                      start-fuel = 30000000, log-lines = 50, reply-bytes = \"1MiB\", variable-bytes = \"4KiB\" }";

fn rules(filter: &str, more: &str) -> String {
    let file = guest("hostile");
    format!(
        "[plugin.hostile]\ncomponent = {file:?}\n{LIMITS}\n{more}\n\
         [policy.edge]\nfilters = [{{ use = \"access-log\", to = {{ file = \"log.jsonl\" }}, fields = [\"path\", \"status\", \"filter\", \"reason\", \"detail\"] }}, {{ use = \"hostile\", name = \"villain\"{filter} }}]\n\
         [project.default]\npolicies = [\"edge\"]\n[project.shop]\nendpoints = [\"0a1b2c3d\"]\n"
    )
}

#[tokio::test]
async fn a_misdeed_costs_one_exchange_and_is_told_by_name() {
    let engine = TestEngine::start(&rules(", what = \"nothing\"", "")).await;
    let client = engine.client().await;
    let shop = engine.client_of("0a1b2c3d").await;
    let (host, arrived) = engine.publish_watched(&client, TunnelOptions::http()).await;
    let other = engine.publish(&shop, TunnelOptions::http()).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://127.0.0.1:{}/", silent.local_addr().unwrap().port());
    assert_eq!(engine.get(&host, "/nothing", "").await.0, 200);
    let mut expected = Vec::new();
    for (what, at, detail) in [
        ("loop", "request", "it worked longer than its fuel lasts"),
        ("loop", "connect", "it worked longer than its fuel lasts"),
        ("loop", "response", "it worked longer than its fuel lasts"),
        ("recursion", "request", "its stack overflowed"),
        ("memory", "request", "forcing trap when growing memory"),
        ("panic", "request", "it panicked"),
        ("panic", "connect", "it panicked"),
        ("panic", "response", "it panicked"),
        ("fields", "request", "it worked longer than its fuel lasts"),
        ("calls", "response", "called the host more than 10000 times"),
        ("hang", "request", "it did not answer within 500ms"),
        ("hang", "connect", "it did not answer within 500ms"),
        ("sleep", "request", "it did not answer within 500ms"),
        ("reply", "request", "more than its limit of 1048576 bytes"),
    ] {
        let filter = format!(", what = \"{what}\", at = \"{at}\", url = \"{url}\"");
        engine.rewrite(&rules(&filter, "allow-private-hosts = [\"127.0.0.1\"]"));
        engine.engine.reload().unwrap();
        let path = format!("/{what}-{at}");
        let before = arrived.count();
        assert_eq!(engine.get(&host, &path, "").await.0, 500, "{path}");
        let reached = usize::from(at == "response");
        assert_eq!(arrived.count() - before, reached, "{path}");
        assert_eq!(engine.get(&other, "/", "").await.0, 200);
        expected.push((path, detail));
        // Who only looks on is passed over.
        let looks_on = format!("{filter}, on-error = \"pass\"");
        engine.rewrite(&rules(&looks_on, "allow-private-hosts = [\"127.0.0.1\"]"));
        engine.engine.reload().unwrap();
        assert_eq!(engine.get(&host, "/passed", "").await.0, 200, "{what} {at}");
    }
    let TestEngine { engine, folder, .. } = engine;
    engine.drain().await;
    let text = fs::read_to_string(folder.path().join("log.jsonl")).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for (path, detail) in expected {
        let line = lines.iter().find(|line| line["path"] == path.as_str());
        let line = line.unwrap_or_else(|| panic!("{path} is not in {text}"));
        assert_eq!(line["filter"], "edge/villain", "{line}");
        let told = line["detail"].as_str().unwrap_or_default();
        assert!(told.contains(detail), "{line}");
    }
}

#[tokio::test]
async fn what_costs_nothing_but_itself_does_not_stop_anything() {
    // Too many or too long lines, too much kept, grants that are not there, a world that is empty.
    let engine = TestEngine::start(&rules(", what = \"nothing\"", "")).await;
    let client = engine.client().await;
    let (host, _) = engine.publish_watched(&client, TunnelOptions::http()).await;
    for (what, at) in [
        ("lines", "request"),
        ("long-line", "request"),
        ("variables", "request"),
        ("identity", "request"),
        ("identity", "connect"),
        ("files", "request"),
        ("hang", "request"),
        ("loop", "log"),
        ("panic", "log"),
    ] {
        // No host is allowed, so there is nothing to wait for.
        let filter = format!(", what = \"{what}\", at = \"{at}\", url = \"http://127.0.0.1:1/\"");
        engine.rewrite(&rules(&filter, ""));
        engine.engine.reload().unwrap();
        let (status, answer) = engine.get(&host, "/", "").await;
        assert_eq!(status, 200, "{what} at {at}");
        assert!(!answer.contains("somebody else"), "{answer}");
    }
}

#[tokio::test]
async fn bytes_that_pass_a_broken_plugin_end_with_it() {
    let engine = TestEngine::start(&rules(", what = \"nothing\"", "")).await;
    let client = engine.client().await;
    let host = engine.publish_service(&client, TunnelOptions::http()).await;
    for (what, at) in [
        ("loop", "stream"),
        ("panic", "stream"),
        ("sleep", "stream"),
        ("hang", "stream"),
    ] {
        let filter = format!(", what = \"{what}\", at = \"{at}\", url = \"http://127.0.0.1:1/\"");
        engine.rewrite(&rules(&filter, ""));
        engine.engine.reload().unwrap();
        let mut flow = Flow::begin(&engine, &host, "h1 websocket", "")
            .await
            .unwrap();
        // What may not wait is told so, and goes on.
        assert_eq!(flow.goes_on().await, what == "hang", "{what}");
    }
    for what in ["loop", "panic", "memory"] {
        let filter = format!(", what = \"{what}\", at = \"request-body\"");
        engine.rewrite(&rules(&filter, ""));
        engine.engine.reload().unwrap();
        let sent = "Content-Length: 0\r\n";
        assert!(matches!(engine.get(&host, "/up", sent).await.0, 200 | 500));
        let filter = format!(", what = \"{what}\", at = \"response-body\"");
        engine.rewrite(&rules(&filter, ""));
        engine.engine.reload().unwrap();
        let (_, answer) = engine.get(&host, "/down/9", "").await;
        assert!(!answer.ends_with("xxxxxxxxx"), "{answer}");
    }
    // Judging again what is open is no different.
    engine.rewrite(&rules(", what = \"nothing\"", ""));
    engine.engine.reload().unwrap();
    let mut flow = Flow::begin(&engine, &host, "h1 websocket", "")
        .await
        .unwrap();
    engine.engine.reload().unwrap();
    assert!(flow.goes_on().await);
    engine.rewrite(&rules(", what = \"panic\", at = \"rejudge\"", ""));
    engine.engine.reload().unwrap();
    flow.ends().await;
}

#[tokio::test]
async fn a_plugin_that_cannot_be_set_up_is_refused_at_its_place() {
    let engine = TestEngine::start(&rules(", what = \"nothing\"", "")).await;
    for (what, expected) in [
        ("reject", "policy.edge.filters.1.at: as it was told"),
        (
            "loop",
            "policy.edge.filters.1: the plugin cannot be configured: plugin failed: it worked longer than its fuel lasts",
        ),
        (
            "panic",
            "the plugin cannot be configured: plugin failed: it panicked",
        ),
        ("memory", "the plugin cannot be configured: plugin failed: "),
        (
            "sleep",
            "the plugin cannot be configured: plugin failed: it waits to be configured",
        ),
        ("treason", "policy.edge.filters.1.what: \"treason\" is not "),
    ] {
        engine.rewrite(&rules(
            &format!(", what = \"{what}\", at = \"configure\""),
            "",
        ));
        let error = engine.engine.reload().unwrap_err().lines().join("\n");
        assert!(error.contains(expected), "{what}: {error}");
    }
}

#[tokio::test]
async fn when_all_places_are_taken_others_are_told_to_come_again() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let filter = format!(", what = \"hang\", url = \"http://127.0.0.1:{port}/\"");
    let more = "allow-private-hosts = [\"127.0.0.1\"]\n[wasm]\ninstances = 2\n";
    let slow = rules(&filter, more).replace("wait = \"500ms\"", "wait = \"20s\"");
    let engine = TestEngine::start(&slow).await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, TunnelOptions::http()).await;
    let waiting = [engine.get(&host, "/", ""), engine.get(&host, "/", "")];
    let third = async {
        // Both have called out: their places are taken.
        let _one = silent.accept().await.unwrap();
        let _other = silent.accept().await.unwrap();
        engine.get(&host, "/", "").await.0
    };
    let waiting = async {
        let [one, other] = waiting;
        tokio::join!(one, other)
    };
    let third = tokio::select! {
        status = third => status,
        _ = waiting => panic!("they did not wait"),
    };
    assert_eq!((third, arrived.count()), (503, 0));
    // Whoever leaves gives the place back.
    let again = async {
        loop {
            let answer =
                tokio::time::timeout(Duration::from_millis(200), engine.get(&host, "/", ""));
            match answer.await {
                Ok((503, _)) => {}
                // It waits again: there was a place.
                _ => return,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_may_have_more_than_usual_has_places_of_its_own() {
    for (wasm, large) in [("instance-memory = \"2MiB\"", true), ("", false)] {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = silent.local_addr().unwrap().port();
        let filter = format!(", what = \"hang\", url = \"http://127.0.0.1:{port}/\"");
        let more =
            format!("allow-private-hosts = [\"127.0.0.1\"]\n[wasm]\nlarge-instances = 1\n{wasm}\n");
        let slow = rules(&filter, &more).replace("wait = \"500ms\"", "wait = \"20s\"");
        let engine = TestEngine::start(&slow).await;
        let client = engine.client().await;
        let host = engine.publish(&client, TunnelOptions::http()).await;
        let second = async {
            let _one = silent.accept().await.unwrap();
            tokio::select! {
                (status, _) = engine.get(&host, "/", "") => Some(status),
                _ = silent.accept() => None,
            }
        };
        tokio::select! {
            second = second => assert_eq!(second, large.then_some(503), "{wasm}"),
            _ = engine.get(&host, "/", "") => panic!("it did not wait"),
        }
    }
}
