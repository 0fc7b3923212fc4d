//! Metrics.

use std::sync::Arc;

/// Makes metrics. Asking twice for the same name, kind and labels answers the same metric.
pub trait Metrics: Send + Sync {
    /// A number that only grows. `name` without the engine's prefix, `labels` are their names.
    ///
    /// # Errors
    /// [`MetricsError`].
    fn counter(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<Arc<dyn Counter>, MetricsError>;
    /// A number that goes up and down.
    ///
    /// # Errors
    /// [`MetricsError`].
    fn gauge(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<Arc<dyn Gauge>, MetricsError>;
    /// A distribution; `buckets` are upper bounds in increasing order.
    ///
    /// # Errors
    /// [`MetricsError`].
    fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<Arc<dyn Histogram>, MetricsError>;
}

/// A number that only grows. Label values beyond the metric's bound are counted under `other`.
pub trait Counter: Send + Sync {
    /// Adds. `labels` are the values, in the order of their names.
    fn add(&self, labels: &[&str], by: u64);
}

/// A number that goes up and down. Label values beyond the metric's bound are counted under `other`.
pub trait Gauge: Send + Sync {
    /// Sets. `labels` are the values, in the order of their names.
    fn set(&self, labels: &[&str], to: i64);
    /// Adds, perhaps a negative number.
    fn add(&self, labels: &[&str], by: i64);
}

/// A distribution. Label values beyond the metric's bound are counted under `other`.
pub trait Histogram: Send + Sync {
    /// Counts one value. `labels` are the values, in the order of their names.
    fn observe(&self, labels: &[&str], value: f64);
}

/// Why there is no such metric.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// The name or a label's name is not one.
    #[error("`{name}` is not a name for a metric or label: use lower case, digits and `_`")]
    Invalid {
        /// The name.
        name: String,
    },
    /// The name is taken by a metric of another kind or with other labels.
    #[error("metric `{name}` already exists with another kind or other labels")]
    Conflict {
        /// The name.
        name: String,
    },
    /// Too many metrics.
    #[error("filters may make at most {limit} metrics")]
    OverLimit {
        /// How many there may be.
        limit: usize,
    },
}
