#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use adit_config::Plan;

use super::*;

/// `key=value` pairs to a request: what a row of the tables below says.
fn request(row: &str) -> TunnelProperties {
    let mut properties = TunnelProperties::default();
    for pair in row.split_whitespace() {
        let (key, value) = pair.split_once('=').unwrap();
        let text = || Some(value.to_owned());
        let switch = || Some(value.parse().unwrap());
        match key {
            "name" => properties.name = text(),
            "type" => properties.r#type = text(),
            "publish" => properties.publish = switch(),
            "protocol" => properties.protocol = text(),
            "host" => properties.host = text(),
            "hostname" => properties.hostname = text(),
            "port" => properties.port = Some(value.parse().unwrap()),
            "geoip" => properties.geoip.push(value.to_owned()),
            "trusted_ips" => properties.trusted_ips.push(value.to_owned()),
            "tls_mode" => properties.tls_mode = text(),
            "tls_alpns" => properties.tls_alpns.push(value.to_owned()),
            "tls_min_version" => properties.tls_min_version = text(),
            "tls_ciphers" => properties.tls_ciphers.push(value.to_owned()),
            "mtls_auth" => properties.mtls_auth = switch(),
            "mtls_cacert_pem" => properties.mtls_cacert_pem = text(),
            "http_version" => properties.http_version = text(),
            "http_use_tls" => properties.http_use_tls = switch(),
            "upstream_tls" => properties.upstream_tls = switch(),
            "token_auth" => properties.token_auth = switch(),
            "rstream_auth" => properties.rstream_auth = switch(),
            "challenge_mode" => properties.challenge_mode = switch(),
            "datagram_guaranteed_delivery" => {
                properties.datagram_guaranteed_delivery = switch();
            }
            "allow_cross_region_routing" => properties.allow_cross_region_routing = switch(),
            _ => panic!("unknown key {key}"),
        }
    }
    properties
}

/// An offer of everything, within this rule.
fn offer(access: PublicAccess) -> Offer {
    let features = Features {
        challenge: true,
        geoip: true,
        login: true,
    };
    Offer {
        access,
        features,
        plan: Plan::Enterprise,
    }
}

fn resolve(row: &str, access: PublicAccess) -> Result<Effective, ProtocolError> {
    Asked::parse(&request(row), false)?.admit(&offer(access))
}

fn check(rows: &[(&str, i32, &str)]) {
    for (row, code, text) in rows {
        let error = resolve(row, PublicAccess::Allowed).expect_err(row);
        assert_eq!(error.code.0, *code, "{row}: {error}");
        assert!(error.message.contains(text), "{row}: {error}");
    }
}

