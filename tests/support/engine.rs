//! A whole engine on loopback, from a configuration as an operator writes it.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use adit_agent::{Client, Tunnel, TunnelOptions};
use adit_config::{Config, Secret};
use adit_plugins::identity::token::{Authority, Claims};
use adit_proxy::admin;
use adit_proxy::engine::{Engine, Options};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::service::Reached;
use crate::visitor::accept_of;

/// The engine's own host.
pub const ENGINE_HOST: &str = "edge.localhost";

/// A secret only tests know.
pub const SECRET: &str = "a secret that is long enough for tests";

/// A running engine and the folder of its files.
pub struct TestEngine {
    pub engine: Engine,
    pub folder: tempfile::TempDir,
}

impl TestEngine {
    /// Starts an engine; `more` is TOML after the tables every test has, which end in `[auth]`.
    pub async fn start(more: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), more).await
    }

    /// The same, in a folder that holds what `more` names.
    pub async fn start_in(folder: tempfile::TempDir, more: &str) -> Self {
        Self::start_with(folder, more, Options::default()).await
    }

    /// The same, with kinds of filter of the test's own.
    pub async fn start_with(folder: tempfile::TempDir, more: &str, options: Options) -> Self {
        certificates(folder.path(), ENGINE_HOST);
        fs::write(
            folder.path().join("engine.toml"),
            config(folder.path(), more),
        )
        .unwrap();
        let path = folder.path().join("engine.toml");
        let load = move || Config::load(&path, std::iter::empty());
        let options = Options {
            loader: Some(Box::new(load.clone())),
            ..options
        };
        let config = load().unwrap_or_else(|problems| panic!("{problems:#?}"));
        let engine = Engine::start(config, options).await.unwrap();
        Self { engine, folder }
    }

    /// Replaces what follows the tables every test has, without a reload.
    pub fn rewrite(&self, more: &str) {
        let folder = self.folder.path();
        fs::write(folder.join("engine.toml"), config(folder, more)).unwrap();
    }

    /// Asks over the operator's socket.
    pub async fn admin(&self, request: &admin::Request) -> admin::Reply {
        let socket = self.folder.path().join("state/admin.sock");
        admin::ask(&socket, request).await.unwrap()
    }

    pub fn port(&self) -> u16 {
        self.engine.addresses().https.port()
    }

    /// A token with these claims.
    pub fn token(&self, claims: &Claims) -> String {
        let authority = Authority::new(&Secret::new(SECRET.to_owned())).unwrap();
        authority.mint(claims).unwrap()
    }

    /// An agent of a user that may do everything.
    pub async fn client(&self) -> Client {
        let token = self.token(&Claims::default());
        self.client_with(token).await.unwrap()
    }

    /// An agent with this token, if it is let in.
    pub async fn client_with(&self, token: String) -> Result<Client, adit_agent::Error> {
        Client::builder()
            .engine(format!("{ENGINE_HOST}:{}", self.port()))
            .ca_file(self.folder.path().join("ca.pem"))
            .token(token)
            .connect()
            .await
    }

    /// An agent in the project that `endpoint` leads to.
    pub async fn client_of(&self, endpoint: &str) -> Client {
        Client::builder()
            .engine(format!("{endpoint}.{ENGINE_HOST}:{}", self.port()))
            .ca_file(self.folder.path().join("ca.pem"))
            .token(self.token(&Claims::default()))
            .connect()
            .await
            .unwrap()
    }

    /// A published tunnel whose service answers each request with its own head.
    pub async fn publish(&self, client: &Client, options: TunnelOptions) -> String {
        self.publish_watched(client, options).await.0
    }

    /// The same, with the heads that reached the service.
    pub async fn publish_watched(
        &self,
        client: &Client,
        options: TunnelOptions,
    ) -> (String, Arrived) {
        self.publish_as(client, options, Sockets::Ignored).await
    }

    /// The same, of a service that takes WebSockets as well, and sends back what comes on them.
    pub async fn publish_echoing(
        &self,
        client: &Client,
        options: TunnelOptions,
    ) -> (String, Arrived) {
        self.publish_as(client, options, Sockets::Echoed).await
    }

    async fn publish_as(
        &self,
        client: &Client,
        options: TunnelOptions,
        sockets: Sockets,
    ) -> (String, Arrived) {
        let tunnel = client.create_tunnel(options).await.unwrap();
        let host = tunnel.info().unwrap().hostname().unwrap().to_owned();
        let arrived = Arrived::default();
        tokio::spawn(answer(tunnel, arrived.clone(), sockets));
        (host, arrived)
    }

    /// A published tunnel whose service does what the path says, see [`service`](crate::service::serve).
    pub async fn publish_service(&self, client: &Client, options: TunnelOptions) -> String {
        self.publish_counted(client, options).await.0
    }

    /// The same, with the number of requests that reached the service.
    pub async fn publish_counted(
        &self,
        client: &Client,
        options: TunnelOptions,
    ) -> (String, Reached) {
        let reached = Reached::default();
        let counted = reached.clone();
        let mut tunnel = client.create_tunnel(options).await.unwrap();
        let host = tunnel.info().unwrap().hostname().unwrap().to_owned();
        tokio::spawn(async move {
            while let Ok(stream) = tunnel.accept().await {
                tokio::spawn(crate::service::serve_stream(stream, counted.clone()));
            }
        });
        (host, reached)
    }

    /// A visitor's HTTP/2 connection to `host`.
    pub async fn h2(&self, host: &str) -> h2::client::SendRequest<bytes::Bytes> {
        let stream = self.visit(host, "h2").await;
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        send
    }

    /// A visitor's connection, in the HTTP version of `alpn`.
    pub async fn visit(&self, host: &str, alpn: &str) -> TlsStream<TcpStream> {
        let config = crate::certificate::bare(self, alpn);
        self.handshake(host, &config).await.unwrap()
    }

    /// Who a visitor must trust.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(self.folder.path().join("ca.pem")).unwrap();
        roots.add(ca).unwrap();
        roots
    }

    /// A handshake of a visitor's own kind.
    ///
    /// # Errors
    /// What kept it from succeeding.
    pub async fn handshake(
        &self,
        host: &str,
        config: &Arc<ClientConfig>,
    ) -> io::Result<TlsStream<TcpStream>> {
        let socket = TcpStream::connect(self.engine.addresses().https).await?;
        let name = ServerName::try_from(host.to_owned()).unwrap();
        TlsConnector::from(Arc::clone(config))
            .connect(name, socket)
            .await
    }

    /// What a scraper of the metrics reads.
    pub async fn metrics(&self) -> String {
        let address = self.engine.addresses().metrics.unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: metrics\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// One `GET` on a connection of its own: status and everything that came.
    pub async fn get(&self, host: &str, path: &str, fields: &str) -> (u16, String) {
        let mut stream = self.visit(host, "http/1.1").await;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}:{}\r\nConnection: close\r\n{fields}\r\n",
            self.port()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _close_notify_or_not = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).unwrap_or_default();
        (status.parse().unwrap_or_default(), answer)
    }
}

