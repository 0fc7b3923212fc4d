//! What boundaries allow, and which are refused.
#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::json;

use super::parse::{BRANCHES_MAX, DEPTH_MAX, NODES_MAX, REGEX_BYTES_MAX, REGEXES_MAX};
use super::*;

const HERE: Place<'static> = Place {
    project: "prj-1",
    workspace: Some("ws-1"),
};

fn parse(claim: &Value) -> TunnelResource {
    TunnelResource::parse(claim).unwrap()
}

fn map(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn scoped(scopes: Value) -> Value {
    json!({ "scopes": { "tunnels": scopes } })
}

fn check_connect(claim: &Value, path: Option<&str>, expected: bool) {
    let tunnel = map(json!({
        "id": "t-1", "name": "web", "publish": true, "protocol": "http", "port": 443,
        "labels": { "env": "prod", "team": "core" }
    }));
    assert_eq!(
        parse(claim).connects(HERE, &tunnel, path),
        expected,
        "{claim} {path:?}"
    );
}

#[test]
fn targets_limit_where() {
    let project = |id: &str| json!({ "projects": [id] });
    let cases = [
        (project("prj-1"), true),
        (project("prj-2"), false),
        (json!({ "projects": ["prj-2", "prj-1"] }), true),
        (json!({ "workspaces": ["ws-1"] }), true),
        (json!({ "workspaces": ["ws-2"] }), false),
        (json!({ "OR": [project("prj-2"), project("prj-1")] }), true),
        (
            json!({ "AND": [project("prj-1"), { "workspaces": ["ws-1"] }] }),
            true,
        ),
        // edge-behaviour §14.2 T11: an AND of two disjoint projects denies everything.
        (
            json!({ "AND": [project("prj-1"), project("prj-2")] }),
            false,
        ),
        (
            json!({ "AND": [project("prj-1"), { "OR": [project("prj-2"), project("prj-1")] }] }),
            true,
        ),
    ];
    for (claim, expected) in cases {
        check_connect(&claim, Some("/"), expected);
        assert_eq!(parse(&claim).reaches(HERE), expected);
    }
    let elsewhere = Place {
        workspace: None,
        ..HERE
    };
    assert!(!parse(&json!({ "workspaces": ["ws-1"] })).reaches(elsewhere));
}

#[test]
fn an_action_is_granted_by_every_leaf_that_has_scopes() {
    let connect = |value: Value| scoped(json!({ "connect": value }));
    let cases = [
        (connect(json!(true)), true),
        (connect(json!({})), true),
        (connect(json!(false)), false),
        (scoped(json!({ "list": true })), false),
        (
            json!({ "AND": [connect(json!(true)), { "projects": ["prj-1"] }] }),
            true,
        ),
        (
            json!({ "AND": [connect(json!(true)), scoped(json!({ "list": true }))] }),
            false,
        ),
        (
            json!({ "OR": [connect(json!(true)), scoped(json!({ "list": true }))] }),
            true,
        ),
        // A branch must allow all of project, action, tunnel and path by itself.
        (
            json!({ "OR": [
                { "projects": ["prj-2"], "scopes": { "tunnels": { "connect": true } } },
                { "projects": ["prj-1"], "scopes": { "tunnels": { "list": true } } },
            ] }),
            false,
        ),
        (connect(json!({ "filters": { "name": "web" } })), true),
        (connect(json!({ "filters": { "name": "api" } })), false),
        (
            connect(json!({ "filters": { "name": { "exact": "web" } } })),
            true,
        ),
        (
            connect(json!({ "filters": { "name": { "oneof": ["api", "web"] } } })),
            true,
        ),
        (
            connect(json!({ "filters": { "name": { "regex": "e" } } })),
            true,
        ),
        (
            connect(json!({ "filters": { "name": { "regex": "^e" } } })),
            false,
        ),
        (
            connect(json!({ "filters": { "publish": true, "port": 443 } })),
            true,
        ),
        (connect(json!({ "filters": { "publish": false } })), false),
        (connect(json!({ "filters": { "region": "eu" } })), false),
        (
            connect(json!({ "filters": { "name": "web", "protocol": "tls" } })),
            false,
        ),
        (
            connect(json!({ "filters": { "OR": [{ "name": "api" }, { "protocol": "http" }] } })),
            true,
        ),
        (
            connect(json!({ "filters": { "AND": [{ "name": "api" }, { "protocol": "http" }] } })),
            false,
        ),
        (
            connect(json!({ "filters": { "labels": { "env": "prod" } } })),
            true,
        ),
        (
            connect(
                json!({ "filters": { "labels": { "env": "prod", "team": { "regex": "^c" } } } }),
            ),
            true,
        ),
        (
            connect(json!({ "filters": { "labels": { "env": "dev" } } })),
            false,
        ),
        (
            connect(json!({ "filters": { "labels": { "tier": "1" } } })),
            false,
        ),
    ];
    for (claim, expected) in cases {
        check_connect(&claim, Some("/"), expected);
    }
}

#[test]
fn a_path_limit_holds_for_the_path_the_service_will_read() {
    let limit = |rule: Value| scoped(json!({ "connect": { "params": { "path": rule } } }));
    let cases = [
        (json!("/ping"), "/ping", true),
        (json!("/ping"), "/private", false),
        (json!("/ping"), "/ping/", false),
        (json!("/a b"), "/a%20b", true),
        (json!("/a"), "/%61", true),
        (json!({ "regex": "^/api" }), "/api/x", true),
        (json!({ "regex": "^/api" }), "/x/api", false),
        (
            json!({ "OR": [{ "exact": "/a" }, { "exact": "/b" }] }),
            "/b",
            true,
        ),
        (
            json!({ "AND": [{ "regex": "^/a" }, { "regex": "z$" }] }),
            "/a/b",
            false,
        ),
        // edge-behaviour §14.2 T20
        (json!({ "regex": "^/a" }), "/a%2f..%2fb", false),
        (json!({ "regex": "^/a" }), "/a/../b", false),
        (json!({ "regex": "^/a" }), "/a%00", false),
        (json!({ "regex": "^/a" }), "/a\\b", false),
        (json!({ "regex": "^/a" }), "/a%ff", false),
        // Decoded once: this is the literal text `/a%2fb`.
        (json!({ "regex": "^/a" }), "/a%252fb", true),
    ];
    for (rule, path, expected) in cases {
        check_connect(&limit(rule), Some(path), expected);
    }
    // edge-behaviour §14.2 T21: a CONNECT has no path.
    check_connect(&limit(json!({ "regex": "" })), None, false);
    check_connect(&scoped(json!({ "connect": true })), None, true);
}

#[test]
fn creation_is_checked_against_the_properties_and_pins_what_is_fixed() {
    let claim = scoped(json!({ "create": { "filters": {
        "name": "web", "publish": true, "protocol": { "oneof": ["http"] }, "hostname": { "regex": "x" },
        "labels": { "env": { "exact": "prod" }, "team": { "regex": "." } }
    } } }));
    let boundary = parse(&claim);
    let pinned =
        json!({ "name": "web", "publish": true, "protocol": "http", "labels": { "env": "prod" } });
    assert_eq!(boundary.pins(HERE), [map(pinned)]);
    let mut wanted = map(json!({
        "name": "web", "publish": true, "protocol": "http", "hostname": "x.example",
        "labels": { "env": "prod", "team": "core", "more": "1" }
    }));
    assert!(boundary.creates(HERE, &wanted));
    wanted.insert("publish".into(), json!(false));
    assert!(!boundary.creates(HERE, &wanted));
    assert!(!boundary.creates(HERE, &Map::new()));
    let two = parse(&json!({ "OR": [
        scoped(json!({ "create": { "filters": { "name": "a" } } })),
        scoped(json!({ "create": { "filters": { "name": "b" } } })),
        scoped(json!({ "list": true })),
    ] }));
    assert_eq!(
        two.pins(HERE),
        [map(json!({ "name": "a" })), map(json!({ "name": "b" }))]
    );
}

#[test]
fn lists_show_the_union_of_what_branches_allow() {
    let list = |value: Value| scoped(json!({ "list": value }));
    let tunnel = |name: &str| {
        map(json!({ "id": "t", "client_id": "c", "status": "online", "name": name, "host": "h" }))
    };
    let named = |name: &str| list(json!({ "filters": { "name": name } }));
    // edge-behaviour §14.2 T12
    let either = parse(&json!({ "OR": [named("a"), named("b")] }));
    assert_eq!(either.sees(HERE, &tunnel("a")), Visible::Whole);
    assert_eq!(either.sees(HERE, &tunnel("b")), Visible::Whole);
    assert_eq!(either.sees(HERE, &tunnel("c")), Visible::Nothing);
    assert_eq!(
        parse(&list(json!(false))).sees(HERE, &tunnel("a")),
        Visible::Nothing
    );
    // T13
    let fields =
        |names: &[&str]| Visible::Fields(names.iter().map(|&name| name.to_owned()).collect());
    let select = |names: &[&str]| {
        list(
            json!({ "select": names.iter().map(|&name| (name.to_owned(), json!(true))).collect::<Map<_, _>>() }),
        )
    };
    let name_and_host = parse(&select(&["name", "host"])).sees(HERE, &tunnel("a"));
    assert_eq!(name_and_host, fields(&["host", "name"]));
    let name = parse(&select(&["name"])).sees(HERE, &tunnel("a"));
    let shown = name.of(tunnel("a")).unwrap();
    assert_eq!(
        Value::from(shown),
        json!({ "id": "t", "client_id": "c", "status": "online", "name": "a" })
    );
    assert_eq!(Visible::Nothing.of(tunnel("a")), None);
    let both = parse(&json!({ "OR": [select(&["name"]), select(&["host"])] }));
    assert_eq!(both.sees(HERE, &tunnel("a")), fields(&["host", "name"]));
    let neither = parse(&json!({ "AND": [select(&["name"]), select(&["host"])] }));
    assert_eq!(neither.sees(HERE, &tunnel("a")), fields(&[]));
    let off = parse(&list(json!({ "select": { "name": false, "host": true } })));
    assert_eq!(off.sees(HERE, &tunnel("a")), fields(&["host"]));
}

#[test]
fn what_cannot_be_understood_is_refused() {
    let connect = |value: Value| scoped(json!({ "connect": value }));
    for claim in [
        json!([]),
        json!("all"),
        json!({}),
        json!({ "project": ["p"] }),
        json!({ "projects": [] }),
        json!({ "projects": [""] }),
        json!({ "projects": [1] }),
        json!({ "projects": "p" }),
        json!({ "projects": ["p"], "workspaces": ["w"] }),
        json!({ "AND": [] }),
        json!({ "OR": {} }),
        json!({ "AND": [{ "projects": ["p"] }], "projects": ["p"] }),
        json!({ "scopes": {} }),
        json!({ "scopes": { "tunnels": {} } }),
        json!({ "scopes": { "tunnels": { "delete": true } } }),
        connect(json!("yes")),
        connect(json!({ "path": "/" })),
        connect(json!({ "params": { "query": "x" } })),
        connect(json!({ "params": { "path": { "exact": "/a", "regex": "b" } } })),
        connect(json!({ "params": { "path": 1 } })),
        connect(json!({ "filters": { "colour": "red" } })),
        connect(json!({ "filters": { "name": null } })),
        connect(json!({ "filters": { "name": { "like": "x" } } })),
        connect(json!({ "filters": { "name": { "oneof": [] } } })),
        connect(json!({ "filters": { "name": { "regex": "(" } } })),
        connect(json!({ "filters": { "OR": [] } })),
        connect(json!({ "filters": { "OR": [{ "name": "x" }], "name": "y" } })),
        scoped(json!({ "create": { "filters": { "user_id": "u" } } })),
        scoped(json!({ "list": { "select": { "colour": true } } })),
        scoped(json!({ "list": { "select": { "name": 1 } } })),
    ] {
        assert!(TunnelResource::parse(&claim).is_err(), "{claim}");
    }
}

#[test]
fn boundaries_are_refused_beyond_their_limits() {
    let leaf = json!({ "projects": ["p"] });
    let or = |count: usize| json!({ "OR": vec![leaf.clone(); count] });
    let over = |claim: &Value| match TunnelResource::parse(claim) {
        Ok(_) => "fits",
        Err(BoundaryError::OverLimit { what, .. }) => what,
        Err(_) => "refused",
    };
    assert_eq!(over(&or(BRANCHES_MAX)), "fits");
    assert_eq!(over(&or(BRANCHES_MAX + 1)), "branches");
    assert_eq!(over(&json!({ "AND": [or(16), or(16)] })), "fits");
    assert_eq!(over(&json!({ "AND": [or(16), or(17)] })), "branches");
    // 2^20 branches are never built.
    assert_eq!(over(&json!({ "AND": vec![or(2); 20] })), "branches");
    assert_eq!(
        over(&json!({ "AND": [{ "AND": vec![leaf.clone(); 20] }, or(256)] })),
        "leaves in all branches"
    );
    let nested = |depth: usize| (0..depth).fold(leaf.clone(), |inner, _| json!({ "OR": [inner] }));
    assert_eq!(over(&nested(DEPTH_MAX)), "fits");
    assert_eq!(over(&nested(DEPTH_MAX + 1)), "levels");
    assert_eq!(
        over(&json!({ "AND": vec![leaf.clone(); NODES_MAX] })),
        "nodes"
    );
    let regexes = |count: usize| {
        scoped(
            json!({ "connect": { "filters": { "AND": vec![json!({ "name": { "regex": "x" } }); count] } } }),
        )
    };
    assert_eq!(over(&regexes(REGEXES_MAX)), "fits");
    assert_eq!(over(&regexes(REGEXES_MAX + 1)), "regular expressions");
    let regex = |pattern: String| {
        scoped(json!({ "connect": { "params": { "path": { "regex": pattern } } } }))
    };
    assert_eq!(over(&regex("x".repeat(REGEX_BYTES_MAX))), "fits");
    assert_eq!(
        over(&regex("x".repeat(REGEX_BYTES_MAX + 1))),
        "bytes of regular expression"
    );
    assert_eq!(over(&regex("(x{1000}){1000}".into())), "refused");
}
