//! OwnNames that are the engine's own.

use std::collections::BTreeMap;

use adit_config::Config;

/// The engine's host, its aliases, and `<endpoint>.<host>` of each project that has endpoints.
#[derive(Clone, Debug, Default)]
pub struct OwnNames {
    own: BTreeMap<String, Option<String>>,
}

impl OwnNames {
    /// The names `config` gives the engine.
    pub fn new(config: &Config) -> Self {
        let host = config.engine.host.clone();
        let mut own = BTreeMap::from([(host.clone(), None)]);
        own.extend(
            config
                .engine
                .aliases
                .iter()
                .map(|alias| (alias.clone(), None)),
        );
        for project in config.projects.values() {
            for endpoint in &project.endpoints {
                own.insert(format!("{endpoint}.{host}"), Some(project.name.clone()));
            }
        }
        Self { own }
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
        self.own.get(name)?.as_deref()
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
}
