//! ID tokens: what the provider says about who signed in
//! ([OpenID Connect Core §3.1.3.7](https://openid.net/specs/openid-connect-core-1_0.html#IDTokenValidation)).

use std::time::Duration;

use jsonwebtoken::{DecodingKey, Header, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::session::Millis;
use super::keys::ALGORITHMS;

/// How far the provider's clock and this one may be apart.
const SKEW: Duration = Duration::from_secs(60);

/// Longest token that is read, in bytes.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// Longest subject, in bytes (OpenID Connect Core §2).
const SUBJECT_BYTES_MAX: usize = 255;

/// What a token must say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    pub(super) nonce: &'a str,
    pub(super) now: Millis,
}

/// The claims of a token that is to be believed.
#[derive(Debug)]
pub(super) struct Vouched {
    pub(super) subject: String,
    pub(super) claims: Map<String, Value>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    azp: Option<String>,
    exp: f64,
    iat: f64,
    nbf: Option<f64>,
    nonce: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// The head of a token, if it is signed in a way that is accepted at all. It decides nothing but which key to try.
///
/// # Errors
/// Why no key would do.
pub(super) fn head(token: &str) -> Result<Header, &'static str> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err("its token is too long");
    }
    // `none` is no algorithm there is a name for: such a head cannot be read.
    let head = decode_header(token).map_err(|_| "its token cannot be read")?;
    if !ALGORITHMS.contains(&head.alg) {
        return Err("its token is not signed by a key of its own");
    }
    // RFC 7515 §4.1.11: what must be understood and is not.
    match &head.crit {
        None => Ok(head),
        Some(_) => Err("its token demands what is not known here"),
    }
}

/// Believes a token, or says why not.
///
/// # Errors
/// The first thing that is wrong.
pub(super) fn verify(
    token: &str,
    head: &Header,
    key: &DecodingKey,
    expected: Expected<'_>,
) -> Result<Vouched, &'static str> {
    let mut validation = Validation::new(head.alg);
    // Times are checked against the clock we are handed, the rest with it.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let all = decode::<Map<String, Value>>(token, key, &validation)
        .map_err(|_| "its token's signature is wrong")?
        .claims;
    let claims: Claims = serde_json::from_value(Value::Object(all.clone()))
        .map_err(|_| "its token lacks a claim, or has one of another type")?;
    if claims.iss != expected.issuer {
        return Err("its token is another issuer's");
    }
    let is_ours = |audience: &str| audience == expected.client_id;
    let (ours, others) = match &claims.aud {
        Audience::One(one) => (is_ours(one), false),
        Audience::Many(many) => (many.iter().any(|one| is_ours(one)), many.len() > 1),
    };
    if !ours {
        return Err("its token is for somebody else");
    }
    match &claims.azp {
        Some(party) if !is_ours(party) => return Err("its token was given to somebody else"),
        None if others => return Err("its token does not say to whom it was given"),
        _ => {}
    }
    if claims.nonce.as_deref() != Some(expected.nonce) {
        return Err("its token belongs to another sign-in");
    }
    check_times(&claims, expected.now)?;
    if claims.sub.is_empty() || claims.sub.len() > SUBJECT_BYTES_MAX {
        return Err("its token names nobody");
    }
    Ok(Vouched {
        subject: claims.sub,
        claims: all,
    })
}

fn check_times(claims: &Claims, now: Millis) -> Result<(), &'static str> {
    let now = Duration::from_millis(now.0).as_secs_f64();
    let skew = SKEW.as_secs_f64();
    if claims.exp + skew <= now {
        return Err("its token has expired, or this machine's clock is ahead");
    }
    if claims.iat > now + skew || claims.nbf.is_some_and(|nbf| nbf > now + skew) {
        return Err("its token is from the future, or this machine's clock is behind");
    }
    Ok(())
}
