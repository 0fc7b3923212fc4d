//! Tokens that applications sign (engine-api §8.3).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::identity::credentials::{PublicKey, VERIFICATIONS};

/// An application, as it sees itself.
pub(super) struct Application {
    pub(super) id: &'static str,
    pair: EcdsaKeyPair,
}

impl Application {
    pub(super) fn new(id: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap();
        Self { id, pair }
    }

    /// Its table in the credentials file, with `more` of it.
    pub(super) fn table(&self, more: &str) -> String {
        let key = hex::encode(self.key().der());
        let id = self.id;
        format!("[[credential]]\nid = \"{id}\"\npublic-key = \"{key}\"\n{more}\n")
    }

    pub(super) fn key(&self) -> PublicKey {
        let secret = self.pair.to_pkcs8v1().unwrap();
        PublicKey::of_secret(&hex::encode(secret.as_ref())).unwrap()
    }

    /// A token with exactly these claims.
    pub(super) fn sign(&self, header: &str, claims: &Value) -> String {
        let mut token = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let signature = self
            .pair
            .sign(&SystemRandom::new(), token.as_bytes())
            .unwrap();
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        token
    }

    /// A token with what every application's has, and `more`.
    pub(super) fn token(&self, more: &Value) -> String {
        let mut claims = json!({ "type": "app", "clientId": self.id, "iat": 1000, "exp": 1060 });
        let all = claims.as_object_mut().unwrap();
        all.extend(more.as_object().unwrap().clone());
        self.sign(r#"{"alg":"ES512","typ":"JWT"}"#, &claims)
    }
}

fn judge(application: &Application, more: &Value) -> Result<Arc<Principal>, TokenError> {
    let authority = authority().with_credentials(credentials(&application.table("")));
    authority.verify(&application.token(more), at(1010))
}

// engine-api §12 case 30
#[test]
fn an_application_is_known_by_its_key() {
    let ci = Application::new("ci");
    let principal = judge(&ci, &json!({ "permissions": null })).unwrap();
    assert_eq!(principal.user_id, "ci");
    assert_eq!(principal.credential_id.as_deref(), Some("ci"));
    assert_eq!(principal.kind, Some(TokenKind::App));
    assert!(principal.allows(Permission::CreateTunnels));
    // As a TURN helper mints them.
    let turn = judge(&ci, &json!({ "permissions": ["turn.credentials.create"] })).unwrap();
    assert!(turn.allows(Permission::CreateTurnCredentials));
    assert!(!turn.allows(Permission::CreateTunnels));
}

#[test]
fn an_applications_times_are_its_own_to_say_within_an_hour() {
    let ci = Application::new("ci");
    let claims = TokenError::Claims;
    for (more, expected) in [
        (json!({ "iat": 0, "exp": 3600 }), None),
        (
            json!({ "iat": 0, "exp": 3601 }),
            Some(claims("an application's token lives an hour at most")),
        ),
        (json!({ "iat": 1310, "exp": 1400 }), None),
        (
            json!({ "iat": 1311, "exp": 1400 }),
            Some(TokenError::NotYetValid),
        ),
        (
            json!({ "iat": 1100, "exp": 1100 }),
            Some(claims("its end is not after its beginning")),
        ),
        (json!({ "exp": 1010 }), Some(TokenError::Expired)),
        (json!({ "nbf": 1011 }), Some(TokenError::NotYetValid)),
        (
            json!({ "iat": null }),
            Some(claims("an application's token needs `iat` and `exp`")),
        ),
        (
            json!({ "exp": null }),
            Some(claims("an application's token needs `iat` and `exp`")),
        ),
        (
            json!({ "type": "auth" }),
            Some(claims(
                "an application's token says that it is one: its `type` is `app`",
            )),
        ),
        (
            json!({ "type": null }),
            Some(claims(
                "an application's token says that it is one: its `type` is `app`",
            )),
        ),
    ] {
        assert_eq!(judge(&ci, &more).err(), expected, "{more}");
    }
}

#[test]
fn what_another_key_signed_is_not_an_applications() {
    let (ci, other) = (Application::new("ci"), Application::new("other"));
    let impostor = Application::new("ci");
    let text = format!("{}{}", ci.table(""), other.table(""));
    let authority = authority().with_credentials(credentials(&text));
    let header = r#"{"alg":"ES512"}"#;
    let claims = |id: &str| json!({ "type": "app", "clientId": id, "iat": 1000, "exp": 1060 });
    let good = ci.sign(header, &claims("ci"));
    let (signed, _) = good.rsplit_once('.').unwrap();
    let zero = URL_SAFE_NO_PAD.encode([0; 132]);
    for (token, expected) in [
        (good.clone(), None),
        (other.sign(header, &claims("other")), None),
        (
            other.sign(header, &claims("ci")),
            Some(TokenError::Signature),
        ),
        (impostor.token(&json!({})), Some(TokenError::Signature)),
        (format!("{signed}.{zero}"), Some(TokenError::Signature)),
        (format!("{signed}."), Some(TokenError::Signature)),
        (
            ci.sign(header, &json!({ "type": "app" })),
            Some(TokenError::Malformed),
        ),
    ] {
        let error = authority.verify(&token, at(1010)).err();
        assert_eq!(error, expected);
        assert!(error.is_none_or(|error| !error.is_ours()));
    }
}

#[test]
fn an_unknown_client_id_costs_what_a_known_one_does_and_is_answered_the_same() {
    let (ci, stranger) = (Application::new("ci"), Application::new("nobody"));
    let impostor = Application::new("ci");
    let authority = authority().with_credentials(credentials(&ci.table("")));
    let cost = |token: &str| {
        let before = VERIFICATIONS.get();
        let error = authority.verify(token, at(1010)).unwrap_err();
        (VERIFICATIONS.get() - before, error)
    };
    let known = cost(&impostor.token(&json!({})));
    assert_eq!(known, (1, TokenError::Signature));
    assert_eq!(cost(&stranger.token(&json!({}))), known);
    // Nor does an application's own key prove anything but its own id.
    assert_eq!(cost(&ci.token(&json!({ "clientId": "nobody" }))), known);
}

#[test]
fn without_stored_applications_there_are_none() {
    let ci = Application::new("ci");
    for authority in [
        authority(),
        authority().with_credentials(Credentials::default()),
    ] {
        assert_eq!(
            authority.verify(&ci.token(&json!({})), at(1010)).err(),
            Some(TokenError::Signature)
        );
    }
}
