//! Where in a chain a filter stands.

use std::fmt;
use std::str::FromStr;

/// The order of the variants is the order of the chain; within a stage, filters stand as written, the project's
/// before the tunnel's.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Stage {
    /// Who may reach the socket at all: addresses, countries.
    Network,
    /// What the handshake must look like: versions, ciphers, client certificates.
    Tls,
    /// Reverse or egress use of the connection.
    Mode,
    /// Paths the edge answers itself.
    Local,
    /// Which proofs the request carries, and whether they contradict each other.
    Credentials,
    /// Who the visitor is.
    Identity,
    /// What that visitor may do here. Filters that say nothing stand here.
    #[default]
    Policy,
    /// Leaving HTTP for another protocol.
    Upgrade,
    /// Rates and shares.
    Capacity,
    /// Writing down what happened.
    Log,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Self; 10] = [
        Self::Network,
        Self::Tls,
        Self::Mode,
        Self::Local,
        Self::Credentials,
        Self::Identity,
        Self::Policy,
        Self::Upgrade,
        Self::Capacity,
        Self::Log,
    ];

    /// The stage as logs and `explain` print it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Tls => "tls",
            Self::Mode => "mode",
            Self::Local => "local",
            Self::Credentials => "credentials",
            Self::Identity => "identity",
            Self::Policy => "policy",
            Self::Upgrade => "upgrade",
            Self::Capacity => "capacity",
            Self::Log => "log",
        }
    }
}

/// What is no stage.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a stage, use one of {known}", known = listed())]
pub struct UnknownStage(String);

fn listed() -> String {
    let names = Stage::ALL.map(|stage| format!("`{stage}`"));
    names.join(", ")
}

impl FromStr for Stage {
    type Err = UnknownStage;

    fn from_str(text: &str) -> Result<Self, UnknownStage> {
        let mut all = Self::ALL.into_iter();
        all.find(|stage| stage.as_str() == text)
            .ok_or_else(|| UnknownStage(text.to_owned()))
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
