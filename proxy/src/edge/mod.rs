//! Protocols on one side, the chain on the other: every HTTP version becomes one kind of exchange,
//! driven in one place.

mod abort;
mod backlog;
mod begun;
mod body;
mod counters;
mod dial;
mod drive;
mod duplex;
mod fields;
mod head;
mod http1;
mod http2;
mod limits;
mod open;
mod pool;
mod record;
mod request_id;
mod site;
mod stop;
mod target;
mod upgrade;
mod upstream;
mod upstream_tls;
mod visit;

use std::sync::Arc;

use adit_filters::ConnectionInfo;
use arc_swap::ArcSwap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

pub use counters::Counters;
pub(crate) use drive::Visitor;
pub use head::imagined;

pub use dial::{BoxStream, Dial, DialError, Dialing, Stream};
pub use limits::Limits;
pub(crate) use open::Changes;
pub use site::{Directory, Found, Fronts, Site, UpstreamMode};

/// What every visitor connection shares.
pub struct Edge {
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) fronts: Arc<dyn Fronts>,
    pub(crate) api: axum::Router,
    pub(crate) counters: Arc<Counters>,
    pub(crate) limits: ArcSwap<Limits>,
    pub(crate) upstream_tls: upstream_tls::TlsClient,
    pub(crate) port: u16,
    pub(crate) request_ids: request_id::RequestIds,
    pub(crate) open: Arc<open::Open>,
    drain: watch::Sender<bool>,
}

/// What an [`Edge`] is made of.
pub struct Parts {
    /// Where tunnels are found.
    pub directory: Arc<dyn Directory>,
    /// Which peers are front proxies.
    pub fronts: Arc<dyn Fronts>,
    /// What answers on the engine's own host.
    pub api: axum::Router,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// What visitors and upstreams are held to.
    pub limits: Limits,
    /// The public HTTPS port, as told to upstreams.
    pub port: u16,
}

impl Edge {
    /// Puts an edge together.
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            directory: parts.directory,
            fronts: parts.fronts,
            api: parts.api,
            counters: parts.counters,
            limits: ArcSwap::from_pointee(parts.limits),
            upstream_tls: upstream_tls::TlsClient::new(),
            port: parts.port,
            request_ids: request_id::RequestIds::new(),
            open: Arc::default(),
            drain: watch::Sender::new(false),
        })
    }

    /// Replaces the limits; connections already open keep theirs.
    pub fn set_limits(&self, limits: Limits) {
        self.limits.store(Arc::new(limits));
    }

    /// Asks every connection to end once its exchanges are over.
    pub fn drain(&self) {
        self.drain.send_replace(true);
    }
}

/// What a connection was routed to by its server name.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A tunnel.
    Site(Arc<Site>),
    /// The engine's own host, or a name that is no tunnel's: requests find their way by authority.
    Engine,
}

/// Serves one visitor connection to its end, in the HTTP version its handshake agreed on.
pub async fn serve<I>(edge: Arc<Edge>, io: I, info: ConnectionInfo, entry: Entry)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let h2 = info
        .tls
        .as_ref()
        .and_then(|tls| tls.alpn.as_deref())
        .is_some_and(|alpn| alpn == "h2");
    let site = match entry {
        Entry::Site(site) => Some(site),
        Entry::Engine => None,
    };
    let visit = Arc::new(visit::Visit::new(edge, Arc::new(info), site));
    // Boxed, so that an idle connection of one version does not hold the room of the other.
    if h2 {
        Box::pin(http2::serve(visit, io)).await;
    } else {
        Box::pin(http1::serve(visit, io)).await;
    }
}
