//! Tokens that are made to confuse whoever reads them (RFC 8725 §2).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::applications::Application;
use super::*;

/// A token with this header over `claims`, its MAC by `key`.
fn forged(header: &str, claims: &Value, key: &[u8]) -> String {
    let mut token = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
    let mac = aws_lc_rs::hmac::sign(&key, token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(mac, &mut token);
    token
}

#[test]
fn a_confusing_token_is_refused() {
    let ci = Application::new("ci");
    let authority = authority().with_credentials(credentials(&ci.table("")));
    let secret = SECRET.as_bytes();
    let hs256 = r#"{"alg":"HS256"}"#;
    let user = json!({ "sub": "u" });
    let app = json!({ "type": "app", "clientId": "ci", "iat": 1000, "exp": 1060 });
    let key = ci.key();
    let pem = {
        let body = base64::engine::general_purpose::STANDARD.encode(key.der());
        format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
    };
    let unsigned = |header: &str| {
        let claims = URL_SAFE_NO_PAD.encode(user.to_string());
        format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(header))
    };
    let own = TokenError::Claims("an application signs its tokens with a key of its own");
    let cases = [
        ("the honest twin", forged(hs256, &user, secret), None),
        (
            "the honest application",
            ci.sign(r#"{"alg":"ES512"}"#, &app),
            None,
        ),
        (
            "no signature",
            unsigned(r#"{"alg":"none"}"#),
            Some(TokenError::Signature),
        ),
        (
            "no signature, in capitals",
            unsigned(r#"{"alg":"NONE"}"#),
            Some(TokenError::Signature),
        ),
        (
            "no signature, said to be one",
            unsigned(hs256),
            Some(TokenError::Signature),
        ),
        (
            "no algorithm, but a MAC",
            forged(r#"{"alg":"none"}"#, &user, secret),
            Some(TokenError::Signature),
        ),
        // engine-api §12 case 29
        (
            "a MAC said to be a signature",
            forged(r#"{"alg":"ES512"}"#, &app, secret),
            Some(TokenError::Signature),
        ),
        (
            "a signature said to be a MAC",
            ci.sign(hs256, &app),
            Some(TokenError::Signature),
        ),
        (
            "the public key for a secret, as DER",
            forged(hs256, &app, key.der()),
            Some(TokenError::Signature),
        ),
        (
            "the public key for a secret, as PEM",
            forged(hs256, &app, pem.as_bytes()),
            Some(TokenError::Signature),
        ),
        (
            "an application's claims under the engine's secret",
            forged(hs256, &app, secret),
            Some(own),
        ),
        (
            "an empty secret by a path",
            forged(
                r#"{"alg":"HS256","kid":"../../../../dev/null"}"#,
                &user,
                b"",
            ),
            Some(TokenError::Signature),
        ),
        (
            "another application by its key's id",
            Application::new("ci").sign(r#"{"alg":"ES512","kid":"ci"}"#, &app),
            Some(TokenError::Signature),
        ),
        (
            "a key it brings along",
            Application::new("ci").sign(
                r#"{"alg":"ES512","jwk":{"kty":"EC","crv":"P-521","x":"AA","y":"AA"}}"#,
                &app,
            ),
            Some(TokenError::Signature),
        ),
        (
            "an extension that must be understood",
            forged(r#"{"alg":"HS256","crit":["exp"],"exp":0}"#, &user, secret),
            Some(TokenError::Signature),
        ),
        (
            "an empty payload",
            forged(hs256, &json!(""), secret),
            Some(TokenError::Claims("a claim has the wrong type")),
        ),
        (
            "two ends",
            {
                let header = URL_SAFE_NO_PAD.encode(hs256);
                let payload = URL_SAFE_NO_PAD.encode(r#"{"exp":1,"exp":9999}"#);
                let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
                let signed = format!("{header}.{payload}");
                let mac = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
                format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac))
            },
            Some(TokenError::Claims("a claim has the wrong type")),
        ),
        (
            "too long",
            forged(hs256, &json!({ "sub": "x".repeat(8000) }), secret),
            Some(TokenError::Malformed),
        ),
    ];
    for (case, token, expected) in cases {
        assert_eq!(authority.verify(&token, at(1010)).err(), expected, "{case}");
    }
}

// `kid` says which key the signer means. It is no proof, and nothing is looked up by it.
#[test]
fn a_key_id_changes_nothing() {
    let header = r#"{"alg":"HS256","kid":"../../etc/passwd"}"#;
    let token = forged(header, &json!({ "sub": "u" }), SECRET.as_bytes());
    assert_eq!(authority().verify(&token, at(0)).unwrap().user_id, "u");
}
