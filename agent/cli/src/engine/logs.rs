//! The log of a running engine, whose level a reload can change.

use std::io::IsTerminal;

use adit_config::LogLevel;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt};

/// Changes the level.
#[derive(Clone)]
pub(super) struct Logs(Option<Handle<LevelFilter, Registry>>);

impl Logs {
    /// Starts logging to stderr, unless flags have started it already: then these decide.
    pub(super) fn start(level: LogLevel) -> Self {
        let (filter, handle) = reload::Layer::new(filter(level));
        let started = tracing_subscriber::registry()
            .with(filter)
            .with(
                fmt::layer()
                    .with_writer(crate::lines::log)
                    .with_ansi(std::io::stderr().is_terminal()),
            )
            .try_init();
        Self(started.is_ok().then_some(handle))
    }

    /// Logs at `level` from now on.
    pub(super) fn set(&self, level: LogLevel) {
        if let Some(handle) = &self.0 {
            // Fails only once the subscriber is gone, with the process.
            let _ = handle.reload(filter(level));
        }
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    }
}
