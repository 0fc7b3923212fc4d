//! How a client and its tunnels are doing.

use std::sync::Arc;
use std::time::Duration;

use adit_protocol::hostname;
use adit_protocol::message::{ServerDetails, TunnelProperties};

use crate::Error;

/// How a client is doing.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Status {
    /// Dialling the engine, for the first time or again.
    #[default]
    Connecting,
    /// The engine answers. Once it has been silent for `timeout` the client is
    /// [`Disconnected`](Self::Disconnected).
    Online {
        /// The engine's name for the control channel.
        client_id: String,
        /// What the engine says about itself.
        server: ServerDetails,
        /// Longest silence; `None` with an engine that answers no heartbeats, whose loss only TCP
        /// notices.
        timeout: Option<Duration>,
    },
    /// Not connected; trying again soon.
    Disconnected {
        /// What happened.
        reason: Error,
        /// From the moment of this status to the next attempt.
        retry_in: Duration,
    },
    /// Given up: trying again would not help, or retries are switched off.
    Failed(Error),
    /// Closed by its owner.
    Closed,
}

impl Status {
    /// Whether the engine answered in time.
    #[must_use]
    pub const fn is_online(&self) -> bool {
        matches!(self, Self::Online { .. })
    }

    /// Whether nothing will change any more.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Closed)
    }
}

/// How a tunnel is doing.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum TunnelStatus {
    /// Waiting for the client to be online, or for the engine's answer.
    #[default]
    Waiting,
    /// Open.
    Online(TunnelInfo),
    /// The engine refused for now; the client asks again.
    Rejected {
        /// The refusal.
        reason: Error,
        /// From the moment of this status to the next request.
        retry_in: Duration,
    },
    /// Given up.
    Failed(Error),
    /// Closed, by its owner or by the engine.
    Closed,
}

/// A tunnel as the engine has it.
#[derive(Clone, Debug, PartialEq)]
pub struct TunnelInfo {
    properties: Arc<TunnelProperties>,
}

impl TunnelInfo {
    pub(crate) fn new(properties: TunnelProperties) -> Self {
        Self {
            properties: Arc::new(properties),
        }
    }

    /// The engine's name for it, new after each reconnect.
    #[must_use]
    pub fn id(&self) -> &str {
        self.properties.id.as_deref().unwrap_or_default()
    }

    /// The public host name, if it is published.
    #[must_use]
    pub fn hostname(&self) -> Option<&str> {
        self.properties.hostname.as_deref()
    }

    /// The address to tell visitors, such as `https://shop.t.example.com`, or
    /// `rstrm://shop (unpublished)`.
    #[must_use]
    pub fn forwarding(&self) -> Option<String> {
        hostname::forwarding_address(&self.properties)
    }

    /// Everything the engine returned.
    #[must_use]
    pub fn properties(&self) -> &TunnelProperties {
        &self.properties
    }
}
