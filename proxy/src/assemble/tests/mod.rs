//! What ends up in a tunnel's chain.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod load;
mod scopes;

use std::net::SocketAddr;

use adit_config::{Config, Secret};
use adit_filters::{
    ConfigError, Connected, ConnectionInfo, Decision, Env, Filter, Identity, OnRequest, Registry,
    RequestCx, Transport, Verdict,
};
use adit_plugins::identity::token::Authority;
use serde::Deserialize;

use super::*;
use crate::env::World;
use crate::properties::Kind;

/// Needs to know who the visitor is.
struct Needs;
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}
impl OnRequest for Needs {
    async fn on_request(
        &self,
        cx: &mut RequestCx<'_>,
    ) -> Result<Verdict, adit_filters::FilterError> {
        let _ = cx.exchange.fact::<Identity>();
        Ok(Verdict::Continue)
    }
}
impl Filter for Needs {
    const NAME: &'static str = "needs-identity";
    type Config = Nothing;
    fn new(_: Nothing, _: &mut Env) -> Result<Self, ConfigError> {
        Ok(Self)
    }
    fn hooks(self: Arc<Self>) -> Hooks {
        Hooks::new().request(self).needs::<Identity>()
    }
}

const HEAD: &str = "[engine]\nhost = 'e.example'\n[certificates]\nfiles = { cert = 'c', key = 'k' }\n[auth]\njwt-secret = { env = 'S' }\n";

fn registry() -> Registry {
    let secret = Secret::new("demo-secret-32-bytes-minimum-0001".to_owned());
    adit_plugins::registry(&adit_plugins::Services::new(Arc::new(
        Authority::new(&secret).unwrap(),
    )))
    .with::<Needs>()
}

fn config(text: &str) -> Config {
    let secret = (
        "S".to_owned(),
        "demo-secret-32-bytes-minimum-0001".to_owned(),
    );
    match Config::parse("engine.toml", &format!("{HEAD}{text}"), [secret]) {
        Ok(config) => config,
        Err(problems) => panic!("{problems:?}"),
    }
}

