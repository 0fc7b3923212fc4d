//! PROXY protocol, versions 1 and 2, from configured front proxies.
//!
//! See <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use adit_config::Front;
use arc_swap::ArcSwap;
use bytes::{Buf, BytesMut};
use ppp::{HeaderResult, PartialResult, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::edge::Fronts;

/// Longest header taken, in bytes: 16 and two addresses, with room for what proxies add to them.
const HEADER_BYTES_MAX: usize = 4096;

/// The proxies in front of this engine.
#[derive(Debug)]
pub(crate) struct FrontProxies {
    front: ArcSwap<Front>,
}

impl FrontProxies {
    pub(crate) fn new(front: Front) -> Self {
        Self {
            front: ArcSwap::from_pointee(front),
        }
    }

    /// Replaces the configured proxies; connections already open keep what was decided for them.
    pub(crate) fn set(&self, front: Front) {
        self.front.store(Arc::new(front));
    }

    /// Whether a connection from `peer` must begin with a header.
    pub(crate) fn announces(&self, peer: IpAddr) -> bool {
        self.front.load().proxy_protocol && self.trusts(peer)
    }
}

impl Fronts for FrontProxies {
    fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let front = self.front.load();
        front.trusted.iter().any(|range| range.contains(&address))
    }
}

/// Why a front proxy's connection is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoHeader {
    #[error("the connection ended before its PROXY header did")]
    Ended,
    #[error(
        "the connection did not begin with a PROXY header, which `front.proxy-protocol` asks for"
    )]
    Malformed,
    #[error("reading the PROXY header failed: {0}")]
    Read(#[from] io::Error),
    #[error("the PROXY header is longer than {HEADER_BYTES_MAX} bytes")]
    TooLong,
}

/// Reads the header from `io`. Returns the client's address, `None` where the proxy speaks for
/// itself (health checks), and what was read beyond the header.
pub(crate) async fn read<Io>(io: &mut Io) -> Result<(Option<SocketAddr>, BytesMut), NoHeader>
where
    Io: AsyncRead + Unpin,
{
    let mut buffer = BytesMut::with_capacity(512);
    loop {
        if let Some((source, length)) = parse(&buffer)? {
            buffer.advance(length);
            return Ok((source, buffer));
        }
        if buffer.len() >= HEADER_BYTES_MAX {
            return Err(NoHeader::TooLong);
        }
        let room = HEADER_BYTES_MAX - buffer.len();
        if (&mut *io).take(room as u64).read_buf(&mut buffer).await? == 0 {
            return Err(NoHeader::Ended);
        }
    }
}

/// The source and length of a whole header; `None` while it is not whole.
fn parse(bytes: &[u8]) -> Result<Option<(Option<SocketAddr>, usize)>, NoHeader> {
    let header = HeaderResult::parse(bytes);
    if header.is_incomplete() {
        // The text version promises nothing for its first five bytes to be other than these.
        let v1_prefix = v1::PROTOCOL_PREFIX.as_bytes();
        let begins = v1_prefix.starts_with(bytes) || bytes.starts_with(v1_prefix);
        let binary =
            v2::PROTOCOL_PREFIX.starts_with(bytes) || bytes.starts_with(v2::PROTOCOL_PREFIX);
        return if begins || binary {
            Ok(None)
        } else {
            Err(NoHeader::Malformed)
        };
    }
    match header {
        HeaderResult::V1(Ok(header)) => {
            let source = match header.addresses {
                v1::Addresses::Tcp4(tcp) => Some((tcp.source_address.into(), tcp.source_port)),
                v1::Addresses::Tcp6(tcp) => Some((tcp.source_address.into(), tcp.source_port)),
                v1::Addresses::Unknown => None,
            };
            Ok(Some((source.map(canonical), header.header.len())))
        }
        HeaderResult::V2(Ok(header)) => {
            let source = match (header.command, header.addresses) {
                (v2::Command::Proxy, v2::Addresses::IPv4(ip)) => {
                    Some((ip.source_address.into(), ip.source_port))
                }
                (v2::Command::Proxy, v2::Addresses::IPv6(ip)) => {
                    Some((ip.source_address.into(), ip.source_port))
                }
                _ => None,
            };
            Ok(Some((source.map(canonical), header.header.len())))
        }
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err(NoHeader::Malformed),
    }
}

fn canonical((address, port): (IpAddr, u16)) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use tokio::io::AsyncWriteExt;

    use super::*;

    const V2_TCP4: &[u8] =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\xc0\0\x02\x01\x12\x34\x01\xbb";
    const V2_LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

    async fn header(bytes: &[u8]) -> Result<(Option<SocketAddr>, BytesMut), NoHeader> {
        let (mut peer, mut io) = tokio::io::duplex(1 << 16);
        peer.write_all(bytes).await.unwrap();
        drop(peer);
        read(&mut io).await
    }

    #[tokio::test]
    async fn both_versions_name_the_client_and_leave_the_rest() {
        for (bytes, source) in [
            (
                &b"PROXY TCP4 203.0.113.7 192.0.2.1 4660 443\r\n"[..],
                Some("203.0.113.7:4660"),
            ),
            (
                b"PROXY TCP6 ::ffff:203.0.113.7 ::1 1 443\r\n",
                Some("203.0.113.7:1"),
            ),
            (b"PROXY UNKNOWN\r\n", None),
            (V2_TCP4, Some("203.0.113.7:4660")),
            (V2_LOCAL, None),
        ] {
            let sent = [bytes, b"\x16\x03\x01"].concat();
            let (found, rest) = header(&sent).await.unwrap();
            assert_eq!(found, source.map(|address| address.parse().unwrap()));
            assert_eq!(&rest[..], b"\x16\x03\x01");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        for bytes in [
            &b"\x16\x03\x01"[..],
            b"GET / HTTP/1.1\r\n",
            b"PROXY TCP9 a b c d\r\n",
        ] {
            assert!(
                matches!(header(bytes).await, Err(NoHeader::Malformed)),
                "{bytes:?}"
            );
        }
        for bytes in [&b""[..], b"PRO", b"PROXY TCP4 203.0.113.7", &V2_TCP4[..20]] {
            assert!(
                matches!(header(bytes).await, Err(NoHeader::Ended)),
                "{bytes:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_header_over_the_limit_is_not_read_further() {
        let mut long = V2_LOCAL[..14].to_vec();
        long.extend([0xff, 0xff]);
        long.extend([0; 70_000]);
        let (mut peer, mut io) = tokio::io::duplex(1 << 17);
        peer.write_all(&long).await.unwrap();
        assert!(matches!(read(&mut io).await, Err(NoHeader::TooLong)));
    }

    #[test]
    fn only_configured_proxies_are_believed() {
        let mut front = Front {
            trusted: vec!["10.0.0.0/8".parse().unwrap()],
            proxy_protocol: true,
        };
        let proxies = FrontProxies::new(front.clone());
        assert!(proxies.announces("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!proxies.announces("192.0.2.1".parse().unwrap()));
        front.proxy_protocol = false;
        let proxies = FrontProxies::new(front);
        assert!(!proxies.announces("10.1.2.3".parse().unwrap()));
        assert!(proxies.trusts("10.1.2.3".parse().unwrap()));
    }
}
