//! Why an engine does not start, or keeps what it has.

use std::io;
use std::net::SocketAddr;

use adit_config::Problem;

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The admin socket cannot be opened.
    #[error(transparent)]
    Admin(crate::admin::BindError),
    /// A socket cannot be bound.
    #[error("`{key}`: cannot listen on {address}: {source}")]
    Bind {
        /// The setting.
        key: &'static str,
        /// Its value.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// What the configuration asks for cannot be built.
    #[error("the configuration cannot be used:\n{}", lines(.0))]
    Config(Vec<Problem>),
    /// Filters cannot be given their way out to the network.
    #[error("outbound HTTP cannot be set up: {0}")]
    Outbound(#[from] crate::env::OutboundError),
    /// What the engine keeps cannot be opened.
    #[error("`engine.state-dir`: {0}")]
    State(#[from] crate::store::StoreError),
    /// Two metrics have one name.
    #[error("the metrics cannot be set up: {0}")]
    Metrics(prometheus::Error),
}

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The configuration is wrong, or what it asks for cannot be built.
    #[error("the configuration cannot be used:\n{}", lines(.0))]
    Config(Vec<Problem>),
    /// These settings cannot change while the engine runs.
    #[error("{} changed, which takes a restart", listed(.0))]
    NeedsRestart(Vec<&'static str>),
    /// The engine was given its configuration in memory.
    #[error("this engine has no configuration file to read again")]
    NoSource,
}

impl ReloadError {
    /// One line for each reason.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Config(problems) => problems.iter().map(ToString::to_string).collect(),
            other => vec![other.to_string()],
        }
    }
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn listed(keys: &[&str]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    keys.join(", ")
}
