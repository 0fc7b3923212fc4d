//! Stored credentials: applications, personal tokens and client certificates, and what each may do where.
//!
//! They say who is behind a proof; [`Authority`](super::token::Authority) verifies the proof.

mod credential;

use std::collections::HashMap;
use std::sync::Arc;

pub use credential::Credential;

/// Octets of a SHA-256 hash.
pub type Sha256 = [u8; 32];

/// Every stored credential, by what proves it. Never changed, only replaced whole.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    certificates: HashMap<Sha256, Arc<Credential>>,
}

impl Credentials {
    /// Whose the certificate with this SHA-256 of its DER form is.
    #[must_use]
    pub fn certificate(&self, sha256: &Sha256) -> Option<&Arc<Credential>> {
        self.certificates.get(sha256)
    }

    /// The same, and a certificate of this credential.
    #[must_use]
    pub fn with_certificate(mut self, sha256: Sha256, credential: Arc<Credential>) -> Self {
        self.certificates.insert(sha256, credential);
        self
    }
}
