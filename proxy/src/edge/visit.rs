//! One visitor connection: what is fixed for all its exchanges, and the connect decisions made on
//! it, one per tunnel it reaches.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_filters::{Chain, Connected, Connection, ConnectionInfo, Refusal};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Edge;
use super::counters::Counters;
use super::limits::Limits;
use super::open::Exchanges;
use super::site::Site;
use crate::usage::Open;

/// Admissions remembered per connection; beyond, the oldest is made again when needed.
const DECISIONS_MAX: usize = 32;

/// One visitor connection.
pub(crate) struct Visit {
    pub(crate) edge: Arc<Edge>,
    pub(crate) info: Arc<ConnectionInfo>,
    /// The tunnel the connection was routed to by its server name.
    pub(crate) site: Option<Arc<Site>>,
    /// Counts the connection and its time.
    _open: Option<Open>,
    limits: Arc<Limits>,
    decisions: Mutex<Vec<Decision>>,
    /// What is under way on it.
    pub(crate) exchanges: Arc<Exchanges>,
    /// One decision at a time: a filter that counts connections counts this one once.
    deciding: tokio::sync::Mutex<()>,
}

/// A connection that does not reach a tunnel.
#[derive(Clone, Debug)]
pub(crate) struct Denied {
    pub(crate) how: Denial,
    /// The connection as the filters saw it.
    pub(crate) connection: Arc<Connection>,
}

/// In what way a connection does not reach a tunnel.
#[derive(Clone, Debug)]
pub(crate) enum Denial {
    /// A filter refused it.
    Refused(Refusal),
    /// This filter closed it without a word.
    Closed(Arc<str>),
}

struct Decision {
    tunnel: String,
    client: IpAddr,
    chain: Arc<Chain>,
    connection: Arc<Connection>,
    /// When it was last asked for.
    used: Instant,
}

/// When an admission of somebody behind a front proxy is forgotten: what the proxy keeps open for itself is no connection
/// of a visitor's, and must not hold the places of those who have left.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(15);

impl Decision {
    /// Whether the visitor is one behind a front proxy who has left.
    fn has_left(&self, proxy: IpAddr) -> bool {
        self.client != proxy
            && self.used.elapsed() >= FORGOTTEN_AFTER
            && Arc::strong_count(&self.connection) == 1
    }
}

impl Visit {
    pub(crate) fn new(edge: Arc<Edge>, info: Arc<ConnectionInfo>, site: Option<Arc<Site>>) -> Self {
        let limits = edge.limits.load_full();
        edge.counters.connections.inc();
        let open = site
            .as_ref()
            .map(|site| site.usage(&edge.counters).connect());
        Self {
            exchanges: Exchanges::new(&edge.open),
            edge,
            info,
            site,
            _open: open,
            limits,
            decisions: Mutex::default(),
            deciding: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.limits)
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.edge.counters
    }

    pub(crate) fn draining(&self) -> Draining {
        Draining(self.edge.drain.subscribe())
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.edge.drain.borrow()
    }

    /// Whether the filters admit this connection, as `client`, to a tunnel. Decided once per
    /// tunnel, and again when the tunnel's chain was swapped; who is not admitted is judged anew each
    /// time: addresses move, and filters that could not decide can again.
    pub(crate) async fn admitted(
        &self,
        site: &Site,
        chain: &Arc<Chain>,
        client: IpAddr,
    ) -> Result<Arc<Connection>, Denied> {
        if let Some(known) = self.known(site, chain, client) {
            return Ok(known);
        }
        let _deciding = self.deciding.lock().await;
        if let Some(known) = self.known(site, chain, client) {
            return Ok(known);
        }
        let info = if client == self.info.peer.ip() {
            Arc::clone(&self.info)
        } else {
            // Named by a front proxy: the port of that visitor is not known.
            let mut behind = ConnectionInfo::clone(&self.info);
            behind.peer = SocketAddr::new(client, 0);
            Arc::new(behind)
        };
        match chain.connect(info, Arc::clone(&site.info)).await {
            Connected::Admitted(connection) => {
                self.remember(Decision {
                    tunnel: site.info.id.clone(),
                    client,
                    chain: Arc::clone(chain),
                    connection: Arc::clone(&connection),
                    used: Instant::now(),
                });
                Ok(connection)
            }
            Connected::Refused {
                refusal,
                connection,
            } => Err(Denied {
                how: Denial::Refused(refusal),
                connection,
            }),
            Connected::Close { by, connection } => Err(Denied {
                how: Denial::Closed(by),
                connection,
            }),
        }
    }

    fn known(&self, site: &Site, chain: &Arc<Chain>, client: IpAddr) -> Option<Arc<Connection>> {
        let mut decisions = self
            .decisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let peer = self.info.peer.ip();
        // Whoever comes now has not.
        decisions.retain(|decision| decision.client == client || !decision.has_left(peer));
        decisions
            .iter_mut()
            .find(|decision| {
                decision.client == client
                    && Arc::ptr_eq(&decision.chain, chain)
                    && decision.tunnel == site.info.id
            })
            .map(|decision| {
                if client != peer {
                    decision.used = Instant::now();
                }
                Arc::clone(&decision.connection)
            })
    }

    fn remember(&self, decision: Decision) {
        let mut decisions = self
            .decisions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        decisions.retain(|old| old.client != decision.client || old.tunnel != decision.tunnel);
        if decisions.len() >= DECISIONS_MAX {
            decisions.remove(0);
        }
        decisions.push(decision);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.edge.counters.connections.dec();
    }
}

/// Tells a connection that the engine has begun to drain.
pub(crate) struct Draining(watch::Receiver<bool>);

impl Draining {
    pub(crate) async fn begun(&mut self) {
        if self.0.wait_for(|draining| *draining).await.is_err() {
            // The engine is gone without a drain; connections end with it.
            std::future::pending::<()>().await;
        }
    }
}
