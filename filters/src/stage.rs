//! Where in a chain a filter stands.

use std::fmt;

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

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
