//! No text is a token unless somebody we know signed it, and no claims that somebody did sign make a panic.

#![no_main]

use std::sync::LazyLock;
use std::time::SystemTime;

use adit_config::{Secret, Section};
use adit_plugins::identity::credentials::Credentials;
use adit_plugins::identity::token::{Authority, Place};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;

const SECRET: &str = "demo-secret-32-bytes-minimum-0001";

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| {
    let sample = include_str!("../../../../config/examples/credentials.toml");
    let section = Section::parse("credentials.toml", sample).unwrap();
    let credentials = Credentials::read(&section, ["default"]).unwrap();
    Authority::new(&Secret::new(SECRET.to_owned()))
        .unwrap()
        .with_credentials(credentials)
});

fuzz_target!(|input: &[u8]| {
    let now = SystemTime::UNIX_EPOCH;
    let Some((&how, rest)) = input.split_first() else {
        return;
    };
    if how % 2 == 0 {
        if let Ok(token) = std::str::from_utf8(rest) {
            assert!(AUTHORITY.verify(token, now).is_err());
        }
        return;
    }
    let mut token = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#),
        URL_SAFE_NO_PAD.encode(rest)
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let mac = hmac::sign(&key, token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(mac, &mut token);
    let Ok(principal) = AUTHORITY.verify(&token, now) else {
        return;
    };
    // What was accepted stays accepted while nothing changes, with the same rights.
    let again = AUTHORITY.judge_again(&principal).unwrap();
    let tunnel = serde_json::Map::new();
    for project in ["default", "other"] {
        let workspace = None;
        let place = Place { project, workspace };
        for path in [Some("/"), Some("/a%2f"), None] {
            assert_eq!(
                principal.may_connect(place, &tunnel, path),
                again.may_connect(place, &tunnel, path)
            );
        }
        let _ = (principal.pins(place), principal.sees(place, &tunnel));
    }
});
