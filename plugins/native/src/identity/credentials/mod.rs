//! Stored credentials: applications, personal tokens and client certificates, and what each may do where.
//!
//! They say who is behind a proof; [`Authority`](super::token::Authority) verifies the proof.

mod credential;
mod file;
mod fingerprint;
mod public_key;

use std::collections::HashMap;
use std::sync::Arc;

pub use credential::Credential;
pub use fingerprint::{Sha256, sha256};
pub use public_key::{PublicKey, PublicKeyError};

#[cfg(test)]
pub(crate) use public_key::VERIFICATIONS;

/// How many credentials there may be.
pub const CREDENTIALS_MAX: usize = 10_000;

/// How many tokens or certificates one credential may have: two while it is renewed, and some devices.
pub const HASHES_MAX: usize = 16;

/// Every stored credential, by what proves it. Never changed, only replaced whole.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    by_id: HashMap<String, Arc<Credential>>,
    applications: HashMap<String, Application>,
    tokens: HashMap<Sha256, Arc<Credential>>,
    certificates: HashMap<Sha256, Arc<Credential>>,
}

/// An application and the key of its tokens.
#[derive(Clone, Debug)]
pub struct Application {
    /// What it may do where.
    pub credential: Arc<Credential>,
    /// What its tokens are verified with.
    pub key: Arc<PublicKey>,
}

impl Credentials {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The credential with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Arc<Credential>> {
        self.by_id.get(id)
    }

    /// The application with this client id.
    #[must_use]
    pub fn application(&self, client_id: &str) -> Option<&Application> {
        self.applications.get(client_id)
    }

    /// Some application's key: where no application has an id, verifying with it costs what verifying with the right
    /// one would have. None if there are no applications, when there is nothing to be found out.
    #[must_use]
    pub(crate) fn any_key(&self) -> Option<&PublicKey> {
        let any = self.applications.values().next();
        any.map(|application| application.key.as_ref())
    }

    /// Whose the token whose text has this SHA-256 is.
    #[must_use]
    pub fn token(&self, sha256: &Sha256) -> Option<&Arc<Credential>> {
        self.tokens.get(sha256)
    }

    /// Whose the certificate with this SHA-256 of its DER form is.
    #[must_use]
    pub fn certificate(&self, sha256: &Sha256) -> Option<&Arc<Credential>> {
        self.certificates.get(sha256)
    }

    /// The same, and a certificate of this credential.
    #[must_use]
    pub fn with_certificate(mut self, sha256: Sha256, credential: Arc<Credential>) -> Self {
        self.by_id
            .insert(credential.id.clone(), Arc::clone(&credential));
        self.certificates.insert(sha256, credential);
        self
    }
}
