//! `adit engine`: run an engine, set one up, ask a running one.

mod account;
pub(crate) mod ask;
mod credential;
mod init;
mod logs;
mod serve;
mod token;

use std::path::{Path, PathBuf};

use adit_config::{Config, Invalid, Problem};
use adit_proxy::engine;
use clap::{Args, Subcommand};

/// Run an engine, set one up, or ask a running one.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  adit engine init --host edge.example.com    write engine.toml and a secret, say what to do next
  adit engine check                           name every problem of engine.toml
  adit engine                                 run it; SIGHUP reloads, SIGTERM drains
  adit engine token --subject laptop          a token for an agent
  adit engine account add ada                 an account for tunnels that ask users to sign in
  adit engine explain app.t.edge.example.com  the filters a tunnel's visitors pass
  adit policy off default edge/geoip          switch one of them off while it runs: see `adit policy`"
)]
pub(crate) struct EngineArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    command: Option<EngineCommand>,
}

#[derive(Debug, Subcommand)]
enum EngineCommand {
    Init(init::InitArgs),
    /// Name every problem of a configuration, and change nothing
    Check(ConfigArgs),
    Token(token::TokenArgs),
    Credential(credential::CredentialArgs),
    Account(account::AccountArgs),
    Explain(ask::ExplainArgs),
    /// Show how a running engine is
    Status(ask::AskArgs),
    /// Make a running engine read its configuration again
    Reload(ask::AskArgs),
    /// End a running engine, its exchanges first
    Drain(ask::AskArgs),
}

/// Which configuration.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ConfigArgs {
    /// The engine's configuration
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "engine.toml",
        env = "ADIT_ENGINE_CONFIG"
    )]
    config: PathBuf,
}

impl ConfigArgs {
    /// Reads it, the environment laid over it.
    fn load(&self) -> anyhow::Result<Config> {
        load(&self.config).map_err(|invalid| wrong(&self.config, &engine::every_problem(invalid)))
    }
}

fn load(path: &Path) -> Result<Config, Invalid> {
    // A variable that is not text cannot be one of ours.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Config::load(path, environment)
}

/// Every problem on a line of its own, and how many there are.
fn wrong(path: &Path, problems: &[Problem]) -> anyhow::Error {
    for problem in problems {
        eprintln!("{problem}");
    }
    let count = match problems.len() {
        1 => "one problem".to_owned(),
        count => format!("{count} problems"),
    };
    let hint = if path.exists() {
        ""
    } else {
        ": `adit engine init --host HOST` writes one"
    };
    anyhow::anyhow!("{count} with {}{hint}", path.display())
}

/// Runs the command.
pub(crate) fn run(args: EngineArgs) -> anyhow::Result<()> {
    match args.command {
        None => serve::run(&args.config),
        Some(EngineCommand::Init(args)) => init::run(&args),
        Some(EngineCommand::Check(args)) => check(&args),
        Some(EngineCommand::Token(args)) => token::run(&args),
        Some(EngineCommand::Credential(args)) => credential::run(&args),
        Some(EngineCommand::Account(args)) => account::run(&args),
        Some(EngineCommand::Explain(args)) => ask::explain(&args),
        Some(EngineCommand::Status(args)) => ask::status(&args),
        Some(EngineCommand::Reload(args)) => ask::reload(&args),
        Some(EngineCommand::Drain(args)) => ask::drain(&args),
    }
}

fn check(args: &ConfigArgs) -> anyhow::Result<()> {
    let config = args.load()?;
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    engine::check(&config).map_err(|problems| wrong(&args.config, &problems))?;
    println!("{}: no problems", args.config.display());
    Ok(())
}
