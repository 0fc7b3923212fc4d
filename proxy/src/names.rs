//! Host names below the engine's own.

use std::net::IpAddr;

use adit_protocol::hostname::is_label;

/// Octets of an allocated label: 40 bits, so that 10,000 live names collide once in 10⁸ draws.
pub const ALLOCATED_OCTETS: usize = 5;

/// The names one engine gives out: one label, then `.t.`, then the engine's host.
#[derive(Clone, Debug)]
pub struct Names {
    suffix: String,
}

/// What a request for a host name comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Exactly this name, below the engine's own.
    Name(String),
    /// Any name: none was asked for, or none that could be given.
    Any,
}

/// The request is not a host name at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`hostname` {0:?} is not a host name, use labels of 1 to 63 letters, digits and inner hyphens"
)]
pub struct InvalidHostname(String);

impl Names {
    /// The names below `engine_host`, which is in lower case and without a final dot.
    #[must_use]
    pub fn new(engine_host: &str) -> Self {
        Self {
            suffix: format!(".t.{engine_host}"),
        }
    }

    /// The name an agent gets for the one it asks for.
    ///
    /// A single label and a name below `.t.<engine host>` are taken as they are. Everything else is
    /// a name this engine cannot own, among them the one agents derive from the engine host on
    /// their own (`<slug>-<first label>.t.<rest>`): its first label is then given below
    /// `.t.<engine host>`, so that the same request leads to the same address after a reconnect.
    /// Clients show the name that is returned, not the one they asked for.
    ///
    /// # Errors
    ///
    /// [`InvalidHostname`] for what is no host name, and for more than one label below the
    /// engine's own names, which no wildcard certificate covers.
    pub fn place(&self, asked: &str) -> Result<Wanted, InvalidHostname> {
        let invalid = || InvalidHostname(asked.to_owned());
        let name = asked.trim().to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        if name.is_empty() {
            return Ok(Wanted::Any);
        }
        if name.parse::<IpAddr>().is_ok() {
            return Ok(Wanted::Any);
        }
        if name.len() > NAME_MAX || !name.split('.').all(is_label) {
            return Err(invalid());
        }
        let label = match name.strip_suffix(&self.suffix) {
            Some(label) if label.contains('.') => return Err(invalid()),
            Some(label) => label,
            None => name.split('.').next().unwrap_or(name),
        };
        let placed = self.join(label);
        if placed.len() > NAME_MAX {
            return Err(invalid());
        }
        Ok(Wanted::Name(placed))
    }

    /// A name nobody asked for.
    #[must_use]
    pub fn allocate(&self, random: [u8; ALLOCATED_OCTETS]) -> String {
        self.join(&hex::encode(random))
    }

    fn join(&self, label: &str) -> String {
        format!("{label}{}", self.suffix)
    }
}

/// Longest host name, in bytes (RFC 1035 §2.3.4, without the root).
const NAME_MAX: usize = 253;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn requests_are_placed_below_the_engine() {
        let names = Names::new("engine.example.com");
        let ours = |label: &str| Ok(Wanted::Name(format!("{label}.t.engine.example.com")));
        for (asked, expected) in [
            ("shop", ours("shop")),
            ("Shop.", ours("shop")),
            ("shop.t.engine.example.com", ours("shop")),
            ("SHOP.T.engine.example.com.", ours("shop")),
            // What agents derive from the engine host: agent-protocol §10.2
            ("r1a2b3c4d-engine.t.example.com", ours("r1a2b3c4d-engine")),
            // agent-protocol §19 #14 and #15
            ("shop.elsewhere.org", ours("shop")),
            ("r5abdd637-127.t.0.0.1", ours("r5abdd637-127")),
            ("engine.example.com", ours("engine")),
            ("192.0.2.1", Ok(Wanted::Any)),
            ("2001:db8::1", Ok(Wanted::Any)),
            ("", Ok(Wanted::Any)),
            (" ", Ok(Wanted::Any)),
        ] {
            assert_eq!(names.place(asked), expected, "{asked}");
        }
    }

    #[test]
    fn what_is_no_host_name_is_refused() {
        let names = Names::new("engine.example.com");
        let long = format!("{}.org", "a".repeat(64));
        for asked in [
            "a b",
            "-a",
            "a-",
            "a..b",
            "*.t.engine.example.com",
            "a.b.t.engine.example.com",
            "a_b",
            "ä",
            "a:443",
            "https://a",
            ".t.engine.example.com",
            long.as_str(),
        ] {
            assert!(names.place(asked).is_err(), "{asked}");
        }
        let deep = Names::new(&["abcdefgh"; 27].join("."));
        assert!(deep.place("shop").is_ok());
        assert!(deep.place("shopping-cart").is_err(), "above 253 bytes");
    }

    #[test]
    fn allocated_names_are_labels_of_ours() {
        let names = Names::new("engine.example.com");
        let name = names.allocate([0, 1, 2, 0xfe, 0xff]);
        assert_eq!(name, "000102feff.t.engine.example.com");
        assert_eq!(names.place(&name), Ok(Wanted::Name(name)));
    }
}
