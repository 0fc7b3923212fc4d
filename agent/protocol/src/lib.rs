//! rstrm/1, the protocol between agent and engine: frames, messages and handshakes, without I/O.
//!
//! Nothing here opens a socket, reads a clock or draws a random number: bytes, instants and random
//! octets are arguments. That makes both roles testable against each other in memory.
//!
//! | Module | What it gives |
//! | --- | --- |
//! | [`frame`] | length-prefixed frames: [`frame::Decoder`], [`frame::encode`] |
//! | [`message`] | every message of revision 1.4.5, [`message::Message::to_frame`] |
//! | [`error`] | [`ErrorCode`], [`ProtocolError`] |
//! | [`version`] | [`Version`] and the rule for serving it |
//! | [`secret`] | [`Secret`], a string that masks itself |
//! | [`hostname`] | stable host names, names as clients show them |

pub mod error;
pub mod frame;
pub mod hostname;
pub mod message;
pub mod secret;
pub mod version;

pub use error::{ErrorCode, ProtocolError};
pub use secret::Secret;
pub use version::Version;

/// The ALPN protocol name of this protocol, on TLS and on QUIC.
pub const ALPN: &[u8] = b"rstrm/1";

/// The port of an engine address that names none.
pub const DEFAULT_PORT: u16 = 443;
