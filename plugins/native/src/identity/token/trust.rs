//! What an authority believes, and what it makes of a proof.

use std::collections::BTreeMap;
use std::sync::Arc;

use adit_config::Secret;
use aws_lc_rs::hmac;
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::authority::{SECRET_BYTES_MIN, TOKEN_BYTES_MAX};
use super::boundary::TunnelResource;
use super::claims::{Claims, TokenKind};
use super::error::{AuthorityError, TokenError};
use super::jws::{self, Algorithm, Jws};
use super::principal::Principal;
use super::proof::{Means, Proof, SecretId, Source};
use super::standing::Standing;
use super::times;
use crate::identity::credentials::{Credentials, Sha256, sha256};

/// The principal of a token that names nobody.
pub(crate) const LOCAL_USER: &str = "local";

/// What the id of a secret is the signature of.
const SECRET_ID: &[u8] = b"adit: which secret this is";

/// What an authority believes: the secret shared with the operator, and what else is configured.
#[derive(Clone)]
pub struct Trust {
    key: hmac::Key,
    secret: SecretId,
    audience: Arc<[String]>,
    /// Projects by their short ids.
    endpoints: Arc<BTreeMap<String, String>>,
    /// None where no file of them is configured, which is not the same as an empty one.
    credentials: Option<Arc<Credentials>>,
}

impl Trust {
    /// Belief in tokens signed with this secret, its bytes taken as they are.
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
        let key = hmac::Key::new(hmac::HMAC_SHA256, bytes);
        let mut secret = SecretId::default();
        for (to, from) in secret.iter_mut().zip(hmac::sign(&key, SECRET_ID).as_ref()) {
            *to = *from;
        }
        Ok(Self {
            key,
            secret,
            audience: Arc::default(),
            endpoints: Arc::default(),
            credentials: None,
        })
    }

    /// The same, and a token that names an audience must name one of these, unless there are none.
    #[must_use]
    pub fn with_audience(self, audience: impl Into<Arc<[String]>>) -> Self {
        Self {
            audience: audience.into(),
            ..self
        }
    }

    /// The same, and a token that names a project by its short id is for the project that has it here.
    #[must_use]
    pub fn with_endpoints(self, endpoints: BTreeMap<String, String>) -> Self {
        Self {
            endpoints: Arc::new(endpoints),
            ..self
        }
    }

    /// The same, and these credentials; personal tokens count only if they are among them.
    #[must_use]
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Self {
            credentials: Some(Arc::new(credentials)),
            ..self
        }
    }

    pub(super) fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_deref()
    }

    /// Verifies a token at the time `now`, in Unix seconds.
    pub(super) fn token(&self, token: &str, now: f64) -> Result<Principal, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let jws = Jws::read(token)?;
        let (claims, by) = match jws.algorithm {
            Algorithm::Hs256 => self.by_secret(token, &jws)?,
            Algorithm::Es512 => self.by_application(&jws)?,
        };
        times::check(&claims, now)?;
        if let Some(audience) = &claims.aud
            && !self.audience.is_empty()
            && !audience.includes(&self.audience)
        {
            return Err(TokenError::Audience);
        }
        let proof = Proof {
            by,
            // Permissions of other services are theirs to judge: here they allow nothing.
            permissions: claims.permissions.as_ref().map(|list| {
                let known = list.iter().filter_map(|text| text.parse().ok());
                known.collect()
            }),
            boundary: self.boundary(&claims)?,
        };
        let standing = Standing::of(&proof, self)?;
        let principal = principal(&claims, standing, proof);
        match principal.expires {
            Some(end) if now >= end => Err(TokenError::Expired),
            _ => Ok(principal),
        }
    }

    /// Signs claims.
    pub(super) fn mint(&self, claims: &Claims) -> Result<String, serde_json::Error> {
        Ok(jws::write(&serde_json::to_vec(claims)?, &self.key))
    }

    pub(super) fn secret(&self) -> &SecretId {
        &self.secret
    }

    fn by_secret(&self, token: &str, jws: &Jws<'_>) -> Result<(Claims, Means), TokenError> {
        hmac::verify(&self.key, jws.signed.as_bytes(), &jws.signature)
            .map_err(|_| TokenError::Signature)?;
        let claims = claims(jws)?;
        if claims.kind == Some(TokenKind::App) {
            return Err(TokenError::Claims(
                "an application signs its tokens with a key of its own",
            ));
        }
        let by = Means::Secret {
            secret: self.secret,
            sha256: sha256(token.as_bytes()),
            personal: claims.kind == Some(TokenKind::Pat),
            source: source(&claims)?,
        };
        Ok((claims, by))
    }

    fn by_application(&self, jws: &Jws<'_>) -> Result<(Claims, Means), TokenError> {
        /// What must be read before anything is verified: whose key it is to be verified with.
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Signer {
            client_id: String,
        }
        let Signer { client_id } =
            serde_json::from_slice(&jws.payload).map_err(|_| TokenError::Malformed)?;
        let credentials = self.credentials().ok_or(TokenError::Signature)?;
        let application = credentials.application(&client_id);
        // An id nobody has costs what a known one does, and is answered the same: who may not sign cannot find out
        // which ids there are.
        let key = match application {
            Some(application) => &application.key,
            None => credentials.any_key().ok_or(TokenError::Signature)?,
        };
        let verifies = key.verifies(jws.signed.as_bytes(), &jws.signature);
        let (Some(application), true) = (application, verifies) else {
            return Err(TokenError::Signature);
        };
        let claims = claims(jws)?;
        if claims.kind != Some(TokenKind::App) {
            return Err(TokenError::Claims(
                "an application's token says that it is one: its `type` is `app`",
            ));
        }
        let by = Means::Application {
            client_id: client_id.into(),
            key: application_key(application.key.der()),
        };
        Ok((claims, by))
    }

    /// Where the token itself lets its bearer go: everything it says about that, in all forms there have been.
    fn boundary(&self, claims: &Claims) -> Result<Option<TunnelResource>, TokenError> {
        let resources = claims.resources.as_ref();
        let metadata = claims.metadata.as_ref();
        let mut trees = Vec::new();
        for tree in [
            resources.map(|resources| &resources.tunnels),
            metadata.and_then(|metadata| metadata.scopes.as_ref()),
        ] {
            trees.extend(tree.map(TunnelResource::parse).transpose()?);
        }
        match &claims.tunnels_grants {
            Some(Value::Array(any)) => {
                let any = serde_json::json!({ "OR": any });
                trees.push(TunnelResource::parse(&any)?);
            }
            Some(tree) => trees.push(TunnelResource::parse(tree)?),
            None => {}
        }
        if let Some(project) = self.project(claims)? {
            let only = serde_json::json!({ "projects": [project] });
            trees.push(TunnelResource::parse(&only)?);
        }
        let mut trees = trees.into_iter();
        let first = trees.next();
        first
            .map(|first| trees.try_fold(first, |all, tree| all.and(&tree)))
            .transpose()
            .map_err(TokenError::Boundary)
    }

    /// The project whose short id the token names, where the short ids of projects are known.
    fn project(&self, claims: &Claims) -> Result<Option<&str>, TokenError> {
        let endpoint = match (&claims.token_endpoint, &claims.tokendpoint) {
            (Some(one), Some(other)) if one != other => {
                return Err(TokenError::Claims(
                    "`token_endpoint` and `tokendpoint` name two projects",
                ));
            }
            (one, other) => one.as_ref().or(other.as_ref()),
        };
        let Some(endpoint) = endpoint.filter(|_| !self.endpoints.is_empty()) else {
            return Ok(None);
        };
        match self.endpoints.get(endpoint) {
            Some(project) => Ok(Some(project)),
            None => Err(TokenError::Claims(
                "its `token_endpoint` is of a project that is not here",
            )),
        }
    }
}

