//! The command line: what there is and what it is called.

use clap::{Parser, Subcommand};

use crate::forward::ForwardArgs;
use crate::inventory::{ClientArgs, TunnelArgs};
use crate::logging::LogArgs;
use crate::nc::NcArgs;

/// Publish private services through a self-hosted tunnel engine.
#[derive(Debug, Parser)]
#[command(
    name = "adit",
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  adit forward 3000                         publish the web service on port 3000
  adit forward 22 --bytestream --no-publish --name home
                                            let SSH in, by name and for token holders alone
  ssh -o ProxyCommand='adit nc rstrm://%h' me@home
  adit tunnel list

Where the engine is and which token opens it: see `adit forward --help`, \"Engine\"."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Commands that need the engine hang on cargo feature `engine`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Forward(ForwardArgs),
    #[command(visible_aliases = ["netcat", "ncat"])]
    Nc(NcArgs),
    Tunnel(TunnelArgs),
    Client(ClientArgs),
    #[cfg(feature = "engine")]
    Dev(crate::dev::DevArgs),
    #[cfg(feature = "engine")]
    Engine(crate::engine::EngineArgs),
    #[cfg(feature = "engine")]
    Policy(crate::policy::PolicyArgs),
    #[cfg(feature = "engine")]
    Plugin(crate::plugin::PluginArgs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
