//! Which engine, with which credential: from flags, the environment, or a context file.

mod file;
mod token;

use std::path::PathBuf;
use std::time::SystemTime;

use adit_agent::{Client, ClientBuilder, EngineAddress, Secret};
use adit_transport::tls::{CONNECT_TIMEOUT, Connector, ConnectorOptions};
use adit_transport::trust::Trust;
use anyhow::{Context, bail};
use clap::Args;

/// Text that ends the help of every command with these flags.
pub(crate) const HELP: &str = "\
Engine, token and CA come from the flags, else from ADIT_ENGINE, ADIT_TOKEN and ADIT_CA_FILE, else
from a context in ~/.config/adit/config.toml (or --config, or ADIT_CONFIG):

  default-context = \"home\"

  [context.home]
  engine = \"edge.example.com\"
  token-file = \"home.token\"       # relative to this file; or: token = \"...\"
  ca-file = \"ca.pem\"              # beside the CAs of the system, or those of SSL_CERT_FILE
  server-name = \"edge.internal\"   # if the certificate is for another name

A token stored in a context is only sent to that context's engine. A token is never an argument:
arguments show in the list of processes.";

/// Which engine, with which credential.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Engine")]
pub(crate) struct ConnectionArgs {
    /// Address of the engine (ADIT_ENGINE).
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(crate) engine: Option<String>,

    /// File with the token (the token itself may be in ADIT_TOKEN).
    #[arg(long, value_name = "PATH")]
    pub(crate) token_file: Option<PathBuf>,

    /// PEM file of CA certificates to believe, besides the system's (ADIT_CA_FILE).
    #[arg(long, value_name = "PATH")]
    pub(crate) ca_file: Option<PathBuf>,

    /// Name the engine's certificate is for, if not the host of its address.
    #[arg(long, value_name = "NAME")]
    pub(crate) server_name: Option<String>,

    /// File of contexts (ADIT_CONFIG).
    #[arg(long, value_name = "PATH")]
    pub(crate) config: Option<PathBuf>,

    /// Context of that file to use (ADIT_CONTEXT).
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

/// An engine to talk to.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) engine: EngineAddress,
    pub(crate) token: Secret,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) server_name: Option<String>,
}

impl ConnectionArgs {
    /// Finds out what is meant.
    ///
    /// # Errors
    ///
    /// What is missing, contradictory, unreadable or out of date.
    pub(crate) fn resolve(&self) -> anyhow::Result<Connection> {
        self.resolve_with(&|name| std::env::var(name).ok(), SystemTime::now())
    }

    fn resolve_with(
        &self,
        environment: &dyn Fn(&str) -> Option<String>,
        now: SystemTime,
    ) -> anyhow::Result<Connection> {
        let variable = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
        let context = file::find(self.config.as_deref(), self.context.as_deref(), &variable)?
            .unwrap_or_default();

        let given = self.engine.clone().or_else(|| variable("ADIT_ENGINE"));
        let engine: EngineAddress = match given.as_ref().or(context.engine.as_ref()) {
            Some(engine) => engine.parse()?,
            None => bail!(
                "no engine: give --engine, set ADIT_ENGINE, or add a context to the file of --config"
            ),
        };
        let token = if let Some(path) = &self.token_file {
            token::read(path)?
        } else if let Some(token) = variable("ADIT_TOKEN") {
            Secret::new(token.trim())
        } else if let Some(token) = context.token()? {
            let own: Option<EngineAddress> = match &context.engine {
                Some(engine) => Some(engine.parse().context("in the context")?),
                None => None,
            };
            if own.as_ref() != Some(&engine) {
                bail!(
                    "the token of the context is for another engine than `{engine}`: give \
                     --token-file or set ADIT_TOKEN"
                );
            }
            token
        } else {
            bail!(
                "no token: give --token-file, set ADIT_TOKEN, or add `token-file` to the context"
            );
        };
        token::check(&token, now)?;
        Ok(Connection {
            engine,
            token,
            ca_file: self
                .ca_file
                .clone()
                .or_else(|| variable("ADIT_CA_FILE").map(PathBuf::from))
                .or_else(|| context.ca_file()),
            server_name: self.server_name.clone().or(context.server_name),
        })
    }
}

