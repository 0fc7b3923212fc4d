//! `adit plugin`: filters of one's own, from an empty folder to a component that an engine loads.

mod build;
mod check;
mod dev;
mod language;
mod new;
mod test;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Write filters of your own: begin, build, check and try them
#[derive(Debug, Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  adit plugin new only-browsers                a folder with a filter, and cases to try it with
  adit plugin build only-browsers              only-browsers/only-browsers.wasm
  adit plugin check only-browsers.wasm         whether an engine can load it, and what it wants
  adit plugin test only-browsers.wasm          the cases of cases.toml, on the engine's own host
  adit plugin dev only-browsers                build and try it whenever something changes

An engine loads it by `[plugin.only-browsers]` in its configuration, with `component = \"FILE\"`;
filters are then written `{ use = \"only-browsers\", … }`, as the built-in ones are."
)]
pub(crate) struct PluginArgs {
    #[command(subcommand)]
    command: PluginCommand,
}

#[derive(Debug, Subcommand)]
enum PluginCommand {
    New(new::NewArgs),
    Build(build::BuildArgs),
    Check(check::CheckArgs),
    Test(test::TestArgs),
    Dev(dev::DevArgs),
}

/// Runs the command.
pub(crate) fn run(args: PluginArgs) -> anyhow::Result<ExitCode> {
    match args.command {
        PluginCommand::New(args) => new::new(&args).map(|()| ExitCode::SUCCESS),
        PluginCommand::Build(args) => build::build(&args).map(|component| match component {
            Some(_) => ExitCode::SUCCESS,
            None => ExitCode::FAILURE,
        }),
        PluginCommand::Check(args) => check::check(&args),
        PluginCommand::Test(args) => test::test(&args),
        PluginCommand::Dev(args) => dev::dev(args),
    }
}

/// A number with its thousands apart: `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (20_000_000, "20,000,000"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
