//! Open exchanges are judged again: what was let in ends when the rules, or what is known of who was let in, would
//! not let it in any more, and goes on otherwise.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::fs;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use adit_agent::TunnelOptions;
use adit_filters::{
    Admission, ConfigError, ConnectCx, Env, Filter, FilterError, Hooks, OnConnect, OnRequest,
    Registry, Rehearsal, RequestCx, Verdict,
};
use adit_plugins::identity::credentials::sha256;
use adit_plugins::identity::token::Claims;
use adit_proxy::admin::{Reply, Request};
use adit_proxy::assemble::Position;
use adit_proxy::engine::Options;
use adit_tests::engine::TestEngine;
use adit_tests::flow::{Flow, WAYS};
use tokio::sync::Notify;

const RULES: &str = "[policy.edge]
filters = [
  { use = \"trusted-ips\", deny = [\"127.0.0.0/8\"], optional = true },
  { use = \"token\", optional = true },
]
[project.default]
policies = [\"edge\"]
off = [\"edge/trusted-ips\", \"edge/token\"]
[project.shop]
policies = [\"edge\"]
off = [\"edge/trusted-ips\", \"edge/token\"]
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
    assert!(matches!(reply, Reply::Switched(_)), "{reply:?}");
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[tokio::test]
async fn a_switch_ends_what_it_would_not_let_in_in_its_project_alone() {
    // edge behaviour §4, "re-evaluates open streams"
    let engine = TestEngine::start(RULES).await;
    let client = engine.client().await;
    let shop = engine.client_of("0a1b2c3d").await;
    let host = engine.publish_service(&client, TunnelOptions::http()).await;
    let other = engine.publish_service(&shop, TunnelOptions::http()).await;
    for way in WAYS {
        let mut flow = Flow::begin(&engine, &host, way, "").await.unwrap();
        let mut twin = Flow::begin(&engine, &other, way, "").await.unwrap();
        // What changes nothing for it leaves it alone.
        switch(&engine, "edge/trusted-ips", Position::Off).await;
        assert!(flow.goes_on().await, "{way}");
        switch(&engine, "edge/trusted-ips", Position::On).await;
        flow.ends().await;
        assert!(twin.goes_on().await, "{way}");
        switch(&engine, "edge/trusted-ips", Position::Off).await;
        assert!(Flow::begin(&engine, &host, way, "").await.is_ok());
    }
}

#[tokio::test]
async fn who_was_asked_for_no_proof_has_none_when_it_is_demanded() {
    let engine = TestEngine::start(RULES).await;
    let client = engine.client().await;
    let host = engine.publish_service(&client, TunnelOptions::http()).await;
    let token = bearer(&engine.token(&Claims::default()));
    let mut before = Flow::begin(&engine, &host, "h1 websocket", &token)
        .await
        .unwrap();
    switch(&engine, "edge/token", Position::On).await;
    before.ends().await;
    let mut after = Flow::begin(&engine, &host, "h1 websocket", &token)
        .await
        .unwrap();
    let refused = Flow::begin(&engine, &host, "h1 websocket", "").await.err();
    assert_eq!(refused, Some(401));
    engine.rewrite(&format!("{RULES}[limits]\nconnections = 5000\n"));
    engine.engine.reload().unwrap();
    assert!(after.goes_on().await);
}

#[tokio::test]
async fn a_credential_taken_back_ends_what_it_let_in_and_time_does_not() {
    // edge behaviour §7.2: whether a token's time is over is asked when somebody enters.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials.toml");
    fs::write(&file, "").unwrap();
    let more = "credentials = \"credentials.toml\"\n";
    let engine = TestEngine::start_in(folder, more).await;
    let client = engine.client().await;
    let options = TunnelOptions::http().token_auth(true);
    let host = engine.publish_service(&client, options).await;
    let ada = engine.token(&Claims::default());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let bob = engine.token(&Claims {
        exp: Some(now.as_secs_f64() + 3.0),
        ..Claims::default()
    });
    let mut of_bob = Flow::begin(&engine, &host, "h1 websocket", &bearer(&bob))
        .await
        .unwrap();
    let mut of_ada = Vec::new();
    for way in WAYS {
        of_ada.push(
            Flow::begin(&engine, &host, way, &bearer(&ada))
                .await
                .unwrap(),
        );
    }
    while engine.get(&host, "/up", &bearer(&bob)).await.0 == 200 {}
    engine.engine.reload().unwrap();
    for flow in &mut of_ada {
        assert!(flow.goes_on().await);
    }
    assert!(of_bob.goes_on().await);
    let hash: String = sha256(ada.as_bytes())
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect();
    // The file is watched: nobody has to ask.
    let revoked = format!(
        "[[credential]]\nid = \"ada\"\nuser = \"ada\"\nrevoked = true\ntoken-sha256 = [\"{hash}\"]\n"
    );
    fs::write(&file, revoked).unwrap();
    for flow in &mut of_ada {
        flow.ends().await;
    }
    assert!(of_bob.goes_on().await);
}

#[tokio::test]
async fn a_reload_that_narrows_who_may_open_a_websocket_ends_those_of_others() {
    let rules = |origins: &str| {
        format!(
            "[policy.edge]\nfilters = [{{ use = \"websocket\", origins = [{origins}] }}]\n[project.default]\npolicies = [\"edge\"]\n"
        )
    };
    let engine = TestEngine::start(&rules("\"https://one.test\", \"https://two.test\"")).await;
    let client = engine.client().await;
    let host = engine.publish_service(&client, TunnelOptions::http()).await;
    for way in ["h1 websocket", "h2 websocket"] {
        let (one, two) = (
            "Origin: https://one.test\r\n",
            "Origin: https://two.test\r\n",
        );
        let mut of_one = Flow::begin(&engine, &host, way, one).await.unwrap();
        let mut of_two = Flow::begin(&engine, &host, way, two).await.unwrap();
        let mut body = Flow::begin(&engine, &host, "h1 body", "").await.unwrap();
        engine.rewrite(&rules("\"https://two.test\""));
        engine.engine.reload().unwrap();
        of_one.ends().await;
        assert!(of_two.goes_on().await && body.goes_on().await);
        engine.rewrite(&rules("\"https://one.test\", \"https://two.test\""));
        engine.engine.reload().unwrap();
    }
}

#[tokio::test]
async fn a_tunnel_that_no_longer_may_be_takes_its_exchanges_along() {
    let engine =
        TestEngine::start("[project.default]\n[project.shop]\nendpoints = [\"0a1b2c3d\"]\n").await;
    let client = engine.client().await;
    let shop = engine.client_of("0a1b2c3d").await;
    let host = engine.publish_service(&client, TunnelOptions::http()).await;
    let other = engine.publish_service(&shop, TunnelOptions::http()).await;
    let mut flow = Flow::begin(&engine, &host, "h1 websocket", "")
        .await
        .unwrap();
    let mut twin = Flow::begin(&engine, &other, "h1 websocket", "")
        .await
        .unwrap();
    engine.rewrite("[project.default]\npublic-access = \"forbidden\"\n[project.shop]\nendpoints = [\"0a1b2c3d\"]\n");
    engine.engine.reload().unwrap();
    flow.ends().await;
    assert!(twin.goes_on().await);
}

/// Decides once somebody says so.
struct Waits(Arc<Gate>);

#[derive(Default)]
struct Gate {
    came: Notify,
    may_go: Notify,
}

static GATE: std::sync::LazyLock<Arc<Gate>> = std::sync::LazyLock::new(Arc::default);

impl OnRequest for Waits {
    async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        if cx.head.headers.contains_key("x-wait") {
            self.0.came.notify_one();
            self.0.may_go.notified().await;
        }
        Ok(Verdict::Continue)
    }
}

impl Filter for Waits {
    const NAME: &'static str = "waits";
    type Config = serde_json::Value;

    fn new(_: serde_json::Value, _: &mut Env) -> Result<Self, ConfigError> {
        Ok(Self(Arc::clone(&GATE)))
    }

    fn hooks(self: Arc<Self>) -> Hooks {
        Hooks::new().request(self)
    }
}

#[tokio::test]
async fn what_is_being_judged_while_the_rules_change_is_judged_by_both() {
    let rules = "[policy.edge]
filters = [
  { use = \"trusted-ips\", deny = [\"127.0.0.0/8\"], optional = true },
  { use = \"waits\", optional = true },
]
[project.default]
policies = [\"edge\"]
off = [\"edge/trusted-ips\"]
";
    let options = Options {
        filters: Some(Box::new(Registry::with::<Waits>)),
        ..Options::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let engine = TestEngine::start_with(folder, rules, options).await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, TunnelOptions::http()).await;
    for (to, status, count) in [(Position::Off, 200, 1), (Position::On, 403, 1)] {
        let asked = engine.get(&host, "/", "X-Wait: 1\r\n");
        let switched = async {
            GATE.came.notified().await;
            switch(&engine, "edge/trusted-ips", to).await;
            GATE.may_go.notify_one();
        };
        let ((answer, _), ()) = tokio::join!(asked, switched);
        assert_eq!((answer, arrived.count()), (status, count));
    }

    // A filter without an opinion about what is open: what it let in goes on, what began without it ends.
    switch(&engine, "edge/trusted-ips", Position::Off).await;
    let host = engine.publish_service(&client, TunnelOptions::http()).await;
    let mut seen = Flow::begin(&engine, &host, "h1 websocket", "")
        .await
        .unwrap();
    engine.engine.reload().unwrap();
    assert!(seen.goes_on().await);
    switch(&engine, "edge/waits", Position::Off).await;
    let mut unseen = Flow::begin(&engine, &host, "h1 websocket", "")
        .await
        .unwrap();
    assert!(seen.goes_on().await);
    switch(&engine, "edge/waits", Position::On).await;
    unseen.ends().await;
    assert!(seen.goes_on().await);
}

#[tokio::test]
async fn a_rule_that_only_would_refuse_ends_nothing() {
    let rules = |more: &str| {
        format!(
            "[policy.edge]\nfilters = [{{ use = \"trusted-ips\", deny = [\"127.0.0.0/8\"]{more} }}]\n[project.default]\npolicies = [\"edge\"]\n"
        )
    };
    let engine = TestEngine::start(&rules(", dry-run = true")).await;
    let client = engine.client().await;
    let host = engine.publish_service(&client, TunnelOptions::http()).await;
    let mut flow = Flow::begin(&engine, &host, "h2 body", "").await.unwrap();
    engine.engine.reload().unwrap();
    // Judged by now: a later exchange is.
    let mut later = Flow::begin(&engine, &host, "h1 websocket", "")
        .await
        .unwrap();
    assert!(flow.goes_on().await && later.goes_on().await);
    engine.rewrite(&rules(""));
    engine.engine.reload().unwrap();
    flow.ends().await;
    later.ends().await;
}

/// Admits every connection, and cannot say so again.
struct Forgets;

impl OnConnect for Forgets {
    async fn on_connect(&self, cx: &mut ConnectCx<'_>) -> Result<Admission, FilterError> {
        if cx.facts.get::<Rehearsal>().is_some() {
            std::future::pending::<()>().await;
        }
        Ok(Admission::Admit)
    }
}

impl Filter for Forgets {
    const NAME: &'static str = "forgets";
    type Config = serde_json::Value;

    fn new(_: serde_json::Value, _: &mut Env) -> Result<Self, ConfigError> {
        Ok(Self)
    }

    fn hooks(self: Arc<Self>) -> Hooks {
        Hooks::new().connect(self)
    }
}

#[tokio::test]
async fn what_cannot_be_judged_in_time_ends_and_holds_up_nobody() {
    let rules = "[policy.slow]\nfilters = [{ use = \"forgets\" }]\n[project.default]\npolicies = [\"slow\"]\n\
                 [policy.edge]\nfilters = [{ use = \"trusted-ips\", deny = [\"127.0.0.0/8\"], optional = true }]\n\
                 [project.shop]\nendpoints = [\"0a1b2c3d\"]\npolicies = [\"edge\"]\n";
    let off = "off = [\"edge/trusted-ips\"]\n";
    let options = Options {
        filters: Some(Box::new(Registry::with::<Forgets>)),
        ..Options::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let engine = TestEngine::start_with(folder, &format!("{rules}{off}"), options).await;
    let client = engine.client().await;
    let shop = engine.client_of("0a1b2c3d").await;
    let host = engine.publish_service(&client, TunnelOptions::http()).await;
    let other = engine.publish_service(&shop, TunnelOptions::http()).await;
    let mut stuck = Vec::new();
    for way in WAYS {
        stuck.push(Flow::begin(&engine, &host, way, "").await.unwrap());
    }
    let mut refused = Flow::begin(&engine, &other, "h2 body", "").await.unwrap();
    engine.rewrite(rules);
    engine.engine.reload().unwrap();
    refused.ends().await;
    for flow in &mut stuck {
        flow.ends().await;
    }
}

#[tokio::test]
async fn an_answer_that_is_given_and_not_taken_ends_too() {
    let engine = TestEngine::start(RULES).await;
    let client = engine.client().await;
    let host = engine.publish_service(&client, TunnelOptions::http()).await;
    let stream = engine.visit(&host, "h2").await;
    // No byte may come before the visitor says so, and it never does.
    let (send, connection) = h2::client::Builder::new()
        .initial_window_size(0)
        .handshake::<_, bytes::Bytes>(stream)
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(format!("https://{host}/down/9"));
    let mut send = send.ready().await.unwrap();
    let (answer, _) = send.send_request(request.body(()).unwrap(), true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    switch(&engine, "edge/trusted-ips", Position::On).await;
    let end = tokio::time::timeout(std::time::Duration::from_secs(5), body.data());
    let end = end.await.unwrap();
    assert!(matches!(end, Some(Err(_))), "{end:?}");
}