#[test]
fn a_bare_request_is_a_published_http_tunnel() {
    // edge-behaviour §14.1 C1
    let tunnel = resolve("", PublicAccess::Allowed).unwrap();
    assert_eq!(tunnel.protocol, Some(Protocol::Http));
    assert_eq!(tunnel.kind, Kind::Bytestream);
    assert!(tunnel.publish);
    let message = tunnel.to_message();
    assert_eq!(message.http_version.as_deref(), Some("http/1.1"));
    assert_eq!(message.publish, Some(true));
    assert_eq!(message.r#type.as_deref(), Some("bytestream"));
}

#[test]
fn http_3_makes_a_datagram_tunnel_which_is_not_offered_yet() {
    // edge-behaviour §14.1 C2
    let asked = Asked::parse(&request("http_version=h3"), false).unwrap();
    assert_eq!(asked.effective().protocol, Some(Protocol::Http));
    assert_eq!(asked.effective().kind, Kind::Datagram);
    check(&[("http_version=h3", 5000, "`http_version` h3")]);
}

#[test]
fn incoherent_requests_are_invalid() {
    check(&[
        // edge-behaviour §14.1 C3, C4, C5, C6, C7
        (
            "protocol=http http_version=h3 type=bytestream",
            2000,
            "`type`",
        ),
        (
            "protocol=http http_version=h2c type=datagram",
            2000,
            "`type`",
        ),
        ("type=datagram", 2000, "`type`"),
        (
            "protocol=http upstream_tls=true http_version=h2c",
            2000,
            "`http_version`",
        ),
        (
            "http_use_tls=true upstream_tls=false",
            2000,
            "`http_use_tls`",
        ),
        // C8
        (
            "protocol=tls tls_mode=passthrough mtls_auth=true",
            2000,
            "`mtls_auth`",
        ),
        (
            "protocol=tls tls_mode=passthrough tls_alpns=h2",
            2000,
            "`tls_alpns`",
        ),
        (
            "protocol=tls tls_mode=passthrough upstream_tls=true",
            2000,
            "`upstream_tls`",
        ),
        (
            "protocol=tls tls_mode=passthrough tls_min_version=tls1.3",
            2000,
            "`tls_min_version`",
        ),
        // C9 and C10
        ("protocol=tls token_auth=true", 2000, "`token_auth`"),
        ("protocol=http tls_alpns=h2", 2000, "`tls_alpns`"),
        // C11
        ("publish=false geoip=DE", 2000, "`geoip`"),
        ("publish=false hostname=a", 2000, "`hostname`"),
        (
            "publish=false trusted_ips=nonsense",
            2000,
            "`trusted_ips` needs",
        ),
        // C12
        ("publish=false protocol=dtls", 2000, "private"),
        ("publish=false protocol=quic", 2000, "private"),
        ("publish=false protocol=tcp", 2000, "private"),
        // C13 and C14
        ("protocol=tcp port=65536", 2000, "`port`"),
        ("protocol=tcp port=0", 2000, "`port`"),
        ("protocol=http port=443", 2000, "`port`"),
    ]);
}

#[test]
fn further_combinations_that_are_invalid() {
    check(&[
        ("protocol=gopher", 2000, "`protocol` \"gopher\""),
        ("type=stream", 2000, "`type`"),
        ("http_version=h2", 2000, "`http_version`"),
        ("protocol=tls tls_mode=split", 2000, "`tls_mode`"),
        ("tls_min_version=ssl3", 2000, "`tls_min_version`"),
        ("tls_mode=terminated", 2000, "`tls_mode`"),
        ("http_version=h3 upstream_tls=false", 2000, "`upstream_tls`"),
        ("protocol=quic upstream_tls=false", 2000, "`upstream_tls`"),
        ("protocol=tcp hostname=a", 2000, "`hostname`"),
        ("protocol=tcp token_auth=true", 2000, "`token_auth`"),
        ("protocol=tcp type=datagram", 2000, "`type`"),
        ("protocol=tls type=datagram", 2000, "`type`"),
        ("protocol=webtty upstream_tls=true", 2000, "`upstream_tls`"),
        (
            "protocol=dtls tls_min_version=tls1.2",
            2000,
            "`tls_min_version`",
        ),
        ("publish=false http_version=h2c", 2000, "`http_version`"),
        ("publish=false upstream_tls=true", 2000, "`upstream_tls`"),
        (
            "datagram_guaranteed_delivery=true",
            2000,
            "`datagram_guaranteed_delivery`",
        ),
        ("mtls_cacert_pem=x", 2000, "`mtls_cacert_pem`"),
        ("trusted_ips=10.0.0.0/33", 2000, "`trusted_ips`"),
        ("geoip=Germany", 2000, "`geoip`"),
        ("name=-a", 2000, "`name`"),
        ("name=a/b", 2000, "`name`"),
    ]);
}

#[test]
fn the_first_broken_rule_in_the_fixed_order_is_reported() {
    // edge-behaviour §14.1 C28
    check(&[
        ("type=datagram port=1", 2000, "`type`"),
        (
            "http_version=h9 type=datagram port=1",
            2000,
            "`http_version`",
        ),
        ("protocol=tls token_auth=true port=1", 2000, "`token_auth`"),
        (
            "upstream_tls=true http_use_tls=false http_version=h2c",
            2000,
            "`http_version`",
        ),
        ("publish=false hostname=a port=1", 2000, "`port`"),
        ("protocol=dtls port=1", 2000, "`port`"),
        ("challenge_mode=true geoip=Germany", 2000, "`geoip`"),
    ]);
}

#[test]
fn what_is_not_offered_is_named_and_never_dropped() {
    // edge-behaviour §14.1 C29 and C30
    check(&[
        ("protocol=tls", 5000, "`protocol` tls"),
        ("protocol=tls tls_mode=passthrough", 5000, "`protocol` tls"),
        ("protocol=dtls", 5000, "`protocol` dtls"),
        ("protocol=quic", 5000, "`protocol` quic"),
        ("protocol=tcp port=7000", 5000, "`protocol` tcp"),
        ("protocol=webtty", 5000, "`protocol` webtty"),
        ("publish=false type=datagram", 5000, "datagram tunnels"),
        ("publish=false protocol=tls", 5000, "`protocol` tls"),
        (
            "publish=false protocol=http upstream_tls=true",
            5000,
            "`upstream_tls`",
        ),
        (
            "publish=false protocol=http http_version=h2c",
            5000,
            "`http_version` h2c",
        ),
    ]);
}

#[test]
fn what_is_offered_is_granted() {
    for row in [
        "protocol=http",
        "http_version=http/1.1",
        "http_version=h2c",
        "upstream_tls=true",
        "http_use_tls=true",
        "http_use_tls=true upstream_tls=true",
        "challenge_mode=true token_auth=true",
        "geoip=de geoip=DE geoip=fr",
        "token_auth=true trusted_ips=10.0.0.0/8 name=web-1 hostname=shop",
        "token_auth=false rstream_auth=false mtls_auth=false challenge_mode=false",
        "publish=false",
        "publish=false name=db",
        "publish=false protocol=http http_version=http/1.1",
        "allow_cross_region_routing=true",
    ] {
        assert!(resolve(row, PublicAccess::Allowed).is_ok(), "{row}");
    }
    let tls = resolve("http_use_tls=true", PublicAccess::Allowed).unwrap();
    assert!(tls.upstream_tls && tls.http_version.is_none());
    let raw = resolve("publish=false", PublicAccess::Allowed).unwrap();
    assert_eq!((raw.protocol, raw.kind), (None, Kind::Bytestream));
    assert_eq!(raw.to_message().protocol, None);
}

#[test]
fn networks_are_normalised_and_kept_once() {
    let tunnel = resolve(
        "trusted_ips=10.1.2.3/8 trusted_ips=10.0.0.0/8 trusted_ips=192.0.2.1 trusted_ips=::ffff:198.51.100.0/120 trusted_ips=2001:db8::1/32",
        PublicAccess::Allowed,
    );
    let networks: Vec<String> = tunnel
        .unwrap()
        .trusted_ips
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        networks,
        [
            "10.0.0.0/8",
            "192.0.2.1/32",
            "198.51.100.0/24",
            "2001:db8::/32"
        ]
    );
}

