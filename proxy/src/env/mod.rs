//! The real world behind [`adit_filters::Env`].
//!
//! A [`World`] lives as long as the engine: metrics and what filters store survive a reload. Each load of the
//! configuration takes a [`Load`] of it, whose jobs end with it.

mod address;
mod clock;
mod http;
mod jobs;
mod metrics;
mod store;

use std::sync::Arc;

use adit_filters::{Env, Meter};
use prometheus::Registry;
use tokio::runtime::Handle;

use crate::metrics::FilterMeter;

pub use address::is_public;
pub use clock::{OsRandom, SystemClock};
pub use http::{
    ANSWER_BYTES_MAX, FETCH_TIMEOUT_MAX, FETCHES_MAX, OutboundError, OutboundHttp,
    REQUEST_BYTES_MAX,
};
pub use jobs::{ENDING_MAX, JOBS_MAX, Jobs, THREADS_MAX};
pub(crate) use metrics::BoundedCounter;
pub use metrics::{FilterMetrics, LABEL_SETS_MAX, METRICS_MAX};
pub use store::{ENTRY_BYTES_MAX, STORE_BYTES_MAX, Stores};

/// What filters of every load share.
#[derive(Clone)]
pub struct World {
    clock: Arc<SystemClock>,
    random: Arc<OsRandom>,
    http: Arc<OutboundHttp>,
    stores: Arc<Stores>,
    metrics: Arc<FilterMetrics>,
    meter: Option<FilterMeter>,
    endings: Arc<jobs::Endings>,
    runtime: Option<Handle>,
}

impl World {
    /// A world whose metrics are shown by `registry` and whose jobs run on `runtime`.
    ///
    /// # Errors
    /// If no client for outbound HTTP can be made.
    pub fn new(registry: &Registry, runtime: Handle) -> Result<Self, OutboundError> {
        Self::with(registry, Some(runtime))
    }

    /// A world to check a configuration in: filters are built, nothing is started.
    ///
    /// # Errors
    /// If no client for outbound HTTP can be made.
    pub fn for_check() -> Result<Self, OutboundError> {
        Self::with(&Registry::new(), None)
    }

    fn with(registry: &Registry, runtime: Option<Handle>) -> Result<Self, OutboundError> {
        let clock = Arc::new(SystemClock::default());
        Ok(Self {
            random: Arc::new(OsRandom),
            http: Arc::new(OutboundHttp::new()?),
            stores: Arc::new(Stores::new(clock.clone())),
            metrics: Arc::new(FilterMetrics::new(registry.clone())),
            meter: None,
            endings: Arc::default(),
            runtime,
            clock,
        })
    }

    /// The same world, in which what filters answer is counted and timed.
    #[must_use]
    pub fn measured(self, meter: FilterMeter) -> Self {
        Self {
            meter: Some(meter),
            ..self
        }
    }

    /// Waits until filters that are gone have written and sent what was left.
    pub async fn endings(&self) {
        self.endings.ended().await;
    }

    /// The part of one load of the configuration.
    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            world: self.clone(),
            jobs: Arc::new(Jobs::new(self.runtime.clone(), self.endings.clone())),
        }
    }
}

/// One load of the configuration. Jobs of its filters are cancelled when it and their [`Env`]s are gone, or by
/// [`cancel`](Self::cancel).
#[derive(Clone)]
pub struct Load {
    world: World,
    jobs: Arc<Jobs>,
}

impl Load {
    /// The environment of one filter. What it stores is kept under `name`, apart from other filters and across loads.
    #[must_use]
    pub fn env(&self, name: &str) -> Env {
        Env::new(
            name,
            self.world.clock.clone(),
            self.world.random.clone(),
            self.world.http.clone(),
            self.world.stores.open(name),
            self.world.metrics.clone(),
            self.jobs.clone(),
        )
    }

    /// What measures the answers of filters, if anything does.
    #[must_use]
    pub fn meter(&self) -> Option<&dyn Meter> {
        self.world.meter.as_ref().map(|meter| meter as &dyn Meter)
    }

    /// Ends the load's jobs; threads end once their filters are gone.
    pub fn cancel(&self) {
        self.jobs.cancel();
    }
}
