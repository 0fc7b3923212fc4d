//! A server and a laptop, each with a folder of its own.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Running, adit, fetch_until, free_port, output};

/// The engine's folder, as `adit engine init` and a certificate authority leave it.
pub(crate) struct Server {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Server {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        output(adit(place).args(["engine", "init", "--host", "edge.localhost", "--dir", "."]));
        certificates(place, "edge.localhost");
        Self {
            port: free_port(),
            folder,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = adit(self.folder.path());
        command
            .args(arguments)
            .args(["--config", "engine.toml"])
            .env("ADIT_LISTEN__HTTPS", format!("127.0.0.1:{}", self.port));
        command
    }

    pub(crate) fn start(&self) -> Running {
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
    let certificates_at = "*.mtls.localhost".to_owned();
    let names = vec![host.to_owned(), format!("*.t.{host}"), certificates_at];
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(names).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    fs::write(place.join("cert.pem"), leaf.pem()).unwrap();
    fs::write(place.join("key.pem"), key.serialize_pem()).unwrap();
}

/// The agent's folder: a token and the CA, nothing else.
pub(crate) struct Laptop {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) engine: String,
}

impl Laptop {
    pub(crate) fn new(server: &Server) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let token = output(&mut server.command(&["engine", "token"]));
        fs::write(folder.path().join("token"), token.trim()).unwrap();
        fs::copy(server.path("ca.pem"), folder.path().join("ca.pem")).unwrap();
        Self {
            folder,
            engine: format!("edge.localhost:{}", server.port),
        }
    }

    pub(crate) fn forward(&self, arguments: &[&str]) -> Running {
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
pub(crate) fn online(line: &str) -> Option<String> {
    let status: serde_json::Value = serde_json::from_str(line).ok()?;
    if status.get("status")?.as_str()? != "online" {
        return None;
    }
    Some(status.get("forwarding")?.as_str()?.to_owned())
}
