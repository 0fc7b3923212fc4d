//! A whole engine, through its sockets.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use adit_config::Config;
use adit_proxy::admin::{self, Reply, Request};
use adit_proxy::engine::{Drained, Engine, Explanation, Options, ReloadError};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const HOST: &str = "edge.example.com";
const SECRET: &str = "0123456789abcdef0123456789abcdef";

struct Site {
    folder: TempDir,
    engine: Engine,
    certificate: CertificateDer<'static>,
}

/// Everything on ports of the system's choice.
const LISTEN: &str = r#"
[listen]
https = "127.0.0.1:0"
http = "127.0.0.1:0"
metrics = "127.0.0.1:0"
"#;

fn certificate(folder: &Path) -> CertificateDer<'static> {
    let names = [HOST, "*.t.edge.example.com", "localhost", "127.0.0.1"];
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let pair = rcgen::generate_simple_self_signed(names).unwrap();
    // Each under another name first: the engine must never see half a file.
    for (name, text) in [
        ("cert.pem", pair.cert.pem()),
        ("key.pem", pair.signing_key.serialize_pem()),
    ] {
        std::fs::write(folder.join("fresh"), text).unwrap();
        std::fs::rename(folder.join("fresh"), folder.join(name)).unwrap();
    }
    pair.cert.der().clone()
}

fn write(folder: &Path, more: &str) {
    let text = format!(
        r#"
engine = {{ host = "{HOST}", aliases = ["localhost"] }}
certificates.files = {{ cert = "cert.pem", key = "key.pem" }}
auth.jwt-secret = {{ env = "SECRET" }}
admin.socket = "admin.sock"
{more}"#
    );
    std::fs::write(folder.join("engine.toml"), text).unwrap();
}

fn load(folder: &Path) -> Result<Config, adit_config::Invalid> {
    let secret = ("SECRET".to_owned(), SECRET.to_owned());
    Config::load(&folder.join("engine.toml"), [secret])
}

async fn start(more: &str) -> Site {
    let folder = tempfile::tempdir().unwrap();
    let certificate = certificate(folder.path());
    write(folder.path(), &format!("{LISTEN}{more}"));
    let path = folder.path().to_owned();
    let options = Options {
        loader: Some(Box::new(move || load(&path))),
        ..Options::default()
    };
    let config = load(folder.path()).unwrap();
    let engine = Engine::start(config, options).await.unwrap();
    Site {
        folder,
        engine,
        certificate,
    }
}

impl Site {
    fn https(&self) -> SocketAddr {
        self.engine.addresses().https
    }

    async fn tls(
        &self,
        name: &str,
        alpn: &[&[u8]],
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        handshake(self.https(), &self.certificate, name, alpn).await
    }

    async fn get(&self, name: &str, path: &str) -> String {
        let mut stream = self.tls(name, &[b"http/1.1"]).await.unwrap();
        let port = self.https().port();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        reply
    }

    async fn ask(&self, request: Request) -> Reply {
        let path = self.folder.path().join("admin.sock");
        admin::ask(&path, &request).await.unwrap()
    }
}

