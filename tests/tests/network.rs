//! Addresses, countries and rates through a whole engine. Visitors come by way of a trusted proxy that names their
//! addresses; each refusal has its allowed twin, and what is refused reaches no service.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::fs;

use adit_agent::TunnelOptions;
use adit_tests::engine::{Arrived, TestEngine};
use adit_tests::mmdb::{Row, database};
use tempfile::TempDir;

/// Everything stands behind a proxy on this machine.
const FRONT: &str = "[front]\ntrusted = [\"127.0.0.1\"]\n";

fn rules(filters: &str) -> String {
    format!(
        "{FRONT}[geoip]\ndatabase = \"places.mmdb\"\n[policy.edge]\nfilters = [\n{filters}]\n\
         [project.default]\npolicies = [\"edge\"]\n"
    )
}

fn place(country: &'static str, continent: &'static str, asn: u32) -> Row<'static> {
    Row {
        country,
        continent,
        asn,
        ..Row::default()
    }
}

/// A folder with a database: documentation addresses are in three countries, and one network is in none.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("places.mmdb"), places()).unwrap();
    folder
}

fn places() -> Vec<u8> {
    database(&[
        ("192.0.2.0/24", place("DE", "EU", 64500)),
        ("198.51.100.0/24", place("FR", "EU", 64501)),
        ("203.0.113.0/24", place("US", "NA", 64502)),
        ("2001:db8::/32", place("DE", "EU", 64500)),
        ("10.0.0.0/8", place("", "", 64503)),
    ])
}

/// What a visitor from there is answered.
async fn from(engine: &TestEngine, host: &str, address: &str) -> (u16, String) {
    let field = format!("X-Forwarded-For: {address}\r\n");
    engine.get(host, "/", &field).await
}

/// Visits from each address, and holds each answer and what reached the service to what is expected.
async fn visits(engine: &TestEngine, host: &str, arrived: &Arrived, cases: &[(&str, u16)]) {
    for (address, status) in cases {
        let before = arrived.count();
        assert_eq!(from(engine, host, address).await.0, *status, "{address}");
        let reached = usize::from(*status == 200);
        assert_eq!(arrived.count() - before, reached, "{address}");
    }
}

#[tokio::test]
async fn a_project_and_its_tunnel_both_have_to_trust_an_address() {
    // edge behaviour X7, X9
    let filter = "{ use = \"trusted-ips\", allow = [\"10.1.0.0/16\", \"2001:db8::/32\"], deny = [\"10.1.9.0/24\"] },\n";
    let engine = TestEngine::start_in(folder(), &rules(filter)).await;
    let client = engine.client().await;
    let options = TunnelOptions::http().trusted_ips(["10.0.0.0/8", "2001:db8:1::/48"]);
    let (host, arrived) = engine.publish_watched(&client, options).await;
    let cases = [
        ("10.1.0.1", 200),
        ("10.2.0.1", 403),
        ("10.1.9.1", 403),
        ("11.1.0.1", 403),
        ("::ffff:10.1.0.1", 200),
        ("::ffff:10.2.0.1", 403),
        ("2001:db8:1::7", 200),
        ("2001:db8:2::7", 403),
    ];
    visits(&engine, &host, &arrived, &cases).await;
}

#[tokio::test]
async fn countries_continents_and_networks_are_told_apart() {
    // edge behaviour X7
    for (table, cases) in [
        (
            "allow = [\"DE\", \"US\"]",
            [
                ("192.0.2.1", 200),
                ("198.51.100.1", 403),
                ("203.0.113.1", 200),
                ("2001:db8::1", 200),
                // Of no country, and of no network that is known.
                ("10.0.0.1", 403),
                ("8.8.8.8", 403),
            ],
        ),
        (
            "allow = [\"continent:EU\"], deny = [\"FR\"]",
            [
                ("192.0.2.1", 200),
                ("198.51.100.1", 403),
                ("203.0.113.1", 403),
                ("2001:db8::1", 200),
                ("10.0.0.1", 403),
                ("8.8.8.8", 403),
            ],
        ),
        (
            "deny = [\"AS64502\", \"FR\"]",
            [
                ("192.0.2.1", 200),
                ("198.51.100.1", 403),
                ("203.0.113.1", 403),
                ("2001:db8::1", 200),
                ("10.0.0.1", 200),
                ("8.8.8.8", 200),
            ],
        ),
    ] {
        let filter = format!("{{ use = \"geoip\", {table} }},\n");
        let engine = TestEngine::start_in(folder(), &rules(&filter)).await;
        let client = engine.client().await;
        let (host, arrived) = engine.publish_watched(&client, TunnelOptions::http()).await;
        visits(&engine, &host, &arrived, &cases).await;
    }
}

