//! TLS as the engine answers it: one certificate, read anew when its files change, and one
//! configuration for each kind of peer.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use adit_config::CertificateFiles;
use adit_filters::TlsInfo;
use arc_swap::ArcSwap;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

/// TLS 1.3 tickets sent to a peer: one is what a client uses, and each costs a record.
const TICKETS: usize = 1;

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

/// The engine's certificate and the configurations that show it.
#[derive(Debug)]
pub struct Tls {
    certificate: Arc<Certificate>,
    agents: Arc<ServerConfig>,
    visitors: Arc<ServerConfig>,
}

impl Tls {
    /// Reads the certificate and prepares both configurations.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn new(files: &CertificateFiles) -> Result<Self, CertificateError> {
        let provider = adit_transport::tls::provider();
        let certificate = Arc::new(Certificate::read(files, &provider)?);
        let agents = server_config(&provider, &certificate, &[adit_protocol::ALPN])?;
        let visitors = server_config(&provider, &certificate, &[b"h2", b"http/1.1"])?;
        Ok(Self {
            certificate,
            agents,
            visitors,
        })
    }

    /// For agents: ALPN `rstrm/1` alone.
    pub fn agents(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.agents)
    }

    /// For visitors and users of the API: `h2` and `http/1.1`.
    pub fn visitors(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.visitors)
    }

    /// When the certificate ends, in seconds since 1970.
    pub fn not_after(&self) -> Option<i64> {
        let current = self.certificate.current();
        let leaf = current.end_entity_cert().ok()?;
        let (_, leaf) = x509_parser::parse_x509_certificate(leaf).ok()?;
        Some(leaf.validity().not_after.timestamp())
    }

    /// Whether the certificate is valid for `name`, a host name or an address.
    pub fn covers(&self, name: &str) -> bool {
        self.certificate.covers(name)
    }
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    certificate: &Arc<Certificate>,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(certificate) as _;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.send_tls13_tickets = TICKETS;
    // Tickets the client keeps, so that resumption costs no memory here.
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// A certificate with its key, read anew on the first handshake after one of its files changed.
#[derive(Debug)]
struct Certificate {
    files: CertificateFiles,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<CertifiedKey>,
    /// Files as they were when they were last read, good or bad: what failed once is not tried
    /// again until it changes.
    seen: Mutex<Stamps>,
}

