//! What a token lets its bearer do.

use std::fmt;
use std::str::FromStr;

macro_rules! permissions {
    ($($(#[$doc:meta])* $variant:ident = $text:literal $(| $older:literal)?,)*) => {
        /// One thing a bearer may do at the engine. Permissions of the control plane are not ours to judge and are
        /// not listed.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum Permission { $($(#[$doc])* $variant,)* }

        impl Permission {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The permission as tokens write it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl FromStr for Permission {
            type Err = UnknownPermission;
            fn from_str(text: &str) -> Result<Self, UnknownPermission> {
                match text {
                    $($text $(| $older)? => Ok(Self::$variant),)*
                    _ => Err(UnknownPermission),
                }
            }
        }
    };
}
permissions! {
    /// List and watch clients and tunnels.
    ReadResources = "tunnels.resources.read-only",
    /// Open a control channel, create and close tunnels.
    CreateTunnels = "tunnels.tunnels.create-delete",
    /// Connect to tunnels.
    CreateStreams = "tunnels.streams.create-delete",
    /// See terminal sessions.
    ReadWebttySessions = "webtty.sessions.read-only",
    /// Take part in terminal sessions.
    WriteWebttySessions = "webtty.sessions.read-write",
    /// Read the logs of terminal sessions.
    ReadWebttyLogs = "webtty.logs.read-only",
    /// Obtain TURN credentials.
    CreateTurnCredentials = "turn.credentials.create" | "network.turn-server-credentials.create",
    /// Allocate a relay.
    AllocateTurnRelay = "turn.relay.allocate",
}

impl Permission {
    fn bit(self) -> u16 {
        1 << (self as u16)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Not a permission of the engine.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a permission of the engine")]
pub struct UnknownPermission;

/// A set of permissions.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Permissions(u16);

impl Permissions {
    /// Whether it has this one.
    #[must_use]
    pub fn contains(self, permission: Permission) -> bool {
        self.0 & permission.bit() != 0
    }

    /// Those that are in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(
            permissions
                .into_iter()
                .fold(0, |set, permission| set | permission.bit()),
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_permission_reads_back_and_stands_alone() {
        for permission in Permission::ALL {
            assert_eq!(permission.as_str().parse(), Ok(*permission));
            let only: Permissions = [*permission].into_iter().collect();
            let held = Permission::ALL
                .iter()
                .filter(|other| only.contains(**other))
                .count();
            assert_eq!(held, 1, "{permission}");
        }
        assert_eq!(
            "network.turn-server-credentials.create".parse(),
            Ok(Permission::CreateTurnCredentials)
        );
        assert_eq!(
            "account.tokens.create".parse::<Permission>(),
            Err(UnknownPermission)
        );
    }
}
