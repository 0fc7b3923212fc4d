//! What the outside world offers a filter: the whole list, and the same one a plugin in Wasm gets.

pub mod fake;
mod http_client;
mod jobs;
mod metrics;
mod store;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::filter::ConfigError;
use crate::slots::Slot;

pub use http_client::{FetchError, HttpClient, HttpRequest, HttpResponse, Reach};
pub use jobs::{Jobs, JobsError};
pub use metrics::{Counter, Gauge, Histogram, Metrics, MetricsError};
pub use store::{Store, StoreError};

/// A future that filters may be handed or hand out.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How many slots one filter may take.
pub const FILTER_SLOTS_MAX: usize = 16;

/// What one configured filter may reach. Quotas and key spaces behind it are that filter's own.
#[derive(Clone)]
pub struct Env {
    /// The filter's name, `policy/filter`: it stays the same when the filter is built anew.
    pub name: Arc<str>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness fit for keys.
    pub random: Arc<dyn Random>,
    /// Outbound HTTP.
    pub http: Arc<dyn HttpClient>,
    /// A bounded key-value store, private to this filter.
    pub store: Arc<dyn Store>,
    /// Metrics, prefixed by the engine.
    pub metrics: Arc<dyn Metrics>,
    /// Work beside the data path.
    pub jobs: Arc<dyn Jobs>,
    slots: usize,
}

impl Env {
    /// An environment of these parts, with no slot taken.
    #[must_use]
    pub fn new(
        name: &str,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        http: Arc<dyn HttpClient>,
        store: Arc<dyn Store>,
        metrics: Arc<dyn Metrics>,
        jobs: Arc<dyn Jobs>,
    ) -> Self {
        Self {
            name: name.into(),
            clock,
            random,
            http,
            store,
            metrics,
            jobs,
            slots: 0,
        }
    }

    /// A cell of this filter's own in every connection and every exchange.
    ///
    /// # Errors
    /// When the filter already has [`FILTER_SLOTS_MAX`] of them.
    pub fn slot<T>(&mut self) -> Result<Slot<T>, ConfigError> {
        if self.slots >= FILTER_SLOTS_MAX {
            let message = format!("one filter may take at most {FILTER_SLOTS_MAX} slots");
            return Err(ConfigError { key: None, message });
        }
        self.slots += 1;
        Ok(Slot::unique())
    }

    /// How many slots were taken.
    #[must_use]
    pub fn slots_taken(&self) -> usize {
        self.slots
    }
}

/// The time.
pub trait Clock: Send + Sync {
    /// The calendar's time, for expiry and logs. It may jump.
    fn now(&self) -> SystemTime;
    /// Time since some fixed moment, for measuring: it never goes back.
    fn monotonic(&self) -> Duration;
    /// Waits.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// Randomness fit for keys.
pub trait Random: Send + Sync {
    /// Fills the buffer.
    fn fill(&self, buffer: &mut [u8]);
}
