//! `adit`: publish private services through a self-hosted tunnel engine.

mod cli;
mod connection;
#[cfg(feature = "engine")]
mod dev;
#[cfg(feature = "engine")]
mod engine;
mod failure;
mod forward;
mod inventory;
mod lines;
mod logging;
mod nc;
#[cfg(feature = "engine")]
mod plugin;
#[cfg(feature = "engine")]
mod policy;
mod process;
mod terminal;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::cli::{Cli, Command};

/// Allocations of many threads and sizes are this program's steady state.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe is no reason to fail twice.
            let _ = error.print();
            return match error.kind() {
                ErrorKind::DisplayHelp
                | ErrorKind::DisplayVersion
                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => ExitCode::SUCCESS,
                _ => ExitCode::FAILURE,
            };
        }
    };
    logging::start(&cli.log);
    process::raise_descriptor_limit();
    process::use_small_pages();
    let code = match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            lines::complain(&format!("error: {}", failure::text(&error)));
            ExitCode::FAILURE
        }
    };
    lines::flush();
    code
}

/// Runs a command to its end. Each one brings the runtime it wants.
fn run(command: Command) -> anyhow::Result<ExitCode> {
    let done = match command {
        Command::Forward(args) => process::block_on(forward::run(args)),
        Command::Nc(args) => process::block_on(nc::run(args)),
        Command::Tunnel(args) => process::block_on(inventory::tunnels(args)),
        #[cfg(feature = "engine")]
        Command::Engine(args) => engine::run(args),
        #[cfg(feature = "engine")]
        Command::Policy(args) => return policy::run(args),
        #[cfg(feature = "engine")]
        Command::Plugin(args) => return plugin::run(args),
        #[cfg(feature = "engine")]
        Command::Dev(args) => process::block_on(dev::run(args)),
        Command::Client(args) => process::block_on(inventory::clients(args)),
    };
    done.map(|()| ExitCode::SUCCESS)
}
