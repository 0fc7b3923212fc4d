//! What a scraper sees of a running engine.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_agent::TunnelOptions;
use adit_tests::engine::TestEngine;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// How long a count may lag behind what it counts.
const PATIENCE: Duration = Duration::from_secs(20);

/// The sample called `name`, labels included.
fn sample(metrics: &str, name: &str) -> Option<f64> {
    let lines = metrics.lines();
    let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    values.next()?.parse().ok()
}

/// Scrapes until `name` is `value`: what ends is counted once the engine has seen its end.
async fn comes_to(engine: &TestEngine, name: &str, value: f64) {
    let wait = async { while sample(&engine.metrics().await, name) != Some(value) {} };
    let came = tokio::time::timeout(PATIENCE, wait).await;
    assert!(
        came.is_ok(),
        "{name} does not come to {value}: {}",
        engine.metrics().await
    );
}

/// The sample of something used by tunnels of the default project.
fn used(what: &str, protocol: &str, published: bool) -> String {
    format!(
        "adit_usage_{what}_total{{project=\"default\",protocol=\"{protocol}\",publish=\"{published}\",\
         type=\"bytestream\"}}"
    )
}

// edge behaviour §12.1
#[tokio::test]
async fn a_scraper_sees_agents_tunnels_streams_and_the_certificate() {
    let engine = TestEngine::start("").await;
    let metrics = engine.metrics().await;
    assert!(metrics.starts_with("HTTP/1.1 200 "), "{metrics}");
    for idle in ["adit_engine_clients", "adit_engine_streams_active"] {
        assert_eq!(sample(&metrics, idle), Some(0.0), "{idle}");
    }
    let version = format!(
        "adit_build_info{{version=\"{}\"}}",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(sample(&metrics, &version), Some(1.0), "{metrics}");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let ends = sample(&metrics, "adit_cert_not_after_seconds").unwrap();
    assert!(ends > now.as_secs_f64(), "{ends}");

    let client = engine.client().await;
    let options = TunnelOptions::http().name("one");
    let public = engine.publish(&client, options).await;
    let private = TunnelOptions::private("homebox");
    let mut private = client.create_tunnel(private).await.unwrap();
    assert_eq!(engine.get(&public, "/", "").await.0, 200);
    let dialled = client.dial("homebox");
    let (dialled, accepted) = tokio::join!(dialled, private.accept());
    let metrics = engine.metrics().await;
    for (name, value) in [
        ("adit_engine_clients", 1.0),
        (
            r#"adit_engine_tunnels{protocol="http",publish="true",type="bytestream"}"#,
            1.0,
        ),
        (
            r#"adit_engine_tunnels{protocol="none",publish="false",type="bytestream"}"#,
            1.0,
        ),
    ] {
        assert_eq!(sample(&metrics, name), Some(value), "{name}: {metrics}");
    }
    // The dialled one, and the one the edge keeps for the next visitor.
    assert_eq!(
        sample(&metrics, "adit_engine_streams_active"),
        Some(2.0),
        "{metrics}"
    );
    // No label carries what somebody else chose.
    for chosen in ["homebox", "\"one\"", public.as_str()] {
        assert!(!metrics.contains(chosen), "{chosen}: {metrics}");
    }
    // One visitor was answered, and one dialler is there.
    for (name, value) in [
        (
            r#"adit_edge_requests_total{protocol="http/1.1",status="2xx"}"#,
            1.0,
        ),
        ("adit_edge_establish_seconds_count", 1.0),
        (&*used("connections", "http", true), 1.0),
        (&*used("connections", "none", false), 1.0),
    ] {
        assert_eq!(sample(&metrics, name), Some(value), "{name}: {metrics}");
    }
    let (mut dialled, mut accepted) = (dialled.unwrap(), accepted.unwrap());
    dialled.write_all(b"five!").await.unwrap();
    dialled.shutdown().await.unwrap();
    let mut came = Vec::new();
    accepted.read_to_end(&mut came).await.unwrap();
    accepted.write_all(b"three").await.unwrap();
    accepted.shutdown().await.unwrap();
    dialled.read_to_end(&mut came).await.unwrap();
    drop((dialled, accepted));
    comes_to(&engine, &used("upstream_bytes", "none", false), 5.0).await;
    comes_to(&engine, &used("downstream_bytes", "none", false), 5.0).await;
    let metrics = engine.metrics().await;
    let seconds = sample(&metrics, &used("connection_seconds", "none", false));
    assert!(seconds.is_some_and(|seconds| seconds > 0.0), "{metrics}");
    comes_to(&engine, "adit_engine_streams_active", 1.0).await;
    client.close().await;
    comes_to(&engine, "adit_engine_clients", 0.0).await;
}

// edge behaviour §12.1: who refused, and why.
#[tokio::test]
async fn a_scraper_sees_which_filter_refused_and_for_what_reason() {
    let policy = "[policy.edge]\nfilters = [{ use = 'trusted-ips', deny = ['127.0.0.1'] }]\n\
                  [project.default]\npolicies = ['edge']\n";
    let engine = TestEngine::start(policy).await;
    let client = engine.client().await;
    let host = engine.publish(&client, TunnelOptions::http()).await;
    assert_eq!(engine.get(&host, "/", "").await.0, 403);
    let denied = r#"adit_edge_denied_total{filter="edge/trusted-ips",reason="ip"}"#;
    comes_to(&engine, denied, 1.0).await;
    let metrics = engine.metrics().await;
    assert_eq!(
        sample(&metrics, "adit_edge_establish_seconds_count"),
        Some(0.0)
    );
}

#[tokio::test]
async fn projects_are_told_apart_in_metrics_only_where_the_operator_wants_it() {
    let engine = TestEngine::start("").await;
    let path = engine.folder.path().join("engine.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(
        &path,
        text.replace("[listen]\n", "[listen]\nmetrics-projects = false\n"),
    )
    .unwrap();
    engine.engine.reload().unwrap();
    let client = engine.client().await;
    let host = engine.publish(&client, TunnelOptions::http()).await;
    assert_eq!(engine.get(&host, "/", "").await.0, 200);
    let anybody = used("connections", "http", true).replace("default", "");
    comes_to(&engine, &anybody, 1.0).await;
    assert!(!engine.metrics().await.contains("default"));
}
