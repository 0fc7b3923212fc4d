//! From flags to a tunnel. A flag that was not given is absent on the wire, not false.

use adit_agent::TunnelOptions;
use anyhow::{Context, bail};

use super::{ForwardArgs, Local};

impl ForwardArgs {
    /// The local service.
    pub(super) fn local(&self) -> anyhow::Result<Local> {
        let mut local = Local::parse(self.target.as_deref())?;
        local.host_header = match self.host_header.as_deref().map(str::trim) {
            None => None,
            Some("rewrite") => Some(local.authority().to_owned()),
            Some(host) if http::uri::Authority::try_from(host).is_ok() => Some(host.to_owned()),
            Some(host) => bail!("--host-header `{host}` is no host name"),
        };
        let scheme = match (self.is_http(), self.upstream_tls) {
            (true, false) => Some("http"),
            (true, true) => Some("https"),
            (false, _) => None,
        };
        let suffix = match (self.protocol(), scheme) {
            (_, Some(_)) => self.http_version.as_deref(),
            (Some("tls"), None) => Some("tls"),
            (_, None) => Some("tcp"),
        };
        local.show_as(scheme, suffix);
        Ok(local)
    }

    /// The tunnel to ask for, after the checks that need no engine.
    pub(super) fn options(&self) -> anyhow::Result<TunnelOptions> {
        self.check()?;
        let mut labels = Vec::new();
        for label in &self.label {
            let (key, value) = label
                .split_once('=')
                .filter(|(key, _)| !key.trim().is_empty())
                .with_context(|| format!("--label `{label}` must be key=value"))?;
            labels.push((key.trim().to_owned(), value.to_owned()));
        }
        let yes = |flag: bool| flag.then_some(true);
        Ok(TunnelOptions::new().with(|p| {
            p.name = self.name.clone();
            p.r#type = self.bytestream.then(|| "bytestream".to_owned());
            p.publish = match (self.publish, self.no_publish) {
                (true, _) => Some(true),
                (_, true) => Some(false),
                _ => None,
            };
            p.protocol = self.protocol().map(str::to_owned);
            p.labels.extend(labels);
            p.geoip = list(self.geoip.as_deref());
            p.trusted_ips = list(self.trusted_ips.as_deref());
            p.hostname = self.host.as_ref().map(|host| host.trim().to_owned());
            p.port = self.tcp_port;
            p.tls_mode = self.tls_mode.clone();
            p.tls_alpns = list(self.tls_alpn.as_deref());
            p.tls_min_version = self.tls_min_version.clone();
            p.tls_ciphers = list(self.tls_ciphers.as_deref());
            p.mtls_auth = yes(self.mtls);
            p.http_version = self.http_version.clone();
            p.upstream_tls = yes(self.upstream_tls);
            p.token_auth = yes(self.token_auth);
            p.rstream_auth = yes(self.rstream_auth);
            p.challenge_mode = yes(self.challenge_mode);
            if self.tcp {
                p.r#type = Some("bytestream".to_owned());
                p.publish = Some(true);
            }
        }))
    }

    /// Whether the tunnel should get a name of its own that survives a reconnect.
    pub(super) fn wants_public_name(&self) -> bool {
        !self.no_publish && !self.tcp && self.host.is_none()
    }

    fn protocol(&self) -> Option<&'static str> {
        match (self.http, self.tls, self.tcp) {
            (true, ..) => Some("http"),
            (_, true, _) => Some("tls"),
            (.., true) => Some("tcp"),
            _ => None,
        }
    }

    /// Whether the stream will carry HTTP: asked for, or what the engine makes of a public tunnel
    /// about which nothing is said.
    fn is_http(&self) -> bool {
        self.http || (self.protocol().is_none() && !self.no_publish)
    }

    fn check(&self) -> anyhow::Result<()> {
        let http_only = [
            (self.http_version.is_some(), "--http-version"),
            (self.token_auth, "--token-auth"),
            (self.rstream_auth, "--rstream-auth"),
            (self.challenge_mode, "--challenge-mode"),
            (self.host_header.is_some(), "--host-header"),
        ];
        if self.tls || self.tcp {
            let protocol = if self.tls { "--tls" } else { "--tcp" };
            refuse(&http_only, |flag| {
                format!("{flag} is for HTTP and cannot go with {protocol}")
            })?;
        }
        if self.tcp {
            let foreign = [
                (self.host.is_some(), "--host"),
                (self.no_publish, "--no-publish"),
                (self.upstream_tls, "--upstream-tls"),
                (self.tls_mode.is_some(), "--tls-mode"),
                (self.tls_alpn.is_some(), "--tls-alpn"),
                (self.tls_min_version.is_some(), "--tls-min-version"),
                (self.tls_ciphers.is_some(), "--tls-ciphers"),
                (self.mtls, "--mtls"),
            ];
            refuse(&foreign, |flag| format!("{flag} cannot go with --tcp"))?;
        }
        if let Some(port) = self.tcp_port {
            if !self.tcp {
                bail!("--tcp-port needs --tcp");
            }
            if !(1..=65_535).contains(&port) {
                bail!("--tcp-port must be 1 to 65535");
            }
        }
        if self
            .host
            .as_ref()
            .is_some_and(|host| host.trim().is_empty())
        {
            bail!("--host is blank");
        }
        if self
            .name
            .as_ref()
            .is_some_and(|name| name.trim().is_empty())
        {
            bail!("--name is blank");
        }
        if self.host_header.is_some() {
            if self.upstream_tls {
                bail!("--host-header cannot go with --upstream-tls: the agent sees no headers");
            }
            if self.http_version.as_deref() == Some("h2c") {
                bail!("--host-header is for HTTP/1.1 and cannot go with --http-version h2c");
            }
        }
        Ok(())
    }
}

