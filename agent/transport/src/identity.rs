//! The certificate by which an engine knows an agent, in place of a token.

use std::path::{Path, PathBuf};

use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A client certificate with its key, in two PEM files.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The certificate, and those that signed it if the engine is to see them.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Identity {
    /// Reads both files.
    ///
    /// # Errors
    ///
    /// [`IdentityError`] if one cannot be used, or if they do not belong together.
    pub(crate) fn load(&self, provider: &CryptoProvider) -> Result<CertifiedKey, IdentityError> {
        let pem = |path: &Path, what| {
            let path = path.to_owned();
            move |source| IdentityError::Pem { path, what, source }
        };
        let chain = CertificateDer::pem_slice_iter(&read(&self.certificate)?)
            .collect::<Result<Vec<_>, _>>()
            .and_then(|chain| match chain.is_empty() {
                true => Err(rustls_pki_types::pem::Error::NoItemsFound),
                false => Ok(chain),
            })
            .map_err(pem(&self.certificate, "certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(&read(&self.key)?)
            .map_err(pem(&self.key, "private key"))?;
        CertifiedKey::from_der(chain, key, provider).map_err(|source| IdentityError::Key {
            path: self.key.clone(),
            source,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    std::fs::read(path).map_err(|source| IdentityError::Read {
        path: path.to_owned(),
        source,
    })
}

/// A client certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Key and certificate do not belong together, or the key cannot be used.
    #[error("`{}` is not the key of the client certificate: {source}", path.display())]
    Key {
        /// The key's file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// A file holds no PEM section of the kind wanted.
    #[error("`{}` holds no {what} in PEM: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What is wrong.
        source: rustls_pki_types::pem::Error,
    },
    /// A file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity {
            certificate: folder.path().join("cert.pem"),
            key: folder.path().join("key.pem"),
        };
        let provider = crate::tls::provider();
        let problem = || identity.load(&provider).unwrap_err();
        assert!(matches!(problem(), IdentityError::Read { .. }));
        let pair = rcgen::generate_simple_self_signed(["agent".to_owned()]).unwrap();
        std::fs::write(&identity.certificate, "nothing").unwrap();
        assert!(problem().to_string().contains("cert.pem"), "{}", problem());
        std::fs::write(&identity.certificate, pair.cert.pem()).unwrap();
        assert!(problem().to_string().contains("key.pem"), "{}", problem());
        let other = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&identity.key, other.serialize_pem()).unwrap();
        assert!(matches!(problem(), IdentityError::Key { .. }));
        std::fs::write(&identity.key, pair.signing_key.serialize_pem()).unwrap();
        assert_eq!(identity.load(&provider).unwrap().cert.len(), 1);
    }
}
