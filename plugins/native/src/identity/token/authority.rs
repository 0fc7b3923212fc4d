//! The one who issues and verifies tokens: an HS256 secret shared with the operator (RFC 7519, RFC 7515).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use adit_config::Secret;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};

use super::boundary::{BoundaryError, TunnelResource};
use super::claims::{Claims, TokenKind};
use super::permission::Permissions;
use super::principal::Principal;
use crate::identity::credentials::{Credentials, Sha256};

/// The shortest secret, in bytes: as long as the hash's output (RFC 7518 §3.2).
pub const SECRET_BYTES_MIN: usize = 32;

/// The longest token, in bytes. Longer ones are refused unread.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// The longest life of an application's token (engine-api §8.2).
const APP_LIFE_MAX: Duration = Duration::from_secs(3600);

/// How far an application's clock may be ahead (engine-api §8.2).
const APP_SKEW_MAX: Duration = Duration::from_secs(300);

/// How many verified tokens are remembered, at most twice over. A visitor sends the same one with each request.
const REMEMBERED_MAX: usize = 512;

/// Longer tokens are verified each time: what is remembered stays below 2 × 512 × 2 KiB.
const REMEMBERED_TOKEN_MAX: usize = 2 * 1024;

/// The principal of a token that names nobody.
const LOCAL_USER: &str = "local";

/// Issues and verifies tokens.
pub struct Authority {
    verifying: DecodingKey,
    signing: EncodingKey,
    validation: Validation,
    credentials: Credentials,
    remembered: Mutex<Remembered>,
}

/// Why there is no authority.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AuthorityError {
    /// The secret can be guessed.
    #[error("secret has {length} bytes, use at least {SECRET_BYTES_MIN}")]
    SecretTooShort {
        /// Its length, in bytes.
        length: usize,
    },
}

/// Why a token is not accepted.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Not a token at all.
    #[error("token is malformed")]
    Malformed,
    /// Not signed by us, or not in the way we sign.
    #[error("token is not signed by this engine")]
    Signature,
    /// Ours, but its time is over.
    #[error("token has expired")]
    Expired,
    /// Ours, but its time has not come.
    #[error("token is not valid yet")]
    NotYetValid,
    /// Ours, but its claims contradict themselves or cannot be understood.
    #[error("token's claims cannot be accepted: {0}")]
    Claims(&'static str),
    /// Ours, but its boundary cannot be understood.
    #[error("token's boundary cannot be accepted: {0}")]
    Boundary(#[from] BoundaryError),
}

/// Why a client certificate is not accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CertificateError {
    /// No credential has it.
    #[error("certificate is not known to this engine")]
    Unknown,
    /// Its credential has been taken back.
    #[error("certificate has been revoked")]
    Revoked,
    /// Its credential's time is over.
    #[error("certificate's credential has expired")]
    Expired,
}

impl TokenError {
    /// Whether the token was signed by this engine: then it is a proof, if a bad one, and no business of the service.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        !matches!(self, Self::Malformed | Self::Signature)
    }
}

