//! TLS as the engine answers it: one certificate, and a configuration for each kind of peer and each
//! tunnel that demands something of its own.

mod certificate;
mod clients;
mod demand;
mod kept;

use std::sync::Arc;

use adit_config::CertificateFiles;
use adit_filters::{ClientCertificate, ClientHello, Handshake, KeyExchange, TlsInfo};
use rustls::crypto::CryptoProvider;
use rustls::{ServerConfig, ServerConnection};

use certificate::Certificate;
pub use certificate::CertificateError;
pub(crate) use demand::Answers;
pub(crate) use kept::Kept;

/// What visitors and users of the API speak.
const VISITORS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The engine's certificate and the configurations that show it.
#[derive(Debug)]
pub struct Tls {
    provider: Arc<CryptoProvider>,
    certificate: Arc<Certificate>,
    agents: Own,
    visitors: Own,
    certificates: Own,
}

/// The configurations of one of the engine's own services: one for each way in which a project may want keys agreed
/// on at its host.
#[derive(Debug)]
struct Own {
    usual: Arc<ServerConfig>,
    exchanges: [(KeyExchange, Answers); 3],
}

impl Own {
    fn new(
        answers: impl Fn(&Handshake) -> Result<Answers, rustls::Error>,
        demand: &Handshake,
    ) -> Result<Self, rustls::Error> {
        let of = |exchange| {
            let demand = demand.clone().with_key_exchange(exchange);
            answers(&demand).map(|answers| (exchange, answers))
        };
        Ok(Self {
            usual: answers(demand)?.usual(),
            exchanges: [
                of(KeyExchange::Classic)?,
                of(KeyExchange::PreferHybrid)?,
                of(KeyExchange::RequireHybrid)?,
            ],
        })
    }

    fn to(&self, hello: &ClientHello, exchange: Option<KeyExchange>) -> Arc<ServerConfig> {
        let answers = self.exchanges.iter().find(|(of, _)| Some(*of) == exchange);
        match answers {
            Some((_, answers)) => answers.to(hello),
            None => Arc::clone(&self.usual),
        }
    }
}

impl Tls {
    /// Reads the certificate and prepares the configurations that every engine has.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn new(files: &CertificateFiles) -> Result<Self, CertificateError> {
        let provider = demand::provider();
        let certificate = Arc::new(Certificate::read(files, &provider)?);
        let own = |demand: &Handshake, alpn: &[&[u8]]| {
            let answers = |demand: &Handshake| Answers::new(&provider, &certificate, demand, alpn);
            Own::new(answers, demand)
        };
        let nothing = Handshake::new();
        let asking = Handshake::new().requesting_certificate();
        Ok(Self {
            agents: own(&asking, &[adit_protocol::ALPN])?,
            visitors: own(&nothing, &VISITORS)?,
            certificates: own(&asking, &VISITORS)?,
            certificate,
            provider,
        })
    }

    /// For agents: ALPN `rstrm/1` alone, and a certificate if they have one. `exchange` is what the project of the host
    /// wants (edge-behaviour §5.2).
    pub(crate) fn agents(
        &self,
        hello: &ClientHello,
        exchange: Option<KeyExchange>,
    ) -> Arc<ServerConfig> {
        self.agents.to(hello, exchange)
    }

    /// For users of the API: `h2` and `http/1.1`.
    pub(crate) fn users(
        &self,
        hello: &ClientHello,
        exchange: Option<KeyExchange>,
    ) -> Arc<ServerConfig> {
        self.visitors.to(hello, exchange)
    }

    /// For users of the API who may have a certificate: `h2` and `http/1.1`.
    pub(crate) fn certificates(
        &self,
        hello: &ClientHello,
        exchange: Option<KeyExchange>,
    ) -> Arc<ServerConfig> {
        self.certificates.to(hello, exchange)
    }

    /// For visitors of whom nothing is demanded: `h2` and `http/1.1`.
    pub(crate) fn visitors(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.visitors.usual)
    }

    /// For visitors of whom this is demanded. Their tickets are good for nobody else.
    pub(crate) fn answering(&self, demand: &Handshake) -> Result<Answers, rustls::Error> {
        Answers::new(&self.provider, &self.certificate, demand, &VISITORS)
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

/// What a finished handshake agreed on; `certificate_for` is who asked for a certificate in it.
pub(crate) fn info(connection: &ServerConnection, certificate_for: Option<Arc<str>>) -> TlsInfo {
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
        certificate_for,
        client_certificate: presented(connection),
    }
}

/// The certificate the client presented, if it did.
pub(crate) fn presented(connection: &ServerConnection) -> Option<Arc<ClientCertificate>> {
    let (leaf, more) = connection.peer_certificates()?.split_first()?;
    Some(Arc::new(clients::certificate(leaf, more)))
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs;
    use std::path::Path;

    use rcgen::{CertifiedKey as Generated, generate_simple_self_signed};

    use rustls_pki_types::CertificateDer;

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
