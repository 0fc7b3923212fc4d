//! Carriers between agent and engine, both ends of each.
//!
//! | Module | What it gives |
//! | --- | --- |
//! | [`address`] | [`EngineAddress`], `host[:port]` as people write it |
//! | [`dial`] | a TCP connection to a name, with keep-alive and without Nagle's delay |
//! | [`identity`] | the certificate an agent shows |
//! | [`trust`] | which certificates an agent believes |
//! | [`tls`] | the TLS carrier: [`tls::Connector`] dials, [`tls::accept`] answers |
//! | [`guard`] | [`Guarded`], a stream whose unfinished end reaches the peer as an error |
//! | [`messages`] | protocol messages over any stream |
//! | [`mod@relay`] | [`relay()`], bytes both ways with half-close and reset |

pub mod address;
pub mod dial;
pub mod guard;
pub mod identity;
pub mod messages;
pub mod relay;
pub mod tls;
pub mod trust;

pub use address::EngineAddress;
pub use guard::{Abort, Guarded};
pub use relay::relay;
