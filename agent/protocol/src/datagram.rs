//! Packets of datagram tunnels: on a byte stream as frames (see [`crate::frame`]), on QUIC as
//! datagrams that begin with a channel id.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of a channel id.
pub const CHANNEL_ID_LEN: usize = 12;

/// Names a datagram channel on one QUIC connection: the first twelve octets of its stream id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId([u8; CHANNEL_ID_LEN]);

/// The stream id does not begin with 24 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a stream id must begin with 24 hex digits to name a datagram channel")]
pub struct InvalidChannelId;

impl ChannelId {
    /// The channel of a stream: white space around it and hyphens inside do not count.
    ///
    /// # Errors
    ///
    /// [`InvalidChannelId`] if fewer than 24 digits are there or one of them is not hexadecimal.
    pub fn from_stream_id(stream_id: &str) -> Result<Self, InvalidChannelId> {
        let mut digits = stream_id.trim().chars().filter(|digit| *digit != '-');
        let mut next = || {
            let value = digits.next()?.to_digit(16)?;
            u8::try_from(value).ok()
        };
        let mut id = [0; CHANNEL_ID_LEN];
        for octet in &mut id {
            let (Some(high), Some(low)) = (next(), next()) else {
                return Err(InvalidChannelId);
            };
            *octet = high << 4 | low;
        }
        Ok(Self(id))
    }

    /// The octets, as they lead each datagram.
    #[must_use]
    pub const fn octets(self) -> [u8; CHANNEL_ID_LEN] {
        self.0
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for octet in self.0 {
            write!(f, "{octet:02x}")?;
        }
        Ok(())
    }
}

/// A QUIC datagram that carries `packet` on `channel`.
#[must_use]
pub fn join(channel: ChannelId, packet: &[u8]) -> Bytes {
    let mut datagram = BytesMut::with_capacity(CHANNEL_ID_LEN + packet.len());
    datagram.put_slice(&channel.0);
    datagram.put_slice(packet);
    datagram.freeze()
}

/// The channel and the packet of a QUIC datagram; `None` for one too short, to be dropped silently.
#[must_use]
pub fn split(mut datagram: Bytes) -> Option<(ChannelId, Bytes)> {
    let id = *datagram.first_chunk::<CHANNEL_ID_LEN>()?;
    let packet = datagram.split_off(CHANNEL_ID_LEN);
    Some((ChannelId(id), packet))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_channel_is_the_first_twelve_octets_of_the_stream_id() {
        // agent-protocol §16 cases 31 and 37
        for (stream_id, expected) in [
            (
                "01020304-0000-0000-0000-000000000000",
                Ok("010203040000000000000000"),
            ),
            (" 0102030405060708090A0B0C ", Ok("0102030405060708090a0b0c")),
            ("0102030405060708090a0b0", Err(InvalidChannelId)),
            ("0102030405060708090a0b0g", Err(InvalidChannelId)),
            ("", Err(InvalidChannelId)),
            ("é102030405060708090a0b0c", Err(InvalidChannelId)),
        ] {
            let got = ChannelId::from_stream_id(stream_id).map(|id| format!("{id:?}"));
            assert_eq!(got, expected.map(str::to_owned), "{stream_id}");
        }
        assert_ne!(
            ChannelId::from_stream_id("010203040000000000000000"),
            ChannelId::from_stream_id("010203040000000000000001")
        );
    }

    #[test]
    fn datagrams_join_and_split() {
        let channel = ChannelId::from_stream_id("0102030405060708090a0b0c").unwrap();
        let datagram = join(channel, b"hi");
        assert_eq!(datagram.len(), CHANNEL_ID_LEN + 2);
        assert_eq!(split(datagram), Some((channel, Bytes::from_static(b"hi"))));
        assert_eq!(split(join(channel, b"")), Some((channel, Bytes::new())));
        assert_eq!(split(Bytes::from_static(b"too short")), None);
    }
}
