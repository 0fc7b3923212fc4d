//! `adit dev`: an engine, an agent and something to publish, on this machine.

mod filter;
mod request_lines;
mod site;
mod state;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use adit_agent::{Client, TunnelOptions};
use adit_config::{Config, Invalid};
use adit_filters::Registry;
use adit_plugins::identity::token::{Authority, Claims};
use adit_proxy::engine::{Engine, Options, StartError};
use anyhow::{Context as _, bail};
use clap::Args;
use tokio::task::JoinHandle;

use crate::forward::{Event, Local, Server};
use crate::lines::print;
use crate::process::Stop;
use request_lines::RequestLines;
use state::State;

/// The port tried first; those after it follow.
const FIRST_PORT: u16 = 8443;
/// How many ports are tried.
const PORTS_TRIED: u16 = 100;
/// How long the agent may take to be online: it is the same machine.
const ONLINE_WAIT: Duration = Duration::from_secs(10);

/// Publish a demo site, or a local port, with an engine on this machine.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  adit dev                    publish the built-in demo site
  adit dev 3000               publish whatever listens on port 3000
  adit dev 3000 --name shop   as https://shop.t.adit.localhost:8443
  adit dev --plugin f.wasm    with a filter of your own before it; `adit plugin new` begins one

The certificate authority and the secret live in ./.adit/ and are made once.")]
pub(crate) struct DevArgs {
    /// What to publish; without it, a demo site
    #[arg(value_name = "[HOST:]PORT")]
    target: Option<String>,
    /// First label of the public name [default: `demo`, or `app` with a port]
    #[arg(long)]
    name: Option<String>,
    /// Port of the engine [default: 8443 or the next free one]
    #[arg(long)]
    port: Option<u16>,
    /// Where certificates and the secret are kept
    #[arg(long, default_value = ".adit", value_name = "DIR")]
    dir: PathBuf,
    /// The engine's host; tunnels are published below `t.HOST`
    #[arg(long, default_value = "adit.localhost")]
    host: String,
    /// Put a filter of your own before it, with the tables of `cases.toml` beside the component; a
    /// changed component is taken up at once
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// Rewrite `Host` for development servers that refuse foreign names
    #[arg(long, value_name = "HOST", requires = "target")]
    host_header: Option<String>,
}

/// Runs until Ctrl-C, then drains.
pub(crate) async fn run(args: DevArgs) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let local = match &args.target {
        Some(text) => {
            let mut local = Local::parse(Some(text))?;
            local.host_header = args.host_header.clone();
            Some(local)
        }
        None => None,
    };
    let state = State::open(&args.dir, &args.host)?;
    let (engine, token) = start_engine(&args, &state).await?;
    let port = engine.addresses().https.port();

    let client = Client::builder()
        .engine(format!("{}:{port}", args.host))
        .ca_file(state.ca())
        .token(token)
        .agent("adit", env!("CARGO_PKG_VERSION"))
        .start()?;
    let fallback = if local.is_some() { "app" } else { "demo" };
    let label = args.name.as_deref().unwrap_or(fallback);
    let tunnel = client.tunnel(TunnelOptions::http().hostname(format!("{label}.t.{}", args.host)));
    let online = tokio::time::timeout(ONLINE_WAIT, tunnel.online());
    let info = tokio::select! {
        info = online => info.context("the agent did not get online in time")??,
        () = stop.wanted() => return Ok(()),
    };
    let url = info.forwarding().context("the engine named no address")?;
    greet(&url, &state, local.as_ref(), port);
    let serving = serve(tunnel, local);
    stop.wanted().await;

    print("\ndraining; Ctrl-C again stops at once\n");
    let drained = tokio::select! {
        drained = engine.drain() => drained,
        () = stop.wanted() => {
            print("stopped\n");
            return Ok(());
        }
    };
    serving.abort();
    match drained.cut {
        0 => print("stopped; every exchange was finished\n"),
        cut => print(format!("stopped; {cut} connections were still open\n")),
    }
    Ok(())
}

