//! Properties of tokens that must hold for whatever a visitor sends.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::SystemTime;

use adit_config::Secret;
use adit_plugins::identity::token::{Authority, Claims, TunnelResource, without_query_token};
use proptest::prelude::*;
use serde_json::Value;

fn authority() -> Authority {
    Authority::new(&Secret::new("demo-secret-32-bytes-minimum-0001".to_owned())).unwrap()
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
