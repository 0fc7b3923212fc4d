//! OwnNames that are the engine's own.

use std::collections::BTreeMap;

use adit_config::{Config, Problem};

/// The engine's host, its aliases, and `<endpoint>.<host>` of each project that has endpoints. Where the Engine API
/// takes client certificates, there is another name for each of them that does so: its first label, below a host of
/// their own (engine-api §4).
#[derive(Clone, Debug, Default)]
pub struct OwnNames {
    own: BTreeMap<String, Own>,
}

#[derive(Clone, Debug, Default)]
struct Own {
    /// The project it is a host of; none for the engine's host.
    project: Option<String>,
    /// The project whose demands of handshakes hold there: that of the name in whose place it takes certificates, too.
    demands_of: Option<String>,
    /// The name that takes certificates in its place.
    certificates_at: Option<String>,
    /// It is such a name itself.
    takes_certificates: bool,
}

impl OwnNames {
    /// The names `config` gives the engine.
    pub fn new(config: &Config) -> Self {
        let host = &config.engine.host;
        let below = config.auth.certificate_host.as_deref();
        let mut names = Self::default();
        names.insert(host.clone(), None, below);
        for alias in &config.engine.aliases {
            names.insert(alias.clone(), None, below);
        }
        for project in config.projects.values() {
            for endpoint in &project.endpoints {
                let name = format!("{endpoint}.{host}");
                names.insert(name, Some(&project.name), below);
            }
        }
        names
    }

    fn insert(&mut self, name: String, project: Option<&str>, below: Option<&str>) {
        let label = name.split('.').next();
        let certificates_at = below
            .zip(label)
            .map(|(below, label)| format!("{label}.{below}"));
        let own = Own {
            project: project.map(str::to_owned),
            demands_of: project.map(str::to_owned),
            certificates_at,
            takes_certificates: false,
        };
        if let Some(other) = &own.certificates_at {
            let other = self.own.entry(other.clone()).or_insert_with(|| Own {
                takes_certificates: true,
                ..Own::default()
            });
            // One of the engine's names may begin with the same label.
            if let Some(project) = project {
                other.demands_of = Some(project.to_owned());
            }
        }
        self.own.insert(name, own);
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        self.own.keys().map(String::as_str)
    }

    /// Whether `name`, lower case and without trailing dot, is the engine's own.
    pub fn is_own(&self, name: &str) -> bool {
        self.own.contains_key(name)
    }

    /// The project that `name` is a host of; `None` for the engine's host and for strangers.
    pub fn project(&self, name: &str) -> Option<&str> {
        self.own.get(name)?.project.as_deref()
    }

    /// The project whose demands of handshakes hold at `name`.
    pub fn demands_of(&self, name: &str) -> Option<&str> {
        self.own.get(name)?.demands_of.as_deref()
    }

    /// The name that takes certificates where `name` takes none.
    pub fn certificates_at(&self, name: &str) -> Option<&str> {
        self.own.get(name)?.certificates_at.as_deref()
    }

    /// Whether the Engine API takes certificates at `name`.
    pub fn takes_certificates(&self, name: &str) -> bool {
        self.own.get(name).is_some_and(|own| own.takes_certificates)
    }

    /// What is wrong with the host below which certificates are taken: a name must not ask for one and be reached by
    /// those who have none.
    ///
    /// # Errors
    /// What to do about it.
    pub fn check(config: &Config) -> Result<(), Problem> {
        let Some(below) = config.auth.certificate_host.as_deref() else {
            return Ok(());
        };
        let engine = &config.engine;
        let tunnels = format!("t.{}", engine.host);
        let taken = [engine.host.as_str(), &tunnels];
        let mut taken = taken
            .into_iter()
            .chain(engine.aliases.iter().map(String::as_str));
        if !taken.any(|name| name == below) {
            return Ok(());
        }
        let message = format!(
            "`{below}` has other names below it already, use a host of its own such as `mtls.{}`",
            engine.host
        );
        Err(config.problem("auth.certificate-host", message))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn host_aliases_and_project_hosts_are_own() {
        let text = r#"
            engine = { host = "edge.example.com", aliases = ["localhost"] }
            certificates.files = { cert = "c", key = "k" }
            auth.jwt-secret = { env = "S" }
            project.shop.endpoints = ["0a1b2c3d"]
        "#;
        let secret = ("S".to_owned(), "x".repeat(32));
        let names = OwnNames::new(&Config::parse("t", text, [secret]).unwrap());
        assert!(names.is_own("edge.example.com") && names.is_own("localhost"));
        assert_eq!(names.project("0a1b2c3d.edge.example.com"), Some("shop"));
        assert_eq!(names.project("edge.example.com"), None);
        for other in ["t.edge.example.com", "x.t.edge.example.com", "0a1b2c3d", ""] {
            assert!(!names.is_own(other), "{other}");
        }
    }

    #[test]
    fn each_name_has_another_that_takes_certificates() {
        // engine-api §4
        let secret = || ("S".to_owned(), "x".repeat(32));
        let config = |below: &str| {
            let text = format!(
                "engine = {{ host = 'edge.example.com', aliases = ['localhost'] }}\n\
                 certificates.files = {{ cert = 'c', key = 'k' }}\n\
                 auth = {{ jwt-secret = {{ env = 'S' }}, {below} }}\n\
                 project.shop.endpoints = ['0a1b2c3d']\n"
            );
            Config::parse("t", &text, [secret()]).unwrap()
        };
        let names = OwnNames::new(&config("certificate-host = 'mtls.example.com'"));
        for (name, other) in [
            ("edge.example.com", Some("edge.mtls.example.com")),
            ("localhost", Some("localhost.mtls.example.com")),
            (
                "0a1b2c3d.edge.example.com",
                Some("0a1b2c3d.mtls.example.com"),
            ),
            ("edge.mtls.example.com", None),
            ("elsewhere.org", None),
        ] {
            assert_eq!(names.certificates_at(name), other, "{name}");
            assert!(!names.takes_certificates(name) || name.contains("mtls"));
        }
        assert!(names.is_own("edge.mtls.example.com"));
        for (name, project) in [
            ("0a1b2c3d.edge.example.com", Some("shop")),
            ("0a1b2c3d.mtls.example.com", Some("shop")),
            ("edge.mtls.example.com", None),
        ] {
            assert_eq!(names.demands_of(name), project, "{name}");
        }
        assert!(names.takes_certificates("0a1b2c3d.mtls.example.com"));
        let none = OwnNames::new(&config(""));
        assert_eq!(none.certificates_at("edge.example.com"), None);
        for (host, fits) in [
            ("mtls.example.com", true),
            ("mtls.edge.example.com", true),
            ("edge.example.com", false),
            ("t.edge.example.com", false),
            ("localhost", false),
        ] {
            let config = config(&format!("certificate-host = '{host}'"));
            assert_eq!(OwnNames::check(&config).is_ok(), fits, "{host}");
        }
    }
}
