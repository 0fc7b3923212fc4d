//! Frames: a big-endian `u32` length, then that many octets.
//!
//! Control messages and, on byte streams, the packets of datagram tunnels share this form.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Largest body of a frame, in bytes, sent or received.
pub const BODY_MAX: usize = 65_535;

/// Bytes of the length prefix.
pub const HEADER_LEN: usize = 4;

/// A frame that must not be sent, or after which a connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The body is longer than allowed.
    #[error("frame body of {len} bytes is above the limit of {max} bytes")]
    TooLong {
        /// Announced or offered length.
        len: usize,
        /// The limit in force.
        max: usize,
    },
}

/// Cuts frames out of bytes as they arrive.
///
/// Read from the connection into [`buffer`](Self::buffer), then call [`next_frame`](Self::next_frame)
/// until it says `None`. A length above the limit is found as soon as the prefix is there, before
/// any of the body is waited for. When the frames are over and payload begins,
/// [`into_rest`](Self::into_rest) gives what was read too far.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    body_max: usize,
}

impl Decoder {
    /// A decoder for bodies up to [`BODY_MAX`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_limit(BODY_MAX)
    }

    /// A decoder for bodies up to `body_max` bytes, at most [`BODY_MAX`].
    #[must_use]
    pub fn with_limit(body_max: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            body_max: body_max.min(BODY_MAX),
        }
    }

    /// Changes the limit for the frames still to come, at most [`BODY_MAX`].
    pub fn set_limit(&mut self, body_max: usize) {
        self.body_max = body_max.min(BODY_MAX);
    }

    /// Where received bytes go.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The body of the next whole frame, or `None` until more bytes are there.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`]; the connection is of no use afterwards.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let len = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
        if len > self.body_max {
            return Err(FrameError::TooLong {
                len,
                max: self.body_max,
            });
        }
        if self.buffer.len() < HEADER_LEN + len {
            return Ok(None);
        }
        self.buffer.advance(HEADER_LEN);
        Ok(Some(self.buffer.split_to(len).freeze()))
    }

    /// Whether bytes of an unfinished frame are held: an end of input now is a broken frame.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Everything after the last frame taken.
    #[must_use]
    pub fn into_rest(self) -> Bytes {
        self.buffer.freeze()
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

/// Appends `body` as one frame to `out`.
///
/// # Errors
///
/// [`FrameError::TooLong`] if the body exceeds [`BODY_MAX`]; `out` is then as before.
pub fn encode(body: &[u8], out: &mut BytesMut) -> Result<(), FrameError> {
    out.reserve(HEADER_LEN + body.len());
    put_header(body.len(), out)?;
    out.put_slice(body);
    Ok(())
}

/// Appends the length prefix of a body of `len` bytes.
pub(crate) fn put_header(len: usize, out: &mut BytesMut) -> Result<(), FrameError> {
    match u16::try_from(len) {
        Ok(len) => {
            out.put_u32(u32::from(len));
            Ok(())
        }
        Err(_) => Err(FrameError::TooLong { len, max: BODY_MAX }),
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
    use proptest::prelude::*;

    #[test]
    fn a_frame_of_65536_bytes_is_refused_by_its_prefix_alone() {
        // agent-protocol §16 case 39
        let mut decoder = Decoder::new();
        decoder.buffer().extend_from_slice(&65_536u32.to_be_bytes());
        assert_eq!(
            decoder.next_frame(),
            Err(FrameError::TooLong {
                len: 65_536,
                max: BODY_MAX
            })
        );
        let mut out = BytesMut::new();
        assert!(encode(&vec![0; BODY_MAX + 1], &mut out).is_err());
        assert!(out.is_empty());
    }

    #[test]
    fn the_longest_and_the_shortest_body_pass() {
        let mut decoder = Decoder::new();
        encode(&vec![7; BODY_MAX], decoder.buffer()).unwrap();
        encode(&[], decoder.buffer()).unwrap();
        assert_eq!(decoder.next_frame().unwrap().unwrap().len(), BODY_MAX);
        assert_eq!(decoder.next_frame().unwrap().unwrap().len(), 0);
        assert_eq!(decoder.next_frame(), Ok(None));
        assert!(!decoder.is_partial());
    }

    #[test]
    fn a_lower_limit_holds_until_it_is_raised() {
        let mut decoder = Decoder::with_limit(8);
        encode(&[0; 9], decoder.buffer()).unwrap();
        assert!(decoder.next_frame().is_err());
        decoder.set_limit(usize::MAX);
        assert_eq!(decoder.next_frame().unwrap().unwrap().len(), 9);
    }

    proptest! {
        #[test]
        fn frames_survive_any_cut(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8),
            rest in proptest::collection::vec(any::<u8>(), 0..4),
            step in 1usize..40,
        ) {
            let mut wire = BytesMut::new();
            for body in &bodies {
                encode(body, &mut wire).unwrap();
            }
            wire.extend_from_slice(&rest);
            let mut decoder = Decoder::new();
            let mut seen = Vec::new();
            for piece in wire.chunks(step) {
                decoder.buffer().extend_from_slice(piece);
                if seen.len() == bodies.len() {
                    continue;
                }
                while let Some(body) = decoder.next_frame().unwrap() {
                    seen.push(body.to_vec());
                }
            }
            prop_assert_eq!(seen, bodies);
            prop_assert_eq!(decoder.into_rest().to_vec(), rest);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut decoder = Decoder::new();
            decoder.buffer().extend_from_slice(&bytes);
            while let Ok(Some(body)) = decoder.next_frame() {
                let _ = crate::message::Message::from_frame(&body);
            }
        }
    }
}