impl Authority {
    /// An authority with this secret; its bytes are taken as they are.
    ///
    /// # Errors
    /// If the secret is too short.
    pub fn new(secret: &Secret<String>) -> Result<Self, AuthorityError> {
        let bytes = secret.expose().as_bytes();
        if bytes.len() < SECRET_BYTES_MIN {
            return Err(AuthorityError::SecretTooShort {
                length: bytes.len(),
            });
        }
        let mut validation = Validation::new(Algorithm::HS256);
        // Times are checked against the clock we are handed, and all claims are optional.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        Ok(Self {
            verifying: DecodingKey::from_secret(bytes),
            signing: EncodingKey::from_secret(bytes),
            validation,
            credentials: Credentials::default(),
            remembered: Mutex::default(),
        })
    }

    /// The same, which knows these credentials.
    #[must_use]
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Self {
            credentials,
            ..self
        }
    }

    /// Whose the certificate with this SHA-256 of its DER form is, at the time `now`. That its bearer has its key, and
    /// that it is valid now, is for whoever shook hands to know.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn certificate(
        &self,
        sha256: &Sha256,
        now: SystemTime,
    ) -> Result<Arc<Principal>, CertificateError> {
        let known = self.credentials.certificate(sha256);
        let credential = known.ok_or(CertificateError::Unknown)?;
        if credential.revoked {
            return Err(CertificateError::Revoked);
        }
        if credential.expires.is_some_and(|end| unix(now) >= end) {
            return Err(CertificateError::Expired);
        }
        Ok(Arc::new(Principal {
            user_id: credential.user_id.clone(),
            name: credential.name.clone(),
            email: credential.email.clone(),
            credential_id: Some(credential.id.clone()),
            kind: None,
            permissions: credential.permissions,
            resources: credential.boundary.clone(),
            token_id: None,
            expires: credential.expires,
        }))
    }

    /// Verifies a token at the time `now`.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Arc<Principal>, TokenError> {
        let now = unix(now);
        if let Some(known) = self.remembered().get(token) {
            // Only its end can have come since: what else was checked does not change as time goes on.
            return if known.expires.is_some_and(|exp| now >= exp) {
                Err(TokenError::Expired)
            } else {
                Ok(known)
            };
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let claims = jsonwebtoken::decode::<Claims>(token, &self.verifying, &self.validation)
            .map_err(|error| match error.kind() {
                ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => TokenError::Signature,
                // The signature is checked first: such claims are under ours.
                ErrorKind::Json(_) if self.is_signed(token) => {
                    TokenError::Claims("a claim has the wrong type")
                }
                _ => TokenError::Malformed,
            })?
            .claims;
        check_times(&claims, now)?;
        let principal = Arc::new(principal(claims)?);
        if token.len() <= REMEMBERED_TOKEN_MAX {
            self.remembered().put(token, &principal);
        }
        Ok(principal)
    }

    /// Signs claims.
    ///
    /// # Errors
    /// If they cannot be written down.
    pub fn mint(&self, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.signing)
    }

    fn is_signed(&self, token: &str) -> bool {
        jsonwebtoken::decode::<serde_json::Value>(token, &self.verifying, &self.validation).is_ok()
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, Remembered> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

fn check_times(claims: &Claims, now: f64) -> Result<(), TokenError> {
    if claims.exp.is_some_and(|exp| now >= exp) {
        return Err(TokenError::Expired);
    }
    if claims.nbf.is_some_and(|nbf| now < nbf) {
        return Err(TokenError::NotYetValid);
    }
    if claims.kind == Some(TokenKind::App) {
        let (Some(iat), Some(exp)) = (claims.iat, claims.exp) else {
            return Err(TokenError::Claims(
                "an application's token needs `iat` and `exp`",
            ));
        };
        if iat > now + APP_SKEW_MAX.as_secs_f64() {
            return Err(TokenError::NotYetValid);
        }
        if exp - iat > APP_LIFE_MAX.as_secs_f64() {
            return Err(TokenError::Claims(
                "an application's token lives an hour at most",
            ));
        }
    }
    Ok(())
}

fn principal(claims: Claims) -> Result<Principal, TokenError> {
    // Older boundaries have the same purpose: to ignore one would widen the token.
    if claims.tunnels_grants.is_some()
        || claims
            .metadata
            .is_some_and(|metadata| metadata.scopes.is_some())
    {
        return Err(TokenError::Claims(
            "its boundary has an older form, mint it anew with `resources.tunnels`",
        ));
    }
    let owner = match claims.kind {
        Some(TokenKind::App) => claims.client_id.or(claims.sub),
        _ => claims.user_id.or(claims.sub),
    };
    Ok(Principal {
        user_id: owner
            .filter(|id| !id.is_empty())
            .unwrap_or_else(|| LOCAL_USER.to_owned()),
        name: None,
        email: None,
        credential_id: None,
        kind: claims.kind,
        // Permissions of other services are theirs to judge: here they allow nothing.
        permissions: claims.permissions.map(|list| {
            list.iter()
                .filter_map(|text| text.parse().ok())
                .collect::<Permissions>()
        }),
        resources: claims
            .resources
            .map(|resources| TunnelResource::parse(&resources.tunnels))
            .transpose()?,
        token_id: claims.jti,
        expires: claims.exp,
    })
}

fn unix(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// Verified tokens, the latest ones: when the young generation is full it becomes the old one, and the old goes.
#[derive(Default)]
struct Remembered {
    young: HashMap<Box<str>, Arc<Principal>>,
    old: HashMap<Box<str>, Arc<Principal>>,
}

impl Remembered {
    fn get(&mut self, token: &str) -> Option<Arc<Principal>> {
        if let Some(known) = self.young.get(token) {
            return Some(known.clone());
        }
        let (token, known) = self.old.remove_entry(token)?;
        self.insert(token, known.clone());
        Some(known)
    }

    fn put(&mut self, token: &str, principal: &Arc<Principal>) {
        self.insert(token.into(), principal.clone());
    }

    fn insert(&mut self, token: Box<str>, principal: Arc<Principal>) {
        if self.young.len() >= REMEMBERED_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(token, principal);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::{Value, json};

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
        use super::super::permission::Permission;
        assert!(
            principal.allows(Permission::ReadResources)
                && !principal.allows(Permission::CreateStreams)
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
            (none, Some(TokenError::Malformed)),
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
        let claims = |text| TokenError::Claims(text);
        let cases = [
            (json!({}), 10, None),
            (json!({ "exp": 11 }), 10, None),
            (json!({ "exp": 10 }), 10, Some(TokenError::Expired)),
            (json!({ "exp": 10.5 }), 10, None),
            (json!({ "nbf": 10 }), 10, None),
            (json!({ "nbf": 11 }), 10, Some(TokenError::NotYetValid)),
            (json!({ "type": "app", "iat": 0, "exp": 3600 }), 10, None),
            (
                json!({ "type": "app", "iat": 0, "exp": 3601 }),
                10,
                Some(claims("an application's token lives an hour at most")),
            ),
            (
                json!({ "type": "app", "iat": 311, "exp": 400 }),
                10,
                Some(TokenError::NotYetValid),
            ),
            (
                json!({ "type": "app" }),
                10,
                Some(claims("an application's token needs `iat` and `exp`")),
            ),
        ];
        for (token, now, expected) in cases {
            let error = verify(&token, now).err();
            assert_eq!(error, expected, "{token}");
            assert!(error.is_none_or(|error| error.is_ours()));
        }
    }

    #[test]
    fn claims_that_cannot_be_understood_are_refused() {
        let older = "its boundary has an older form, mint it anew with `resources.tunnels`";
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
            (json!({ "tunnelsGrants": [] }), older),
            (json!({ "metadata": { "scopes": {} } }), older),
        ];
        for (token, expected) in cases {
            let error = verify(&token, 0).unwrap_err();
            assert_eq!(error, TokenError::Claims(expected), "{token}");
            assert!(error.is_ours());
        }
        // A boundary is an object, here as at minting.
        assert!(matches!(
            verify(&json!({ "resources": { "tunnels": [] } }), 0),
            Err(TokenError::Boundary(_))
        ));
        assert!(verify(&json!({ "metadata": { "engine": "e.example" } }), 0).is_ok());
    }

    #[test]
    fn the_principal_is_whom_the_token_names() {
        let cases = [
            (json!({ "userId": "u", "sub": "s" }), "u"),
            (json!({ "sub": "s" }), "s"),
            (json!({ "userId": "" }), "local"),
            (
                json!({ "type": "app", "clientId": "c", "userId": "u", "iat": 0, "exp": 9 }),
                "c",
            ),
        ];
        for (token, expected) in cases {
            assert_eq!(verify(&token, 0).unwrap().user_id, expected, "{token}");
        }
    }

    #[test]
    fn permissions_null_or_absent_mean_all_and_an_empty_list_none() {
        use super::super::permission::Permission::CreateStreams;
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
                verify(&token, 0).unwrap().allows(CreateStreams),
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
        let remembered = authority.remembered();
        assert!(remembered.young.len() + remembered.old.len() <= 2 * REMEMBERED_MAX);
    }
}
