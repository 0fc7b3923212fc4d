//! Why a proof is not accepted.

use super::authority::SECRET_BYTES_MIN;
use super::boundary::BoundaryError;

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
    /// Not signed by us or an application we know, or not in the way it would be signed.
    #[error("token is not signed by this engine")]
    Signature,
    /// Ours, but its time is over.
    #[error("token has expired")]
    Expired,
    /// Ours, but its time has not come.
    #[error("token is not valid yet")]
    NotYetValid,
    /// Ours, but for somebody else.
    #[error("token is for another audience")]
    Audience,
    /// Ours, but the credential behind it is not stored, or no longer as it was.
    #[error("token's credential is not known to this engine")]
    Unknown,
    /// Ours, but the credential behind it has been taken back.
    #[error("token has been revoked")]
    Revoked,
    /// Ours, but its claims contradict themselves or cannot be understood.
    #[error("token's claims cannot be accepted: {0}")]
    Claims(&'static str),
    /// Ours, but its boundary cannot be understood.
    #[error("token's boundary cannot be accepted: {0}")]
    Boundary(#[from] BoundaryError),
}

impl TokenError {
    /// Whether the token was signed by this engine or an application it knows: then it is a proof, if a bad one, and
    /// no business of the service.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        !matches!(self, Self::Malformed | Self::Signature)
    }
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
