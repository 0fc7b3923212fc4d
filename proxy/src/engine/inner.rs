//! What runs in an engine, and how a reload replaces it piece by piece.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use adit_config::Config;
use adit_filters::{Chain, TunnelInfo};
use adit_plugins::Services;
use adit_protocol::ProtocolError;
use adit_wasm::Runtime;
use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;

use super::build::{self, Built, Kept};
use super::directory::Directory;
use super::explain::{self, Explanation};
use super::switch::Switchboard;
use super::{Addresses, Options, ReloadError, login, shelf};
use crate::admin;
use crate::agents::{self, Agents};
use crate::api::Api;
use crate::assemble::Policies;
use crate::edge::{self, Changes, Counters, Edge};
use crate::env::World;
use crate::listen::front::{self, FrontProxies};
use crate::listen::names::OwnNames;
use crate::listen::plain::{self, PlainLimits};
use crate::listen::redirect;
use crate::listen::slots::Slots;
use crate::listen::tcp::{Dispatch, Phase};
use crate::metrics::{Access, Metrics, MetricsServer};
use crate::properties::Effective;
use crate::route::Routes;

/// Everything that lives as long as the engine.
pub(crate) struct Inner {
    pub(super) config: ArcSwap<Config>,
    pub(super) addresses: Addresses,
    started: Instant,
    pub(super) options: Options,
    /// What filters of every load reach the world through.
    pub(super) world: World,
    pub(super) routes: Arc<Routes>,
    pub(super) policies: ArcSwap<Policies>,
    pub(super) switchboard: Switchboard,
    pub(super) agents: Arc<Agents>,
    pub(super) edge: Arc<Edge>,
    pub(super) api: Arc<Api>,
    services: Arc<ArcSwap<Services>>,
    /// What plugins run in; it is made with the first.
    runtime: ArcSwapOption<Runtime>,
    pub(super) dispatch: Arc<Dispatch>,
    fronts: Arc<FrontProxies>,
    redirect_limits: ArcSwap<PlainLimits>,
    pub(super) metrics: Option<Arc<MetricsServer>>,
    pub(super) slots: Arc<Slots>,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) asked_to_stop: watch::Sender<bool>,
    /// One reload or switch at a time.
    pub(super) reloading: Mutex<()>,
}

/// How many of all connections may be visitors': a quarter stays for agents and their streams.
const fn visitors_max(connections: usize) -> usize {
    connections - connections / 4
}

