//! Tunnels of one control channel.

use std::sync::Arc;
use std::time::Duration;

use adit_protocol::agent::OpenTunnelError;
use adit_protocol::message::TunnelProperties;
use tokio::time::Instant;

use super::Session;
use crate::backoff::Backoff;
use crate::client::CLOSE_WAIT;
use crate::registry::Entry;
use crate::supervisor::random;
use crate::{Error, TunnelInfo, TunnelStatus};

/// How long the engine may take to answer a request for a tunnel before it is asked again.
pub const OPEN_TUNNEL_TIMEOUT: Duration = Duration::from_secs(15);

/// What a tunnel that is wanted has come to on this channel.
pub(super) enum State {
    /// Asked for.
    Requested {
        request_id: String,
        until: Instant,
        backoff: Backoff,
    },
    /// There; `close_until` once the engine was asked to remove it.
    Open {
        tunnel_id: String,
        close_until: Option<Instant>,
    },
    /// Refused; to be asked for again.
    Pausing { until: Instant, backoff: Backoff },
}

impl State {
    /// When to look at it again.
    pub(super) const fn wake(&self) -> Option<Instant> {
        match self {
            Self::Requested { until, .. } | Self::Pausing { until, .. } => Some(*until),
            Self::Open { close_until, .. } => *close_until,
        }
    }
}

impl Session {
    /// Makes the channel have what is wanted.
    pub(super) fn reconcile(&mut self) {
        if self.registry.is_closing() && self.closing.is_none() {
            self.channel.close();
            self.closing = Some(Instant::now() + CLOSE_WAIT);
        }
        let time = Instant::now();
        for entry in self.registry.entries() {
            let retry = self.retry;
            match self.tunnels.get_mut(&entry.key) {
                None if entry.is_closing() => self.registry.end(&entry, TunnelStatus::Closed),
                None => self.request(&entry, Backoff::new(retry)),
                Some(State::Pausing { until, .. }) if entry.is_closing() || *until <= time => {
                    if let Some(State::Pausing { backoff, .. }) = self.tunnels.remove(&entry.key)
                        && !entry.is_closing()
                    {
                        self.request(&entry, backoff);
                    } else {
                        self.registry.end(&entry, TunnelStatus::Closed);
                    }
                }
                Some(State::Requested {
                    request_id, until, ..
                }) if *until <= time => {
                    self.channel.forget_tunnel_request(request_id);
                    let error = Error::Timeout(OPEN_TUNNEL_TIMEOUT);
                    self.refused(&entry, error);
                }
                Some(State::Open {
                    tunnel_id,
                    close_until,
                }) if entry.is_closing() => match close_until {
                    None => {
                        self.channel.close_tunnel(tunnel_id);
                        *close_until = Some(time + CLOSE_WAIT);
                    }
                    Some(until) if *until <= time => {
                        self.tunnels.remove(&entry.key);
                        self.registry.end(&entry, TunnelStatus::Closed);
                    }
                    Some(_) => {}
                },
                Some(_) => {}
            }
        }
    }

    fn request(&mut self, entry: &Entry, backoff: Backoff) {
        self.requests += 1;
        // Opaque and unique on the channel, in the shape other clients use.
        let request_id = format!("{:024x}", self.requests);
        if self.channel.open_tunnel(request_id.clone(), entry.wanted()) {
            let state = State::Requested {
                request_id,
                until: Instant::now() + OPEN_TUNNEL_TIMEOUT,
                backoff,
            };
            self.tunnels.insert(entry.key, state);
        }
    }

    /// The engine did not open a tunnel.
    fn refused(&mut self, entry: &Entry, reason: Error) {
        let Some(State::Requested { mut backoff, .. }) = self.tunnels.remove(&entry.key) else {
            return;
        };
        if !reason.is_retryable() {
            // Only the name this engine, or one before it, chose: without it all may be well.
            if entry.unpin() {
                self.request(entry, backoff);
            } else {
                self.registry.end(entry, TunnelStatus::Failed(reason));
            }
            return;
        }
        let time = Instant::now();
        match backoff.next(time, random()) {
            Some(retry_in) => {
                let until = time + retry_in;
                self.tunnels
                    .insert(entry.key, State::Pausing { until, backoff });
                entry
                    .status
                    .send_replace(TunnelStatus::Rejected { reason, retry_in });
            }
            None => self.registry.end(entry, TunnelStatus::Failed(reason)),
        }
    }

    pub(super) fn on_opened(&mut self, request_id: &str, properties: TunnelProperties) {
        let tunnel_id = properties.id.clone().unwrap_or_default();
        let Some(entry) = self.requested(request_id) else {
            // Nobody wants it any more.
            self.channel.close_tunnel(&tunnel_id);
            return;
        };
        entry.pin(properties.hostname.as_deref());
        let state = State::Open {
            tunnel_id,
            close_until: None,
        };
        self.tunnels.insert(entry.key, state);
        let info = TunnelInfo::new(properties);
        entry.status.send_replace(TunnelStatus::Online(info));
    }

    pub(super) fn on_failed(&mut self, request_id: &str, error: OpenTunnelError) {
        if let Some(entry) = self.requested(request_id) {
            self.refused(&entry, error.into());
        }
    }

    fn requested(&self, wanted: &str) -> Option<Arc<Entry>> {
        let key = self.tunnels.iter().find_map(|(key, state)| match state {
            State::Requested { request_id, .. } if request_id == wanted => Some(*key),
            _ => None,
        })?;
        self.registry.get(key)
    }

    pub(super) fn key_of(&self, wanted: &str) -> Option<u64> {
        self.tunnels.iter().find_map(|(key, state)| match state {
            State::Open { tunnel_id, .. } if tunnel_id == wanted => Some(*key),
            _ => None,
        })
    }
}
