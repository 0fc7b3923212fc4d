//! Every filter kind has a sample that builds, and every mistake in a table has its position.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adit_config::{Secret, Section};
use adit_filters::env::fake::Fake;
use adit_filters::{Hooks, Registry, Stage};
use adit_plugins::Services;
use adit_plugins::identity::challenge::{Gate, GateSettings};
use adit_plugins::identity::rstream_auth::{Desk, DeskSettings};
use adit_plugins::identity::token::Authority;
use adit_plugins::network::geoip::{Database, Databases};

fn registry() -> Registry {
    let secret = Secret::new("demo-secret-32-bytes-minimum-0001".to_owned());
    let authority = Arc::new(Authority::new(&secret).unwrap());
    let settings = DeskSettings {
        host: "edge.test".to_owned(),
        secret,
        lifetime: Duration::from_secs(60),
        allow: None,
        projects: BTreeMap::new(),
        accounts: None,
        provider: None,
    };
    let gate = GateSettings {
        host: settings.host.clone(),
        secret: settings.secret.clone(),
        lifetime: settings.lifetime,
        bits: 8,
    };
    let gate = Gate::new(gate, &Fake::default().env(), None);
    let desk = Desk::new(settings, &Fake::default().env(), None).unwrap();
    adit_plugins::registry(&Services {
        desk: Some(Arc::new(desk)),
        gate: Some(Arc::new(gate)),
        // Filters need one; nothing here asks it anything.
        geoip: Databases::default().with_shared(Some(Arc::new(Database::absent(Path::new(""))))),
        ..Services::new(authority)
    })
}

fn build(name: &str, table: &str) -> Result<Hooks, String> {
    let registry = registry();
    let section = Section::parse("engine.toml", table).unwrap();
    let factory = registry.find(name).unwrap();
    factory
        .build(&section, &mut Fake::default().env())
        .map_err(|problems| {
            problems
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n")
        })
}

#[test]
fn every_filter_has_a_sample_that_builds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/examples/filters");
    let mut sampled: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .map(|file| {
            file.strip_suffix(".toml")
                .unwrap_or_else(|| panic!("{file}"))
                .to_owned()
        })
        .collect();
    sampled.sort();
    let registry = registry();
    let mut known: Vec<String> = registry.names().map(str::to_owned).collect();
    known.sort();
    assert_eq!(sampled, known);
    for name in known {
        let text = std::fs::read_to_string(folder.join(format!("{name}.toml"))).unwrap();
        let (used, own): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.starts_with("use = "));
        assert_eq!(used, [format!("use = \"{name}\"")]);
        let hooks = build(&name, &own.join("\n")).unwrap();
        assert!(!hooks.phases().is_empty(), "{name} takes part in nothing");
        assert_eq!(
            hooks.stage(),
            registry.find(&name).unwrap().stage(),
            "{name}"
        );
    }
}

#[test]
fn filters_stand_where_they_belong() {
    let stage = |name: &str| registry().find(name).unwrap().stage();
    assert_eq!(
        [
            "trusted-ips",
            "geoip",
            "rate-limit",
            "tls-policy",
            "client-cert",
            "well-known",
            "token",
            "challenge",
            "rstream-auth",
            "websocket",
            "upgrade",
            "limits",
            "access-log",
            "stream-summary",
            "otlp"
        ]
        .map(stage),
        [
            Stage::Network,
            Stage::Network,
            Stage::Network,
            Stage::Tls,
            Stage::Tls,
            Stage::Local,
            Stage::Identity,
            Stage::Identity,
            Stage::Identity,
            Stage::Upgrade,
            Stage::Upgrade,
            Stage::Capacity,
            Stage::Log,
            Stage::Log,
            Stage::Log
        ]
    );
    assert!(registry().find("nonsense").is_none());
}

