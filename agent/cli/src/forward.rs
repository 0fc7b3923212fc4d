//! `adit forward`: publish a local service.

mod follow;
mod local;
mod options;
mod output;
mod rewrite;
mod serve;

use std::sync::Arc;
use std::time::Duration;

use adit_agent::{Retry, hostname};
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use crate::connection::{self, ConnectionArgs};
use crate::lines::tell;
use crate::process::Stop;

pub(crate) use local::{CONNECT_TIMEOUT as LOCAL_CONNECT_TIMEOUT, Local};
pub(crate) use serve::{Event, Server};

/// How long streams may go on after the wish to stop. The engine ends idle ones itself when the
/// tunnel goes; this is for downloads under way.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Publish a local service through the engine
///
/// Creates a tunnel and passes every connection of its visitors on to HOST:PORT. What is not said is
/// left to the engine, which publishes the service for HTTP.
#[derive(Debug, Args)]
#[command(after_help = examples())]
pub(crate) struct ForwardArgs {
    /// The local service; localhost and 8080 where nothing is said.
    #[arg(value_name = "[HOST:]PORT")]
    pub(super) target: Option<String>,

    /// Name of the tunnel, by which a private one is dialled.
    #[arg(long)]
    pub(super) name: Option<String>,

    /// Make it public.
    #[arg(long, conflicts_with = "no_publish")]
    pub(super) publish: bool,

    /// Keep it private, to be dialled with `adit nc`.
    #[arg(long)]
    pub(super) no_publish: bool,

    /// Forward HTTP.
    #[arg(long, group = "protocol")]
    pub(super) http: bool,

    /// Forward TLS.
    #[arg(long, group = "protocol")]
    pub(super) tls: bool,

    /// Forward TCP.
    #[arg(long, group = "protocol")]
    pub(super) tcp: bool,

    /// Forward bytes, whatever they mean.
    #[arg(long)]
    pub(super) bytestream: bool,

    /// Public host name to ask for.
    #[arg(long, value_name = "NAME")]
    pub(super) host: Option<String>,

    /// Public port to ask for, with --tcp.
    #[arg(long, value_name = "PORT")]
    pub(super) tcp_port: Option<u32>,

    /// Label of the tunnel; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) label: Vec<String>,

    /// Let in these addresses and networks only.
    #[arg(long, value_name = "IP[/LEN],...")]
    pub(super) trusted_ips: Option<String>,

    /// Let in visitors from these countries only.
    #[arg(long, value_name = "COUNTRY,...")]
    pub(super) geoip: Option<String>,

    /// Require a token of visitors.
    #[arg(long)]
    pub(super) token_auth: bool,

    /// Require an account of visitors.
    #[arg(long)]
    pub(super) rstream_auth: bool,

    /// Challenge visitors to show they are people.
    #[arg(long)]
    pub(super) challenge_mode: bool,

    /// HTTP version the service speaks.
    #[arg(long, value_name = "VERSION", value_parser = ["http/1.1", "h2c"])]
    pub(super) http_version: Option<String>,

    /// The service speaks TLS.
    #[arg(long)]
    pub(super) upstream_tls: bool,

    /// Tell the service it is called HOST. `rewrite` stands for the address forwarded to. For
    /// development servers that refuse foreign names.
    #[arg(long, value_name = "HOST")]
    pub(super) host_header: Option<String>,

    /// Who ends TLS: the engine, or the service.
    #[arg(long, value_name = "MODE", value_parser = ["terminated", "passthrough"])]
    pub(super) tls_mode: Option<String>,

    /// ALPN names of the public TLS endpoint.
    #[arg(long, value_name = "NAME,...")]
    pub(super) tls_alpn: Option<String>,

    /// Oldest TLS version of the public endpoint.
    #[arg(long, value_name = "VERSION", value_parser = ["tls1.2", "tls1.3"])]
    pub(super) tls_min_version: Option<String>,

    /// Ciphers of the public TLS endpoint.
    #[arg(long, value_name = "NAME,...")]
    pub(super) tls_ciphers: Option<String>,

