//! The operator's ways with filters in a running engine: switching, trying, and reaching some tunnels.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::sync::Arc;

use adit_agent::TunnelOptions;
use adit_filters::{
    ConfigError, Env, Filter, FilterError, Hooks, OnRequest, Registry, RequestCx, Verdict,
};
use adit_proxy::admin::{Reply, Request};
use adit_proxy::assemble::Position;
use adit_proxy::engine::{Options, TrialRequest};
use adit_tests::engine::TestEngine;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

const SWITCHED: &str = "[policy.edge]
filters = [
  { use = \"token\", optional = true },
  { use = \"trusted-ips\", deny = [\"127.0.0.0/8\"], optional = true },
]
[project.default]
policies = [\"edge\"]
off = [\"edge/trusted-ips\"]
[project.shop]
policies = [\"edge\"]
off = [\"edge/trusted-ips\"]
endpoints = [\"0a1b2c3d\"]
";

async fn switch(engine: &TestEngine, filter: &str, to: Position) {
    let request = Request::PolicySwitch {
        project: "default".to_owned(),
        filter: filter.to_owned(),
        to,
        reason: None,
    };
    let reply = engine.admin(&request).await;
    let Reply::Switched(switched) = reply else {
        panic!("{reply:?}")
    };
    assert_eq!(switched.tunnels, 1);
    assert!(switched.filters.iter().all(|filter| filter.position == to));
}

/// One request on an HTTP/1.1 connection that stays open.
async fn ask(stream: &mut TlsStream<TcpStream>, host: &str) -> u16 {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    stream.read_exact(&mut body).await.unwrap();
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

async fn ask_h2(send: &h2::client::SendRequest<Bytes>, host: &str) -> u16 {
    let request = http::Request::get(format!("https://{host}/"));
    let mut send = send.clone().ready().await.unwrap();
    let (response, _) = send.send_request(request.body(()).unwrap(), true).unwrap();
    response.await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_switch_counts_for_the_next_request_on_connections_that_are_open() {
    let engine = TestEngine::start(SWITCHED).await;
    let client = engine.client().await;
    let host = engine.publish(&client, TunnelOptions::http()).await;
    let mut h1 = engine.visit(&host, "http/1.1").await;
    let h2 = engine.h2(&host).await;
    for (to, status) in [
        (None, 401),
        (Some(Position::Off), 200),
        (Some(Position::On), 401),
        (Some(Position::Off), 200),
    ] {
        if let Some(to) = to {
            switch(&engine, "edge/token", to).await;
        }
        assert_eq!(ask(&mut h1, &host).await, status, "{to:?}");
        assert_eq!(ask_h2(&h2, &host).await, status, "{to:?}");
    }
    // A decision about connections is made again on those that are open.
    switch(&engine, "edge/trusted-ips", Position::On).await;
    assert_eq!(ask_h2(&h2, &host).await, 403);
    assert_eq!(ask(&mut h1, &host).await, 403);
}

#[tokio::test]
async fn a_switch_survives_a_reload_and_reaches_later_tunnels_of_its_project_alone() {
    let engine = TestEngine::start(SWITCHED).await;
    let client = engine.client().await;
    let shop = engine.client_of("0a1b2c3d").await;
    let host = engine.publish(&client, TunnelOptions::http()).await;
    let other = engine.publish(&shop, TunnelOptions::http()).await;
    switch(&engine, "edge/token", Position::Off).await;
    let later = engine.publish(&client, TunnelOptions::http()).await;
    for _ in 0..2 {
        for (host, status) in [(&host, 200), (&later, 200), (&other, 401)] {
            assert_eq!(engine.get(host, "/", "").await.0, status);
        }
        // The file may change around it.
        engine.rewrite(&SWITCHED.replace("127.0.0.0/8", "192.0.2.0/24"));
        engine.engine.reload().unwrap();
    }
    // What is optional no longer is on, whatever was switched.
    engine.rewrite(&SWITCHED.replace("\"token\", optional = true", "\"token\""));
    engine.engine.reload().unwrap();
    assert_eq!(engine.get(&host, "/", "").await.0, 401);
}

#[tokio::test]
async fn a_filter_that_a_live_tunnel_cannot_have_is_not_switched_on() {
    let engine = TestEngine::start(
        "[policy.edge]\nfilters = [{ use = \"trusted-ips\", allow = [\"10.0.0.0/8\"], optional = true }]\n\
         [project.default]\npolicies = [\"edge\"]\noff = [\"edge/trusted-ips\"]\n",
    )
    .await;
    let client = engine.client().await;
    // Nobody could ever reach it.
    let options = TunnelOptions::http().trusted_ips(["127.0.0.0/8"]);
    let host = engine.publish(&client, options).await;
    let reply = engine
        .admin(&Request::PolicySwitch {
            project: "default".to_owned(),
            filter: "edge/trusted-ips".to_owned(),
            to: Position::On,
            reason: None,
        })
        .await;
    let Reply::Refused { reasons } = reply else {
        panic!("{reply:?}")
    };
    let expected = format!("with `edge/trusted-ips` on, the chain of tunnel {host} cannot be made");
    assert!(reasons[0].starts_with(&expected), "{reasons:?}");
    assert_eq!(engine.get(&host, "/", "").await.0, 200);
    let project = None;
    let Reply::Filters { filters, .. } = engine.admin(&Request::PolicyList { project }).await
    else {
        panic!()
    };
    assert_eq!(
        (filters[0].position, &filters[0].switch),
        (Position::Off, &None)
    );
}

#[tokio::test]
async fn a_filter_on_trial_counts_what_it_would_refuse_and_a_trial_request_counts_nothing() {
    let engine = TestEngine::start(
        "[policy.edge]\nfilters = [\n  { use = \"trusted-ips\", deny = [\"127.0.0.0/8\"], dry-run = true },\n  \
         { use = \"token\", dry-run = true },\n]\n[project.default]\npolicies = [\"edge\"]\n",
    )
    .await;
    let client = engine.client().await;
    let host = engine.publish(&client, TunnelOptions::http()).await;
    let request = Request::PolicyTest(TrialRequest {
        project: None,
        host: host.clone(),
        name: None,
        labels: [].into(),
        method: "GET".to_owned(),
        target: "/".to_owned(),
        fields: Vec::new(),
        body: None,
        from: "127.0.0.1".parse().unwrap(),
        tls13: true,
        certificate_sha256: None,
    });
    let Reply::Tested(report) = engine.admin(&request).await else {
        panic!()
    };
    assert!(report.passes, "{report:?}");
    let said: Vec<&str> = report.lines.iter().map(|line| line.said.as_str()).collect();
    for reason in ["ip", "missing-token"] {
        let expected = format!("would say, but is on dry-run: refuses: {reason}");
        assert!(said.contains(&&*expected), "{said:?}");
    }
    assert!(!engine.metrics().await.contains("would-refuse"));

    let token = engine.token(&Default::default());
    assert_eq!(engine.get(&host, "/", "").await.0, 200);
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let (status, answer) = engine.get(&host, "/", &bearer).await;
    // On trial it strips nothing and tells the service nothing.
    assert_eq!(status, 200);
    assert!(
        answer.contains(&token) && !answer.contains("x-rstream-"),
        "{answer}"
    );
    let metrics = engine.metrics().await;
    for line in [
        r#"adit_filter_answers_total{filter="edge/trusted-ips",phase="connect",verdict="would-refuse"} 2"#,
        r#"adit_filter_answers_total{filter="edge/token",phase="request",verdict="would-refuse"} 1"#,
        r#"adit_filter_answers_total{filter="edge/token",phase="request",verdict="pass"} 1"#,
        r#"adit_filter_seconds_total{filter="edge/token",phase="request"} "#,
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
}

/// Never knows.
struct Fails;
impl OnRequest for Fails {
    async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        cx.head.headers.insert("x-half", "done".parse().unwrap());
        Err(FilterError::Unavailable {
            service: "oracle",
            source: None,
        })
    }
}
impl Filter for Fails {
    const NAME: &'static str = "fails";
    type Config = serde_json::Value;
    fn new(_: serde_json::Value, _: &mut Env) -> Result<Self, ConfigError> {
        Ok(Self)
    }
    fn hooks(self: Arc<Self>) -> Hooks {
        Hooks::new().request(self)
    }
}

#[tokio::test]
async fn what_a_filter_fails_to_decide_is_refused_unless_the_operator_lets_it_pass() {
    for (setting, status, verdict) in [
        ("", 503, "fail"),
        (", on-error = \"refuse\"", 503, "fail"),
        (", on-error = \"pass\"", 200, "passed-over"),
    ] {
        let more = format!(
            "[policy.edge]\nfilters = [{{ use = \"fails\"{setting} }}]\n[project.default]\npolicies = [\"edge\"]\n"
        );
        let options = Options {
            filters: Some(Box::new(Registry::with::<Fails>)),
            ..Options::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let engine = TestEngine::start_with(folder, &more, options).await;
        let client = engine.client().await;
        let (host, arrived) = engine.publish_watched(&client, TunnelOptions::http()).await;
        assert_eq!(engine.get(&host, "/", "").await.0, status, "{setting}");
        assert_eq!(arrived.count(), usize::from(status == 200));
        assert!(!arrived.last().is_some_and(|head| head.contains("x-half")));
        let counted = format!(r#"{{filter="edge/fails",phase="request",verdict="{verdict}"}} 1"#);
        assert!(engine.metrics().await.contains(&counted), "{counted}");
    }
}

#[tokio::test]
async fn a_scope_stands_before_tunnels_of_its_name_host_or_label_alone() {
    let scope = |criteria: &str, policy: &str| {
        format!("  {{ match = {criteria}, policies = [\"{policy}\"] }},\n")
    };
    let more = [
        "[policy.ip]\nfilters = [{ use = \"trusted-ips\", deny = [\"127.0.0.0/8\"] }]\n\
         [policy.who]\nfilters = [{ use = \"token\" }]\n[project.default]\ntunnels = [\n",
        &scope("{ name = \"shop-*\" }", "ip"),
        &scope("{ host = \"inner-*.t.edge.localhost\" }", "ip"),
        &scope("{ label = { tier = \"inner\" } }", "ip"),
        // Every criterion must match.
        &scope("{ name = \"both\", label = { tier = \"both\" } }", "who"),
        "]\n",
    ]
    .concat();
    let engine = TestEngine::start(&more).await;
    let client = engine.client().await;
    let http = TunnelOptions::http;
    for (options, status) in [
        (http(), 200),
        (http().name("shop-1"), 403),
        (http().name("blog"), 200),
        (http().hostname("inner-1.t.edge.localhost"), 403),
        (http().hostname("outer-1.t.edge.localhost"), 200),
        (http().label("tier", "inner"), 403),
        (http().label("tier", "outer"), 200),
        (http().label("rank", "inner"), 200),
        (http().name("both").label("tier", "both"), 401),
        (http().name("neither").label("tier", "both"), 200),
        // Two scopes: both stand before it.
        (http().name("shop-2").label("tier", "inner"), 403),
    ] {
        let shown = format!("{options:?}");
        let host = engine.publish(&client, options).await;
        assert_eq!(engine.get(&host, "/", "").await.0, status, "{shown}");
    }
}
