//! What stored credentials make of tokens.

use super::applications::Application;
use super::*;
use crate::identity::credentials::sha256;

fn reaches(principal: &Principal, project: &str) -> bool {
    let workspace = None;
    principal.reaches(Place { project, workspace })
}

/// A table with this token's hash and `more`.
fn stored(token: &str, more: &str) -> String {
    let hash = hex::encode(sha256(token.as_bytes()));
    format!("[[credential]]\nid = \"c-1\"\ntoken-sha256 = [\"{hash}\"]\n{more}\n")
}

#[test]
fn a_personal_token_counts_only_if_it_is_stored() {
    let claims = json!({ "type": "pat", "userId": "u-9" });
    let pat = signed(Algorithm::HS256, SECRET, &claims);
    let judge = |text: &str| {
        let authority = authority().with_credentials(credentials(text));
        authority.verify(&pat, at(0))
    };
    let owner = "user = \"u-1\"\nname = \"Ada\"\nemail = \"ada@example.com\"";
    let principal = judge(&stored(&pat, owner)).unwrap();
    assert_eq!(principal.user_id, "u-1");
    assert_eq!(principal.name.as_deref(), Some("Ada"));
    assert_eq!(principal.email.as_deref(), Some("ada@example.com"));
    assert_eq!(principal.credential_id.as_deref(), Some("c-1"));
    assert_eq!(judge("").unwrap_err(), TokenError::Unknown);
    assert_eq!(
        judge(&stored("another", "")).unwrap_err(),
        TokenError::Unknown
    );
    assert_eq!(
        judge(&stored(&pat, "revoked = true")).unwrap_err(),
        TokenError::Revoked
    );
    assert_eq!(
        judge(&stored(&pat, "expires = 1970-01-01T00:00:00Z")).unwrap_err(),
        TokenError::Expired
    );
    // engine-api §8.9: without a file, the signature alone counts.
    assert_eq!(authority().verify(&pat, at(0)).unwrap().user_id, "u-9");
    // A hash is no proof by itself.
    let forged = signed(
        Algorithm::HS256,
        "another-secret-of-32-bytes-00001",
        &claims,
    );
    let authority = authority().with_credentials(credentials(&stored(&forged, "")));
    assert_eq!(
        authority.verify(&forged, at(0)).unwrap_err(),
        TokenError::Signature
    );
}

#[test]
fn any_token_can_be_taken_back_by_its_hash() {
    let token = signed(Algorithm::HS256, SECRET, &json!({ "sub": "laptop" }));
    let authority = authority().with_credentials(credentials(""));
    let before = authority.verify(&token, at(0)).unwrap();
    assert_eq!(before.user_id, "laptop");
    authority.set_credentials(credentials(&stored(&token, "revoked = true")));
    // What was remembered is not believed any longer.
    assert_eq!(
        authority.verify(&token, at(0)).unwrap_err(),
        TokenError::Revoked
    );
    assert_eq!(
        authority.judge_again(&before).unwrap_err(),
        TokenError::Revoked
    );
}

#[test]
fn a_right_is_what_credential_and_token_both_allow() {
    let ci = Application::new("ci");
    let stored = ci.table(
        "projects = [\"default\"]\n\
         permissions = [\"tunnels.streams.create-delete\", \"tunnels.resources.read-only\"]\n\
         resources = { tunnels = { scopes = { tunnels = { connect = { params = { path = { regex = \"^/api\" } } } } } } }",
    );
    let authority = authority().with_credentials(credentials(&stored));
    let connect = |path: &Value| {
        json!({ "tunnels": { "scopes": { "tunnels": {
            "connect": { "params": { "path": path } }, "list": true,
        } } } })
    };
    let every = json!({});
    let narrow = json!({ "resources": connect(&json!("/api/1")) });
    let elsewhere = json!({ "resources": connect(&json!("/x")) });
    let listing = json!({ "permissions": ["tunnels.resources.read-only"] });
    let creating = json!({ "permissions": ["tunnels.tunnels.create-delete"] });
    let shop = json!({ "resources": { "tunnels": { "projects": ["shop"] } } });
    for (more, project, path, allowed) in [
        (&every, "default", "/api/1", true),
        (&every, "default", "/x", false),
        (&every, "shop", "/api/1", false),
        (&narrow, "default", "/api/1", true),
        (&narrow, "default", "/api/2", false),
        (&elsewhere, "default", "/x", false),
        (&listing, "default", "/api/1", false),
        (&creating, "default", "/api/1", false),
        (&shop, "shop", "/api/1", false),
        (&shop, "default", "/api/1", false),
    ] {
        let principal = authority.verify(&ci.token(more), at(1010)).unwrap();
        let place = Place {
            project,
            workspace: None,
        };
        let tunnel = serde_json::Map::new();
        assert_eq!(
            principal.may_connect(place, &tunnel, Some(path)),
            allowed,
            "{more} {project} {path}"
        );
        assert!(!principal.may_create(place, &tunnel), "{more}");
        assert!(!principal.may_list(), "{more}");
    }
}

