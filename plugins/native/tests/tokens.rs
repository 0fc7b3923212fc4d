//! Properties of tokens that must hold for whatever a visitor sends.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::SystemTime;

use adit_config::Secret;
use adit_plugins::identity::token::{
    Authority, Claims, Place, Principal, TunnelResource, without_query_token,
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const SECRET: &str = "demo-secret-32-bytes-minimum-0001";

fn authority() -> Authority {
    Authority::new(&Secret::new(SECRET.to_owned())).unwrap()
}

/// A token with these claims, by another implementation.
fn signed(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).unwrap()
}

/// A boundary that can be read: over two projects and two paths.
fn boundary() -> impl Strategy<Value = Value> {
    let projects = prop_oneof![
        Just(None),
        Just(Some(json!(["a"]))),
        Just(Some(json!(["b"]))),
        Just(Some(json!(["a", "b"]))),
    ];
    let connect = prop_oneof![
        Just(json!(true)),
        Just(json!(false)),
        Just(json!({ "params": { "path": "/x" } })),
        Just(json!({ "params": { "path": { "regex": "^/y" } } })),
        Just(json!({ "filters": { "name": "web" } })),
    ];
    let scopes = prop_oneof![
        Just(None),
        Just(Some(json!({ "tunnels": { "list": true } }))),
        connect.prop_map(|connect| Some(json!({ "tunnels": { "connect": connect } }))),
    ];
    let leaf = (projects, scopes).prop_map(|(projects, scopes)| {
        let mut leaf = Map::new();
        leaf.extend(projects.map(|projects| ("projects".to_owned(), projects)));
        leaf.extend(scopes.map(|scopes| ("scopes".to_owned(), scopes)));
        if leaf.is_empty() {
            leaf.insert("projects".to_owned(), json!(["a"]));
        }
        Value::Object(leaf)
    });
    leaf.prop_recursive(3, 9, 3, |inner| {
        let join = prop_oneof![Just("AND"), Just("OR")];
        (join, prop::collection::vec(inner, 1..4))
            .prop_map(|(join, children)| json!({ (join): children }))
    })
}

/// JSON made of the words a boundary knows, nested somehow.
fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-z(/^$*]{0,4}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        Just("AND"),
        Just("OR"),
        Just("projects"),
        Just("scopes"),
        Just("tunnels"),
        Just("connect"),
        Just("create"),
        Just("list"),
        Just("filters"),
        Just("params"),
        Just("path"),
        Just("regex"),
        Just("name"),
        Just("labels"),
    ];
    leaf.prop_recursive(6, 64, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..3).prop_map(|pairs| {
                Value::Object(
                    pairs
                        .into_iter()
                        .map(|(key, value)| (key.to_owned(), value))
                        .collect(),
                )
            }),
        ]
    })
}

proptest! {
    #[test]
    fn what_we_did_not_sign_is_never_accepted(token in any::<String>(), flip in any::<prop::sample::Index>(), bit in 0..7u8) {
        let authority = authority();
        let now = SystemTime::UNIX_EPOCH;
        prop_assert!(authority.verify(&token, now).is_err());
        let good = authority.mint(&Claims::default()).unwrap();
        let mut bytes = good.clone().into_bytes();
        let at = flip.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(bad) = String::from_utf8(bytes) {
            prop_assert!(authority.verify(&bad, now).is_err(), "{}", bad);
        }
        prop_assert!(authority.verify(&good, now).is_ok());
    }

    #[test]
    fn tokens_are_what_others_take_them_for(
        sub in proptest::option::of(any::<String>()),
        exp in proptest::option::of(1u32..),
        jti in proptest::option::of("[a-z]{0,8}"),
    ) {
        let authority = authority();
        let claims = Claims { sub: sub.clone(), exp: exp.map(f64::from), jti: jti.clone(), ..Claims::default() };
        let ours = authority.mint(&claims).unwrap();
        let mut validation = Validation::new(Algorithm::HS256);
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        let key = DecodingKey::from_secret(SECRET.as_bytes());
        let read = jsonwebtoken::decode::<Value>(&ours, &key, &validation).unwrap().claims;
        prop_assert_eq!(&read, &serde_json::to_value(&claims).unwrap());
        for token in [ours, signed(&read)] {
            let principal = authority.verify(&token, SystemTime::UNIX_EPOCH).unwrap();
            let named = sub.as_deref().filter(|sub| !sub.is_empty());
            prop_assert_eq!(&principal.user_id, named.unwrap_or("local"));
            prop_assert_eq!(&principal.token_id, &jti);
        }
    }

    #[test]
    fn two_boundaries_together_allow_what_each_allows(one in boundary(), other in boundary()) {
        let authority = authority();
        let now = SystemTime::UNIX_EPOCH;
        let judge = |claims: Value| authority.verify(&signed(&claims), now);
        let both = judge(json!({ "resources": { "tunnels": one }, "tunnelsGrants": other }));
        // More than can be compared is refused; what is left is compared with each by itself.
        let Ok(both) = both else { return Ok(()) };
        let one = judge(json!({ "resources": { "tunnels": one } })).unwrap();
        let other = judge(json!({ "tunnelsGrants": other })).unwrap();
        for project in ["a", "b", "c"] {
            let place = Place { project, workspace: None };
            prop_assert_eq!(both.reaches(place), one.reaches(place) && other.reaches(place));
            for (name, path) in [("web", Some("/x")), ("db", Some("/y/z")), ("web", Some("/")), ("web", None)] {
                let mut tunnel = Map::new();
                tunnel.insert("name".to_owned(), json!(name));
                let may = |principal: &Principal| {
                    principal.may_connect(place, &tunnel, path)
                };
                prop_assert_eq!(may(&both), may(&one) && may(&other), "{} {} {:?}", project, name, path);
            }
        }
    }

    #[test]
    fn reading_boundaries_never_panics(claim in json()) {
        let _ = TunnelResource::parse(&claim);
    }

    #[test]
    fn no_token_is_left_in_a_query(query in "(a=1|rstream\\.token=SECRET|rstream%2etoken=SECRET|%72stream.token=SECRET|&|b|=){0,6}") {
        let Ok(uri) = format!("https://a.example/x?{query}").parse::<http::Uri>() else { return Ok(()) };
        let left = without_query_token(&uri).unwrap_or(uri);
        for pair in left.query().unwrap_or_default().split('&') {
            let name = pair.split('=').next().unwrap_or_default();
            let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
            prop_assert!(name != "rstream.token", "{}", left);
        }
        prop_assert_eq!(left.path(), "/x");
    }
}
