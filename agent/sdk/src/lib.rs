//! The Adit agent as a library: connect, create tunnels, accept streams, dial.
//!
//! ```no_run
//! # async fn example() -> Result<(), adit_agent::Error> {
//! use adit_agent::{Client, TunnelOptions};
//!
//! let client = Client::builder()
//!     .engine("edge.example.com")
//!     .token("...")
//!     .connect()
//!     .await?;
//! let mut tunnel = client.create_tunnel(TunnelOptions::http().name("shop")).await?;
//! println!("{}", tunnel.forwarding().unwrap_or_default());
//! while let Ok(stream) = tunnel.accept().await {
//!     println!("a visitor from {:?}", stream.source());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] holds one control channel and replaces it by itself when it is lost; its tunnels
//! come back under the same names. Streams are connections of their own and outlive the channel
//! they were announced on. [`Client::status`] says how things are.

mod backoff;
mod builder;
mod client;
mod dialer;
mod error;
#[cfg(feature = "axum")]
mod listener;
mod options;
mod registry;
mod session;
mod status;
mod stream;
mod supervisor;
mod tunnel;

pub use backoff::Retry;
pub use builder::ClientBuilder;
pub use client::Client;
pub use dialer::Dialer;
pub use error::Error;
#[cfg(feature = "axum")]
pub use listener::Peer;
pub use options::TunnelOptions;
pub use status::{Status, TunnelInfo, TunnelStatus};
pub use stream::Stream;
pub use tunnel::Tunnel;

pub use adit_protocol::Secret;
pub use adit_protocol::hostname;
pub use adit_protocol::liveness::Interval;
pub use adit_protocol::message::{ServerDetails, TunnelProperties};
pub use adit_protocol::{ErrorCode, ProtocolError};
pub use adit_transport::EngineAddress;

/// Limits of this agent, each with its reason.
pub mod limits {
    pub use crate::client::CLOSE_WAIT;
    pub use crate::dialer::{DIAL_TIMEOUT, PROXY_ATTEMPT_TIMEOUT, PROXY_ATTEMPTS};
    pub use crate::session::{DIALS_MAX, OPEN_TIMEOUT, OPEN_TUNNEL_TIMEOUT, UNSENT_MESSAGES_MAX};
    pub use crate::tunnel::ACCEPT_QUEUE_LEN;
    pub use adit_protocol::agent::STREAM_REQUESTS_MAX;
}
