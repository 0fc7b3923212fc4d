//! Logs, on stderr and only when asked for.

use clap::{Args, ValueEnum};
use tracing_subscriber::filter::LevelFilter;

/// Flags every command takes.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Write logs to stderr.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,

    /// What to log with --verbose.
    #[arg(
        short,
        long,
        global = true,
        value_name = "LEVEL",
        default_value = "info"
    )]
    pub(crate) log_level: Level,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
    None,
}

/// Starts logging, if asked to.
pub(crate) fn start(args: &LogArgs) {
    let level = match (args.verbose, args.log_level) {
        (false, _) => LevelFilter::OFF,
        (true, Level::Debug) => LevelFilter::DEBUG,
        (true, Level::Info) => LevelFilter::INFO,
        (true, Level::Warn) => LevelFilter::WARN,
        (true, Level::Error) => LevelFilter::ERROR,
        (true, Level::None) => LevelFilter::OFF,
    };
    if level == LevelFilter::OFF {
        return;
    }
    // Fails only if a logger is there already, which then does as well.
    let _ = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(crate::lines::log)
        .try_init();
}
