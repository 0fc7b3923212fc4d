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
//! | [`handshake`] | the first frames: [`handshake::Opening`] on the engine, [`handshake::ClientHandshake`] on the other side |
//! | [`engine`], [`agent`] | the two ends of a control channel: [`engine::EngineChannel`], [`agent::AgentChannel`] |
//! | [`liveness`] | heartbeats: what is agreed, when to beat, when to give up |
//! | [`datagram`] | packets in QUIC datagrams: [`datagram::ChannelId`] |
//! | [`hostname`] | stable host names, names as clients show them |

pub mod agent;
pub mod datagram;
pub mod engine;
pub mod error;
pub mod frame;
pub mod handshake;
pub mod hostname;
pub mod liveness;
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
