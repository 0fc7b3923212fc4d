//! A whole engine: sockets, agents, edge and API put together from a configuration, replaced piece
//! by piece on reload, and brought to an end in order.

mod build;
mod directory;
mod error;
mod explain;
mod inner;
mod login;
mod plugins;
mod shelf;
mod switch;
mod trial;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use adit_config::{Config, Invalid};
use adit_filters::Registry;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::admin;
use crate::env::World;
use crate::listen::slots::Slots;
use crate::listen::tcp::{self, Phase};
use crate::metrics::Metrics;
use build::{Built, Kept};

pub use build::{check, every_problem};
pub use error::{ReloadError, StartError};
pub use explain::Explanation;
pub(crate) use inner::Inner;
pub use plugins::{read as plugin_bytes, settings as plugin_settings};
use switch::Switchboard;
pub(crate) use switch::Wish;
pub use switch::{SwitchError, Switched, forget_switch};
pub use trial::{TrialError, TrialLine, TrialReport, TrialRequest};

/// Connections to the metrics at a time: a scraper needs one, and must get it when all other
/// places are taken.
const METRICS_CONNECTIONS_MAX: usize = 64;

/// How long filters may take, when the engine has ended, to write what is left in their logs.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Reads the configuration anew.
pub type Loader = Box<dyn Fn() -> Result<Config, Invalid> + Send + Sync>;

/// Is told of a configuration.
pub type Listener = Box<dyn Fn(&Config) + Send + Sync>;

/// Adds kinds of filter to those built in.
pub type MoreFilters = Box<dyn Fn(Registry) -> Registry + Send + Sync>;

/// How an engine learns of changes to its configuration.
#[derive(Default)]
pub struct Options {
    /// Reads the configuration again for a reload; without it there is none.
    pub loader: Option<Loader>,
    /// Kinds of filter beside those built in.
    pub filters: Option<MoreFilters>,
    /// A file whose change makes the engine reload.
    pub watch: Option<PathBuf>,
    /// Told of each configuration that took effect by a reload.
    pub reloaded: Option<Listener>,
}

/// A running engine. Dropping it ends everything at once; [`drain`](Self::drain) ends it in order.
pub struct Engine {
    inner: Arc<Inner>,
    tasks: JoinSet<()>,
    /// Judges open exchanges again, to the last of them.
    judging: JoinSet<()>,
}

/// Where an engine listens.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Agents, API and visitors.
    pub https: SocketAddr,
    /// The redirect.
    pub http: Option<SocketAddr>,
    /// The metrics.
    pub metrics: Option<SocketAddr>,
}

/// What came of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were still open when their time was over.
    pub cut: usize,
}

impl Engine {
    /// Builds everything `config` asks for, binds its sockets and serves.
    ///
    /// # Errors
    /// [`StartError`]: what cannot be built or bound. Nothing is left running then.
    pub async fn start(config: Config, options: Options) -> Result<Self, StartError> {
        let (metrics, counters) = Metrics::new().map_err(StartError::Metrics)?;
        let mut world = World::new(metrics.registry(), Handle::current())?;
        if config.listen.metrics.is_some() {
            // Nobody could read it otherwise.
            world = world.measured(metrics.filters());
        }
        let switchboard = Switchboard::open(config.engine.state_dir.as_deref())?;
        let kept = Kept {
            switches: switchboard.current(),
            ..Kept::default()
        };
        let built = Built::new(&config, &world, options.filters.as_ref(), kept)
            .map_err(StartError::Config)?;
        let https = Socket::bind("listen.https", config.listen.https)?;
        let http = Socket::bind_if("listen.http", config.listen.http)?;
        let metrics_socket = Socket::bind_if("listen.metrics", config.listen.metrics)?;
        let addresses = Addresses {
            https: https.address,
            http: http.as_ref().map(|socket| socket.address),
            metrics: metrics_socket.as_ref().map(|socket| socket.address),
        };
        let admin = match &config.admin.socket {
            Some(path) => Some(admin::Socket::bind(path).map_err(StartError::Admin)?),
            None => None,
        };
        let inner = Arc::new(Inner::new(
            config,
            (built, switchboard),
            world,
            (Arc::new(metrics), counters),
            addresses,
            options,
        ));
        let mut engine = Self {
            inner,
            tasks: JoinSet::new(),
            judging: JoinSet::new(),
        };
        let open = Arc::clone(&engine.inner.edge.open);
        engine.judging.spawn(open.keep_judging());
        engine.serve(https, http, metrics_socket, admin);
        engine.inner.api.set_ready(true);
        Ok(engine)
    }

