//! Endpoints: TCP addresses and private tunnels.

use std::io;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};

use adit_agent::{EngineAddress, Stream};
use adit_transport::{Abort, Guarded, dial};
use anyhow::bail;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::connection::ConnectionArgs;
use crate::forward::Local;

/// Scheme of private tunnels.
const SCHEME: &str = "rstrm://";

/// One end of a connection, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// A private tunnel without a name: one is made up.
    AnyTunnel,
    /// TCP.
    Tcp(EngineAddress),
    /// A private tunnel, by name or id.
    Tunnel(String),
}

impl FromStr for Endpoint {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if let Some(name) = text.strip_prefix(SCHEME) {
            // `rstrm:///name` has an empty host.
            let name = name.strip_prefix('/').unwrap_or(name);
            if name.is_empty() {
                return Ok(Self::AnyTunnel);
            }
            if name.contains(['/', '@', '?', '#']) || name.contains(char::is_whitespace) {
                bail!("`{text}` must be rstrm:// and a name or id, nothing more");
            }
            return Ok(Self::Tunnel(name.to_owned()));
        }
        if text.starts_with("udp://") {
            bail!("`{text}`: packets are not served, only byte streams");
        }
        if text.contains("://") {
            bail!("`{text}` must be host:port or rstrm://name");
        }
        if !text.contains(':') {
            bail!("`{text}` has no port, give host:port");
        }
        Ok(Self::Tcp(Local::parse(Some(text))?.address().clone()))
    }
}

/// Where connections come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum On {
    /// TCP, by host and port; port 0 is any that is free.
    Tcp(String, u16),
    /// A private tunnel of this name, or of one made up.
    Tunnel(Option<String>),
}

impl FromStr for On {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        // Nobody can connect to port 0, but anybody can listen on it.
        let any_port = text.strip_suffix(":0").map(|host| format!("{host}:1"));
        Ok(match any_port.as_deref().unwrap_or(text).parse()? {
            Endpoint::AnyTunnel => Self::Tunnel(None),
            Endpoint::Tunnel(name) => Self::Tunnel(Some(name)),
            Endpoint::Tcp(address) => {
                let port = if any_port.is_some() {
                    0
                } else {
                    address.port()
                };
                Self::Tcp(address.host(), port)
            }
        })
    }
}

/// Connects to endpoints.
pub(super) struct Dialer {
    tunnels: Option<adit_agent::Dialer>,
}

impl Dialer {
    /// What connects to `to`. Only tunnels need an engine.
    pub(super) fn new(to: &Endpoint, connection: &ConnectionArgs) -> anyhow::Result<Self> {
        let tunnels = match to {
            Endpoint::Tcp(_) => None,
            Endpoint::AnyTunnel | Endpoint::Tunnel(_) => {
                Some(connection.resolve()?.client().dialer()?)
            }
        };
        Ok(Self { tunnels })
    }

    pub(super) async fn dial(&self, to: &Endpoint) -> anyhow::Result<Connection> {
        match (to, &self.tunnels) {
            (Endpoint::Tcp(address), _) => {
                let limit = crate::forward::LOCAL_CONNECT_TIMEOUT;
                match tokio::time::timeout(limit, dial::connect(address)).await {
                    Ok(Ok(stream)) => Ok(Connection::Tcp(Guarded::new(stream))),
                    Ok(Err(error)) => bail!("cannot connect to {address}: {error}"),
                    Err(_) => bail!("{address} did not answer within {limit:?}"),
                }
            }
            (Endpoint::Tunnel(name), Some(tunnels)) => {
                Ok(Connection::Tunnel(Box::new(tunnels.dial(name).await?)))
            }
            (Endpoint::Tunnel(_) | Endpoint::AnyTunnel, _) => bail!("there is no tunnel to dial"),
        }
    }
}

/// A connection to an endpoint; reset when it is dropped before its end.
#[derive(Debug)]
pub(super) enum Connection {
    Tcp(Guarded<TcpStream>),
    Tunnel(Box<Stream>),
}

impl Abort for Connection {
    fn abort_on_drop(&self) {
        match self {
            Self::Tcp(stream) => stream.abort_on_drop(),
            Self::Tunnel(stream) => stream.abort_on_drop(),
        }
    }

    fn broken(&self) -> Option<io::Error> {
        match self {
            Self::Tcp(stream) => stream.broken(),
            Self::Tunnel(stream) => stream.broken(),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tunnel(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tunnel(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tunnel(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tunnel(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn one_listens_on_any_port_but_connects_to_none() {
        let on = |text: &str| text.parse::<On>().ok();
        assert_eq!(on("127.0.0.1:0"), Some(On::Tcp("127.0.0.1".to_owned(), 0)));
        assert_eq!(on("[::1]:22"), Some(On::Tcp("::1".to_owned(), 22)));
        assert_eq!(on("rstrm://a"), Some(On::Tunnel(Some("a".to_owned()))));
        assert_eq!(on("rstrm://"), Some(On::Tunnel(None)));
        assert_eq!(on("udp://a:0"), None);
        assert!("127.0.0.1:0".parse::<Endpoint>().is_err());
    }

    #[test]
    fn endpoints_are_tcp_addresses_or_tunnels() {
        for (text, expected) in [
            ("rstrm://home", Endpoint::Tunnel("home".to_owned())),
            ("rstrm:///home", Endpoint::Tunnel("home".to_owned())),
            ("rstrm://", Endpoint::AnyTunnel),
            ("a.b:22", Endpoint::Tcp("a.b:22".parse().unwrap())),
            ("[::1]:22", Endpoint::Tcp("[::1]:22".parse().unwrap())),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap(), expected, "{text}");
        }
        for text in [
            "rstrm://me@home",
            "rstrm://home/x",
            "rstrm://home?x",
            "rstrm://home#x",
            "http://home",
            "udp://home:1",
            "home",
            "home:port",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }
}
