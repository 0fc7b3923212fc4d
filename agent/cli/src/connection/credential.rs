//! What lets this machine in: a token, or a client certificate in its place.

use std::path::PathBuf;

use adit_agent::Secret;
use adit_transport::identity::Identity;
use anyhow::bail;

/// One whole credential.
#[derive(Debug)]
pub(crate) enum Credential {
    /// A bearer token.
    Token(Secret),
    /// A client certificate and its key.
    Certificate(Identity),
}

impl Credential {
    /// The one that is given, if one is.
    ///
    /// # Errors
    ///
    /// If there are two, or half a certificate.
    pub(super) fn one(
        token: Option<Secret>,
        certificate: Option<PathBuf>,
        key: Option<PathBuf>,
    ) -> anyhow::Result<Option<Self>> {
        match (token, certificate, key) {
            (None, None, None) => Ok(None),
            (Some(token), None, None) => Ok(Some(Self::Token(token))),
            (None, Some(certificate), Some(key)) => {
                Ok(Some(Self::Certificate(Identity { certificate, key })))
            }
            (Some(_), ..) => bail!(
                "both a token and a client certificate are given, leave one out: the engine takes one of them"
            ),
            (None, Some(_), None) => bail!(
                "a client certificate needs its key: give --key-file, ADIT_KEY_FILE or `key-file` where the \
                 certificate is given"
            ),
            (None, None, Some(_)) => bail!(
                "a key needs its client certificate: give --cert-file, ADIT_CERT_FILE or `cert-file` where the \
                 key is given"
            ),
        }
    }

    /// What it is called.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::Certificate(_) => "client certificate",
        }
    }
}
