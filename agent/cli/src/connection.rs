//! Which engine, with which credential: from flags, the environment, or a context file.

mod credential;
mod file;
mod token;

use std::path::PathBuf;
use std::time::SystemTime;

use adit_agent::{Client, ClientBuilder, EngineAddress, Secret};
use adit_transport::identity::Identity;
use adit_transport::tls::{CONNECT_TIMEOUT, Connector, ConnectorOptions};
use adit_transport::trust::Trust;
use anyhow::{Context, bail};
use clap::Args;

pub(crate) use credential::Credential;

/// Text that ends the help of every command with these flags.
pub(crate) const HELP: &str = "\
Engine, credential and CA come from the flags, else from ADIT_ENGINE, ADIT_TOKEN (or ADIT_CERT_FILE and
ADIT_KEY_FILE) and ADIT_CA_FILE, else from a context in ~/.config/adit/config.toml (or --config, or ADIT_CONFIG):

  default-context = \"home\"

  [context.home]
  engine = \"edge.example.com\"
  token-file = \"home.token\"       # relative to this file; or: token = \"...\"
                                  # or: cert-file = \"...\" and key-file = \"...\"
  ca-file = \"ca.pem\"              # beside the CAs of the system, or those of SSL_CERT_FILE
  server-name = \"edge.internal\"   # if the certificate is for another name

A credential stored in a context is only shown to that context's engine. A token is never an argument:
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

    /// PEM file with the client certificate that takes the place of a token (ADIT_CERT_FILE).
    #[arg(long, value_name = "PATH")]
    pub(crate) cert_file: Option<PathBuf>,

    /// PEM file with the key of the client certificate (ADIT_KEY_FILE).
    #[arg(long, value_name = "PATH")]
    pub(crate) key_file: Option<PathBuf>,

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
    pub(crate) credential: Credential,
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
        let credential = match self.credential(&variable)? {
            Some(credential) => credential,
            None => stored(&context, &engine)?,
        };
        if let Credential::Token(token) = &credential {
            token::check(token, now)?;
        }
        Ok(Connection {
            engine,
            credential,
            ca_file: self
                .ca_file
                .clone()
                .or_else(|| variable("ADIT_CA_FILE").map(PathBuf::from))
                .or_else(|| context.ca_file()),
            server_name: self.server_name.clone().or(context.server_name),
        })
    }
}