    fn serve(
        &mut self,
        https: Socket,
        http: Option<Socket>,
        metrics: Option<Socket>,
        admin: Option<admin::Socket>,
    ) {
        let inner = &self.inner;
        let listeners = inner.dispatch.metrics.clone();
        let dispatch = Arc::clone(&inner.dispatch);
        self.tasks.spawn(tcp::accept(
            https.listener,
            Arc::clone(&inner.slots),
            Arc::clone(&listeners),
            inner.phase.subscribe(),
            move |stream, peer| Arc::clone(&dispatch).serve(stream, peer),
        ));
        if let Some(http) = http {
            let shared = Arc::clone(inner);
            self.tasks.spawn(tcp::accept(
                http.listener,
                Arc::clone(&inner.slots),
                Arc::clone(&listeners),
                inner.phase.subscribe(),
                move |stream, peer| Arc::clone(&shared).redirect(stream, peer),
            ));
        }
        if let (Some(socket), Some(server)) = (metrics, &inner.metrics) {
            let server = Arc::clone(server);
            self.tasks.spawn(tcp::accept(
                socket.listener,
                Slots::new(METRICS_CONNECTIONS_MAX),
                listeners,
                inner.phase.subscribe(),
                move |stream, _| Arc::clone(&server).serve(stream),
            ));
        }
        if let Some(admin) = admin {
            self.tasks
                .spawn(admin.serve(Arc::clone(inner), inner.phase.subscribe()));
        }
        if let Some(path) = inner.options.watch.clone() {
            let shared = Arc::clone(inner);
            self.tasks.spawn(watch::files(
                move || vec![path.clone()],
                inner.phase.subscribe(),
                move || reload_and_log(Arc::clone(&shared), "the configuration file changed"),
            ));
        }
        let (of, shared) = (Arc::clone(inner), Arc::clone(inner));
        self.tasks.spawn(watch::files(
            move || of.config.load().auth.credentials.iter().cloned().collect(),
            inner.phase.subscribe(),
            move || beside(Arc::clone(&shared), Inner::renew_credentials),
        ));
        let (of, shared) = (Arc::clone(inner), Arc::clone(inner));
        self.tasks.spawn(watch::files(
            move || {
                let config = of.config.load();
                let plugins = config.plugins.values();
                plugins.map(|plugin| plugin.component.clone()).collect()
            },
            inner.phase.subscribe(),
            move || reload_and_log(Arc::clone(&shared), "a plugin's file changed"),
        ));
    }

    /// Where the engine listens: the ports that were bound, whatever was configured.
    pub fn addresses(&self) -> Addresses {
        self.inner.addresses
    }

    /// The configuration in effect.
    pub fn config(&self) -> Arc<Config> {
        self.inner.config.load_full()
    }

    /// Reads the configuration again and puts all of it in effect, or none of it. It waits for disks, and for plugins
    /// to be compiled.
    ///
    /// # Errors
    /// [`ReloadError`]: every reason why nothing has changed.
    pub fn reload(&self) -> Result<(), ReloadError> {
        self.inner.reload()
    }

    /// Reloads and writes the outcome to the log; `why` begins the line.
    pub async fn reload_and_log(&self, why: &'static str) {
        reload_and_log(Arc::clone(&self.inner), why).await;
    }

    /// Waits until the operator asks, over the admin socket, that the engine end.
    pub async fn asked_to_stop(&self) {
        let mut asked = self.inner.asked_to_stop.subscribe();
        // The sender lives as long as the engine.
        let _ = asked.wait_for(|asked| *asked).await;
    }

    /// Ends the engine in order: no new connections, exchanges under way may end within
    /// `timeouts.drain`, then the rest is cut.
    pub async fn drain(mut self) -> Drained {
        let limit = self.inner.config.load().timeouts.drain;
        self.inner.begin_drain();
        let relays = Arc::clone(&self.inner.agents);
        let ended = async {
            while self.tasks.join_next().await.is_some() {}
            relays.relays_ended().await;
        };
        let cut = match tokio::time::timeout(limit, ended).await {
            Ok(()) => 0,
            Err(_) => self.inner.slots.taken(),
        };
        self.inner.phase.send_replace(Phase::Over);
        while self.tasks.join_next().await.is_some() {}
        let world = self.inner.world.clone();
        drop((relays, self));
        // Chains that a cut exchange still holds keep their writers; those are not waited for.
        let _given_up = tokio::time::timeout(LAST_WORDS, world.endings()).await;
        Drained { cut }
    }
}

struct Socket {
    listener: TcpListener,
    address: SocketAddr,
}

impl Socket {
    fn bind(key: &'static str, address: SocketAddr) -> Result<Self, StartError> {
        let failed = |source| StartError::Bind {
            key,
            address,
            source,
        };
        let listener = tcp::bind(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    fn bind_if(key: &'static str, address: Option<SocketAddr>) -> Result<Option<Self>, StartError> {
        address.map(|address| Self::bind(key, address)).transpose()
    }
}

async fn reload_and_log(inner: Arc<Inner>, why: &'static str) {
    beside(inner, move |inner| inner.reload_and_log(why)).await;
}

/// Does what waits for disks beside the runtime's threads.
async fn beside(inner: Arc<Inner>, work: impl FnOnce(&Inner) + Send + 'static) {
    let done = tokio::task::spawn_blocking(move || work(&inner)).await;
    if let Err(error) = done {
        tracing::error!(%error, "it broke off: nothing of the change is in effect");
    }
}