#[test]
fn labels_are_bounded() {
    let with = |labels: BTreeMap<String, String>| {
        let properties = TunnelProperties {
            labels,
            ..TunnelProperties::default()
        };
        Asked::parse(&properties, false).map(|_| ())
    };
    let many = |count: usize| {
        (0..count)
            .map(|number| (number.to_string(), String::new()))
            .collect()
    };
    let one = |key: usize, value: usize| BTreeMap::from([("k".repeat(key), "v".repeat(value))]);
    assert!(with(many(LABELS_MAX)).is_ok());
    assert!(with(many(LABELS_MAX + 1)).is_err());
    assert!(with(one(LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX)).is_ok());
    assert!(with(one(LABEL_KEY_BYTES_MAX + 1, 1)).is_err());
    assert!(with(one(1, LABEL_VALUE_BYTES_MAX + 1)).is_err());
    assert!(with(one(0, 1)).is_err());
}

#[test]
fn a_project_can_demand_a_proof_or_forbid_public_tunnels() {
    // edge-behaviour §14.1 C16, C17, C22, C23 and C24
    let rows = [
        (
            PublicAccess::AuthRequired,
            Plan::Basic,
            "",
            Ok((true, false)),
        ),
        (PublicAccess::AuthRequired, Plan::Pro, "", Ok((true, true))),
        (
            PublicAccess::AuthRequired,
            Plan::Pro,
            "token_auth=true",
            Ok((true, false)),
        ),
        (
            PublicAccess::AuthRequired,
            Plan::Pro,
            "token_auth=false",
            Ok((false, true)),
        ),
        (
            PublicAccess::AuthRequired,
            Plan::Basic,
            "token_auth=false",
            Err(1000),
        ),
        (
            PublicAccess::AuthRequired,
            Plan::Pro,
            "token_auth=false rstream_auth=false",
            Err(1000),
        ),
        (
            PublicAccess::AuthRequired,
            Plan::Pro,
            "protocol=tcp",
            Err(1000),
        ),
        (
            PublicAccess::AuthRequired,
            Plan::Pro,
            "publish=false",
            Ok((false, false)),
        ),
        (PublicAccess::Forbidden, Plan::Pro, "", Err(1000)),
        (
            PublicAccess::Forbidden,
            Plan::Pro,
            "protocol=tcp",
            Err(1000),
        ),
        (
            PublicAccess::Forbidden,
            Plan::Pro,
            "publish=false",
            Ok((false, false)),
        ),
        (PublicAccess::Allowed, Plan::Pro, "", Ok((false, false))),
    ];
    for (access, plan, row, expected) in rows {
        let offer = Offer {
            plan,
            ..offer(access)
        };
        let got = Asked::parse(&request(row), false)
            .unwrap()
            // The methods that are turned on, whether this engine has them or not.
            .required(&offer)
            .map(|tunnel| (tunnel.token_auth, tunnel.rstream_auth))
            .map_err(|error| error.code.0);
        assert_eq!(got, expected, "{access:?} {plan:?} {row}");
    }
    // Without anybody who could sign in a token is what is left.
    let nobody = Offer {
        features: Features::default(),
        ..offer(PublicAccess::AuthRequired)
    };
    let tunnel = Asked::parse(&request(""), false)
        .unwrap()
        .admit(&nobody)
        .unwrap();
    assert!(tunnel.token_auth && !tunnel.rstream_auth);
}