#[test]
fn rights_that_are_too_many_to_compare_are_refused() {
    let ci = Application::new("ci");
    let leaf = |n: usize| json!({ "projects": [format!("p{n}")] });
    let wide = |count: usize| json!({ "OR": (0..count).map(leaf).collect::<Vec<_>>() });
    let own: Vec<String> = (0..20)
        .map(|n| format!("{{ projects = [\"p{n}\"] }}"))
        .collect();
    let own = format!(
        "resources = {{ tunnels = {{ OR = [{}] }} }}",
        own.join(", ")
    );
    let authority = authority().with_credentials(credentials(&ci.table(&own)));
    let judge = |count| {
        let token = ci.token(&json!({ "resources": { "tunnels": wide(count) } }));
        authority.verify(&token, at(1010)).err()
    };
    assert_eq!(judge(12), None);
    assert!(matches!(judge(13), Some(TokenError::Boundary(_))));
}

#[test]
fn a_derived_token_goes_as_far_as_its_source_as_that_was() {
    let derived = |updated_at: &str| {
        let claims = json!({
            "type": "auth",
            "userId": "u-1",
            "sourceCredentialId": "c-1",
            "sourceCredentialUpdatedAt": updated_at,
        });
        signed(Algorithm::HS256, SECRET, &claims)
    };
    let judge = |text: &str, token: &str| {
        let authority = authority().with_credentials(credentials(text));
        authority.verify(token, at(0))
    };
    let source = |more: &str| {
        let more = format!("user = \"u-1\"\nname = \"Ada\"\nprojects = [\"shop\"]\n{more}");
        stored("the source", &more)
    };
    let at_nine = derived("2026-05-01T09:00:00Z");
    let principal = judge(&source("updated-at = 2026-05-01T09:00:00Z"), &at_nine).unwrap();
    assert!(reaches(&principal, "shop") && !reaches(&principal, "default"));
    assert_eq!(principal.name.as_deref(), Some("Ada"));
    // The same instant, written otherwise.
    let fraction = derived("2026-05-01T09:00:00.000Z");
    assert!(judge(&source("updated-at = 2026-05-01T11:00:00+02:00"), &fraction).is_ok());
    for (text, expected) in [
        (
            source("updated-at = 2026-05-01T09:00:01Z"),
            TokenError::Unknown,
        ),
        (source(""), TokenError::Unknown),
        (String::new(), TokenError::Unknown),
        (
            source("updated-at = 2026-05-01T09:00:00Z\nrevoked = true"),
            TokenError::Revoked,
        ),
    ] {
        assert_eq!(judge(&text, &at_nine).unwrap_err(), expected, "{text}");
    }
    // There is nothing it could be derived from.
    assert_eq!(
        authority().verify(&at_nine, at(0)).unwrap_err(),
        TokenError::Unknown
    );
}

// edge-behaviour §7.2 "Stream lifetime"
#[test]
fn who_was_let_in_stays_when_time_runs_out_and_goes_when_rights_do() {
    let ci = Application::new("ci");
    let authority = authority().with_credentials(credentials(&ci.table("")));
    let token = ci.token(&json!({}));
    let admitted = authority.verify(&token, at(1010)).unwrap();
    assert_eq!(
        authority.verify(&token, at(2000)).unwrap_err(),
        TokenError::Expired
    );
    // Nothing has changed: it stays, whatever the time.
    let again = authority.judge_again(&admitted).unwrap();
    assert!(reaches(&again, "shop"));
    // Narrowed: what it may do still is for whoever asks to judge.
    authority.set_credentials(credentials(&ci.table("projects = [\"default\"]")));
    let again = authority.judge_again(&admitted).unwrap();
    assert!(reaches(&again, "default") && !reaches(&again, "shop"));
    // Widened again: rights are always those of now, not less and less.
    authority.set_credentials(credentials(&ci.table("expires = 1970-01-01T00:00:00Z")));
    assert!(reaches(&authority.judge_again(&again).unwrap(), "shop"));
    for text in [
        String::new(),
        Application::new("ci").table(""),
        ci.table("revoked = true"),
    ] {
        authority.set_credentials(credentials(&text));
        assert!(authority.judge_again(&admitted).is_err(), "{text}");
    }
}

#[test]
fn a_new_secret_ends_what_the_old_one_signed() {
    let authority = authority();
    let token = authority.mint(&Claims::default()).unwrap();
    let admitted = authority.verify(&token, at(0)).unwrap();
    let other = Secret::new("another-secret-of-32-bytes-00001".to_owned());
    authority.set_trust(Trust::new(&other).unwrap());
    assert_eq!(
        authority.verify(&token, at(0)).unwrap_err(),
        TokenError::Signature
    );
    assert_eq!(
        authority.judge_again(&admitted).unwrap_err(),
        TokenError::Signature
    );
    authority.set_trust(Trust::new(&Secret::new(SECRET.to_owned())).unwrap());
    assert!(authority.judge_again(&admitted).is_ok());
}

#[test]
fn a_certificate_is_judged_again_by_its_fingerprint() {
    let text =
        |hashes: &str| format!("[[credential]]\nid = \"door\"\ncertificate-sha256 = [{hashes}]\n");
    let [old, new] = [[1; 32], [2; 32]].map(hex::encode);
    let both = credentials(&text(&format!("\"{old}\", \"{new}\"")));
    let authority = authority().with_credentials(both);
    let admitted = authority.certificate(&[1; 32], at(0)).unwrap();
    assert_eq!(admitted.user_id, "door");
    assert!(authority.certificate(&[2; 32], at(0)).is_ok());
    assert!(authority.judge_again(&admitted).is_ok());
    authority.set_credentials(credentials(&text(&format!("\"{new}\""))));
    assert_eq!(
        authority.judge_again(&admitted).unwrap_err(),
        TokenError::Unknown
    );
}
