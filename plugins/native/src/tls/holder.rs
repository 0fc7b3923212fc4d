//! Who holds a client certificate, for those who know no chain: agents and users of the Engine API.

use std::sync::Arc;
use std::time::SystemTime;

use adit_filters::ClientCertificate;

use super::leaf::Leaf;
use crate::identity::token::{Authority, CertificateError, Principal};

/// Why a certificate is not accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NotAccepted {
    /// Its credential does not stand.
    #[error(transparent)]
    Credential(#[from] CertificateError),
    /// Its own time has not come or is over.
    #[error("certificate is not valid now")]
    NotValidNow,
    /// It is not made for this.
    #[error("certificate is not made for client authentication")]
    Unsuitable,
}

/// Whose a certificate is that was presented, and proved to be its bearer's, in a handshake.
///
/// # Errors
/// Why it is not accepted (edge-behaviour §7.4).
pub fn holder(
    authority: &Authority,
    certificate: &ClientCertificate,
    now: SystemTime,
) -> Result<Arc<Principal>, NotAccepted> {
    let principal = authority.certificate(&certificate.sha256, now)?;
    let leaf = certificate.chain.first().and_then(|der| Leaf::read(der));
    match leaf.ok_or(NotAccepted::Unsuitable)?.is_valid_at(now) {
        true => Ok(principal),
        false => Err(NotAccepted::NotValidNow),
    }
}