#[test]
fn a_plan_and_the_engine_bound_what_can_be_asked_for() {
    // edge-behaviour §14.1 C29 and C30
    let basic = Offer {
        plan: Plan::Basic,
        ..offer(PublicAccess::Allowed)
    };
    let bare = Offer {
        features: Features::default(),
        ..offer(PublicAccess::Allowed)
    };
    let wanting = |change: fn(&mut Effective)| {
        let mut tunnel = resolve("", PublicAccess::Allowed).unwrap();
        change(&mut tunnel);
        tunnel
    };
    let rows: [(&str, Effective); 5] = [
        (
            "trusted_ips",
            wanting(|t| t.trusted_ips = vec!["10.0.0.0/8".parse().unwrap()]),
        ),
        ("geoip", wanting(|t| t.geoip = vec!["DE".to_owned()])),
        ("mtls_auth", wanting(|t| t.mtls_auth = true)),
        ("rstream_auth", wanting(|t| t.rstream_auth = true)),
        ("challenge_mode", wanting(|t| t.challenge_mode = true)),
    ];
    for (property, tunnel) in rows {
        assert_eq!(
            offer(PublicAccess::Allowed).lacks(&tunnel),
            None,
            "{property}"
        );
        let of_plan = (property != "challenge_mode")
            .then(|| format!("the project's plan does not include `{property}`"));
        assert_eq!(basic.lacks(&tunnel), of_plan);
        let of_engine = (!matches!(property, "trusted_ips" | "mtls_auth"))
            .then(|| format!("unsupported: this engine does not offer `{property}`"));
        assert_eq!(bare.lacks(&tunnel), of_engine);
    }
}

#[test]
fn clients_without_hostname_ask_with_host() {
    let asked = |row: &str, host_asks| {
        let asked = Asked::parse(&request(row), host_asks).unwrap();
        asked.hostname().map(str::to_owned)
    };
    let old = "host=shop.t.example.com:8443";
    assert_eq!(asked(old, true).as_deref(), Some("shop.t.example.com"));
    assert_eq!(asked(old, false), None);
    assert_eq!(
        asked("host=shop hostname=other", true).as_deref(),
        Some("other")
    );
}