/// The cryptography of visitors, to be narrowed.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn config(folder: &Path, more: &str) -> String {
    let file = |name: &str| folder.join(name).display().to_string();
    format!(
        "[engine]\nhost = \"{ENGINE_HOST}\"\nstate-dir = {:?}\n\
         [listen]\nhttps = \"127.0.0.1:0\"\nmetrics = \"127.0.0.1:0\"\n\
         [certificates]\nfiles = {{ cert = {:?}, key = {:?} }}\n\
         [auth]\njwt-secret = {{ file = {:?} }}\n{more}",
        file("state"),
        file("cert.pem"),
        file("key.pem"),
        file("jwt.secret"),
    )
}

/// Writes a CA, and a certificate for the engine and its tunnels.
pub fn certificates(folder: &Path, host: &str) {
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    fs::write(
        folder.join("ca.pem"),
        ca.self_signed(&ca_key).unwrap().pem(),
    )
    .unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let names = [
        host,
        &format!("*.{host}"),
        &format!("*.t.{host}"),
        "*.mtls.localhost",
    ];
    let names: Vec<String> = names.map(str::to_owned).to_vec();
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(names).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    fs::write(folder.join("cert.pem"), leaf.pem()).unwrap();
    fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    fs::write(folder.join("jwt.secret"), SECRET).unwrap();
}

/// The heads that reached a service.
#[derive(Clone, Default)]
pub struct Arrived(Arc<Mutex<Vec<String>>>);

impl Arrived {
    /// How many there were.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// The latest.
    pub fn last(&self) -> Option<String> {
        self.0.lock().unwrap().last().cloned()
    }
}

/// What a service makes of a request for a WebSocket.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Sockets {
    /// A request like any other.
    Ignored,
    /// It opens one, and sends back what comes.
    Echoed,
}

/// Answers every request on every stream of a tunnel with the head it had.
async fn answer(mut tunnel: Tunnel, arrived: Arrived, sockets: Sockets) {
    while let Ok(mut stream) = tunnel.accept().await {
        let arrived = arrived.clone();
        tokio::spawn(async move {
            let mut head = Vec::new();
            loop {
                let mut chunk = [0; 4096];
                match stream.read(&mut chunk).await {
                    Ok(count) if count > 0 => head.extend_from_slice(&chunk[..count]),
                    _ => return,
                }
                if !head.ends_with(b"\r\n\r\n") {
                    continue;
                }
                let text = String::from_utf8_lossy(&head).into_owned();
                arrived.0.lock().unwrap().push(text.clone());
                if let Some(key) = websocket_key(&text)
                    && sockets == Sockets::Echoed
                {
                    let accept = accept_of(key);
                    let answer = format!(
                        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                         Upgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
                    );
                    let (mut read, mut write) = tokio::io::split(stream);
                    if write.write_all(answer.as_bytes()).await.is_ok() {
                        let _gone = tokio::io::copy(&mut read, &mut write).await;
                    }
                    return;
                }
                let start = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", head.len());
                let answer = [start.as_bytes(), &head].concat();
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
                head.clear();
            }
        });
    }
}

/// The key of a request for a WebSocket.
fn websocket_key(head: &str) -> Option<&str> {
    head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("sec-websocket-key")
            .then_some(value)
    })
}