async fn handshake(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    name: &str,
    alpn: &[&[u8]],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

async fn plainly(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply
}

#[tokio::test]
async fn the_engine_answers_on_its_own_names() {
    let site = start("").await;
    for name in [HOST, "localhost", "127.0.0.1"] {
        let reply = site.get(name, "/api/health/ready").await;
        assert!(reply.starts_with("HTTP/1.1 200 "), "{name}: {reply}");
        assert!(reply.ends_with(r#"{"status":"ready"}"#), "{name}: {reply}");
    }
    let stream = site.tls(HOST, &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let stream = site.tls(HOST, &[b"rstrm/1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"rstrm/1"[..]));
}

// edge-behaviour §1.2 row 5, §14.5 R16
#[tokio::test]
async fn an_unknown_name_gets_404_or_the_alert() {
    let site = start("").await;
    let reply = site.get("nobody.t.edge.example.com", "/").await;
    assert!(reply.starts_with("HTTP/1.1 404 "), "{reply}");
    let name = "elsewhere.example.org";
    let error = site.tls(name, &[b"http/1.1"]).await.unwrap_err();
    let alert = rustls::Error::AlertReceived(rustls::AlertDescription::UnrecognisedName);
    let found = error.get_ref().and_then(|error| error.downcast_ref());
    assert_eq!(found, Some(&alert));
}

#[tokio::test]
async fn a_protocol_nobody_speaks_is_refused() {
    let site = start("").await;
    let error = site.tls(HOST, &[b"gopher"]).await.unwrap_err();
    let alert = rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol);
    assert_eq!(
        error.get_ref().and_then(|error| error.downcast_ref()),
        Some(&alert)
    );
}

#[tokio::test]
async fn http_on_the_tls_port_is_told_what_is_wrong() {
    let site = start("").await;
    let reply = plainly(site.https(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(reply.starts_with("HTTP/1.1 400 "), "{reply}");
    assert!(reply.contains("https://"), "{reply}");
}

#[tokio::test]
async fn a_slow_hello_is_not_waited_for() {
    let site = start("[timeouts]\nhello = '100ms'").await;
    for begun in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut stream = TcpStream::connect(site.https()).await.unwrap();
        stream.write_all(begun).await.unwrap();
        // Ends because the engine closes, not because we do.
        let ended = stream.read(&mut [0; 16]).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
}

// edge-behaviour §14.7 X17
#[tokio::test]
async fn the_plain_port_redirects() {
    let site = start("").await;
    let http = site.engine.addresses().http.unwrap();
    let port = site.https().port();
    let reply = plainly(
        http,
        "GET /a?b HTTP/1.1\r\nHost: x.t.edge.example.com\r\n\r\n",
    )
    .await;
    assert!(reply.starts_with("HTTP/1.1 301 "), "{reply}");
    let location = format!("location: https://x.t.edge.example.com:{port}/a?b\r\n");
    assert!(reply.contains(&location), "{reply}");
}

#[tokio::test]
async fn metrics_count_what_failed() {
    let site = start("").await;
    plainly(site.https(), "GET / HTTP/1.1\r\n\r\n").await;
    let metrics = site.engine.addresses().metrics.unwrap();
    let reply = plainly(metrics, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    let line = r#"adit_edge_handshake_failures_total{alert="plain_http"} 1"#;
    assert!(reply.contains(line), "{reply}");
    assert!(reply.contains("adit_engine_clients 0"), "{reply}");
}

#[tokio::test]
async fn connections_over_the_limit_are_closed() {
    let site = start("[limits]\nconnections = 1").await;
    let first = site.tls(HOST, &[b"http/1.1"]).await.unwrap();
    assert!(site.tls(HOST, &[b"http/1.1"]).await.is_err());
    drop(first);
    // The place is free once the engine has seen the end of the first.
    while site.tls(HOST, &[b"http/1.1"]).await.is_err() {}
}

#[tokio::test]
async fn visitors_leave_room_for_the_agents_they_need() {
    let site = start("[limits]\nconnections = 4").await;
    let mut visitors = Vec::new();
    for _ in 0..3 {
        visitors.push(site.tls(HOST, &[b"http/1.1"]).await.unwrap());
    }
    assert!(site.tls(HOST, &[b"http/1.1"]).await.is_err());
    let agent = site.tls(HOST, &[b"rstrm/1"]);
    assert!(agent.await.is_ok(), "the last place is an agent's");
}

#[tokio::test]
async fn a_front_proxy_names_the_visitor_and_nobody_else_does() {
    let site = start("[front]\ntrusted = ['127.0.0.1']\nproxy-protocol = true").await;
    let mut stream = TcpStream::connect(site.https()).await.unwrap();
    let header = "PROXY TCP4 203.0.113.7 192.0.2.1 4660 443\r\n";
    let request = "GET / HTTP/1.1\r\n\r\n";
    stream
        .write_all(format!("{header}{request}").as_bytes())
        .await
        .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 400 "), "{reply}");
    // Without the header the connection ends; with it from somebody else it is no hello.
    let error = site.tls(HOST, &[]).await;
    assert!(error.is_err());
    let site = start("[front]\ntrusted = ['192.0.2.1']\nproxy-protocol = true").await;
    let mut stream = TcpStream::connect(site.https()).await.unwrap();
    stream.write_all(header.as_bytes()).await.unwrap();
    let ended = stream.read(&mut [0; 16]).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    site.get(HOST, "/api/health/live").await;
}

// edge-behaviour §14.7 X13
#[tokio::test]
async fn a_new_certificate_is_shown_to_the_next_visitor() {
    let site = start("").await;
    let fresh = certificate(site.folder.path());
    assert!(
        site.tls(HOST, &[b"http/1.1"]).await.is_err(),
        "the old one is gone"
    );
    handshake(site.https(), &fresh, HOST, &[b"http/1.1"])
        .await
        .unwrap();
}

#[tokio::test]
async fn a_reload_is_all_or_nothing() {
    let site = start("").await;
    let folder = site.folder.path();
    let connections = || site.engine.config().limits.connections;
    let before = connections();
    // Wrong in one place: nothing of it.
    write(
        folder,
        &format!("{LISTEN}[limits]\nconnections = 7\nagents = 0"),
    );
    let Err(ReloadError::Config(problems)) = site.engine.reload() else {
        panic!("it was taken");
    };
    assert_eq!(problems.len(), 1);
    assert_eq!(connections(), before);
    // A filter that cannot be built.
    write(
        folder,
        &format!(
            "{LISTEN}[limits]\nconnections = 7\n[policy.p]\nfilters = [{{ use = 'no-such-filter' }}]"
        ),
    );
    let Reply::Refused { reasons } = site.ask(Request::Reload).await else {
        panic!("it was taken");
    };
    assert!(
        reasons[0].contains("engine.toml:") && reasons[0].contains("no-such-filter"),
        "{reasons:?}"
    );
    assert_eq!(connections(), before);
    // What takes a restart.
    write(
        folder,
        "[listen]\nhttps = '127.0.0.1:1'\n[limits]\nconnections = 7",
    );
    let Err(ReloadError::NeedsRestart(keys)) = site.engine.reload() else {
        panic!("it was taken");
    };
    assert_eq!(keys, ["listen.https", "listen.http", "listen.metrics"]);
    // And one that is right.
    write(folder, &format!("{LISTEN}[limits]\nconnections = 7"));
    assert_eq!(site.ask(Request::Reload).await, Reply::Reloaded);
    assert_eq!(connections(), 7);
    site.get(HOST, "/api/health/ready").await;
}

#[tokio::test]
async fn the_operator_asks_and_is_answered() {
    let site = start("").await;
    let Reply::Status(status) = site.ask(Request::Status).await else {
        panic!("no status");
    };
    assert_eq!(status.host, HOST);
    assert_eq!(status.https, site.https());
    assert!(!status.draining);
    for (host, expected) in [
        ("https://localhost:8443/", Explanation::Engine),
        ("nobody.t.edge.example.com", Explanation::Unknown),
    ] {
        let host = host.to_owned();
        assert_eq!(
            site.ask(Request::Explain { host }).await,
            Reply::Explained(expected)
        );
    }
    assert_eq!(site.ask(Request::Drain).await, Reply::Draining);
    site.engine.asked_to_stop().await;
    let socket = site.folder.path().join("admin.sock");
    assert_eq!(site.engine.drain().await, Drained { cut: 0 });
    assert!(!socket.exists());
}

#[tokio::test]
async fn draining_lets_go_of_idle_visitors_and_cuts_the_rest_in_time() {
    let site = start("[timeouts]\ndrain = '200ms'").await;
    let mut idle = site.tls(HOST, &[b"http/1.1"]).await.unwrap();
    // One that has said half a hello, and will not say more.
    let mut stuck = TcpStream::connect(site.https()).await.unwrap();
    stuck.write_all(b"\x16\x03\x01").await.unwrap();
    while !matches!(site.ask(Request::Status).await, Reply::Status(status) if status.connections == 2)
    {
    }
    let address = site.https();
    let drained = site.engine.drain().await;
    assert_eq!(drained, Drained { cut: 1 });
    assert!(matches!(idle.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    assert!(matches!(stuck.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn an_engine_that_is_dropped_leaves_nothing_behind() {
    let site = start("").await;
    let mut stream = site.tls(HOST, &[b"http/1.1"]).await.unwrap();
    let (address, socket) = (site.https(), site.folder.path().join("admin.sock"));
    drop(site.engine);
    assert!(matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_)));
    assert!(TcpStream::connect(address).await.is_err());
    assert!(!socket.exists());
}

#[tokio::test]
async fn many_reloads_keep_nothing() {
    let more =
        "[policy.p]\nfilters = [{ use = 'stream-summary' }]\n[project.default]\npolicies = ['p']";
    let site = start(more).await;
    let descriptors = || std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    site.engine.reload().unwrap();
    let before = descriptors();
    for _ in 0..100 {
        site.engine.reload().unwrap();
    }
    // Other tests of this process open and close descriptors of their own meanwhile.
    assert!(descriptors() < before + 100);
    site.get(HOST, "/api/health/ready").await;
}
