//! What a proof is worth by what is stored: the rights of the token, of its owner's credential and of the one it was
//! derived from, as far as all of them go (engine-api §8.5).

use std::sync::Arc;

use super::boundary::TunnelResource;
use super::error::TokenError;
use super::permission::Permissions;
use super::proof::{Means, Proof};
use super::trust::{Trust, application_key};
use crate::identity::credentials::Credential;

/// What a proof is worth now.
pub(super) struct Standing {
    /// The credential behind it, if one is stored.
    pub(super) owner: Option<Arc<Credential>>,
    /// Whether the proof is the credential's own, and not one derived from it.
    pub(super) is_owner: bool,
    pub(super) permissions: Option<Permissions>,
    pub(super) boundary: Option<TunnelResource>,
    /// When the first credential behind it ends, in Unix seconds. That has no say here: who was let in may stay.
    pub(super) expires: Option<f64>,
}

impl Standing {
    /// Judges a proof by what `trust` knows.
    pub(super) fn of(proof: &Proof, trust: &Trust) -> Result<Self, TokenError> {
        let mut standing = Self {
            owner: None,
            is_owner: false,
            permissions: proof.permissions,
            boundary: proof.boundary.clone(),
            expires: None,
        };
        let stored = trust.credentials();
        match &proof.by {
            Means::Certificate(sha256) => {
                let known = stored.and_then(|stored| stored.certificate(sha256));
                standing.narrow(known.ok_or(TokenError::Unknown)?, true)?;
            }
            Means::Application { client_id, key } => {
                let known = stored.and_then(|stored| stored.application(client_id));
                let known = known.filter(|known| application_key(known.key.der()) == *key);
                standing.narrow(&known.ok_or(TokenError::Unknown)?.credential, true)?;
            }
            Means::Secret {
                secret,
                sha256,
                personal,
                source,
            } => {
                if secret != trust.secret() {
                    return Err(TokenError::Signature);
                }
                // Any token may be stored, to take it back or to limit it; a personal one must be, where any are.
                match (stored, stored.and_then(|stored| stored.token(sha256))) {
                    (_, Some(known)) => standing.narrow(known, true)?,
                    (Some(_), None) if *personal => return Err(TokenError::Unknown),
                    _ => {}
                }
                if let Some(source) = source {
                    let known = stored
                        .and_then(|stored| stored.get(&source.id))
                        .filter(|known| known.updated_at == Some(source.updated_at))
                        .ok_or(TokenError::Unknown)?;
                    standing.narrow(known, false)?;
                }
            }
        }
        Ok(standing)
    }

    fn narrow(&mut self, by: &Arc<Credential>, is_owner: bool) -> Result<(), TokenError> {
        if by.revoked {
            return Err(TokenError::Revoked);
        }
        self.permissions = match (self.permissions, by.permissions) {
            (Some(one), Some(other)) => Some(one.and(other)),
            (one, other) => one.or(other),
        };
        self.boundary = match (self.boundary.take(), &by.boundary) {
            (Some(one), Some(other)) => Some(one.and(other)?),
            (one, other) => one.or_else(|| other.clone()),
        };
        self.expires = match (self.expires, by.expires) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        if self.owner.is_none() {
            self.owner = Some(Arc::clone(by));
            self.is_owner = is_owner;
        }
        Ok(())
    }
}
