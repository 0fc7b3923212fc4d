//! An engine and an agent as two machines would run them: apart, from files of their own, and one
//! of them dying.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::{Running, adit, fetch, fetch_until, free_port, output, service};

/// The engine's folder, as `adit engine init` and a certificate authority leave it.
struct Server {
    folder: tempfile::TempDir,
    port: u16,
}

impl Server {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        output(adit(place).args(["engine", "init", "--host", "edge.localhost", "--dir", "."]));
        certificates(place, "edge.localhost");
        Self {
            port: free_port(),
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = adit(self.folder.path());
        command
            .args(arguments)
            .args(["--config", "engine.toml"])
            .env("ADIT_LISTEN__HTTPS", format!("127.0.0.1:{}", self.port));
        command
    }

    fn start(&self) -> Running {
        let engine = Running::start(&mut self.command(&["engine"]));
        let ready = format!("https://edge.localhost:{}/api/health/ready", self.port);
        fetch_until(&ready, &self.path("ca.pem"), 200);
        engine
    }
}

fn certificates(place: &Path, host: &str) {
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    fs::write(place.join("ca.pem"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let names = vec![host.to_owned(), format!("*.t.{host}")];
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(names).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    fs::write(place.join("cert.pem"), leaf.pem()).unwrap();
    fs::write(place.join("key.pem"), key.serialize_pem()).unwrap();
}

/// The agent's folder: a token and the CA, nothing else.
struct Laptop {
    folder: tempfile::TempDir,
    engine: String,
}

impl Laptop {
    fn new(server: &Server) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let token = output(&mut server.command(&["engine", "token"]));
        fs::write(folder.path().join("token"), token.trim()).unwrap();
        fs::copy(server.path("ca.pem"), folder.path().join("ca.pem")).unwrap();
        Self {
            folder,
            engine: format!("edge.localhost:{}", server.port),
        }
    }

    fn forward(&self, arguments: &[&str]) -> Running {
        let mut command = adit(self.folder.path());
        command
            .arg("forward")
            .args(arguments)
            .args(["--engine", &self.engine, "--token-file", "token"])
            .args(["--ca-file", "ca.pem", "-o", "json"]);
        Running::start(&mut command)
    }
}

/// The public address in a status line that says `online`.
fn online(line: &str) -> Option<String> {
    let status: serde_json::Value = serde_json::from_str(line).ok()?;
    if status.get("status")?.as_str()? != "online" {
        return None;
    }
    Some(status.get("forwarding")?.as_str()?.to_owned())
}

#[test]
fn a_laptop_publishes_through_a_server_with_what_init_left() {
    let server = Server::new();
    let mode = fs::metadata(server.path("jwt.secret")).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777,
        0o600
    );
    output(&mut server.command(&["engine", "check"]));
    let engine = server.start();
    let laptop = Laptop::new(&server);
    let port = service("from the laptop").to_string();
    let mut agent = laptop.forward(&[&port]);
    let url = agent.wait("online status", online);
    let (status, answer) = fetch(&url, &server.path("ca.pem")).unwrap();
    assert_eq!(status, 200, "{answer}");
    assert!(answer.ends_with("from the laptop"));
    // The operator sees what runs, and why.
    let host = url
        .strip_prefix("https://")
        .unwrap()
        .split(':')
        .next()
        .unwrap();
    let explained = output(&mut server.command(&["engine", "explain", host]));
    assert!(explained.contains("websocket"), "{explained}");
    agent.signal("TERM");
    assert!(agent.ended().success());
    let mut engine = engine;
    engine.signal("TERM");
    assert!(engine.ended().success());
}

#[test]
fn an_engine_that_was_killed_finds_its_agent_again_under_the_same_name() {
    let server = Server::new();
    let mut engine = server.start();
    let laptop = Laptop::new(&server);
    let port = service("still here").to_string();
    let mut agent = laptop.forward(&[&port]);
    let url = agent.wait("online status", online);
    assert_eq!(fetch(&url, &server.path("ca.pem")).unwrap().0, 200);
    engine.kill();
    agent.wait("lost status", |line| {
        line.contains("disconnected").then_some(())
    });
    let _engine = server.start();
    let took = fetch_until(&url, &server.path("ca.pem"), 200);
    // The aim is 3 s; three times that on a machine that does other things too.
    assert!(took < Duration::from_secs(9), "{took:?}");
    assert_eq!(agent.wait("online status", online), url);
}

#[test]
fn an_agent_that_was_killed_gives_its_name_free() {
    let server = Server::new();
    let _engine = server.start();
    let laptop = Laptop::new(&server);
    let port = service("one or the other").to_string();
    let host = "shop.t.edge.localhost";
    let mut first = laptop.forward(&[&port, "--host", host]);
    let url = first.wait("online status", online);
    assert!(url.contains(host), "{url}");
    first.kill();
    let began = std::time::Instant::now();
    let mut second = laptop.forward(&[&port, "--host", host, "--retry-interval", "100"]);
    assert_eq!(second.wait("online status", online), url);
    // The aim is 1 s.
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(fetch(&url, &server.path("ca.pem")).unwrap().0, 200);
}
