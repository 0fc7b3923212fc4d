//! TCP connections outwards.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::EngineAddress;

/// Head start of each address of a name before the next one is tried beside it (RFC 8305,
/// section 8, "Connection Attempt Delay").
pub const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried at all.
pub const ADDRESSES_MAX: usize = 8;

/// Silence after which the kernel asks whether the peer is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(30);
/// Pause between two such questions.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
/// Unanswered questions after which the connection is lost: 30 + 3 × 10 = 60 s of silence.
const KEEPALIVE_RETRIES: u32 = 3;

/// Connects to `host:port`: the addresses of the name in the resolver's order, each with a head
/// start of [`ATTEMPT_DELAY`]; the first connection made is returned. The caller bounds the time.
///
/// # Errors
///
/// The failure of the last address, or of the name lookup.
pub async fn connect(address: &EngineAddress) -> io::Result<TcpStream> {
    let addresses = resolve(address).await?;
    let mut waiting = addresses.into_iter().take(ADDRESSES_MAX);
    let mut attempts = JoinSet::new();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    match waiting.next() {
        Some(first) => attempts.spawn(connect_to(first)),
        None => return Err(failure),
    };
    loop {
        // An attempt that fails starts the next one at once, a slow one after its head start.
        match tokio::time::timeout(ATTEMPT_DELAY, attempts.join_next()).await {
            Ok(Some(Ok(Ok(stream)))) => return Ok(stream),
            Ok(Some(Ok(Err(error)))) => failure = error,
            Ok(Some(Err(_))) | Err(_) => {}
            Ok(None) => return Err(failure),
        }
        if let Some(next) = waiting.next() {
            attempts.spawn(connect_to(next));
        }
    }
}

/// Connects to one address and sets the options every connection of ours has.
///
/// # Errors
///
/// Whatever the operating system says.
pub async fn connect_to(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    tune(&stream)?;
    Ok(stream)
}

/// Sends small writes at once and finds a peer that vanished: `TCP_NODELAY`, and keep-alive that
/// gives up after a minute of silence.
///
/// # Errors
///
/// Whatever the operating system says.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY)
        .with_retries(KEEPALIVE_RETRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

async fn resolve(address: &EngineAddress) -> io::Result<Vec<SocketAddr>> {
    let port = address.port();
    if let Some(ip) = address.ip() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    if address.is_localhost() {
        let here = [
            IpAddr::from(Ipv4Addr::LOCALHOST),
            IpAddr::from(Ipv6Addr::LOCALHOST),
        ];
        return Ok(here.map(|ip| SocketAddr::new(ip, port)).to_vec());
    }
    let found = tokio::net::lookup_host((address.host(), port)).await?;
    Ok(found.collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn names_below_localhost_need_no_resolver() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = format!("deep.adit.localhost:{port}").parse().unwrap();
        let stream = connect(&address).await.unwrap();
        assert!(stream.nodelay().unwrap());
        assert!(SockRef::from(&stream).keepalive().unwrap());
        assert_eq!(
            listener.accept().await.unwrap().1,
            stream.local_addr().unwrap()
        );
    }

    #[tokio::test]
    async fn a_refusal_is_reported_when_every_address_has_failed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let address = format!("localhost:{port}").parse().unwrap();
        let error = connect(&address).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn the_second_address_of_a_name_is_tried_when_the_first_refuses() {
        // Only the IPv6 loopback listens; machines without one have nothing to show here.
        let Ok(listener) = TcpListener::bind("[::1]:0").await else {
            return;
        };
        let port = listener.local_addr().unwrap().port();
        let address = format!("localhost:{port}").parse().unwrap();
        let stream = connect(&address).await.unwrap();
        assert!(stream.peer_addr().unwrap().is_ipv6());
    }
}