impl ConnectionArgs {
    /// What flags and environment say. One whole credential: a flag does not complete a variable's.
    fn credential(
        &self,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Option<Credential>> {
        let path = |name| variable(name).map(PathBuf::from);
        let token = match &self.token_file {
            Some(path) => Some(token::read(path)?),
            None => None,
        };
        let flags = Credential::one(token, self.cert_file.clone(), self.key_file.clone())?;
        let token = variable("ADIT_TOKEN").map(|token| Secret::new(token.trim()));
        let variables = Credential::one(token, path("ADIT_CERT_FILE"), path("ADIT_KEY_FILE"))
            .context("in the environment")?;
        Ok(flags.or(variables))
    }
}

/// The credential of the context, which no other engine is shown.
fn stored(context: &file::Context, engine: &EngineAddress) -> anyhow::Result<Credential> {
    let Some(credential) = context.credential()? else {
        bail!(
            "no token: give --token-file, set ADIT_TOKEN, or add `token-file` to the context; a \
             client certificate does as well, with --cert-file and --key-file"
        );
    };
    let own: Option<EngineAddress> = match &context.engine {
        Some(engine) => Some(engine.parse().context("in the context")?),
        None => None,
    };
    if own.as_ref() != Some(engine) {
        bail!(
            "the {} of the context is for another engine than `{engine}`: give --token-file or \
             --cert-file, or set ADIT_TOKEN",
            credential.what()
        );
    }
    Ok(credential)
}

impl Connection {
    /// A client with these settings.
    pub(crate) fn client(&self) -> ClientBuilder {
        let mut builder = Client::builder()
            .engine(self.engine.to_string())
            .trust(self.trust())
            .agent(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        builder = match &self.credential {
            Credential::Token(token) => builder.token(token.expose()),
            Credential::Certificate(identity) => {
                builder.certificate_files(&identity.certificate, &identity.key)
            }
        };
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
            identity: None,
        })?)
    }

    /// What dials the host where the API takes this certificate.
    pub(crate) fn connector_showing(&self, identity: &Identity) -> anyhow::Result<Connector> {
        Ok(Connector::new(&ConnectorOptions {
            trust: self.trust(),
            server_name: None,
            timeout: CONNECT_TIMEOUT,
            identity: Some(identity.clone()),
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
    #![allow(
        clippy::unwrap_used,
        clippy::panic,
        clippy::indexing_slicing,
        reason = "tests"
    )]
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

    fn token(connection: &Connection) -> &str {
        match &connection.credential {
            Credential::Token(token) => token.expose(),
            Credential::Certificate(_) => "a certificate",
        }
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
        assert_eq!(token(&home), "from-file");
        assert_eq!(home.ca_file, Some(directory.path().join("ca.pem")));

        let work = resolve(&args, &[("ADIT_CONTEXT", "work")]).unwrap();
        assert_eq!(token(&work), "inline");

        let variables = [
            ("ADIT_ENGINE", "env.example"),
            ("ADIT_TOKEN", " env "),
            ("ADIT_CA_FILE", "/env.pem"),
        ];
        let env = resolve(&args, &variables).unwrap();
        assert_eq!(env.engine.to_string(), "env.example");
        assert_eq!(token(&env), "env");
        assert_eq!(env.ca_file, Some(PathBuf::from("/env.pem")));

        args.engine = Some("flag.example".to_owned());
        args.token_file = Some(directory.path().join("token"));
        args.ca_file = Some(PathBuf::from("/flag.pem"));
        let flag = resolve(&args, &variables).unwrap();
        assert_eq!(flag.engine.to_string(), "flag.example");
        assert_eq!(token(&flag), "from-file");
        assert_eq!(flag.ca_file, Some(PathBuf::from("/flag.pem")));
    }

    #[test]
    fn a_stored_token_goes_to_no_other_engine() {
        // agent-cli §10 C11
        let (_directory, args) = contexts();
        let text = refusal(&args, &[("ADIT_ENGINE", "elsewhere.example")]);
        assert!(text.contains("another engine"), "{text}");
        let same = resolve(&args, &[("ADIT_ENGINE", "HOME.example:443")]).unwrap();
        assert_eq!(token(&same), "from-file");
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

    #[test]
    fn a_certificate_takes_the_place_of_a_token_and_never_stands_beside_one() {
        // agent-cli §10 C10
        let (directory, args) = contexts();
        let pair = [("ADIT_CERT_FILE", "/c.pem"), ("ADIT_KEY_FILE", "/k.pem")];
        let from_environment = resolve(&args, &pair).unwrap();
        let Credential::Certificate(identity) = &from_environment.credential else {
            panic!("{from_environment:?}");
        };
        assert_eq!(identity.certificate, PathBuf::from("/c.pem"));
        assert_eq!(identity.key, PathBuf::from("/k.pem"));
        // One whole credential: what a flag says replaces all of the environment's.
        let by_flag = ConnectionArgs {
            token_file: Some(directory.path().join("token")),
            ..args.clone()
        };
        assert_eq!(token(&resolve(&by_flag, &pair).unwrap()), "from-file");

        let both = ConnectionArgs {
            cert_file: Some("/c.pem".into()),
            key_file: Some("/k.pem".into()),
            ..by_flag
        };
        assert!(
            refusal(&both, &[]).contains("both"),
            "{}",
            refusal(&both, &[])
        );
        let all = [pair[0], pair[1], ("ADIT_TOKEN", "t")];
        assert!(refusal(&args, &all).contains("both"));
        for half in [&pair[..1], &pair[1..]] {
            assert!(refusal(&args, half).contains("-file"), "{half:?}");
        }
        let path = directory.path().join("config.toml");
        let stored = "cert-file = \"c.pem\"\nkey-file = \"k.pem\"\n";
        let home = "default-context = \"home\"\n[context.home]\nengine = \"home.example\"\n";
        std::fs::write(&path, format!("{home}{stored}")).unwrap();
        let context = resolve(&args, &[]).unwrap();
        let Credential::Certificate(identity) = &context.credential else {
            panic!("{context:?}");
        };
        assert_eq!(identity.key, directory.path().join("k.pem"));
        let elsewhere = refusal(&args, &[("ADIT_ENGINE", "elsewhere.example")]);
        assert!(elsewhere.contains("another engine"), "{elsewhere}");
        std::fs::write(&path, format!("{home}{stored}token = \"t\"\n")).unwrap();
        assert!(refusal(&args, &[]).contains("both"));
    }
}
