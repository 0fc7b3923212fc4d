//! `adit policy`: the operator's filters in a running engine: looked at, and switched.

mod show;
mod switch;
mod test;

use std::process::ExitCode;

use clap::{Args, Subcommand};

pub(crate) use show::off_and_switched;

/// Look at the filters of a running engine, try them, and switch them
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  adit policy ls                              every filter of every project, and whether it is on
  adit policy show default edge/geoip         one of them: the file's word, and who switched it when
  adit policy off default edge/geoip --reason \"customers abroad are locked out\"
                                              for new requests at once, and after a restart too;
                                              what is open is judged again within seconds
  adit policy on default edge/geoip           on, even where the file has it off
  adit policy reset default edge/geoip        as the file says again
  adit policy test --host app.t.edge.example.com --from 203.0.113.7
                                              what each filter would say to such a visitor

Only filters that the file marks `optional = true` can be switched. A filter is written POLICY/FILTER.
The engine is the one whose configuration --config names; its admin socket must be yours to open."
)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    #[command(visible_alias = "list")]
    Ls(show::ListArgs),
    Show(show::ShowArgs),
    Off(switch::OffArgs),
    On(switch::OnArgs),
    Reset(switch::ResetArgs),
    Test(test::TestArgs),
}

/// Runs the command.
pub(crate) fn run(args: PolicyArgs) -> anyhow::Result<ExitCode> {
    let done = match args.command {
        PolicyCommand::Ls(args) => show::list(&args),
        PolicyCommand::Show(args) => show::show(&args),
        PolicyCommand::Off(args) => switch::off(&args),
        PolicyCommand::On(args) => switch::on(&args),
        PolicyCommand::Reset(args) => switch::reset(&args),
        PolicyCommand::Test(args) => return test::test(&args),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Which filter.
#[derive(Debug, Args)]
struct FilterArgs {
    /// The project
    project: String,
    /// The filter, as POLICY/FILTER
    filter: String,
}