#[test]
fn a_mistake_in_a_table_has_its_position() {
    let cases = [
        ("trusted-ips", "allow = ['10.0.0.0/8']", None),
        (
            "trusted-ips",
            "allow = []",
            Some(
                "engine.toml:1:9: allow: `allow` is empty: name a network, or leave it out to allow all",
            ),
        ),
        (
            "trusted-ips",
            "",
            Some("engine.toml:1:1: `trusted-ips` decides nothing: give `allow`, `deny` or both"),
        ),
        (
            "trusted-ips",
            "allow = ['10.0.0.0/8', 'here']",
            Some(
                "engine.toml:1:24: allow.1: `here` is not an address or network, write it like `203.0.113.7`, `203.0.113.0/24` or `2001:db8::/32`",
            ),
        ),
        (
            "trusted-ips",
            "alow = ['10.0.0.0/8']",
            Some("engine.toml:1:1: alow: unknown key `alow`, did you mean `allow`?"),
        ),
        ("limits", "request.duration = '1h'", None),
        (
            "limits",
            "connection = { bytes = { up = '1GiB' }, concurrent = { ip = 1 } }",
            None,
        ),
        (
            "limits",
            "",
            Some("engine.toml:1:1: `limits` limits nothing: give `request`, `connection` or both"),
        ),
        (
            "limits",
            "request = {}",
            Some(
                "engine.toml:1:11: request: `request` limits nothing: give a limit, or leave it out",
            ),
        ),
        (
            "limits",
            "request.bandwidth = {}",
            Some(
                "engine.toml:1:21: request.bandwidth: `bandwidth` limits nothing: give `up`, `down` or both",
            ),
        ),
        (
            "limits",
            "request.bandwidth.up = '1000000'",
            Some(
                "engine.toml:1:24: request.bandwidth.up: `1000000` is not a rate, use one with its unit such as `8Mbit/s` or `1MiB/s`, from 8000bit/s up",
            ),
        ),
        (
            "limits",
            "request.body = '10 MB'",
            Some(
                "engine.toml:1:16: request.body: `10 MB` is not a size, use one with its unit such as `32KiB` or `1MiB`",
            ),
        ),
        (
            "limits",
            "connection.duration = '0s'",
            Some(
                "engine.toml:1:23: connection.duration: a `duration` of nothing lets nothing pass, use a longer one",
            ),
        ),
        (
            "limits",
            "connection.body = '1KiB'",
            Some(
                "engine.toml:1:12: connection.body: unknown key `body`, use one of `bandwidth`, `bytes`, `duration`, `concurrent`",
            ),
        ),
        (
            "limits",
            "request.concurrent = {}",
            Some(
                "engine.toml:1:22: request.concurrent: `concurrent` limits nothing: give `ip`, `token` or `tunnel`",
            ),
        ),
        ("tls-policy", "min-version = 'tls1.3'", None),
        (
            "tls-policy",
            "min-version = 'tls1.1'",
            Some("engine.toml:1:15: min-version: unknown value `tls1.1`, did you mean `tls1.2`?"),
        ),
        (
            "tls-policy",
            "",
            Some(
                "engine.toml:1:1: demands nothing, set `min-version`, `cipher-suites` or `post-quantum`",
            ),
        ),
        (
            "tls-policy",
            "cipher-suites = ['TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256', 'TLS_RSA_WITH_RC4_128_SHA']",
            Some(
                "engine.toml:1:59: cipher-suites.1: `TLS_RSA_WITH_RC4_128_SHA` is not a suite of TLS 1.2 that this engine has, use `TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256`, ",
            ),
        ),
        (
            "tls-policy",
            "cipher-suites = ['TLS_AES_128_GCM_SHA256']",
            Some(
                "engine.toml:1:18: cipher-suites.0: `TLS_AES_128_GCM_SHA256` is of TLS 1.3, where",
            ),
        ),
        (
            "tls-policy",
            "post-quantum = 'off'\nech = 'require'",
            Some(
                "engine.toml:2:7: ech: Encrypted Client Hello cannot be offered: the TLS library has no server's side of it",
            ),
        ),
        ("client-cert", "", None),
        (
            "client-cert",
            "missing = 'pass'",
            Some("engine.toml:1:11: missing: unknown value `pass`, use one of `refuse`, `next`"),
        ),
        (
            "client-cert",
            "ca = '/no/such/bundle.pem'",
            Some(
                "engine.toml:1:6: ca: `/no/such/bundle.pem` cannot be read: No such file or directory (os error 2)",
            ),
        ),
        ("geoip", "allow = ['de', 'continent:eu', 'as64500']", None),
        (
            "geoip",
            "",
            Some("engine.toml:1:1: `geoip` decides nothing: give `allow`, `deny` or both"),
        ),
        (
            "geoip",
            "deny = ['FR']\nallow = []",
            Some(
                "engine.toml:2:9: allow: `allow` is empty: name a place, or leave it out to allow all",
            ),
        ),
        (
            "geoip",
            "allow = ['DE', 'Germany']",
            Some(
                "engine.toml:1:16: allow.1: `Germany` is not a place, write a country such as `DE`, `continent:EU`, or a network such as `AS64500`",
            ),
        ),
        (
            "geoip",
            "allow = ['UK']",
            Some("engine.toml:1:10: allow.0: `UK` is no country's code, write `GB`"),
        ),
        (
            "geoip",
            "allow = ['DE']\ndatabase = '/no/such/file.mmdb'",
            Some(
                "engine.toml:2:12: database: `/no/such/file.mmdb` cannot be read: No such file or directory (os error 2)",
            ),
        ),
        ("rate-limit", "requests = 10", None),
        (
            "rate-limit",
            "connections = 10\nwindow = '1s'\nper = 'tunnel'",
            None,
        ),
        (
            "rate-limit",
            "window = '1m'",
            Some(
                "engine.toml:1:1: give either `requests` or `connections`; for both, use the filter twice",
            ),
        ),
        (
            "rate-limit",
            "requests = 1\nconnections = 1",
            Some(
                "engine.toml:1:1: give either `requests` or `connections`; for both, use the filter twice",
            ),
        ),
        (
            "rate-limit",
            "requests = 0",
            Some("engine.toml:1:12: requests: "),
        ),
        (
            "rate-limit",
            "requests = 10\nwindow = '60'",
            Some(
                "engine.toml:2:10: window: `60` is not a duration, use one with its unit such as `30s` or `2m`",
            ),
        ),
        (
            "rate-limit",
            "requests = 10\nwindow = '2days'",
            Some(
                "engine.toml:2:10: window: use a window of at most a day in which each is a nanosecond apart",
            ),
        ),
        (
            "rate-limit",
            "requests = 1\nwindow = '1day'\nburst = 31",
            Some(
                "engine.toml:3:9: burst: at this rate such a burst would take more than 30 days to come back, use a smaller one",
            ),
        ),
        (
            "rate-limit",
            "connections = 10\nper = 'token'",
            Some(
                "engine.toml:2:7: per: a connection proves nothing yet, use `requests` or another `per`",
            ),
        ),
        ("token", "", None),
        (
            "token",
            "secret = 'x'",
            Some("engine.toml:1:1: secret: unknown key `secret`"),
        ),
        ("rstream-auth", "", None),
        (
            "rstream-auth",
            "allow = { emails = ['ada@example.com'] }",
            None,
        ),
        (
            "rstream-auth",
            "allow = { mails = ['ada@example.com'] }",
            Some("engine.toml:1:11: allow.mails: unknown key `mails`, did you mean `emails`?"),
        ),
        (
            "rstream-auth",
            "allow = { emails = ['example.com'] }",
            Some(
                "engine.toml:1:9: allow: `example.com` is not a mail address, write it like `ada@example.com`",
            ),
        ),
        (
            "rstream-auth",
            "allow = {}",
            Some("engine.toml:1:9: allow: the rule names nobody, give `emails`"),
        ),
        (
            "rstream-auth",
            "users = ['ada']",
            Some("engine.toml:1:1: users: unknown key `users`"),
        ),
        ("well-known", "", None),
        (
            "well-known",
            "policies = ['token-auth', 'token']",
            Some("engine.toml:1:27: policies.1: unknown"),
        ),
        (
            "websocket",
            "origins = ['https://a', 'b']",
            Some(
                "engine.toml:1:25: origins.1: `b` is not an origin, write `https://app.example.com`, `https://*.example.com` or `self`",
            ),
        ),
        (
            "upgrade",
            "tokens = ['foo', 'h2c']",
            Some(
                "engine.toml:1:18: tokens.1: `h2c` is never granted: filters could not see what passes inside it",
            ),
        ),
        (
            "stream-summary",
            "to = { file = '/no/such/folder/x' }",
            Some(
                "engine.toml:1:6: to: `/no/such/folder/x` cannot be opened to append: No such file or directory (os error 2)",
            ),
        ),
        (
            "stream-summary",
            "queue = 0",
            Some("engine.toml:1:9: queue: `queue` must be between 1 and 65536 records"),
        ),
        (
            "stream-summary",
            "request-headers = ['accept', 'Authorization']",
            Some(
                "engine.toml:1:30: request-headers.1: `authorization` carries credentials and is never logged, remove it",
            ),
        ),
        (
            "stream-summary",
            "cluster-id = ''",
            Some(
                "engine.toml:1:14: cluster-id: `cluster-id` is empty, write an id or leave the key out",
            ),
        ),
        (
            "access-log",
            "fields = ['time', 'tim']",
            Some("engine.toml:1:19: fields.1: unknown value `tim`, did you mean `time`?"),
        ),
        (
            "otlp",
            "endpoint = 'collector:4317'",
            Some(
                "engine.toml:1:12: endpoint: `collector:4317` is not an `http` or `https` address, write it like `http://collector:4318`",
            ),
        ),
        (
            "otlp",
            "endpoint = 'http://c:4318'\nheaders = { x-api-key = 'k' }",
            Some(
                "engine.toml:2:25: headers.x-api-key: a secret does not belong in this file, use `{ env = \"VARIABLE\" }` or `{ file = \"path\" }`",
            ),
        ),
        (
            "otlp",
            "endpoint = 'http://c:4318'\nsample-ratio = 2.0",
            Some("engine.toml:2:16: sample-ratio: `sample-ratio` must be between 0 and 1"),
        ),
        ("otlp", "endpoint = 'http://c:4318'\nsample-ratio = 1", None),
        (
            "otlp",
            "traces = true",
            Some("engine.toml:1:1: `endpoint` is missing"),
        ),
        (
            "access-log",
            "fields = []",
            Some(
                "engine.toml:1:10: fields: `fields` is empty: name one, or leave it out to write all",
            ),
        ),
        (
            "access-log",
            "to = 'syslog'",
            Some(
                "engine.toml:1:6: to: unknown value `syslog`, use one of `stdout`, `stderr`, `file`",
            ),
        ),
    ];
    for (name, table, expected) in cases {
        let problem = build(name, table).err();
        match expected {
            Some(expected) => assert!(
                problem
                    .as_deref()
                    .is_some_and(|text| text.starts_with(expected)),
                "{problem:?}"
            ),
            None => assert_eq!(problem, None),
        }
    }
}