#[tokio::test]
async fn a_tunnels_countries_narrow_its_projects() {
    let filter = "{ use = \"geoip\", allow = [\"DE\", \"FR\"] },\n";
    let engine = TestEngine::start_in(folder(), &rules(filter)).await;
    let client = engine.client().await;
    let options = TunnelOptions::http().with(|asked| asked.geoip = vec!["DE".into(), "US".into()]);
    let (host, arrived) = engine.publish_watched(&client, options).await;
    let cases = [
        ("192.0.2.1", 200),
        ("198.51.100.1", 403),
        ("203.0.113.1", 403),
    ];
    visits(&engine, &host, &arrived, &cases).await;
}

#[tokio::test]
async fn the_address_is_blamed_before_the_country() {
    // edge behaviour X10
    let log = "{ use = \"access-log\", to = { file = \"log.jsonl\" } },\n";
    let filters = format!(
        "{{ use = \"geoip\", allow = [\"DE\"] }},\n{{ use = \"trusted-ips\", allow = [\"192.0.2.0/24\"] }},\n{log}"
    );
    let folder = folder();
    let file = folder.path().join("log.jsonl");
    let engine = TestEngine::start_in(folder, &rules(&filters)).await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, TunnelOptions::http()).await;
    visits(
        &engine,
        &host,
        &arrived,
        &[("203.0.113.1", 403), ("192.0.2.1", 200)],
    )
    .await;
    let TestEngine { engine, folder, .. } = engine;
    engine.drain().await;
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(
        (&lines[0]["filter"], &lines[0]["reason"]),
        (&"edge/trusted-ips".into(), &"ip".into()),
        "{text}"
    );
    drop(folder);
}

#[tokio::test]
async fn without_its_database_nobody_is_let_in_and_with_it_again() {
    // edge behaviour X18
    let filter = "{ use = \"geoip\", allow = [\"DE\"] },\n";
    let engine = TestEngine::start_in(folder(), &rules(filter)).await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, TunnelOptions::http()).await;
    let becomes = async |status: u16| {
        let until = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
        while from(&engine, &host, "192.0.2.1").await.0 != status {
            assert!(tokio::time::Instant::now() < until, "never {status}");
        }
    };
    becomes(200).await;
    let file = engine.folder.path().join("places.mmdb");
    fs::remove_file(&file).unwrap();
    becomes(503).await;
    let before = arrived.count();
    assert_eq!(from(&engine, &host, "192.0.2.1").await.0, 503);
    assert_eq!(arrived.count(), before);
    fs::write(&file, places()).unwrap();
    becomes(200).await;
    assert_eq!(from(&engine, &host, "203.0.113.1").await.0, 403);
}

#[tokio::test]
async fn a_new_database_counts_on_connections_that_are_open() {
    let filter = "{ use = \"geoip\", allow = [\"DE\"] },\n";
    let engine = TestEngine::start_in(folder(), &rules(filter)).await;
    let client = engine.client().await;
    let (host, _) = engine.publish_watched(&client, TunnelOptions::http()).await;
    let connection = engine.h2(&host).await;
    let ask = async || {
        let request = http::Request::get(format!("https://{host}/"))
            .header("x-forwarded-for", "203.0.113.1")
            .body(())
            .unwrap();
        let mut send = connection.clone().ready().await.unwrap();
        let (response, _) = send.send_request(request, true).unwrap();
        response.await.unwrap().status().as_u16()
    };
    assert_eq!(ask().await, 403);
    let moved = database(&[("203.0.113.0/24", place("DE", "EU", 64502))]);
    // Put in place whole, as updaters do.
    let new = engine.folder.path().join("new.mmdb");
    fs::write(&new, moved).unwrap();
    fs::rename(&new, engine.folder.path().join("places.mmdb")).unwrap();
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while ask().await != 200 {
        assert!(tokio::time::Instant::now() < until);
    }
}

