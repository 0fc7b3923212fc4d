//! The address of an engine, `host[:port]`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use rustls_pki_types::ServerName;

/// Longest DNS name, in bytes (RFC 1035, section 2.3.4).
const HOST_LEN_MAX: usize = 253;

/// Where an engine is reached: a DNS name or an IP address, and a port (443 if none was given).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EngineAddress {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Host {
    /// Lower case, without a final dot.
    Name(String),
    Ip(IpAddr),
}

impl EngineAddress {
    /// The host as text: a name in lower case, or an IP address without brackets.
    #[must_use]
    pub fn host(&self) -> String {
        match &self.host {
            Host::Name(name) => name.clone(),
            Host::Ip(ip) => ip.to_string(),
        }
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The IP address, if the host is one.
    #[must_use]
    pub const fn ip(&self) -> Option<IpAddr> {
        match self.host {
            Host::Ip(ip) => Some(ip),
            Host::Name(_) => None,
        }
    }

    /// The name the engine's certificate must carry; sent as SNI unless it is an IP address.
    ///
    /// # Errors
    ///
    /// [`AddressError::Host`] if the host is not a name TLS can verify.
    pub fn server_name(&self) -> Result<ServerName<'static>, AddressError> {
        match &self.host {
            Host::Ip(ip) => Ok(ServerName::from(*ip)),
            Host::Name(name) => {
                ServerName::try_from(name.clone()).map_err(|_| AddressError::Host(name.clone()))
            }
        }
    }

    /// Whether the host is `localhost` or a name below it. Such names mean this machine
    /// (RFC 6761, section 6.3), whatever the resolver thinks of them.
    #[must_use]
    pub fn is_localhost(&self) -> bool {
        match &self.host {
            Host::Name(name) => name == "localhost" || name.ends_with(".localhost"),
            Host::Ip(_) => false,
        }
    }
}

impl FromStr for EngineAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.contains(['/', '@', '?', '#']) {
            return Err(AddressError::NotHostPort(text.to_owned()));
        }
        let (host, port) = split(text)?;
        let port = match port {
            None => adit_protocol::DEFAULT_PORT,
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| AddressError::Port(port.to_owned()))?,
        };
        Ok(Self { host, port })
    }
}

/// Cuts the port off, if there is one.
fn split(text: &str) -> Result<(Host, Option<&str>), AddressError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, rest) = rest
            .split_once(']')
            .ok_or_else(|| AddressError::Host(text.to_owned()))?;
        let ip: Ipv6Addr = ip.parse().map_err(|_| AddressError::Host(ip.to_owned()))?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(port),
            None if rest.is_empty() => None,
            None => return Err(AddressError::Host(text.to_owned())),
        };
        return Ok((Host::Ip(ip.into()), port));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok((Host::Ip(ip), None));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok((Host::Ip(ip), port));
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let valid = name.len() <= HOST_LEN_MAX
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        });
    if valid {
        Ok((Host::Name(name), port))
    } else {
        Err(AddressError::Host(host.to_owned()))
    }
}

impl fmt::Display for EngineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => f.write_str(name)?,
            Host::Ip(IpAddr::V4(ip)) => write!(f, "{ip}")?,
            Host::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]")?,
        }
        if self.port != adit_protocol::DEFAULT_PORT {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

/// The text is not the address of an engine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Nothing was given.
    #[error("the engine address is empty, give `host` or `host:port`")]
    Empty,
    /// A URL or something else with more than a host and a port.
    #[error("engine address `{0}` must be `host` or `host:port`, without scheme, user or path")]
    NotHostPort(String),
    /// The host is neither a DNS name nor an IP address.
    #[error("`{0}` is neither a host name nor an IP address")]
    Host(String),
    /// The port is not a number from 1 to 65535.
    #[error("port `{0}` must be a number from 1 to 65535")]
    Port(String),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, host, port) in [
            ("edge.example.com", "edge.example.com", 443),
            (" Edge.Example.com.:8443 ", "edge.example.com", 8443),
            ("192.0.2.1:1", "192.0.2.1", 1),
            ("192.0.2.1", "192.0.2.1", 443),
            ("2001:db8::1", "2001:db8::1", 443),
            ("[2001:db8::1]", "2001:db8::1", 443),
            ("[2001:db8::1]:65535", "2001:db8::1", 65535),
        ] {
            let address: EngineAddress = text.parse().unwrap();
            assert_eq!((address.host().as_str(), address.port()), (host, port));
            assert_eq!(address.to_string().parse(), Ok(address), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_with_the_part_that_is_wrong() {
        for (text, expected) in [
            ("", AddressError::Empty),
            (
                "https://a.b",
                AddressError::NotHostPort("https://a.b".into()),
            ),
            ("a.b/api", AddressError::NotHostPort("a.b/api".into())),
            ("me@a.b", AddressError::NotHostPort("me@a.b".into())),
            ("a.b:0", AddressError::Port("0".into())),
            ("a.b:65536", AddressError::Port("65536".into())),
            ("a.b:", AddressError::Port(String::new())),
            ("a..b", AddressError::Host("a..b".into())),
            (":443", AddressError::Host(String::new())),
            ("[::1", AddressError::Host("[::1".into())),
            ("[::1]x", AddressError::Host("[::1]x".into())),
            ("a b", AddressError::Host("a b".into())),
        ] {
            assert_eq!(text.parse::<EngineAddress>(), Err(expected), "{text}");
        }
    }

    #[test]
    fn names_below_localhost_are_this_machine() {
        for (text, expected) in [
            ("localhost:1", true),
            ("adit.LOCALHOST", true),
            ("notlocalhost", false),
            ("127.0.0.1", false),
        ] {
            let address: EngineAddress = text.parse().unwrap();
            assert_eq!(address.is_localhost(), expected, "{text}");
        }
    }
}
