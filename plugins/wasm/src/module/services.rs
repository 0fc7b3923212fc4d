//! What the host of core modules offers them of the world outside: the same as components get, under the same limits.

use std::sync::Arc;

use adit_filters::env::{Counter, Gauge, Histogram, MetricsError, Reach};
use adit_filters::{Env, FilterError};
use tracing::Level;

pub use crate::host::{FieldRefused, own_field, retarget};

use crate::factory::Settings;
use crate::limits::Limits;
use crate::output;
use crate::shared::Shared;

/// What one configured filter may use of the world outside.
#[derive(Clone)]
pub struct Services(Arc<Shared>);

impl Services {
    /// For a filter of this plugin.
    #[must_use]
    pub fn new(settings: &Settings, env: Env) -> Self {
        Self(Arc::new(settings.shared(env)))
    }

    /// The name of the plugin.
    #[must_use]
    pub fn plugin(&self) -> &str {
        &self.0.plugin
    }

    /// What it may reach.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.0.env
    }

    /// How much of everything it may use.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Writes one line to the engine's log, as far as the filter's budget allows.
    pub fn log(&self, level: Level, message: &str) {
        output::line(&self.0, level, message);
    }

    /// Counts a failure, and writes down those that are worth it.
    pub fn failed(&self, error: &FilterError) {
        if let Some(total) = self.0.failed() {
            let filter = &*self.0.env.name;
            tracing::warn!(filter, total, error = %error.detail(), "a plugin failed");
        }
    }

    /// Where a request to this host (in lower case) may lead; none if the operator has not named it.
    #[must_use]
    pub fn reach(&self, host: &str) -> Option<Reach> {
        self.0.grants.reach(host)
    }

    /// A number that only grows, with the plugin's name as its one label.
    ///
    /// # Errors
    /// [`MetricsError`].
    pub fn counter(&self, name: &str) -> Result<Arc<dyn Counter>, MetricsError> {
        self.0.counter(name)
    }

    /// A number that goes up and down, with the plugin's name as its one label.
    ///
    /// # Errors
    /// [`MetricsError`].
    pub fn gauge(&self, name: &str) -> Result<Arc<dyn Gauge>, MetricsError> {
        self.0.gauge(name)
    }

    /// A distribution, with the plugin's name as its one label.
    ///
    /// # Errors
    /// [`MetricsError`].
    pub fn histogram(
        &self,
        name: &str,
        buckets: &[f64],
    ) -> Result<Arc<dyn Histogram>, MetricsError> {
        self.0.histogram(name, buckets)
    }
}
