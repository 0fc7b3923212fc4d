//! Settings of a client.

use std::path::PathBuf;
use std::time::Duration;

use adit_protocol::liveness::Interval;
use adit_protocol::message::ClientDetails;
use adit_protocol::{Secret, Version};
use adit_transport::EngineAddress;
use adit_transport::identity::Identity;
use adit_transport::tls::{CONNECT_TIMEOUT, Connector, ConnectorOptions};
use adit_transport::trust::Trust;

use crate::{Client, Dialer, Error, Retry};

/// Settings of a [`Client`].
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder {
    engine: Option<String>,
    token: Option<Secret>,
    identity: Option<Identity>,
    trust: Trust,
    server_name: Option<String>,
    connect_timeout: Duration,
    heartbeat: Interval,
    retry: Retry,
    zero_rtt: bool,
    agent: String,
    version: String,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            engine: None,
            token: None,
            identity: None,
            trust: Trust::system(),
            server_name: None,
            connect_timeout: CONNECT_TIMEOUT,
            heartbeat: Interval::DEFAULT,
            retry: Retry::default(),
            zero_rtt: true,
            agent: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

impl ClientBuilder {
    /// The engine, `host` or `host:port`.
    pub fn engine(mut self, engine: impl Into<String>) -> Self {
        self.engine = Some(engine.into());
        self
    }

    /// The token that lets this client in.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(Secret::new(token));
        self
    }

    /// The client certificate that lets this client in, and its key, in PEM files. It takes the place of a token.
    pub fn certificate_files(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.identity = Some(Identity {
            certificate: certificate.into(),
            key: key.into(),
        });
        self
    }

    /// Believes the CA certificates of a PEM file, besides those of the system.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.trust = self.trust.and_file(path);
        self
    }

    /// Believes these CA certificates, in PEM, besides those of the system.
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.trust = self.trust.and_pem(pem);
        self
    }

    /// Replaces everything believed.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// The name the engine's certificate is for, where it is not the host dialled.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Limit for one connection to the engine, name lookup to TLS handshake.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How often the engine is asked for a sign of life.
    pub fn heartbeat(mut self, interval: Interval) -> Self {
        self.heartbeat = interval;
        self
    }

    /// Whether and when to try again after a loss.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Whether streams are brought without waiting for the engine's confirmation, which saves a
    /// round trip. On unless switched off.
    pub fn zero_rtt(mut self, zero_rtt: bool) -> Self {
        self.zero_rtt = zero_rtt;
        self
    }

    /// The software this client belongs to, for listings.
    pub fn agent(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.agent = name.into();
        self.version = version.into();
        self
    }

    /// Reads the certificates and checks the settings, without connecting.
    ///
    /// # Errors
    ///
    /// What is missing or wrong.
    pub fn dialer(self) -> Result<Dialer, Error> {
        if self.token.is_some() && self.identity.is_some() {
            return Err(Error::TwoCredentials);
        }
        let engine: EngineAddress = self.engine.as_deref().ok_or(Error::NoEngine)?.parse()?;
        let connector = Connector::new(&ConnectorOptions {
            trust: self.trust,
            server_name: self.server_name,
            timeout: self.connect_timeout,
            identity: self.identity,
        })?;
        let details = ClientDetails {
            agent: Some(self.agent),
            channel: Some("stable".to_owned()),
            version: Some(self.version),
            os: Some(std::env::consts::OS.to_owned()),
            arch: Some(std::env::consts::ARCH.to_owned()),
            token: self.token.map(|token| token.expose().to_owned()),
            protocol_version: Some(Version::CURRENT.to_string()),
        };
        Ok(Dialer::new(connector, engine, details, self.zero_rtt))
    }

    /// Starts a client, which connects on its own and keeps trying: follow its
    /// [`status`](Client::status). Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// What is missing or wrong in the settings.
    pub fn start(self) -> Result<Client, Error> {
        let (heartbeat, retry) = (self.heartbeat, self.retry);
        Ok(Client::start(self.dialer()?, heartbeat, retry))
    }

    /// Starts a client and waits until it is online, or has failed for the first time.
    ///
    /// # Errors
    ///
    /// What is missing or wrong in the settings, or why the engine was not reached.
    pub async fn connect(self) -> Result<Client, Error> {
        let client = self.start()?;
        client.first_connection().await?;
        Ok(client)
    }
}
