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
    drop((dialled.unwrap(), accepted.unwrap()));
    comes_to(&engine, "adit_engine_streams_active", 1.0).await;
    client.close().await;
    comes_to(&engine, "adit_engine_clients", 0.0).await;
}