fn refuse(flags: &[(bool, &str)], text: impl Fn(&str) -> String) -> anyhow::Result<()> {
    match flags.iter().find(|(given, _)| *given) {
        Some((_, flag)) => bail!(text(flag)),
        None => Ok(()),
    }
}

/// Entries of a comma-separated list, trimmed, without empty ones.
fn list(text: Option<&str>) -> Vec<String> {
    text.unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;
    use crate::cli::{Cli, Command};
    use adit_agent::TunnelProperties;
    use clap::Parser;

    fn args(line: &str) -> ForwardArgs {
        let words = ["adit", "forward"].into_iter().chain(line.split(' '));
        match Cli::try_parse_from(words).unwrap().command {
            Command::Forward(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn properties(line: &str) -> TunnelProperties {
        args(line).options().unwrap().properties().clone()
    }

    #[test]
    fn what_is_not_said_is_absent() {
        assert_eq!(properties("3000"), TunnelProperties::default());
    }

    #[test]
    fn what_is_said_is_there() {
        let given = properties(
            "3000 --name shop --no-publish --http --bytestream --label a=b --label c= \
             --trusted-ips 10.0.0.0/8,,\t192.0.2.1 --http-version h2c --token-auth",
        );
        let expected = TunnelProperties {
            name: Some("shop".to_owned()),
            r#type: Some("bytestream".to_owned()),
            publish: Some(false),
            protocol: Some("http".to_owned()),
            labels: [("a", "b"), ("c", "")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            trusted_ips: vec!["10.0.0.0/8".to_owned(), "192.0.2.1".to_owned()],
            http_version: Some("h2c".to_owned()),
            token_auth: Some(true),
            ..TunnelProperties::default()
        };
        assert_eq!(given, expected);
        let tcp = properties("22 --tcp --tcp-port 2222");
        assert_eq!(tcp.publish, Some(true));
        assert_eq!(tcp.r#type.as_deref(), Some("bytestream"));
        assert_eq!(tcp.port, Some(2222));
    }

    #[test]
    fn contradictions_are_found_without_an_engine() {
        // agent-cli §2.1, §10 C4 and C6
        for line in [
            "22 --tcp --host x",
            "22 --tcp --no-publish",
            "22 --tcp --token-auth",
            "22 --tcp --upstream-tls",
            "22 --tcp --mtls",
            "22 --tcp-port 1",
            "22 --tcp --tcp-port 0",
            "22 --tcp --tcp-port 65536",
            "80 --tls --token-auth",
            "80 --tls --http-version h2c",
            "80 --host-header x --upstream-tls",
            "80 --host-header x --http-version h2c",
            "80 --label nothing",
            "80 --label =x",
        ] {
            assert!(args(line).options().is_err(), "{line}");
        }
        for line in [
            "22 --tcp",
            "80 --tls",
            "80 --host-header x --http-version http/1.1",
        ] {
            assert!(args(line).options().is_ok(), "{line}");
        }
    }

    #[test]
    fn a_public_tunnel_without_a_host_gets_a_name() {
        for (line, expected) in [
            ("80", true),
            ("80 --publish", true),
            ("80 --tls", true),
            ("80 --tcp", false),
            ("80 --no-publish", false),
            ("80 --host a.b", false),
        ] {
            assert_eq!(args(line).wants_public_name(), expected, "{line}");
        }
    }

    #[test]
    fn the_host_header_is_given_or_that_of_the_service() {
        for (line, expected) in [
            ("5173", None),
            ("5173 --host-header rewrite", Some("localhost:5173")),
            ("5173 --host-header dev.test", Some("dev.test")),
        ] {
            let local = args(line).local().unwrap();
            assert_eq!(local.host_header.as_deref(), expected);
        }
        assert!(args("5173 --host-header a/b").local().is_err());
    }
}
