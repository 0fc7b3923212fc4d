//! Every message of revision 1.4.5, generated from `proto/rstrm.proto`.
//!
//! Unknown fields are skipped and unknown messages decode to an envelope without payload, so that
//! later revisions of a peer do no harm.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{Bytes, BytesMut};
use prost::Message as _;

use crate::frame::{self, FrameError};
use crate::secret::MASK;

pub use generated::*;

#[allow(
    clippy::use_self,
    unreachable_pub,
    reason = "generated code, seen through the re-export alone"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/rstrm.rs"));
}

/// The bytes of a frame are not an envelope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame body is not a message of this protocol")]
pub struct MalformedMessage(#[source] prost::DecodeError);

impl Message {
    /// An envelope around `payload`.
    pub fn new(payload: impl Into<message::Payload>) -> Self {
        Self {
            payload: Some(payload.into()),
        }
    }

    /// The message as one frame, length prefix included.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`] if the body exceeds [`frame::BODY_MAX`].
    pub fn to_frame(&self) -> Result<Bytes, FrameError> {
        let mut out = BytesMut::new();
        self.put_frame(&mut out)?;
        Ok(out.freeze())
    }

    /// Appends the message as one frame to `out`.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`] if the body exceeds [`frame::BODY_MAX`]; `out` is then as before.
    pub fn put_frame(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        let len = self.encoded_len();
        frame::put_header(len, out)?;
        out.reserve(len);
        self.encode_raw(out);
        Ok(())
    }

    /// Reads the body of a frame.
    ///
    /// # Errors
    ///
    /// [`MalformedMessage`] if it is not a protobuf envelope.
    pub fn from_frame(body: &[u8]) -> Result<Self, MalformedMessage> {
        Self::decode(body).map_err(MalformedMessage)
    }
}

macro_rules! payloads {
    ($($name:ident),* $(,)?) => {$(
        impl From<$name> for message::Payload {
            fn from(message: $name) -> Self {
                Self::$name(message)
            }
        }
        impl From<$name> for Message {
            fn from(message: $name) -> Self {
                Self::new(message)
            }
        }
    )*};
}

payloads!(
    OpenControlChannelReq,
    OpenControlChannelRsp,
    CloseControlChannelReq,
    CloseControlChannelRsp,
    OpenTunnelReq,
    OpenTunnelRsp,
    CloseTunnelReq,
    CloseTunnelRsp,
    ProxyConnReq,
    ProxyConnRsp,
    ProxyReq,
    ProxyRsp,
    StreamReq,
    StreamRsp,
    Heartbeat,
    ServerMessage,
    DatagramChannelClose,
);

impl From<IpAddr> for IpAddress {
    fn from(address: IpAddr) -> Self {
        Self {
            address: Some(match address {
                IpAddr::V4(v4) => ip_address::Address::V4(u32::from(v4)),
                IpAddr::V6(v6) => ip_address::Address::V6(v6.octets().to_vec()),
            }),
        }
    }
}

impl IpAddress {
    /// The address, unless it is empty or an IPv6 address of the wrong length.
    #[must_use]
    pub fn to_ip(&self) -> Option<IpAddr> {
        match self.address.as_ref()? {
            ip_address::Address::V4(v4) => Some(Ipv4Addr::from(*v4).into()),
            ip_address::Address::V6(v6) => {
                let octets: [u8; 16] = v6.as_slice().try_into().ok()?;
                Some(Ipv6Addr::from(octets).into())
            }
        }
    }
}

impl fmt::Debug for ClientDetails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientDetails")
            .field("agent", &self.agent)
            .field("channel", &self.channel)
            .field("version", &self.version)
            .field("os", &self.os)
            .field("arch", &self.arch)
            .field("token", &self.token.as_ref().map(|_| MASK))
            .field("protocol_version", &self.protocol_version)
            .finish()
    }
}

impl fmt::Debug for ProxyConnReq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyConnReq")
            .field("tunnel_id", &self.tunnel_id)
            .field("stream_id", &self.stream_id)
            .field("secret", &self.secret.as_ref().map(|_| MASK))
            .field("source_ip", &self.source_ip)
            .field("proxy_endpoint", &self.proxy_endpoint)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::panic,
        reason = "tests"
    )]
    use super::*;

    #[test]
    fn credentials_do_not_show_in_debug_output() {
        let request = Message::new(OpenControlChannelReq {
            client_details: Some(ClientDetails {
                token: Some("hunter2".to_owned()),
                ..ClientDetails::default()
            }),
            liveness: None,
        });
        let stream = Message::new(ProxyConnReq {
            secret: Some("hunter2".to_owned()),
            ..ProxyConnReq::default()
        });
        let shown = format!("{request:?}{stream:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains(MASK));
    }

    #[test]
    fn addresses_of_both_families_round_trip() {
        // agent-protocol §16 case 20
        for text in ["192.0.2.10", "2001:db8::1"] {
            let ip: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddress::from(ip).to_ip(), Some(ip));
        }
        let wire = IpAddress::from("192.0.2.10".parse::<IpAddr>().unwrap());
        assert_eq!(wire.address, Some(ip_address::Address::V4(0xC000_020A)));
        assert_eq!(IpAddress::default().to_ip(), None);
        let short = IpAddress {
            address: Some(ip_address::Address::V6(vec![0; 15])),
        };
        assert_eq!(short.to_ip(), None);
    }

    #[test]
    fn unknown_fields_and_messages_are_passed_over() {
        // field 99, varint
        let later = Message::from_frame(&[0x98, 0x06, 0x01]).unwrap();
        assert_eq!(later.payload, None);
        assert_eq!(Message::from_frame(&[]).unwrap().payload, None);
        assert!(Message::from_frame(&[0x0a, 0xff]).is_err());
    }

    #[test]
    fn an_oversized_message_is_not_sent() {
        let message = Message::new(ServerMessage {
            message: "x".repeat(frame::BODY_MAX),
        });
        let mut out = BytesMut::new();
        assert!(message.put_frame(&mut out).is_err());
        assert!(out.is_empty());
    }
}
