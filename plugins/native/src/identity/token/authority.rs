//! The one who issues and verifies tokens: an HS256 secret shared with the operator (RFC 7519), applications' keys, and
//! what is stored of tokens and certificates.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use adit_config::Secret;
use arc_swap::ArcSwap;

use super::claims::Claims;
use super::error::{AuthorityError, CertificateError, TokenError};
use super::memory::Memory;
use super::principal::Principal;
use super::proof::{Means, Proof};
use super::standing::Standing;
use super::trust::Trust;
use crate::identity::credentials::{Credentials, Sha256};

/// The shortest secret, in bytes: as long as the hash's output (RFC 7518 §3.2).
pub const SECRET_BYTES_MIN: usize = 32;

/// The longest token, in bytes. Longer ones are refused unread.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Issues and verifies tokens, and says whose certificates are.
///
/// There is one for as long as an engine runs. What it believes is replaced whole, and what it remembers goes with
/// that: who holds on to it, such as a stream from before a reload, is judged by what is believed now.
pub struct Authority {
    belief: ArcSwap<Belief>,
}

/// What is believed, and what was verified while it was.
struct Belief {
    trust: Trust,
    remembered: Mutex<Memory>,
}

impl Authority {
    /// An authority with this secret, its bytes taken as they are, and nothing else.
    ///
    /// # Errors
    /// If the secret is too short.
    pub fn new(secret: &Secret<String>) -> Result<Self, AuthorityError> {
        Trust::new(secret).map(Self::from)
    }

    /// The same, which knows these credentials.
    #[must_use]
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        self.set_credentials(credentials);
        self
    }

    /// Replaces all that is believed.
    pub fn set_trust(&self, trust: Trust) {
        self.belief.store(Arc::new(trust.into()));
    }

    /// Replaces the stored credentials.
    pub fn set_credentials(&self, credentials: Credentials) {
        self.belief.rcu(|belief| {
            let trust = belief.trust.clone();
            Belief::from(trust.with_credentials(credentials.clone()))
        });
    }

    /// Verifies a token at the time `now`.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Arc<Principal>, TokenError> {
        let now = unix(now);
        let belief = self.belief.load();
        if let Some(known) = belief.remembered().get(token) {
            // Only its end can have come since: what else was checked does not change as time goes on.
            return if known.expires.is_some_and(|exp| now >= exp) {
                Err(TokenError::Expired)
            } else {
                Ok(known)
            };
        }
        let principal = Arc::new(belief.trust.token(token, now)?);
        belief.remembered().put(token, &principal);
        Ok(principal)
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
        let proof = Proof {
            by: Means::Certificate(*sha256),
            permissions: None,
            boundary: None,
        };
        let standing = Standing::of(&proof, &self.belief.load().trust);
        let standing = standing.map_err(|error| match error {
            TokenError::Revoked => CertificateError::Revoked,
            _ => CertificateError::Unknown,
        })?;
        let owner = standing.owner.as_ref().ok_or(CertificateError::Unknown)?;
        if standing.expires.is_some_and(|end| unix(now) >= end) {
            return Err(CertificateError::Expired);
        }
        Ok(Arc::new(Principal {
            user_id: owner.user_id.clone(),
            name: owner.name.clone(),
            email: owner.email.clone(),
            credential_id: Some(owner.id.clone()),
            kind: None,
            permissions: standing.permissions,
            resources: standing.boundary,
            token_id: None,
            expires: standing.expires,
            proof,
        }))
    }

    /// The principal with the rights it has by what is believed now: for what it was admitted to and has not left. That
    /// its time is over since is no reason to end that (edge-behaviour §7.2).
    ///
    /// # Errors
    /// [`TokenError::Revoked`], or what else became of its credential: it may not stay.
    pub fn judge_again(&self, principal: &Principal) -> Result<Arc<Principal>, TokenError> {
        let standing = Standing::of(&principal.proof, &self.belief.load().trust)?;
        Ok(Arc::new(Principal {
            permissions: standing.permissions,
            resources: standing.boundary,
            ..principal.clone()
        }))
    }

    /// Signs claims.
    ///
    /// # Errors
    /// If they cannot be written down.
    pub fn mint(&self, claims: &Claims) -> Result<String, serde_json::Error> {
        self.belief.load().trust.mint(claims)
    }
}

impl From<Trust> for Authority {
    fn from(trust: Trust) -> Self {
        Self {
            belief: ArcSwap::from_pointee(trust.into()),
        }
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Belief {
    fn remembered(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Trust> for Belief {
    fn from(trust: Trust) -> Self {
        Self {
            trust,
            remembered: Mutex::default(),
        }
    }
}

fn unix(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests;