impl Inner {
    pub(super) fn new(
        config: Config,
        (built, switchboard): (Built, Switchboard),
        world: World,
        (metrics, counters): (Arc<Metrics>, Arc<Counters>),
        addresses: Addresses,
        options: Options,
    ) -> Self {
        let port = build::public_port(&config, addresses.https.port());
        let names = OwnNames::new(&config);
        let routes = Arc::new(Routes::default());
        routes.set_engine_hosts(names.all().map(str::to_owned));
        counters.usages.set_projects(config.listen.metrics_projects);
        let agents = Agents::new(
            Arc::clone(&routes),
            Arc::clone(&counters.usages),
            agents::Settings::of(&config, port),
            agents::TokenAuthority::new(Arc::clone(&built.services.authority)),
            assemble(Arc::clone(&built.policies)),
        );
        let inventory = Arc::new(shelf::Shelf {
            agents: Arc::clone(&agents),
            routes: Arc::clone(&routes),
            port,
        });
        login::at_port(&built.services, port);
        let services = Arc::new(ArcSwap::from_pointee(built.services.clone()));
        let api = Api::new(Arc::clone(&services), inventory, SystemTime::now);
        api.set_names(names.clone(), port);
        let fronts = Arc::new(FrontProxies::new(config.front.clone()));
        let edge = Edge::new(edge::Parts {
            directory: Arc::new(Directory(Arc::clone(&routes))),
            fronts: Arc::clone(&fronts) as _,
            api: api.router(),
            counters,
            limits: build::edge_limits(&config),
            port,
        });
        login::on_sign_out(&built.services, &edge);
        let dispatch = Arc::new(Dispatch {
            settings: ArcSwap::from_pointee(build::listen_settings(&config, names, &built)),
            exchanges: ArcSwap::from_pointee(built.policies.key_exchanges()),
            fronts: Arc::clone(&fronts),
            edge: Arc::clone(&edge),
            agents: Arc::clone(&agents),
            metrics: metrics.listeners(),
            connection_ids: AtomicU64::new(1),
            visitors: Slots::new(visitors_max(config.limits.connections)),
        });
        let (of, at) = (Arc::clone(&dispatch), Arc::clone(&routes));
        let metrics = config.listen.metrics.is_some().then(|| {
            Arc::new(MetricsServer {
                metrics,
                access: ArcSwap::from_pointee(Access::new(&config.listen)),
                limits: build::plain_limits(&config),
                refresh: Box::new(move |metrics| {
                    shelf::observe(metrics, &of.agents, &at, &of.settings.load().tls);
                }),
            })
        });
        Self {
            world,
            redirect_limits: ArcSwap::from_pointee(build::plain_limits(&config)),
            slots: Slots::new(config.limits.connections),
            config: ArcSwap::from_pointee(config),
            addresses,
            started: Instant::now(),
            options,
            routes,
            policies: ArcSwap::new(built.policies),
            switchboard,
            agents,
            edge,
            api,
            services,
            runtime: ArcSwapOption::new(built.runtime.map(Arc::new)),
            dispatch,
            fronts,
            metrics,
            phase: watch::Sender::new(Phase::Serving),
            asked_to_stop: watch::Sender::new(false),
            reloading: Mutex::new(()),
        }
    }

    pub(crate) fn reload(&self) -> Result<(), ReloadError> {
        let _one = self
            .reloading
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let loader = self.options.loader.as_ref().ok_or(ReloadError::NoSource)?;
        let more = self.options.filters.as_ref();
        let config = loader()
            .map_err(|invalid| ReloadError::Config(build::every_problem_with(invalid, more)))?;
        let before = self.config.load_full();
        let services = self.services.load();
        let kept = Kept {
            tls: (before.certificates.files == config.certificates.files)
                .then(|| Arc::clone(&self.dispatch.settings.load().tls)),
            authority: Some(Arc::clone(&services.authority)),
            desk: services.desk.clone(),
            gate: services.gate.clone(),
            switches: self.switchboard.current(),
            geoip: Some(services.geoip.clone()),
            outlets: services.outlets.clone(),
            runtime: self.runtime.load().as_deref().cloned(),
        };
        let built = Built::new(&config, &self.world, more, kept).map_err(ReloadError::Config)?;
        // Only now: who restarts the engine for a change must not find it wrong then.
        build::needs_restart(&before, &config)?;
        // Nothing below can fail: from here on it is all of it.
        self.apply(config, built);
        Ok(())
    }

    fn apply(&self, config: Config, built: Built) {
        let port = build::public_port(&config, self.addresses.https.port());
        let names = OwnNames::new(&config);
        self.routes.set_engine_hosts(names.all().map(str::to_owned));
        self.api.set_names(names.clone(), port);
        let exchanges = built.policies.key_exchanges();
        self.dispatch.exchanges.store(Arc::new(exchanges));
        let settings = build::listen_settings(&config, names, &built);
        self.dispatch.settings.store(Arc::new(settings));
        self.fronts.set(config.front.clone());
        self.slots.set_max(config.limits.connections);
        self.dispatch
            .visitors
            .set_max(visitors_max(config.limits.connections));
        self.redirect_limits
            .store(Arc::new(build::plain_limits(&config)));
        self.edge.set_limits(build::edge_limits(&config));
        self.agents
            .set_settings(agents::Settings::of(&config, port));
        built.services.authority.set_trust(built.trust);
        self.agents.judge_again();
        login::at_port(&built.services, port);
        login::on_sign_out(&built.services, &self.edge);
        self.services.store(Arc::new(built.services));
        self.runtime.store(built.runtime.map(Arc::new));
        self.policies.store(Arc::clone(&built.policies));
        for (tunnel, error) in self.agents.set_assemble(assemble(built.policies)) {
            tracing::warn!(tunnel = %tunnel.info.id, error = %error.message, "tunnel closed, it does not fit the new configuration");
        }
        self.edge.open.change(Changes::of_everything());
        let usages = &self.edge.counters.usages;
        usages.set_projects(config.listen.metrics_projects);
        if let Some(metrics) = &self.metrics {
            metrics.access.store(Arc::new(Access::new(&config.listen)));
        }
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        if let Some(reloaded) = &self.options.reloaded {
            reloaded(&config);
        }
        self.config.store(Arc::new(config));
    }

