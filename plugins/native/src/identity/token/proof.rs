//! What a principal was admitted by: enough to judge it again by what is stored then.

use std::sync::Arc;

use time::OffsetDateTime;

use super::boundary::TunnelResource;
use super::permission::Permissions;
use crate::identity::credentials::Sha256;

/// A proof that was verified, and how far it goes by itself.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    pub(super) by: Means,
    /// What the token itself allows; none means everything its owner may.
    pub(super) permissions: Option<Permissions>,
    /// Where; none means everywhere.
    pub(super) boundary: Option<TunnelResource>,
}

/// How a principal proved itself.
#[derive(Clone, Debug)]
pub(super) enum Means {
    /// A token signed with the engine's secret.
    Secret {
        /// Which secret that was.
        secret: SecretId,
        /// Of the token's text.
        sha256: Sha256,
        /// Whether it is a personal token, of which the stored ones alone count.
        personal: bool,
        /// The credential it was derived from.
        source: Option<Source>,
    },
    /// A token signed with an application's key.
    Application {
        client_id: Arc<str>,
        /// Of the key's DER form.
        key: Sha256,
    },
    /// A client certificate.
    Certificate(Sha256),
}

/// Tells one secret from another and says nothing of either.
pub(super) type SecretId = [u8; 16];

/// A stored credential as it was when a token was derived from it.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) id: Arc<str>,
    pub(super) updated_at: OffsetDateTime,
}
