//! Cases of what an authority accepts.
#![allow(clippy::unwrap_used, reason = "tests")]

mod applications;
mod hostile;
mod stored;

use std::collections::BTreeMap;
use std::time::Duration;

use adit_config::Section;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::super::boundary::Place;
use super::super::claims::TokenKind;
use super::super::memory::REMEMBERED_MAX;
use super::super::permission::Permission;
use super::*;
use crate::identity::credentials::Credential;

const SECRET: &str = "demo-secret-32-bytes-minimum-0001";

fn authority() -> Authority {
    Authority::new(&Secret::new(SECRET.to_owned())).unwrap()
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A token with arbitrary claims.
fn signed(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
    jsonwebtoken::encode(
        &Header::new(algorithm),
        claims,
        &EncodingKey::from_secret(secret.as_bytes()),
    )
    .unwrap()
}

/// What a credentials file of this text holds.
fn credentials(text: &str) -> Credentials {
    let section = Section::parse("credentials.toml", text).unwrap();
    Credentials::read(&section, ["default", "shop"])
        .unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn verify(claims: &Value, now: u64) -> Result<Arc<Principal>, TokenError> {
    authority().verify(&signed(Algorithm::HS256, SECRET, claims), at(now))
}

#[test]
fn a_short_secret_is_refused() {
    let check = |length: usize| Authority::new(&Secret::new("x".repeat(length))).err();
    assert_eq!(
        check(31),
        Some(AuthorityError::SecretTooShort { length: 31 })
    );
    assert_eq!(check(32), None);
}

// engine-api §8.3: the published examples.
#[test]
fn the_published_tokens_verify() {
    let pat = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0eXBlIjoicGF0IiwidG9rZW5fZW5kcG9pbnQiOiIwYTFiMmMzZCIsImlhdCI6MTgwMDAwMDAwMCwiZXhwIjoxODMxNTM2MDAwfQ.jFV5WKrWdLgKlrjYu3JwEsCo8hGKUeqolKEd6GPbhHQ";
    let principal = authority().verify(pat, at(1_800_000_001)).unwrap();
    assert_eq!(
        (principal.kind, principal.user_id.as_str()),
        (Some(TokenKind::Pat), "local")
    );
    let watch = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ0eXBlIjoiYXV0aCIsInVzZXJJZCI6InUtNyIsInBlcm1pc3Npb25zIjpbInR1bm5lbHMucmVzb3VyY2VzLnJlYWQtb25seSJdLCJpYXQiOjE4MDAwMDAwMDAsImV4cCI6MTgwMDAwMDYwMCwicmVzb3VyY2VzIjp7InR1bm5lbHMiOnsicHJvamVjdHMiOlsicHJqLTEiXSwic2NvcGVzIjp7InR1bm5lbHMiOnsibGlzdCI6dHJ1ZX19fX19.dTniYHtK_Pk-eTM5UwdBW_MxGLWQiIRri3Z2SkEn6C8";
    let principal = authority().verify(watch, at(1_800_000_001)).unwrap();
    assert_eq!(principal.user_id, "u-7");
    assert!(principal.resources.is_some());
    assert!(
        principal.allows(Permission::ReadResources) && !principal.allows(Permission::CreateStreams)
    );
    assert_eq!(
        authority().verify(watch, at(1_800_000_600)).unwrap_err(),
        TokenError::Expired
    );
}

#[test]
fn only_our_algorithm_and_secret_are_accepted() {
    let claims = json!({ "sub": "u" });
    let good = signed(Algorithm::HS256, SECRET, &claims);
    let (body, _) = good.rsplit_once('.').unwrap();
    let none = format!(
        "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.",
        body.split_once('.').unwrap().1
    );
    let cases = [
        (good.clone(), None),
        (
            signed(Algorithm::HS512, SECRET, &claims),
            Some(TokenError::Signature),
        ),
        (
            signed(
                Algorithm::HS256,
                "another-secret-of-32-bytes-00001",
                &claims,
            ),
            Some(TokenError::Signature),
        ),
        (format!("{body}."), Some(TokenError::Signature)),
        (body.to_owned(), Some(TokenError::Malformed)),
        (none, Some(TokenError::Signature)),
        (String::new(), Some(TokenError::Malformed)),
        ("app-own".to_owned(), Some(TokenError::Malformed)),
        ("x".repeat(TOKEN_BYTES_MAX + 1), Some(TokenError::Malformed)),
    ];
    for (token, expected) in cases {
        let error = authority().verify(&token, at(0)).err();
        assert_eq!(error, expected, "{token}");
        assert!(error.is_none_or(|error| !error.is_ours()));
    }
}

#[test]
fn times_are_enforced_where_they_are_given() {
    let cases = [
        (json!({}), 10, None),
        (json!({ "exp": 11 }), 10, None),
        (json!({ "exp": 10 }), 10, Some(TokenError::Expired)),
        (json!({ "exp": 10.5 }), 10, None),
        (json!({ "nbf": 10 }), 10, None),
        (json!({ "nbf": 11 }), 10, Some(TokenError::NotYetValid)),
    ];
    for (token, now, expected) in cases {
        let error = verify(&token, now).err();
        assert_eq!(error, expected, "{token}");
        assert!(error.is_none_or(|error| error.is_ours()));
    }
}

#[test]
fn claims_that_cannot_be_understood_are_refused() {
    let cases = [
        (json!({ "type": "magic" }), "a claim has the wrong type"),
        (json!({ "exp": "soon" }), "a claim has the wrong type"),
        (
            json!({ "permissions": "all" }),
            "a claim has the wrong type",
        ),
        (json!({ "resources": {} }), "a claim has the wrong type"),
        (
            json!({ "resources": { "tunnels": { "projects": ["p"] }, "more": 1 } }),
            "a claim has the wrong type",
        ),
        (
            json!({ "type": "app", "clientId": "c", "iat": 0, "exp": 9 }),
            "an application signs its tokens with a key of its own",
        ),
        (
            json!({ "token_endpoint": "0a1b2c3d", "tokendpoint": "0a1b2c3e" }),
            "`token_endpoint` and `tokendpoint` name two projects",
        ),
        (
            json!({ "sourceCredentialId": "c-1" }),
            "`sourceCredentialId` and `sourceCredentialUpdatedAt` say something only together",
        ),
        (
            json!({ "sourceCredentialId": "c-1", "sourceCredentialUpdatedAt": "yesterday" }),
            "`sourceCredentialUpdatedAt` is not a time of RFC 3339",
        ),
        (json!({ "aud": 7 }), "a claim has the wrong type"),
    ];
    for (token, expected) in cases {
        let error = verify(&token, 0).unwrap_err();
        assert_eq!(error, TokenError::Claims(expected), "{token}");
        assert!(error.is_ours());
    }
    // A boundary is an object, here as at minting.
    for token in [
        json!({ "resources": { "tunnels": [] } }),
        json!({ "metadata": { "scopes": {} } }),
        json!({ "tunnelsGrants": [] }),
        json!({ "tunnelsGrants": {} }),
    ] {
        let error = verify(&token, 0).unwrap_err();
        assert!(matches!(error, TokenError::Boundary(_)), "{token}");
    }
    assert!(verify(&json!({ "metadata": { "engine": "e.example" } }), 0).is_ok());
}

#[test]
fn the_principal_is_whom_the_token_names() {
    let cases = [
        (json!({ "userId": "u", "sub": "s" }), "u"),
        (json!({ "sub": "s" }), "s"),
        (json!({ "userId": "" }), "local"),
    ];
    for (token, expected) in cases {
        assert_eq!(verify(&token, 0).unwrap().user_id, expected, "{token}");
    }
}

#[test]
fn permissions_null_or_absent_mean_all_and_an_empty_list_none() {
    for (token, expected) in [
        (json!({}), true),
        (json!({ "permissions": null }), true),
        (json!({ "permissions": [] }), false),
        (json!({ "permissions": ["account.tokens.create"] }), false),
        (
            json!({ "permissions": ["tunnels.streams.create-delete"] }),
            true,
        ),
    ] {
        assert_eq!(
            verify(&token, 0).unwrap().allows(Permission::CreateStreams),
            expected,
            "{token}"
        );
    }
}

#[test]
fn a_minted_token_verifies_until_it_ends_even_when_remembered() {
    let authority = authority();
    let token = authority
        .mint(&Claims {
            sub: Some("u".into()),
            exp: Some(100.0),
            ..Claims::default()
        })
        .unwrap();
    let first = authority.verify(&token, at(50)).unwrap();
    assert!(
        Arc::ptr_eq(&first, &authority.verify(&token, at(99)).unwrap()),
        "remembered"
    );
    // edge-behaviour §14.2 T9: checked on every request.
    assert_eq!(
        authority.verify(&token, at(100)).unwrap_err(),
        TokenError::Expired
    );
}

#[test]
fn a_certificate_counts_while_its_credential_stands() {
    let laptop = Credential {
        id: "c-1".into(),
        user_id: "u-1".into(),
        expires: Some(100.0),
        ..Credential::default()
    };
    let lost = Credential {
        revoked: true,
        ..laptop.clone()
    };
    let credentials = Credentials::default()
        .with_certificate([1; 32], laptop.into())
        .with_certificate([2; 32], lost.into());
    let authority = authority().with_credentials(credentials);
    let judge = |octet, now| {
        let judged = authority.certificate(&[octet; 32], at(now));
        judged.map(|principal| principal.credential_id.clone().unwrap())
    };
    assert_eq!(judge(1, 99), Ok("c-1".into()));
    assert_eq!(judge(1, 100), Err(CertificateError::Expired));
    assert_eq!(judge(2, 99), Err(CertificateError::Revoked));
    assert_eq!(judge(3, 99), Err(CertificateError::Unknown));
}

#[test]
fn no_more_tokens_are_remembered_than_the_bound_allows() {
    let authority = authority();
    for n in 0..3 * REMEMBERED_MAX {
        let token = authority
            .mint(&Claims {
                sub: Some(n.to_string()),
                ..Claims::default()
            })
            .unwrap();
        authority.verify(&token, at(0)).unwrap();
    }
    let belief = authority.belief.load();
    assert!(belief.remembered().len() <= 2 * REMEMBERED_MAX);
}

// edge-behaviour §15.1 row 17
#[test]
fn a_boundary_counts_in_each_form_there_has_been() {
    let leaf = |project: &str| json!({ "projects": [project] });
    let cases = [
        (
            json!({ "resources": { "tunnels": leaf("default") } }),
            true,
            false,
        ),
        (
            json!({ "metadata": { "scopes": leaf("default") } }),
            true,
            false,
        ),
        (json!({ "tunnelsGrants": leaf("default") }), true, false),
        (
            json!({ "tunnelsGrants": [leaf("default"), leaf("shop")] }),
            true,
            true,
        ),
        // Whoever writes several means all of them.
        (
            json!({ "resources": { "tunnels": leaf("default") }, "tunnelsGrants": leaf("shop") }),
            false,
            false,
        ),
        (
            json!({
                "metadata": { "scopes": leaf("shop") },
                "tunnelsGrants": [leaf("default"), leaf("shop")],
            }),
            false,
            true,
        ),
    ];
    for (token, default, shop) in cases {
        let principal = verify(&token, 0).unwrap();
        let reaches = |project| {
            let workspace = None;
            principal.reaches(Place { project, workspace })
        };
        assert_eq!(
            (reaches("default"), reaches("shop")),
            (default, shop),
            "{token}"
        );
    }
}

#[test]
fn a_token_that_names_an_audience_must_name_one_of_ours() {
    let ours: &[String] = &["edge.example.com".into(), "adit".into()];
    let secret = Secret::new(SECRET.to_owned());
    let trust = Trust::new(&secret).unwrap();
    let strict = Authority::from(trust.clone().with_audience(ours));
    let any = Authority::from(trust);
    for (claims, accepted) in [
        (json!({}), true),
        (json!({ "aud": "adit" }), true),
        (json!({ "aud": ["other", "adit"] }), true),
        (json!({ "aud": "other" }), false),
        (json!({ "aud": "ADIT" }), false),
        (json!({ "aud": ["other"] }), false),
        (json!({ "aud": [] }), false),
    ] {
        let token = signed(Algorithm::HS256, SECRET, &claims);
        let expected = if accepted {
            None
        } else {
            Some(TokenError::Audience)
        };
        assert_eq!(strict.verify(&token, at(0)).err(), expected, "{claims}");
        assert!(any.verify(&token, at(0)).is_ok());
    }
}

#[test]
fn a_token_for_a_project_by_its_short_id_is_for_that_project() {
    let endpoints = [("0a1b2c3d", "default"), ("0000ffff", "shop")];
    let endpoints: BTreeMap<String, String> = endpoints
        .map(|(endpoint, project)| (endpoint.to_owned(), project.to_owned()))
        .into();
    let trust = Trust::new(&Secret::new(SECRET.to_owned())).unwrap();
    let authority = Authority::from(trust.with_endpoints(endpoints));
    for (claims, expected) in [
        (json!({}), Some((true, true))),
        (json!({ "token_endpoint": "0a1b2c3d" }), Some((true, false))),
        (json!({ "tokendpoint": "0000ffff" }), Some((false, true))),
        (
            json!({ "token_endpoint": "0000ffff", "tokendpoint": "0000ffff" }),
            Some((false, true)),
        ),
        (json!({ "token_endpoint": "deadbeef" }), None),
    ] {
        let token = signed(Algorithm::HS256, SECRET, &claims);
        let reached = authority.verify(&token, at(0)).map(|principal| {
            let reaches = |project| {
                let workspace = None;
                principal.reaches(Place { project, workspace })
            };
            (reaches("default"), reaches("shop"))
        });
        assert_eq!(reached.ok(), expected, "{claims}");
    }
    // Where no short ids are known, none can be wrong.
    assert!(verify(&json!({ "token_endpoint": "deadbeef" }), 0).is_ok());
}
