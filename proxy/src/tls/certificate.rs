//! The engine's certificate, read anew when one of its files changes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use adit_config::CertificateFiles;
use arc_swap::ArcSwap;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

/// Longest PEM file taken, in bytes.
const PEM_BYTES_MAX: u64 = 1 << 20;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The certificate's own text is wrong.
    #[error("{path} holds no usable certificate: {source}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// A file holds no PEM section of the kind wanted.
    #[error("{path} holds no {what} in PEM: {source}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// What is wrong.
        source: rustls_pki_types::pem::Error,
    },
    /// Key and certificate do not belong together, or the key cannot be used.
    #[error("{path} is not the key of the certificate: {source}")]
    Key {
        /// The key's file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// TLS itself cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

impl CertificateError {
    /// The file that is wrong, if one is.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Certificate { path, .. }
            | Self::Key { path, .. }
            | Self::Pem { path, .. }
            | Self::Read { path, .. } => Some(path),
            Self::Setup(_) => None,
        }
    }
}

/// A certificate with its key, read anew on the first handshake after one of its files changed.
#[derive(Debug)]
pub(super) struct Certificate {
    files: CertificateFiles,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<CertifiedKey>,
    /// Files as they were when they were last read, good or bad: what failed once is not tried
    /// again until it changes.
    seen: Mutex<Stamps>,
}

impl Certificate {
    pub(super) fn read(
        files: &CertificateFiles,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, CertificateError> {
        let seen = Stamps::of(files);
        let current = pair(files, provider)?;
        Ok(Self {
            files: files.clone(),
            provider: Arc::clone(provider),
            current: ArcSwap::from_pointee(current),
            seen: Mutex::new(seen),
        })
    }

    pub(super) fn current(&self) -> Arc<CertifiedKey> {
        let now = Stamps::of(&self.files);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen != now {
            *seen = now;
            match pair(&self.files, &self.provider) {
                Ok(pair) => {
                    self.current.store(Arc::new(pair));
                    tracing::info!(cert = %self.files.cert.display(), "certificate read anew");
                }
                Err(error) => {
                    tracing::warn!(%error, "certificate changed and cannot be used, the one before stays");
                }
            }
        }
        drop(seen);
        self.current.load_full()
    }

    pub(super) fn covers(&self, name: &str) -> bool {
        let Ok(name) = ServerName::try_from(name) else {
            return false;
        };
        let current = self.current();
        current.end_entity_cert().is_ok_and(|leaf| {
            ParsedCertificate::try_from(leaf)
                .is_ok_and(|leaf| verify_server_name(&leaf, &name).is_ok())
        })
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

/// What tells one state of the two files from another.
#[derive(Debug, PartialEq, Eq)]
struct Stamps([Option<(SystemTime, u64)>; 2]);

impl Stamps {
    fn of(files: &CertificateFiles) -> Self {
        Self([&files.cert, &files.key].map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        }))
    }
}

fn pair(
    files: &CertificateFiles,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, CertificateError> {
    let pem = |path: &Path, what| {
        let path = path.to_owned();
        move |source| CertificateError::Pem { path, what, source }
    };
    let chain = CertificateDer::pem_slice_iter(&read(&files.cert)?)
        .collect::<Result<Vec<_>, _>>()
        .and_then(|chain| match chain.is_empty() {
            true => Err(rustls_pki_types::pem::Error::NoItemsFound),
            false => Ok(chain),
        })
        .map_err(pem(&files.cert, "certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
        .map_err(pem(&files.key, "private key"))?;
    let pair =
        CertifiedKey::from_der(chain, key, provider).map_err(|source| CertificateError::Key {
            path: files.key.clone(),
            source,
        })?;
    pair.end_entity_cert()
        .and_then(ParsedCertificate::try_from)
        .map_err(|source| CertificateError::Certificate {
            path: files.cert.clone(),
            source,
        })?;
    Ok(pair)
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    use io::Read;

    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(PEM_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|source| CertificateError::Read {
            path: path.to_owned(),
            source,
        })?;
    Ok(bytes)
}
