//! What the edge knows of a published tunnel, and where it finds it.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use adit_filters::{Chain, TunnelInfo};
use arc_swap::ArcSwap;

use super::counters::Counters;
use super::dial::Dial;
use super::pool::Pool;
use crate::tls::Kept;
use crate::usage::Usage;

/// What the service behind an HTTP tunnel speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UpstreamMode {
    /// HTTP/1.1 in the clear.
    Http1,
    /// HTTP/2 with prior knowledge (RFC 9113 §3.3).
    H2c,
    /// TLS, HTTP version by ALPN.
    Tls,
}

/// One incarnation of a published HTTP tunnel.
pub struct Site {
    /// What filters and logs see of the tunnel.
    pub info: Arc<TunnelInfo>,
    /// What the service speaks.
    pub mode: UpstreamMode,
    pub(crate) chain: ArcSwap<Chain>,
    /// What answers handshakes under that chain.
    pub(crate) handshakes: Kept,
    pub(crate) dial: Arc<dyn Dial>,
    pub(crate) pool: Arc<Pool>,
    usage: OnceLock<Arc<Usage>>,
    ended: AtomicBool,
}

impl Site {
    /// A tunnel without upstream connections yet.
    pub fn new(
        info: Arc<TunnelInfo>,
        mode: UpstreamMode,
        chain: Arc<Chain>,
        dial: Arc<dyn Dial>,
    ) -> Self {
        Self {
            info,
            mode,
            chain: ArcSwap::new(chain),
            handshakes: Kept::default(),
            dial,
            pool: Arc::default(),
            usage: OnceLock::new(),
            ended: AtomicBool::new(false),
        }
    }

    /// The chain new exchanges run through.
    pub fn chain(&self) -> Arc<Chain> {
        self.chain.load_full()
    }

    /// Swaps the chain whole; exchanges under way keep theirs.
    pub fn set_chain(&self, chain: Arc<Chain>) {
        self.chain.store(chain);
        self.handshakes.clear();
    }

    /// What its traffic is counted as.
    pub(crate) fn usage(&self, counters: &Counters) -> &Arc<Usage> {
        self.usage.get_or_init(|| counters.usage(&self.info))
    }

    /// Whether the tunnel has ended, while exchanges on it may go on.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Lets idle upstream connections go: the tunnel has ended.
    pub fn close(&self) {
        self.ended.store(true, Ordering::Release);
        self.pool.close();
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Site")
            .field("tunnel", &self.info.id)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// What is behind a host name.
#[derive(Clone, Debug)]
pub enum Found {
    /// A live HTTP tunnel.
    Site(Arc<Site>),
    /// The engine itself.
    Engine,
    /// A tunnel that was here lately, whose agent is away.
    Offline,
    /// A live tunnel that is not reached over HTTP.
    OtherProtocol,
    /// Nothing.
    Unknown,
}

/// Where tunnels are found by name.
pub trait Directory: Send + Sync {
    /// Looks a host up; it is lower case, without port and trailing dot.
    fn find(&self, host: &str) -> Found;
}

/// Front proxies whose word about the visitor's address is taken.
pub trait Fronts: Send + Sync {
    /// Whether this address is a configured front proxy.
    fn trusts(&self, address: IpAddr) -> bool;
}
