//! Client certificates and the credentials they are of.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adit_plugins::identity::credentials::sha256;
use rcgen::{CertificateParams, KeyPair};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::engine::{TestEngine, provider};

/// A certificate and its key.
pub struct ClientCertificate {
    pub der: CertificateDer<'static>,
    pub pem: String,
    pub key: KeyPair,
}

impl ClientCertificate {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = CertificateParams::new(["client".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            key,
        }
    }

    /// Its table in the credentials file, followed by more of it.
    pub fn credential(&self, id: &str, more: &str) -> String {
        let sha256: String = sha256(&self.der)
            .iter()
            .map(|octet| format!("{octet:02x}"))
            .collect();
        format!("[[credential]]\nid = \"{id}\"\ncertificate-sha256 = [\"{sha256}\"]\n{more}\n")
    }

    /// Writes it and its key to files.
    pub fn write(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let (certificate, key) = (folder.join("client.pem"), folder.join("client.key"));
        fs::write(&certificate, &self.pem).unwrap();
        fs::write(&key, self.key.serialize_pem()).unwrap();
        (certificate, key)
    }

    /// How a visitor shakes hands with it.
    pub fn visitor(&self, engine: &TestEngine, alpn: &str) -> Arc<ClientConfig> {
        self.visitor_of(engine, alpn, rustls::DEFAULT_VERSIONS)
    }

    /// The same, in some versions alone.
    pub fn visitor_of(
        &self,
        engine: &TestEngine,
        alpn: &str,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(engine.roots())
            .with_client_auth_cert(vec![self.der.clone()], key)
            .unwrap();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        Arc::new(config)
    }
}

impl Default for ClientCertificate {
    fn default() -> Self {
        Self::new()
    }
}