    /// Require a client certificate of visitors.
    #[arg(long)]
    pub(super) mtls: bool,

    /// Keep trying when the engine is lost (as is the rule).
    #[arg(long, conflicts_with = "no_retry")]
    pub(super) retry: bool,

    /// End when the engine is lost.
    #[arg(long)]
    pub(super) no_retry: bool,

    /// Wait about this long between attempts. Without it the waits grow: up to 0.5 s, 1 s, 2.5 s for
    /// ten minutes, then up to 30 s.
    #[arg(long, value_name = "MS")]
    pub(super) retry_interval: Option<u64>,

    /// What to write to standard output.
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    pub(super) output: Output,

    #[command(flatten)]
    pub(super) connection: ConnectionArgs,
}

/// What to write to standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// The status when it changes and a line for each connection, for people.
    Text,
    /// The same as one JSON object a line.
    Json,
    /// Nothing.
    None,
}

fn examples() -> String {
    format!(
        "\
Examples:
  adit forward 3000                              publish http://localhost:3000
  adit forward 3000 --host shop.t.example.com    under this name
  adit forward 5173 --host-header rewrite        a development server that checks names
  adit forward 8443 --upstream-tls --name api    a service that speaks HTTPS
  adit forward 22 --bytestream --no-publish --name home
                                                 SSH, for `adit nc rstrm://home`

{}",
        connection::HELP
    )
}

/// Runs the command until it is told to stop.
pub(crate) async fn run(args: ForwardArgs) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let local = args.local()?;
    let mut options = args.options()?;
    let retry = args.retry_policy()?;
    let connection = args.connection.resolve()?;
    if args.wants_public_name()
        && let Some(name) = public_name(&connection.engine.host())
    {
        options = options.suggest_hostname(name);
    }

    let printer = Arc::new(output::Printer::new(args.output));
    let client = connection
        .client()
        .retry(retry)
        .start()
        .context("cannot start")?;
    let mut tunnel = client.tunnel(options);
    let follow = follow::Follow::new(&client, &tunnel, local.shown(), Arc::clone(&printer));
    let server = Server::new(local, move |event| match event {
        Event::Opened { .. } | Event::Closed { .. } => printer.connection(&event),
        Event::ServiceDown { .. } | Event::ServiceUp { .. } => tell(&event.to_string()),
    });

    let serve = async {
        server.serve(&mut tunnel).await;
        // The tunnel is over; its status tells why.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        outcome = follow.run() => outcome,
        () = serve => Ok(()),
        () = stop.wanted() => {
            drain(&client, &server, &mut stop).await;
            Ok(())
        }
    }
}

/// Ends the tunnel, then waits for streams under way, until told again to stop.
async fn drain(client: &adit_agent::Client, server: &Server, stop: &mut Stop) {
    let active = server.active();
    if active > 0 {
        let streams = if active == 1 {
            "connection"
        } else {
            "connections"
        };
        tell(&format!(
            "stopping: waiting for {active} {streams} to end, once more to stop at once"
        ));
    }
    let ended = async {
        client.close().await;
        server.idle().await;
    };
    tokio::select! {
        _ = tokio::time::timeout(DRAIN_TIMEOUT, ended) => {}
        () = stop.wanted() => {}
    }
}

/// A name for this process's tunnel that an engine at `host` would serve.
fn public_name(host: &str) -> Option<String> {
    let mut random = [0; 4];
    getrandom::fill(&mut random).ok()?;
    hostname::derive(host, &hostname::slug(random))
}

impl ForwardArgs {
    fn retry_policy(&self) -> anyhow::Result<Retry> {
        match (self.no_retry, self.retry_interval) {
            (_, Some(0)) => bail!("--retry-interval must be above 0"),
            (true, _) => Ok(Retry::Never),
            (false, Some(ms)) => Ok(Retry::Every(Duration::from_millis(ms))),
            (false, None) => Ok(Retry::BackOff),
        }
    }
}