impl Connection {
    /// A client with these settings.
    pub(crate) fn client(&self) -> ClientBuilder {
        let mut builder = Client::builder()
            .engine(self.engine.to_string())
            .token(self.token.expose())
            .trust(self.trust())
            .agent(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        if let Some(name) = &self.server_name {
            builder = builder.server_name(name);
        }
        builder
    }

    /// What dials the engine's HTTP API.
    pub(crate) fn connector(&self) -> anyhow::Result<Connector> {
        Ok(Connector::new(&ConnectorOptions {
            trust: self.trust(),
            server_name: self.server_name.clone(),
            timeout: CONNECT_TIMEOUT,
        })?)
    }

    fn trust(&self) -> Trust {
        match &self.ca_file {
            Some(path) => Trust::system().and_file(path),
            None => Trust::system(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    const NOW: Duration = Duration::from_secs(1_000_000);

    fn resolve(args: &ConnectionArgs, environment: &[(&str, &str)]) -> anyhow::Result<Connection> {
        args.resolve_with(
            &|name| {
                environment
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| (*value).to_owned())
            },
            UNIX_EPOCH + NOW,
        )
    }

    fn refusal(args: &ConnectionArgs, environment: &[(&str, &str)]) -> String {
        crate::failure::text(&resolve(args, environment).unwrap_err())
    }

    /// A directory with a context file and a token file.
    fn contexts() -> (tempfile::TempDir, ConnectionArgs) {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("config.toml");
        std::fs::write(
            &config,
            "default-context = \"home\"\n\
             [context.home]\nengine = \"home.example\"\ntoken-file = \"token\"\nca-file = \"ca.pem\"\n\
             [context.work]\nengine = \"work.example:8443\"\ntoken = \"inline\"\n",
        )
        .unwrap();
        let token = directory.path().join("token");
        std::fs::write(&token, "from-file\n").unwrap();
        for path in [&config, &token] {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let args = ConnectionArgs {
            config: Some(config),
            ..ConnectionArgs::default()
        };
        (directory, args)
    }

    #[test]
    fn flags_come_before_the_environment_and_that_before_the_context() {
        let (directory, mut args) = contexts();
        let home = resolve(&args, &[]).unwrap();
        assert_eq!(home.engine.to_string(), "home.example");
        assert_eq!(home.token.expose(), "from-file");
        assert_eq!(home.ca_file, Some(directory.path().join("ca.pem")));

        let work = resolve(&args, &[("ADIT_CONTEXT", "work")]).unwrap();
        assert_eq!(work.token.expose(), "inline");

        let variables = [
            ("ADIT_ENGINE", "env.example"),
            ("ADIT_TOKEN", " env "),
            ("ADIT_CA_FILE", "/env.pem"),
        ];
        let env = resolve(&args, &variables).unwrap();
        assert_eq!(env.engine.to_string(), "env.example");
        assert_eq!(env.token.expose(), "env");
        assert_eq!(env.ca_file, Some(PathBuf::from("/env.pem")));

        args.engine = Some("flag.example".to_owned());
        args.token_file = Some(directory.path().join("token"));
        args.ca_file = Some(PathBuf::from("/flag.pem"));
        let flag = resolve(&args, &variables).unwrap();
        assert_eq!(flag.engine.to_string(), "flag.example");
        assert_eq!(flag.token.expose(), "from-file");
        assert_eq!(flag.ca_file, Some(PathBuf::from("/flag.pem")));
    }

    #[test]
    fn a_stored_token_goes_to_no_other_engine() {
        // agent-cli §10 C11
        let (_directory, args) = contexts();
        let text = refusal(&args, &[("ADIT_ENGINE", "elsewhere.example")]);
        assert!(text.contains("another engine"), "{text}");
        let same = resolve(&args, &[("ADIT_ENGINE", "HOME.example:443")]).unwrap();
        assert_eq!(same.token.expose(), "from-file");
    }

    #[test]
    fn an_expired_token_is_refused_before_anything_is_dialled() {
        // agent-cli §10 C14
        let args = ConnectionArgs::default();
        let jwt = |exp: u64| {
            use base64::Engine as _;
            let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
            format!(
                "{}.{}.x",
                encode("{\"alg\":\"HS256\"}"),
                encode(&format!("{{\"exp\":{exp}}}"))
            )
        };
        for (exp, expired) in [(NOW.as_secs(), true), (NOW.as_secs() + 1, false)] {
            let token = jwt(exp);
            let variables = [("ADIT_ENGINE", "a.b"), ("ADIT_TOKEN", token.as_str())];
            let outcome = resolve(&args, &variables);
            assert_eq!(outcome.is_err(), expired);
            if let Err(error) = outcome {
                assert!(error.to_string().contains("expired"), "{error}");
            }
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let args = ConnectionArgs {
            config: Some("/nonexistent/config.toml".into()),
            ..ConnectionArgs::default()
        };
        assert!(refusal(&args, &[]).contains("/nonexistent/config.toml"));
        let none = ConnectionArgs::default();
        assert!(refusal(&none, &[]).contains("--engine"));
        assert!(refusal(&none, &[("ADIT_ENGINE", "a.b")]).contains("--token-file"));
        assert!(refusal(&none, &[("ADIT_ENGINE", "https://a.b")]).contains("without scheme"));
        assert!(refusal(&none, &[("ADIT_CONTEXT", "x")]).contains("`x`"));
    }

    #[test]
    fn a_context_file_with_an_unknown_key_is_refused_with_its_position() {
        let (directory, args) = contexts();
        let path = directory.path().join("config.toml");
        std::fs::write(&path, "[context.home]\nengin = \"a.b\"\n").unwrap();
        let text = refusal(&args, &[]);
        assert!(text.contains("config.toml:2:1"), "{text}");
        assert!(text.contains("engin"), "{text}");
    }
}
