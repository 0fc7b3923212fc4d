//! A token as it is written: compact JWS ([RFC 7515 §7.1](https://www.rfc-editor.org/rfc/rfc7515#section-7.1)) in
//! one of two algorithms.
//!
//! The libraries that read JWTs do not know ES512, and a token read by two parsers could mean two things: this one
//! reads both kinds. Of the header, only the algorithm counts; which key that is for, we say (RFC 8725 §3.1).

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::error::TokenError;

/// The header of the tokens we sign.
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// How a token is signed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Algorithm {
    /// HMAC with SHA-256, by the engine's secret.
    Hs256,
    /// ECDSA on P-521 with SHA-512, by an application's key.
    Es512,
}

/// A token taken apart, nothing of it verified.
#[derive(Debug)]
pub(super) struct Jws<'t> {
    pub(super) algorithm: Algorithm,
    /// What the signature is of: header and payload as written.
    pub(super) signed: &'t str,
    pub(super) payload: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header<'t> {
    #[serde(borrow)]
    alg: std::borrow::Cow<'t, str>,
    /// Extensions that must be understood: we understand none.
    crit: Option<IgnoredAny>,
}

impl<'t> Jws<'t> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// If it is none, or in an algorithm nobody here signs with.
    pub(super) fn read(token: &'t str) -> Result<Self, TokenError> {
        let malformed = TokenError::Malformed;
        let (signed, signature) = token.rsplit_once('.').ok_or(malformed.clone())?;
        let (header, payload) = signed.split_once('.').ok_or(malformed.clone())?;
        // What is left over of the last digit must be zero: there is one way to write a token, so that one which is
        // known by its hash has no others. Nor is there a dot in any part.
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part);
        let (Ok(header), Ok(payload), Ok(signature)) =
            (decode(header), decode(payload), decode(signature))
        else {
            return Err(malformed);
        };
        let Header { alg, crit } = serde_json::from_slice(&header).map_err(|_| malformed)?;
        let algorithm = match (alg.as_ref(), crit) {
            ("HS256", None) => Algorithm::Hs256,
            ("ES512", None) => Algorithm::Es512,
            _ => return Err(TokenError::Signature),
        };
        Ok(Self {
            algorithm,
            signed,
            payload,
            signature,
        })
    }
}

/// Writes a token in HS256.
pub(super) fn write(payload: &[u8], key: &hmac::Key) -> String {
    let header = URL_SAFE_NO_PAD.encode(HEADER);
    let mut token = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
    let signature = hmac::sign(key, token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    token
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn token(header: &str) -> String {
        format!("{}.e30.AAAA", URL_SAFE_NO_PAD.encode(header))
    }

    #[test]
    fn only_two_algorithms_are_known_and_no_extensions() {
        for (header, expected) in [
            (HEADER, Ok(Algorithm::Hs256)),
            (r#"{"alg":"ES512"}"#, Ok(Algorithm::Es512)),
            (
                r#"{"kid":"../../x","alg":"HS256","jku":"https://x.example"}"#,
                Ok(Algorithm::Hs256),
            ),
            (r#"{"\u0061lg":"HS256"}"#, Ok(Algorithm::Hs256)),
            (r#"{"alg":"none"}"#, Err(TokenError::Signature)),
            (r#"{"alg":"hs256"}"#, Err(TokenError::Signature)),
            (r#"{"alg":"HS512"}"#, Err(TokenError::Signature)),
            (r#"{"alg":"ES256"}"#, Err(TokenError::Signature)),
            (r#"{"alg":"RS256"}"#, Err(TokenError::Signature)),
            (
                r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#,
                Err(TokenError::Signature),
            ),
            (
                r#"{"alg":"none","alg":"HS256"}"#,
                Err(TokenError::Malformed),
            ),
            (r#"{"alg":["HS256"]}"#, Err(TokenError::Malformed)),
            ("{}", Err(TokenError::Malformed)),
            ("", Err(TokenError::Malformed)),
        ] {
            let token = token(header);
            let read = Jws::read(&token).map(|jws| jws.algorithm);
            assert_eq!(read, expected, "{header}");
        }
    }

    #[test]
    fn there_is_one_way_to_write_a_token() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        let good = write(b"{}", &key);
        assert!(Jws::read(&good).is_ok());
        let other_spelling = good.chars().next_back().map(|last| {
            // The last of 43 digits carries two bits that mean nothing.
            let next = char::from_u32(u32::from(last) + 1).unwrap();
            format!("{}{next}", &good[..good.len() - 1])
        });
        for bad in [
            other_spelling.unwrap(),
            format!("{good}="),
            format!("{good} "),
            format!("{good}."),
            format!(".{good}"),
            good.replace('.', "\n."),
            good.replacen('.', "", 1),
        ] {
            assert_eq!(Jws::read(&bad).unwrap_err(), TokenError::Malformed, "{bad}");
        }
    }
}
