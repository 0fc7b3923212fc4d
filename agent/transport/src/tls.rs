//! The TLS carrier: one TLS connection for each control channel, proxied stream and dial.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::sign::SingleCertAndKey;
use rustls::{AlertDescription, CertificateError, ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::address::AddressError;
use crate::identity::{Identity, IdentityError};
use crate::trust::{Trust, TrustError};
use crate::{Abort, EngineAddress, Guarded, dial};

/// The agent's end of a connection.
pub type ClientStream = Guarded<tokio_rustls::client::TlsStream<TcpStream>>;

/// The engine's end of a connection over `S`.
pub type ServerStream<S> = Guarded<tokio_rustls::server::TlsStream<S>>;

/// Time for name lookup, TCP connect and TLS handshake together, unless told otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// ALPN of the engine's HTTP API.
const ALPN_HTTP: &[u8] = b"http/1.1";

/// What a [`Connector`] believes and how long it waits.
#[derive(Clone, Debug)]
pub struct ConnectorOptions {
    /// The authorities believed.
    pub trust: Trust,
    /// The name expected in the engine's certificate and sent as SNI, where it is not the host
    /// dialled.
    pub server_name: Option<String>,
    /// Limit for name lookup, TCP connect and TLS handshake together.
    pub timeout: Duration,
    /// The certificate shown to the engine dialled, and to no other that it names.
    pub identity: Option<Identity>,
}

impl Default for ConnectorOptions {
    fn default() -> Self {
        Self {
            trust: Trust::system(),
            server_name: None,
            timeout: CONNECT_TIMEOUT,
            identity: None,
        }
    }
}

/// Dials engines over TLS 1.3, the post-quantum hybrid group first.
#[derive(Clone, Debug)]
pub struct Connector {
    agent: Arc<ClientConfig>,
    /// The same, which shows no certificate.
    elsewhere: Arc<ClientConfig>,
    http: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
    timeout: Duration,
}

impl Connector {
    /// Reads the certificates of `options`.
    ///
    /// # Errors
    ///
    /// [`SetupError`] if they cannot be used, or the server name is none.
    pub fn new(options: &ConnectorOptions) -> Result<Self, SetupError> {
        let provider = provider();
        let roots = Arc::new(options.trust.load()?);
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|_| SetupError::Trust(TrustError::Nothing))?;
        let mut agent = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_webpki_verifier(verifier)
            .with_no_client_auth();
        let mut http = agent.clone();
        agent.alpn_protocols = vec![adit_protocol::ALPN.to_vec()];
        http.alpn_protocols = vec![ALPN_HTTP.to_vec()];
        let elsewhere = agent.clone();
        if let Some(identity) = &options.identity {
            let key = Arc::new(identity.load(&provider)?);
            let shown: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(key));
            // Sessions of those who saw the certificate are resumed with them alone.
            agent.resumption = Resumption::default();
            http.resumption = Resumption::default();
            agent.client_auth_cert_resolver = Arc::clone(&shown);
            // The engine's ordinary host never asks for it; the one for certificates does.
            http.client_auth_cert_resolver = shown;
        }
        let server_name = match &options.server_name {
            None => None,
            Some(name) => Some(
                ServerName::try_from(name.clone()).map_err(|_| AddressError::Host(name.clone()))?,
            ),
        };
        Ok(Self {
            agent: Arc::new(agent),
            elsewhere: Arc::new(elsewhere),
            http: Arc::new(http),
            server_name,
            timeout: options.timeout,
        })
    }

    /// Opens a connection that speaks `rstrm/1`.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] says what failed and what may be done about it.
    pub async fn connect(&self, engine: &EngineAddress) -> Result<ClientStream, ConnectError> {
        self.open(&self.agent, adit_protocol::ALPN, engine, true)
            .await
    }

    /// Opens a connection to an engine that another one named: the server name the user chose
    /// belongs to the first and is not used, nor is the client certificate.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_redirected(
        &self,
        engine: &EngineAddress,
    ) -> Result<ClientStream, ConnectError> {
        self.open(&self.elsewhere, adit_protocol::ALPN, engine, false)
            .await
    }

    /// Opens a connection to the engine's HTTP API, for HTTP/1.1.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_http(&self, engine: &EngineAddress) -> Result<ClientStream, ConnectError> {
        self.open(&self.http, ALPN_HTTP, engine, true).await
    }

    async fn open(
        &self,
        config: &Arc<ClientConfig>,
        alpn: &'static [u8],
        engine: &EngineAddress,
        own: bool,
    ) -> Result<ClientStream, ConnectError> {
        let name = match &self.server_name {
            Some(name) if own => name.clone(),
            _ => engine.server_name()?,
        };
        let attempt = async {
            let tcp = dial::connect(engine)
                .await
                .map_err(|source| ConnectError::reach(engine, source))?;
            let shown = name.to_str().into_owned();
            TlsConnector::from(Arc::clone(config))
                .connect(name, tcp)
                .await
                .map_err(|source| ConnectError::handshake(engine, &shown, source))
        };
        let stream = match tokio::time::timeout(self.timeout, attempt).await {
            Ok(stream) => Guarded::new(stream?),
            Err(_) => {
                return Err(ConnectError::Timeout {
                    engine: engine.clone(),
                    limit: self.timeout,
                });
            }
        };
        if stream.get_ref().get_ref().1.alpn_protocol() != Some(alpn) {
            return Err(ConnectError::NotAnEngine {
                engine: engine.clone(),
            });
        }
        Ok(stream)
    }
}