fn build(text: &str) -> Result<Policies, Vec<String>> {
    let load = World::for_check().unwrap().load();
    Policies::build(&config(text), &registry(), load, Arc::default())
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn tunnel(project: &str) -> TunnelInfo {
    TunnelInfo {
        id: "t".into(),
        project: project.into(),
        published: true,
        ..TunnelInfo::default()
    }
}

fn http() -> Effective {
    Effective {
        name: None,
        kind: Kind::Bytestream,
        publish: true,
        protocol: Some(Protocol::Http),
        labels: BTreeMap::new(),
        trusted_ips: vec![],
        http_version: None,
        upstream_tls: false,
        geoip: vec![],
        tls_min_version: None,
        tls_ciphers: vec![],
        mtls_auth: false,
        token_auth: false,
        rstream_auth: false,
        challenge_mode: false,
        allow_cross_region_routing: false,
    }
}

fn trusting(list: &[&str]) -> Effective {
    Effective {
        trusted_ips: list.iter().map(|net| net.parse().unwrap()).collect(),
        ..http()
    }
}

fn chain(policies: &Policies, asked: &Effective) -> String {
    match policies.chain(&tunnel("default"), asked) {
        Ok(chain) => chain
            .rows()
            .map(|row| row.name.to_string())
            // In every chain of HTTP tunnels, and tested below.
            .filter(|name| name != "engine/well-known")
            .collect::<Vec<_>>()
            .join(" "),
        Err(error) => format!("{}: {error}", error.class()),
    }
}

// Rule 4: stage, then as written, project before tunnel.
#[test]
fn filters_stand_by_stage_then_as_written_and_the_projects_before_the_tunnels() {
    let policies = build(
        "[policy.log]\nfilters = [{ use = 'stream-summary' }]\n\
         [policy.edge]\nfilters = [\n\
         { use = 'needs-identity', name = 'first' },\n\
         { use = 'token' },\n\
         { use = 'needs-identity', name = 'second' },\n\
         { use = 'trusted-ips', allow = ['10.0.0.0/8'] },\n\
         ]\n\
         [project.default]\npolicies = ['log', 'edge']\n",
    )
    .unwrap();
    let asked = Effective {
        token_auth: true,
        ..trusting(&["10.1.0.0/16"])
    };
    assert_eq!(
        chain(&policies, &asked),
        "edge/trusted-ips tunnel/trusted-ips edge/token tunnel/token edge/first edge/second project/websocket \
         project/upgrade log/stream-summary"
    );
    let explained = explain(&policies.chain(&tunnel("default"), &asked).unwrap());
    let lines: Vec<&str> = explained.lines().collect();
    assert_eq!(lines.len(), 11);
    assert!(
        lines[1].starts_with("1   network   edge/trusted-ips"),
        "{explained}"
    );
    assert!(lines[1].ends_with("engine.toml:14:1"), "{explained}");
    assert!(
        lines[2].ends_with("the tunnel's `trusted_ips`"),
        "{explained}"
    );
    assert!(
        lines[8].ends_with("`upgrades` of project `default`"),
        "{explained}"
    );
}

// edge-behaviour §4 F7: after network and TLS, before proofs.
#[test]
fn every_http_tunnel_answers_on_reserved_paths_itself() {
    let rows = |text: &str, asked: &Effective| {
        let chain = build(text).unwrap().chain(&tunnel("default"), asked);
        let rows = chain.unwrap();
        let rows = rows.rows().map(|row| row.name.to_string());
        rows.collect::<Vec<_>>().join(" ")
    };
    let plain = "[project.default]\nupgrades = []\n";
    let asked = Effective {
        token_auth: true,
        ..trusting(&["10.0.0.0/8"])
    };
    assert_eq!(
        rows(plain, &asked),
        "tunnel/trusted-ips engine/well-known tunnel/token"
    );
    let own = "[policy.p]\nfilters = [{ use = 'well-known' }]\n[project.default]\npolicies = ['p']\nupgrades = []\n";
    assert_eq!(rows(own, &http()), "p/well-known");
    let trial = own.replace("'well-known'", "'well-known', dry-run = true");
    assert_eq!(rows(&trial, &http()), "p/well-known engine/well-known");
    let tls = Effective {
        protocol: Some(Protocol::Tls),
        ..http()
    };
    assert_eq!(rows(plain, &tls), "");
    assert_eq!(rows(own, &tls), "p/well-known", "nothing is lost");
}

#[test]
fn without_policies_an_http_tunnel_has_its_upgrades_only() {
    let policies = build("").unwrap();
    assert_eq!(
        chain(&policies, &http()),
        "project/websocket project/upgrade"
    );
    assert_eq!(
        chain(
            &policies,
            &Effective {
                publish: false,
                ..http()
            }
        ),
        ""
    );
    assert_eq!(
        explain(&Chain::empty()),
        "no filters: everything passes, no upgrade is granted\n"
    );
}

#[test]
fn upgrades_are_granted_unless_a_policy_or_the_project_speaks() {
    let cases = [
        ("[project.default]\nupgrades = []\n", ""),
        (
            "[project.default]\nupgrades = ['websocket']\n",
            "project/websocket",
        ),
        (
            "[policy.p]\nfilters = [{ use = 'websocket', origins = ['self'] }]\n[project.default]\npolicies = ['p']\n",
            "p/websocket project/upgrade",
        ),
        // Switched off: no default takes its place, which would grant more.
        (
            "[policy.p]\nfilters = [{ use = 'websocket', origins = ['self'], optional = true }]\n\
             [project.default]\npolicies = ['p']\noff = ['p/websocket']\n",
            "project/upgrade",
        ),
        // A policy that is another project's says nothing here.
        (
            "[policy.p]\nfilters = [{ use = 'websocket' }]\n",
            "project/websocket project/upgrade",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(chain(&build(text).unwrap(), &http()), expected, "{text}");
    }
}

#[test]
fn an_optional_filter_can_be_switched_off_for_one_project() {
    let policies = build(
        "[policy.p]\nfilters = [{ use = 'trusted-ips', allow = ['10.0.0.0/8'], optional = true }, { use = 'token' }]\n\
         [project.default]\npolicies = ['p']\noff = ['p/trusted-ips']\nupgrades = []\n\
         [project.other]\npolicies = ['p']\nupgrades = []\n",
    )
    .unwrap();
    assert_eq!(chain(&policies, &http()), "p/token");
    let other = policies.chain(&tunnel("other"), &http()).unwrap();
    assert_eq!(
        other
            .rows()
            .map(|row| row.name.to_string())
            .collect::<Vec<_>>(),
        ["p/trusted-ips", "engine/well-known", "p/token"]
    );
    // What is off allows nothing that a tunnel's list would have to share.
    assert_eq!(
        chain(&policies, &trusting(&["192.0.2.0/24"])),
        "tunnel/trusted-ips p/token"
    );
}

// Rule 10, edge-behaviour §5.1 and §14.7 X9: project ∧ tunnel.
#[tokio::test]
async fn a_visitor_must_satisfy_the_projects_list_and_the_tunnels() {
    let text = "[policy.p]\nfilters = [{ use = 'trusted-ips', allow = ['10.1.0.0/16'] }]\n\
                [project.default]\npolicies = ['p']\n";
    let policies = build(text).unwrap();
    let chain = policies
        .chain(&tunnel("default"), &trusting(&["10.0.0.0/8"]))
        .unwrap();
    for (peer, expected) in [
        ("10.1.0.1:1", None),
        ("10.2.0.1:1", Some("p/trusted-ips")),
        ("11.0.0.1:1", Some("p/trusted-ips")),
    ] {
        let peer: SocketAddr = peer.parse().unwrap();
        let info = ConnectionInfo {
            id: 1,
            peer,
            transport: Transport::Tls,
            hello: None,
            tls: None,
        };
        let refused = match chain
            .connect(Arc::new(info), Arc::new(tunnel("default")))
            .await
        {
            Connected::Admitted(_) => None,
            Connected::Refused { refusal, .. } => refusal.by,
            Connected::Close { by, .. } => Some(by),
        };
        assert_eq!(refused.as_deref(), expected, "{peer}");
    }
}

#[test]
fn a_tunnel_that_nobody_could_reach_is_refused() {
    let policies = build(
        "[policy.p]\nfilters = [{ use = 'trusted-ips', allow = ['10.1.0.0/16'] }]\n\
         [project.default]\npolicies = ['p']\nupgrades = []\n",
    )
    .unwrap();
    assert_eq!(
        chain(&policies, &trusting(&["192.0.2.0/24"])),
        "2000: `trusted_ips` has no address in common with those the project trusts"
    );
    assert_eq!(
        chain(&policies, &trusting(&["192.0.2.0/24", "10.1.2.3/32"])),
        "p/trusted-ips tunnel/trusted-ips"
    );
    let many: Vec<String> = (0..5000)
        .map(|n| format!("10.1.{}.{}/32", n / 256, n % 256))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(chain(&policies, &trusting(&many)).starts_with("2000: `trusted_ips` cannot be used"));
}

// edge-behaviour §7.7
#[test]
fn public_access_is_a_bound_that_holds_after_a_reload_too() {
    let with = |rule: &str| {
        build(&format!(
            "[project.default]\npublic-access = '{rule}'\nupgrades = []\n"
        ))
        .unwrap()
    };
    let token = Effective {
        token_auth: true,
        ..http()
    };
    let private = Effective {
        publish: false,
        ..http()
    };
    let requires = "1000: the project requires authentication on public tunnels, set `token_auth`, `rstream_auth` or `mtls_auth`";
    let forbids = "1000: the project forbids public tunnels";
    let cases = [
        ("allowed", &http(), ""),
        ("auth-required", &http(), requires),
        ("auth-required", &token, "tunnel/token"),
        ("auth-required", &private, ""),
        ("forbidden", &token, forbids),
        ("forbidden", &private, ""),
    ];
    for (rule, asked, expected) in cases {
        assert_eq!(chain(&with(rule), asked), expected, "{rule}");
    }
}

#[test]
fn a_project_that_is_gone_has_no_chain() {
    let error = build("")
        .unwrap()
        .chain(&tunnel("gone"), &http())
        .unwrap_err();
    assert_eq!(
        ProtocolError::from(error),
        ProtocolError::new(ErrorCode::TUNNEL_NOT_FOUND, "project `gone` does not exist")
    );
}

#[test]
fn what_judges_requests_cannot_be_evaded_by_another_protocol() {
    let raw = Effective {
        protocol: None,
        ..http()
    };
    let policies =
        build("[policy.p]\nfilters = [{ use = 'token' }]\n[project.default]\npolicies = ['p']\n")
            .unwrap();
    assert_eq!(
        chain(&policies, &raw),
        "1000: the project's filter `p/token` judges HTTP requests, so the tunnel must be one of HTTP"
    );
    // The allowed twin: connection filters, and those that only grant or log.
    let policies = build(
        "[policy.p]\nfilters = [{ use = 'trusted-ips', deny = ['10.0.0.0/8'] }, { use = 'websocket' }]\n\
         [project.default]\npolicies = ['p']\n",
    )
    .unwrap();
    assert_eq!(chain(&policies, &raw), "p/trusted-ips p/websocket");
}

#[tokio::test]
async fn a_request_goes_through_the_assembled_chain() {
    let policies = build(
        "[policy.p]\nfilters = [{ use = 'token', when = { path = '/admin/*' } }]\n[project.default]\npolicies = ['p']\n",
    )
    .unwrap();
    let chain = policies.chain(&tunnel("default"), &http()).unwrap();
    let peer: SocketAddr = "192.0.2.1:1".parse().unwrap();
    let info = Arc::new(ConnectionInfo {
        id: 1,
        peer,
        transport: Transport::Tls,
        hello: None,
        tls: None,
    });
    for (path, passes) in [("/", true), ("/admin/x", false), ("/%61dmin/x", false)] {
        let Connected::Admitted(connection) = chain
            .connect(info.clone(), Arc::new(tunnel("default")))
            .await
        else {
            panic!()
        };
        let mut exchange = chain.exchange(connection);
        let mut head = http::Request::get(format!("https://a.example{path}"))
            .body(())
            .unwrap()
            .into_parts()
            .0;
        let decision = chain.request(&mut head, &mut exchange, None).await;
        assert_eq!(
            matches!(decision, Decision::Pass { .. }),
            passes,
            "{path}: {decision:?}"
        );
    }
}
