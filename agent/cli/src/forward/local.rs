//! The local service.

use std::io;
use std::time::Duration;

use adit_transport::{EngineAddress, Guarded, dial};
use anyhow::{Context, bail};
use tokio::net::TcpStream;

/// How long the local service may take to accept a connection.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where connections are passed on to.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    address: EngineAddress,
    /// `host:port` as it was meant.
    authority: String,
    /// As the status shows it.
    shown: String,
    /// What the service is told it is called, if not what visitors call it.
    pub(crate) host_header: Option<String>,
}

impl Local {
    /// Reads `[HOST:]PORT`, cut at the first colon outside of brackets.
    pub(crate) fn parse(text: Option<&str>) -> anyhow::Result<Self> {
        let text = text.unwrap_or("8080").trim();
        let (host, port) = if text.starts_with('[') {
            match text.rsplit_once(':') {
                Some((host, port)) if host.ends_with(']') => (host, port),
                _ => bail!("`{text}` must be a port or host:port"),
            }
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, port),
                None => ("localhost", text),
            }
        };
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            bail!("`{text}` must be a port or host:port, such as 3000 or localhost:3000");
        }
        let authority = format!("{host}:{port}");
        let address = authority
            .parse()
            .with_context(|| format!("`{text}` is no local service"))?;
        Ok(Self {
            address,
            shown: authority.clone(),
            authority,
            host_header: None,
        })
    }

    /// The address to dial.
    pub(crate) const fn address(&self) -> &EngineAddress {
        &self.address
    }

    /// `host:port` of the service.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// The service as the status shows it.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// Sets how the status shows it: by the scheme and the version spoken.
    pub(super) fn show_as(&mut self, scheme: Option<&str>, suffix: Option<&str>) {
        let mut shown = match scheme {
            Some(scheme) => {
                let port = if scheme == "https" { ":443" } else { ":80" };
                let authority = &self.authority;
                let authority = authority.strip_suffix(port).unwrap_or(authority);
                format!("{scheme}://{authority}")
            }
            None => self.authority.clone(),
        };
        if let Some(suffix) = suffix {
            shown = format!("{shown} ({suffix})");
        }
        self.shown = shown;
    }

    /// A connection to the service.
    pub(crate) async fn connect(&self) -> io::Result<Guarded<TcpStream>> {
        match tokio::time::timeout(CONNECT_TIMEOUT, dial::connect(&self.address)).await {
            Ok(stream) => Ok(Guarded::new(stream?)),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_service_is_a_port_or_a_host_and_a_port() {
        // agent-cli §10 C1
        for (text, authority) in [
            (None, "localhost:8080"),
            (Some("3000"), "localhost:3000"),
            (Some("10.0.0.1:80"), "10.0.0.1:80"),
            (Some("[::1]:80"), "[::1]:80"),
            (Some("db.internal:5432"), "db.internal:5432"),
        ] {
            assert_eq!(Local::parse(text).unwrap().authority(), authority);
        }
        for text in [
            "",
            "web",
            "a:b:1",
            "1:2:3",
            ":",
            "0",
            "65536",
            "a:",
            "-1",
            "http://a:1",
            "[::1]",
        ] {
            assert!(Local::parse(Some(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn the_status_shows_it_as_one_would_call_it() {
        for (text, scheme, suffix, expected) in [
            ("3000", Some("http"), None, "http://localhost:3000"),
            ("80", Some("http"), None, "http://localhost"),
            ("443", Some("https"), None, "https://localhost"),
            (
                "443",
                Some("http"),
                Some("h2c"),
                "http://localhost:443 (h2c)",
            ),
            ("22", None, Some("tcp"), "localhost:22 (tcp)"),
        ] {
            let mut local = Local::parse(Some(text)).unwrap();
            local.show_as(scheme, suffix);
            assert_eq!(local.shown(), expected);
        }
    }
}
