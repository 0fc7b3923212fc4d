//! Which certificates an agent believes.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// The authorities an engine's certificate may come from: those of the operating system (or of
/// `SSL_CERT_FILE` and `SSL_CERT_DIR`, where set) and those added here.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    files: Vec<PathBuf>,
    pems: Vec<Vec<u8>>,
    without_system: bool,
}

impl Trust {
    /// The authorities of the operating system alone.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// Believes the CA certificates of a PEM file as well.
    #[must_use]
    pub fn and_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.files.push(path.into());
        self
    }

    /// Believes these CA certificates, in PEM, as well.
    #[must_use]
    pub fn and_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.pems.push(pem.into());
        self
    }

    /// Leaves the authorities of the operating system out.
    #[must_use]
    pub const fn without_system(mut self) -> Self {
        self.without_system = true;
        self
    }

    /// Reads everything.
    ///
    /// # Errors
    ///
    /// [`TrustError`] if a file added cannot be used, or if nothing at all was found.
    pub(crate) fn load(&self) -> Result<RootCertStore, TrustError> {
        let mut roots = RootCertStore::empty();
        if !self.without_system {
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::debug!(%error, "some of the system's certificates cannot be read");
            }
            roots.add_parsable_certificates(found.certs);
        }
        for path in &self.files {
            let pem = std::fs::read(path).map_err(|source| TrustError::Read {
                path: path.clone(),
                source,
            })?;
            add(&mut roots, &pem, path)?;
        }
        for pem in &self.pems {
            add(&mut roots, pem, Path::new("(in memory)"))?;
        }
        if roots.is_empty() {
            return Err(TrustError::Nothing);
        }
        Ok(roots)
    }
}

fn add(roots: &mut RootCertStore, pem: &[u8], path: &Path) -> Result<(), TrustError> {
    let bad = || TrustError::NoCertificate {
        path: path.to_path_buf(),
    };
    let mut any = false;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| bad())?;
        roots.add(certificate).map_err(|_| bad())?;
        any = true;
    }
    if any { Ok(()) } else { Err(bad()) }
}

/// There is nothing to check an engine's certificate against.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// A file holds something else than CA certificates.
    #[error("CA file `{}` holds no usable PEM certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// Neither the system nor a file gave an authority.
    #[error("this machine has no CA certificates, install them or give a CA file")]
    Nothing,
    /// A file cannot be read.
    #[error("cannot read CA file `{}`: {source}", path.display())]
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
    fn a_file_without_certificates_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let trust = Trust::system().without_system().and_file(&path);
        assert!(matches!(trust.load(), Err(TrustError::Read { .. })));
        std::fs::write(&path, "not a certificate").unwrap();
        let error = trust.load().unwrap_err().to_string();
        assert!(error.contains("ca.pem"), "{error}");
    }

    #[test]
    fn trusting_nobody_is_an_error_and_not_an_open_door() {
        let nobody = Trust::system().without_system();
        assert!(matches!(nobody.load(), Err(TrustError::Nothing)));
    }

    #[test]
    fn certificates_given_are_added() {
        let key = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap();
        let trust = Trust::system().without_system().and_pem(key.cert.pem());
        assert_eq!(trust.load().unwrap().len(), 1);
    }
}