async fn start_engine(args: &DevArgs, state: &State) -> anyhow::Result<(Engine, String)> {
    let ports = match args.port {
        Some(port) => port..=port,
        None => FIRST_PORT..=FIRST_PORT + PORTS_TRIED,
    };
    for port in ports {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // Asked first, so that a busy port costs no half-started engine.
        if TcpListener::bind(address).is_err() {
            continue;
        }
        let text = config(args, state, address)?;
        let config = parse(&text).map_err(|invalid| anyhow::anyhow!("{invalid}"))?;
        let token = Authority::new(&config.auth.jwt_secret)?.mint(&Claims {
            sub: Some("dev".to_owned()),
            ..Claims::default()
        })?;
        let options = Options {
            filters: Some(Box::new(Registry::with::<RequestLines>)),
            loader: Some(Box::new(move || parse(&text))),
            reloaded: Some(Box::new(|_| {
                print("the filter changed: the new one is in place\n")
            })),
            ..Options::default()
        };
        match Engine::start(config, options).await {
            Ok(engine) => return Ok((engine, token)),
            Err(StartError::Bind { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    match args.port {
        Some(port) => bail!("port {port} is taken: stop what listens there or choose another"),
        None => bail!(
            "ports {FIRST_PORT} to {} are taken: choose one with --port",
            FIRST_PORT + PORTS_TRIED
        ),
    }
}

fn parse(text: &str) -> Result<Config, Invalid> {
    Config::parse("the development configuration", text, std::iter::empty())
}

fn config(args: &DevArgs, state: &State, address: SocketAddr) -> anyhow::Result<String> {
    // Debug of a string is a TOML string for every path and host that is not itself strange.
    Ok(format!(
        "[engine]\nhost = {host:?}\naliases = [\"localhost\"]\nstate-dir = {folder:?}\n\
         [listen]\nhttps = \"{address}\"\n\
         [certificates]\nfiles = {{ cert = {cert:?}, key = {key:?} }}\n\
         [auth]\njwt-secret = {{ file = {secret:?} }}\n\
         [admin]\nsocket = {socket:?}\n\
         [timeouts]\ndrain = \"10s\"\n{policies}",
        policies = filter::policies(args.plugin.as_deref())?,
        host = args.host,
        folder = absolute(state.folder())?,
        cert = absolute(state.certificate())?,
        key = absolute(state.key())?,
        secret = absolute(state.secret())?,
        socket = absolute(state.socket())?,
    ))
}

fn absolute(path: PathBuf) -> anyhow::Result<PathBuf> {
    std::path::absolute(&path).with_context(|| format!("cannot find `{}`", path.display()))
}

fn serve(mut tunnel: adit_agent::Tunnel, local: Option<Local>) -> JoinHandle<()> {
    match local {
        Some(local) => {
            let server = Server::new(local, |event| {
                if matches!(event, Event::ServiceDown { .. } | Event::ServiceUp { .. }) {
                    print(format!("{event}\n"));
                }
            });
            tokio::spawn(async move { server.serve(&mut tunnel).await })
        }
        None => tokio::spawn(async move {
            if let Err(error) = axum::serve(tunnel, site::router()).await {
                print(format!("the demo site ended: {error}\n"));
            }
        }),
    }
}

fn greet(url: &str, state: &State, local: Option<&Local>, port: u16) {
    let ca = state.ca();
    let ca = ca.display();
    let what = match local {
        Some(local) => format!("http://{}", local.authority()),
        None => "the demo site".to_owned(),
    };
    let path = if local.is_some() { "/" } else { "/hello" };
    print(format!("publishing {what} at\n\n    {url}\n\n"));
    print(format!("try it:\n\n    curl --cacert {ca} {url}{path}\n\n"));
    print(format!(
        "A browser warns until it trusts the development CA. Import {ca} as an authority\n\
         (Chromium: Settings, Privacy and security, Security, Manage certificates; Firefox:\n\
         Settings, Certificates, View Certificates, Authorities), or go on past the warning.\n\n"
    ));
    print(format!(
        "The engine itself: https://localhost:{port}/api/health/ready. Ctrl-C stops.\n\n"
    ));
}