/// What tells an application's key from the one that may replace it.
pub(super) fn application_key(der: &[u8]) -> Sha256 {
    sha256(der)
}

fn claims(jws: &Jws<'_>) -> Result<Claims, TokenError> {
    // The signature has been verified: such claims are under one of ours.
    serde_json::from_slice(&jws.payload)
        .map_err(|_| TokenError::Claims("a claim has the wrong type"))
}

fn source(claims: &Claims) -> Result<Option<Source>, TokenError> {
    match (
        &claims.source_credential_id,
        &claims.source_credential_updated_at,
    ) {
        (None, None) => Ok(None),
        (Some(id), Some(text)) => {
            let updated_at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
                TokenError::Claims("`sourceCredentialUpdatedAt` is not a time of RFC 3339")
            })?;
            let id = id.as_str().into();
            Ok(Some(Source { id, updated_at }))
        }
        _ => Err(TokenError::Claims(
            "`sourceCredentialId` and `sourceCredentialUpdatedAt` say something only together",
        )),
    }
}

fn principal(claims: &Claims, standing: Standing, proof: Proof) -> Principal {
    let named = claims.user_id.as_ref().or(claims.sub.as_ref());
    let named = named.filter(|id| !id.is_empty());
    let owner = standing.owner.as_ref();
    let user_id = match owner {
        Some(owner) if standing.is_owner => Some(&owner.user_id),
        Some(owner) => named.or(Some(&owner.user_id)),
        None => named,
    };
    let user_id = user_id.map_or_else(|| LOCAL_USER.to_owned(), Clone::clone);
    // Whoever derives a token may do so for somebody else.
    let same = owner.filter(|owner| owner.user_id == user_id);
    Principal {
        name: same.and_then(|owner| owner.name.clone()),
        email: same.and_then(|owner| owner.email.clone()),
        credential_id: owner.map(|owner| owner.id.clone()),
        user_id,
        kind: claims.kind,
        permissions: standing.permissions,
        resources: standing.boundary,
        token_id: claims.jti.clone(),
        expires: match (claims.exp, standing.expires) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        },
        proof,
    }
}