#[tokio::test]
async fn who_asks_too_often_waits_and_others_do_not() {
    let filter = "{ use = \"rate-limit\", requests = 3, window = \"1h\" },\n";
    let engine = TestEngine::start_in(folder(), &rules(filter)).await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, TunnelOptions::http()).await;
    let often = [
        ("192.0.2.1", 200),
        ("192.0.2.1", 200),
        ("192.0.2.1", 200),
        ("192.0.2.1", 429),
        ("192.0.2.2", 200),
        // One house has a /64.
        ("2001:db8::1", 200),
        ("2001:db8::2", 200),
        ("2001:db8::3", 200),
        ("2001:db8::4", 429),
        ("2001:db8:0:1::1", 200),
        // One address by two names.
        ("::ffff:192.0.2.2", 200),
        ("192.0.2.2", 200),
        ("::ffff:192.0.2.2", 429),
    ];
    visits(&engine, &host, &arrived, &often).await;
    let (_, answer) = from(&engine, &host, "192.0.2.1").await;
    let wait = answer
        .lines()
        .find_map(|line| line.strip_prefix("retry-after: "))
        .unwrap();
    let wait: u64 = wait.parse().unwrap();
    // A third of the window brings one back.
    assert!((1..=1200).contains(&wait), "{answer}");
}

#[tokio::test]
async fn a_limit_of_connections_counts_each_once() {
    let filter = "{ use = \"rate-limit\", connections = 2, window = \"1h\" },\n";
    let engine = TestEngine::start_in(folder(), &rules(filter)).await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, TunnelOptions::http()).await;
    let connection = engine.h2(&host).await;
    for _ in 0..5 {
        let request = http::Request::get(format!("https://{host}/"));
        let request = request.header("x-forwarded-for", "192.0.2.1");
        let mut send = connection.clone().ready().await.unwrap();
        let (response, _) = send.send_request(request.body(()).unwrap(), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
    }
    let cases = [("192.0.2.1", 200), ("192.0.2.1", 429), ("192.0.2.2", 200)];
    visits(&engine, &host, &arrived, &cases).await;
}

#[tokio::test]
async fn a_tunnel_has_a_rate_of_its_own() {
    let filter = "{ use = \"rate-limit\", requests = 2, window = \"1h\", per = \"tunnel\" },\n";
    let engine = TestEngine::start_in(folder(), &rules(filter)).await;
    let client = engine.client().await;
    let (one, at_one) = engine.publish_watched(&client, TunnelOptions::http()).await;
    let (other, at_other) = engine.publish_watched(&client, TunnelOptions::http()).await;
    let cases = [("192.0.2.1", 200), ("192.0.2.2", 200), ("192.0.2.3", 429)];
    visits(&engine, &one, &at_one, &cases).await;
    visits(&engine, &other, &at_other, &cases).await;
}

#[tokio::test]
async fn nobody_but_a_trusted_proxy_names_an_address() {
    let filter = "{ use = \"trusted-ips\", allow = [\"10.0.0.0/8\"] },\n";
    let rules = rules(filter).replace(FRONT, "");
    let engine = TestEngine::start_in(folder(), &rules).await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, TunnelOptions::http()).await;
    visits(&engine, &host, &arrived, &[("10.0.0.1", 403)]).await;
    let own = rules.replace("10.0.0.0/8", "127.0.0.0/8");
    engine.rewrite(&own);
    engine.engine.reload().unwrap();
    visits(&engine, &host, &arrived, &[("10.0.0.1", 200)]).await;
}