    /// Reads the credentials again. Mistakes are told in the log; then those from before stay.
    pub(super) fn renew_credentials(&self) {
        let _one = self
            .reloading
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let config = self.config.load();
        match build::credentials(&config) {
            Ok(None) => {}
            Ok(Some(credentials)) => {
                tracing::info!(
                    count = credentials.len(),
                    "the credentials file changed: it is in effect"
                );
                self.services.load().authority.set_credentials(credentials);
                self.agents.judge_again();
                self.edge.open.change(Changes::of_credentials());
            }
            Err(problems) => {
                for problem in problems {
                    tracing::error!("{problem}");
                }
                tracing::error!("the credentials file changed: nothing of it is in effect");
            }
        }
    }

    /// Reloads on nobody's behalf: the log is where the outcome is read.
    pub(crate) fn reload_and_log(&self, why: &str) {
        match self.reload() {
            Ok(()) => tracing::info!("{why}: the configuration is in effect"),
            Err(error) => {
                for line in error.lines() {
                    tracing::error!("{line}");
                }
                tracing::error!("{why}: nothing of the new configuration is in effect");
            }
        }
    }

    pub(super) fn begin_drain(&self) {
        self.api.set_ready(false);
        self.phase.send_if_modified(|phase| {
            let begins = *phase == Phase::Serving;
            if begins {
                *phase = Phase::Draining;
            }
            begins
        });
        self.edge.drain();
        self.agents.drain();
    }

    pub(crate) fn ask_to_stop(&self) {
        self.asked_to_stop.send_replace(true);
    }

    pub(crate) fn status(&self) -> admin::Status {
        admin::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: self.config.load().engine.host.clone(),
            https: self.addresses.https,
            uptime_seconds: self.started.elapsed().as_secs(),
            draining: *self.phase.borrow() >= Phase::Draining,
            connections: self.slots.taken(),
            agents: self.agents.agent_count(),
            tunnels: self.routes.len(),
        }
    }

    pub(crate) fn explain(&self, host: &str) -> Explanation {
        let policies = self.policies.load();
        explain::explain(&self.routes, |info| policies.filters_before(info), host)
    }

    /// Serves one connection to the plain HTTP port.
    pub(super) async fn redirect(
        self: Arc<Self>,
        mut stream: tokio::net::TcpStream,
        peer: SocketAddr,
    ) {
        let limits = self.redirect_limits.load_full();
        let mut buffer = Vec::new();
        if self.fronts.announces(peer.ip()) {
            let header = front::read(&mut stream);
            match tokio::time::timeout(limits.header_wait, header).await {
                Ok(Ok((_, rest))) => buffer = rest.to_vec(),
                Ok(Err(_)) | Err(_) => {
                    self.dispatch.metrics.failed("proxy_header");
                    return;
                }
            }
        }
        let port = build::public_port(&self.config.load(), self.addresses.https.port());
        plain::serve(stream, buffer, &limits, |request| {
            redirect::answer(request, port)
        })
        .await;
    }
}

/// How agents get the chains of their tunnels.
pub(super) fn assemble(
    policies: Arc<Policies>,
) -> impl Fn(&TunnelInfo, &Effective) -> Result<Arc<Chain>, ProtocolError> {
    move |info, properties| Ok(policies.chain(info, properties)?)
}