impl Certificate {
    fn read(
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

    fn current(&self) -> Arc<CertifiedKey> {
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

    fn covers(&self, name: &str) -> bool {
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

/// What a finished handshake agreed on.
pub(crate) fn info(connection: &ServerConnection) -> TlsInfo {
    TlsInfo {
        version: match connection.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "unknown",
        },
        cipher: connection
            .negotiated_cipher_suite()
            .map(|suite| suite.suite().as_str().unwrap_or("unknown"))
            // The library tells the suites of TLS 1.3 apart by a name of its own.
            .map(|name| name.replacen("TLS13_", "TLS_", 1))
            .unwrap_or_default(),
        alpn: connection
            .alpn_protocol()
            .map(|protocol| String::from_utf8_lossy(protocol).into_owned()),
        group: connection
            .negotiated_key_exchange_group()
            .and_then(|group| group.name().as_str())
            .map(str::to_owned),
        client_certificate_sha256: None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use rcgen::{CertifiedKey as Generated, generate_simple_self_signed};

    use super::*;

    /// A self-signed certificate for `names`, in files of `folder`.
    pub(crate) fn write(
        folder: &Path,
        names: &[&str],
    ) -> (CertificateFiles, Generated<rcgen::KeyPair>) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let pair = generate_simple_self_signed(names).unwrap();
        let files = CertificateFiles {
            cert: folder.join("cert.pem"),
            key: folder.join("key.pem"),
        };
        // A rename changes time and content at once, as certificate tools do.
        for (path, text) in [
            (&files.cert, pair.cert.pem()),
            (&files.key, pair.signing_key.serialize_pem()),
        ] {
            replace(path, &text);
        }
        (files, pair)
    }

    /// Replaces a file and makes its time differ from before, whatever the clock's grain.
    fn replace(path: &Path, text: &str) {
        let before = fs::metadata(path)
            .and_then(|metadata| metadata.modified())
            .ok();
        fs::write(path, text).unwrap();
        if let Some(before) = before {
            let later = before + std::time::Duration::from_secs(1);
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_modified(later).unwrap();
        }
    }

    fn leaf(tls: &Tls) -> CertificateDer<'static> {
        let current = tls.certificate.current();
        current.end_entity_cert().unwrap().clone().into_owned()
    }

    // edge-behaviour §14.7 X13
    #[test]
    fn a_replaced_certificate_is_shown_at_the_next_handshake() {
        let folder = tempfile::tempdir().unwrap();
        let (files, first) = write(folder.path(), &["edge.example.com"]);
        let tls = Tls::new(&files).unwrap();
        assert_eq!(&leaf(&tls), first.cert.der());
        let (_, second) = write(folder.path(), &["edge.example.com"]);
        assert_eq!(&leaf(&tls), second.cert.der());
    }

    // edge-behaviour §14.7 X14
    #[test]
    fn a_half_written_pair_keeps_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let (files, first) = write(folder.path(), &["edge.example.com"]);
        let tls = Tls::new(&files).unwrap();
        let other = generate_simple_self_signed(["edge.example.com".to_owned()]).unwrap();
        let pem = other.cert.pem();
        for text in [pem.as_str(), "", "-----BEGIN CERTIFICATE-----\nMIIB"] {
            replace(&files.cert, text);
            assert_eq!(&leaf(&tls), first.cert.der());
        }
        fs::remove_file(&files.cert).unwrap();
        assert_eq!(&leaf(&tls), first.cert.der());
        // Once both halves are there, the new pair is taken.
        replace(&files.cert, &pem);
        replace(&files.key, &other.signing_key.serialize_pem());
        assert_eq!(&leaf(&tls), other.cert.der());
    }

    #[test]
    fn a_pair_that_does_not_fit_is_refused_at_start() {
        let folder = tempfile::tempdir().unwrap();
        let (files, _) = write(folder.path(), &["edge.example.com"]);
        let other = rcgen::KeyPair::generate().unwrap();
        replace(&files.key, &other.serialize_pem());
        let error = Tls::new(&files).unwrap_err();
        assert!(matches!(error, CertificateError::Key { .. }), "{error}");
        replace(&files.key, "no key");
        let error = Tls::new(&files).unwrap_err();
        assert!(
            matches!(
                error,
                CertificateError::Pem {
                    what: "private key",
                    ..
                }
            ),
            "{error}"
        );
        fs::remove_file(&files.cert).unwrap();
        let error = Tls::new(&files).unwrap_err();
        assert!(matches!(error, CertificateError::Read { .. }), "{error}");
    }

    #[test]
    fn the_end_of_a_certificate_is_that_of_the_one_shown() {
        let folder = tempfile::tempdir().unwrap();
        let (files, _) = write(folder.path(), &["edge.example.com"]);
        let tls = Tls::new(&files).unwrap();
        // What the generator writes where nobody says otherwise: the last second of 4095.
        assert_eq!(tls.not_after(), Some(67_090_204_800 - 24 * 60 * 60));
        let mut soon = rcgen::CertificateParams::new(["edge.example.com".to_owned()]).unwrap();
        soon.not_after = rcgen::date_time_ymd(2031, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        replace(&files.key, &key.serialize_pem());
        replace(&files.cert, &soon.self_signed(&key).unwrap().pem());
        assert_eq!(tls.not_after(), Some(1_924_992_000));
    }

    #[test]
    fn a_certificate_covers_its_names_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["edge.example.com", "*.t.edge.example.com", "127.0.0.1"];
        let (files, _) = write(folder.path(), &names);
        let tls = Tls::new(&files).unwrap();
        for name in ["edge.example.com", "x.t.edge.example.com", "127.0.0.1"] {
            assert!(tls.covers(name), "{name}");
        }
        for name in [
            "x.edge.example.com",
            "x.y.t.edge.example.com",
            "::1",
            "",
            "not a name",
        ] {
            assert!(!tls.covers(name), "{name}");
        }
    }
}
