//! Questions to a running engine, over its admin socket.

use std::path::PathBuf;
use std::time::Duration;

use adit_config::Config;
use adit_proxy::admin::{self, Reply, Request};
use adit_proxy::engine::Explanation;
use anyhow::{Context, bail};
use clap::Args;

use super::ConfigArgs;
use crate::{policy, process};

/// Which engine.
#[derive(Debug, Args)]
pub(crate) struct AskArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The engine's admin socket [default: the one its configuration names]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// Show what a host name leads to, and the filters its visitors pass
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// Host name or URL
    host: String,
    #[command(flatten)]
    engine: AskArgs,
}

impl AskArgs {
    /// The configuration it names.
    pub(crate) fn config(&self) -> anyhow::Result<Config> {
        self.config.load()
    }

    /// Asks the engine.
    pub(crate) fn ask(&self, request: &Request) -> anyhow::Result<Reply> {
        let socket = match &self.socket {
            Some(socket) => socket.clone(),
            None => self.config.load()?.admin.socket.with_context(|| {
                let config = self.config.config.display();
                format!("{config} names no `admin.socket`, set one and restart the engine")
            })?,
        };
        process::block_on(async {
            admin::ask(&socket, request).await.with_context(|| {
                format!(
                    "no engine answers at `{}`, is it running?",
                    socket.display()
                )
            })
        })
    }
}

pub(super) fn explain(args: &ExplainArgs) -> anyhow::Result<()> {
    let host = args.host.clone();
    match args.engine.ask(&Request::Explain { host })? {
        Reply::Explained(explanation) => say(&args.host, explanation),
        other => unexpected(&other),
    }
}

fn say(host: &str, explanation: Explanation) -> anyhow::Result<()> {
    match explanation {
        Explanation::Engine => println!("{host} is the engine itself: agents and its API"),
        Explanation::Offline => bail!("{host} was a tunnel lately, its agent is away"),
        Explanation::Unknown => bail!("{host} is nobody's name: no tunnel has it"),
        Explanation::Tunnel {
            id,
            name,
            project,
            client_id,
            chain,
            switched,
        } => {
            let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
            println!(
                "{host} is tunnel {id}{name} of project {project}, served by agent {client_id}\n"
            );
            match chain {
                Some(chain) => print!("{chain}"),
                None => println!("no visitors reach it: it is private"),
            }
            print!("{}", policy::off_and_switched(&switched));
        }
    }
    Ok(())
}

pub(super) fn status(args: &AskArgs) -> anyhow::Result<()> {
    let Reply::Status(status) = &args.ask(&Request::Status)? else {
        bail!("the engine answered something else");
    };
    let uptime = humantime::format_duration(Duration::from_secs(status.uptime_seconds));
    let state = if status.draining {
        "draining"
    } else {
        "serving"
    };
    println!(
        "{} {} on {}, {state}, up {uptime}",
        status.host, status.version, status.https
    );
    println!(
        "agents {}, tunnels {}, connections {}",
        status.agents, status.tunnels, status.connections
    );
    Ok(())
}

pub(super) fn reload(args: &AskArgs) -> anyhow::Result<()> {
    match args.ask(&Request::Reload)? {
        Reply::Reloaded => println!("the new configuration is in effect"),
        Reply::Refused { reasons } => {
            for reason in reasons {
                eprintln!("{reason}");
            }
            bail!("nothing has changed");
        }
        other => return unexpected(&other),
    }
    Ok(())
}

pub(super) fn drain(args: &AskArgs) -> anyhow::Result<()> {
    match args.ask(&Request::Drain)? {
        Reply::Draining => println!("the engine drains, and ends"),
        other => return unexpected(&other),
    }
    Ok(())
}

pub(crate) fn unexpected(reply: &Reply) -> anyhow::Result<()> {
    match reply {
        Reply::Refused { reasons } => bail!("{}", reasons.join("; ")),
        Reply::Wrong { message } => bail!("the engine did not understand: {message}"),
        _ => bail!("the engine answered something else: are both of one version?"),
    }
}