/// Answers the TLS handshake of a connection, for no longer than `limit`.
///
/// # Errors
///
/// The handshake's, or [`io::ErrorKind::TimedOut`].
pub async fn accept<S>(
    config: Arc<ServerConfig>,
    stream: S,
    limit: Duration,
) -> io::Result<ServerStream<S>>
where
    S: AsyncRead + AsyncWrite + Abort + Unpin,
{
    let handshake = TlsAcceptor::from(config).accept(stream);
    match tokio::time::timeout(limit, handshake).await {
        Ok(stream) => Ok(Guarded::new(stream?)),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// The cryptography both ends use; X25519MLKEM768 is its first group.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A connector cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The client certificate cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The server name is none.
    #[error(transparent)]
    ServerName(#[from] AddressError),
    /// The cryptography does not fit together.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// The certificates to believe cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// A connection to an engine was not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address cannot be dialled.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The certificate is not valid now.
    #[error(
        "the certificate of {engine} is out of date or not valid yet, check it and this machine's clock"
    )]
    Expired {
        /// Who was dialled.
        engine: EngineAddress,
    },
    /// The TLS handshake failed.
    #[error("TLS with {engine} failed: {source}")]
    Handshake {
        /// Who was dialled.
        engine: EngineAddress,
        /// Why.
        source: io::Error,
    },
    /// The certificate is for somebody else.
    #[error(
        "the certificate of {engine} is not for `{name}`: check the address, or give the name it is for as server name"
    )]
    Name {
        /// Who was dialled.
        engine: EngineAddress,
        /// The name expected.
        name: String,
    },
    /// Something answers there that does not speak the protocol.
    #[error(
        "{engine} does not speak this protocol: check that host and port are those of an engine"
    )]
    NotAnEngine {
        /// Who was dialled.
        engine: EngineAddress,
    },
    /// Nobody could be reached.
    #[error("cannot reach {engine}: {source}")]
    Reach {
        /// Who was dialled.
        engine: EngineAddress,
        /// Why.
        source: io::Error,
    },
    /// Nobody listens.
    #[error("{engine} refuses connections: is the engine running, and is the port right?")]
    Refused {
        /// Who was dialled.
        engine: EngineAddress,
    },
    /// It took too long.
    #[error("{engine} did not answer within {limit:?}: check the address and the firewall")]
    Timeout {
        /// Who was dialled.
        engine: EngineAddress,
        /// The time allowed.
        limit: Duration,
    },
    /// The certificate comes from an authority that is not believed.
    #[error(
        "the certificate of {engine} is signed by an unknown authority: if you trust it, pass its CA certificate (`--ca-file`)"
    )]
    UnknownAuthority {
        /// Who was dialled.
        engine: EngineAddress,
    },
}

impl ConnectError {
    fn reach(engine: &EngineAddress, source: io::Error) -> Self {
        let engine = engine.clone();
        match source.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused { engine },
            _ => Self::Reach { engine, source },
        }
    }

    fn handshake(engine: &EngineAddress, name: &str, source: io::Error) -> Self {
        let engine = engine.clone();
        let tls = source
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match tls {
            Some(rustls::Error::InvalidCertificate(certificate)) => match certificate {
                // A bad signature is what an authority made anew under its old name shows.
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    Self::UnknownAuthority { engine }
                }
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => Self::Name {
                    engine,
                    name: name.to_owned(),
                },
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Self::Expired { engine },
                _ => Self::Handshake { engine, source },
            },
            Some(
                rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)
                | rustls::Error::InvalidMessage(_),
            ) => Self::NotAnEngine { engine },
            _ => Self::Handshake { engine, source },
        }
    }
}
