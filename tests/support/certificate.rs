//! Client certificates and the credentials they are of.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adit_plugins::identity::credentials::sha256;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, ClientConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

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
        versions: &[&'static SupportedProtocolVersion],
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

/// A visitor without a certificate.
pub fn bare(engine: &TestEngine, alpn: &str) -> Arc<ClientConfig> {
    bare_of(engine, alpn, rustls::DEFAULT_VERSIONS)
}

/// The same, in some versions alone.
pub fn bare_of(
    engine: &TestEngine,
    alpn: &str,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(engine.roots())
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    Arc::new(config)
}

/// One `GET` on a stream, which stays open.
///
/// # Errors
/// What ended the connection first.
pub async fn get(
    stream: &mut TlsStream<TcpStream>,
    host: &str,
    path: &str,
    fields: &str,
) -> io::Result<(u16, String)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        if let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&answer).into_owned();
            let length = text
                .to_lowercase()
                .split_once("content-length: ")
                .and_then(|(_, rest)| rest.split("\r\n").next()?.parse::<usize>().ok());
            if answer.len() >= end + 4 + length.unwrap_or(0) {
                let status = text.split(' ').nth(1).unwrap().parse().unwrap();
                return Ok((status, text));
            }
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => answer.extend_from_slice(chunk.get(..count).unwrap()),
        }
    }
}

/// What becomes of one request on a connection of its own: its status, or the alert that ended the connection.
///
/// # Errors
/// The alert.
pub async fn visit(
    engine: &TestEngine,
    host: &str,
    config: &Arc<ClientConfig>,
    path: &str,
    fields: &str,
) -> Result<u16, AlertDescription> {
    let asked = async {
        let mut stream = engine.handshake(host, config).await?;
        get(&mut stream, host, path, fields).await
    };
    asked
        .await
        .map(|(status, _)| status)
        .map_err(|error| alert(&error))
}

/// The alert that ended a connection.
pub fn alert(error: &io::Error) -> AlertDescription {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        _ => panic!("{error:?}"),
    }
}
