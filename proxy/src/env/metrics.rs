//! Metrics that filters make, shown by Prometheus under `adit_`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use adit_filters::env::{Counter, Gauge, Histogram, Metrics, MetricsError};
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{
    HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// How many metrics filters may make.
pub const METRICS_MAX: usize = 256;

/// How many sets of label values one metric may have; more are counted under `other`.
pub const LABEL_SETS_MAX: usize = 200;

/// The longest label value, in bytes; what is longer counts as `other`.
const LABEL_BYTES_MAX: usize = 128;

/// What stands for label values beyond the bound.
const OTHER: &str = "other";

/// What every name begins with.
const PREFIX: &str = "adit_";

/// Makes metrics and remembers them: a reload finds them again.
pub struct FilterMetrics {
    registry: Registry,
    made: Mutex<HashMap<String, Made>>,
}

struct Made {
    labels: Vec<String>,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Counter(Arc<Bounded<IntCounterVec>>),
    Gauge(Arc<Bounded<IntGaugeVec>>),
    Histogram(Arc<Bounded<HistogramVec>>),
}

impl FilterMetrics {
    /// Metrics shown by this registry.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self {
            registry,
            made: Mutex::default(),
        }
    }

    fn metric<T>(
        &self,
        name: &str,
        labels: &[&str],
        found: impl Fn(&Kind) -> Option<Arc<T>>,
        make: impl FnOnce(String) -> Result<(Arc<T>, Kind, Box<dyn Collector>), prometheus::Error>,
    ) -> Result<Arc<T>, MetricsError> {
        if let Some(wrong) = std::iter::once(&name)
            .chain(labels)
            .find(|name| !is_name(name))
        {
            return Err(MetricsError::Invalid {
                name: (*wrong).to_owned(),
            });
        }
        let conflict = || MetricsError::Conflict {
            name: name.to_owned(),
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = made.get(name) {
            let same = earlier.labels == labels;
            return found(&earlier.kind).filter(|_| same).ok_or_else(conflict);
        }
        if made.len() >= METRICS_MAX {
            return Err(MetricsError::OverLimit { limit: METRICS_MAX });
        }
        let (metric, kind, collector) = make(format!("{PREFIX}{name}")).map_err(|_| conflict())?;
        // The engine's own metrics are in the same registry: their names are taken.
        self.registry.register(collector).map_err(|_| conflict())?;
        let labels = labels.iter().map(|&label| label.to_owned()).collect();
        made.insert(name.to_owned(), Made { labels, kind });
        Ok(metric)
    }
}

impl Metrics for FilterMetrics {
    fn counter(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<Arc<dyn Counter>, MetricsError> {
        let found = |kind: &Kind| match kind {
            Kind::Counter(metric) => Some(metric.clone()),
            _ => None,
        };
        let metric = self.metric(name, labels, found, |name| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            let metric = Arc::new(Bounded::new(vec.clone(), labels.len()));
            Ok((metric.clone(), Kind::Counter(metric), Box::new(vec)))
        })?;
        Ok(metric)
    }

    fn gauge(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<Arc<dyn Gauge>, MetricsError> {
        let found = |kind: &Kind| match kind {
            Kind::Gauge(metric) => Some(metric.clone()),
            _ => None,
        };
        let metric = self.metric(name, labels, found, |name| {
            let vec = IntGaugeVec::new(Opts::new(name, help), labels)?;
            let metric = Arc::new(Bounded::new(vec.clone(), labels.len()));
            Ok((metric.clone(), Kind::Gauge(metric), Box::new(vec)))
        })?;
        Ok(metric)
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<Arc<dyn Histogram>, MetricsError> {
        let found = |kind: &Kind| match kind {
            Kind::Histogram(metric) => Some(metric.clone()),
            _ => None,
        };
        let metric = self.metric(name, labels, found, |name| {
            let vec = HistogramVec::new(
                HistogramOpts::new(name, help).buckets(buckets.to_vec()),
                labels,
            )?;
            let metric = Arc::new(Bounded::new(vec.clone(), labels.len()));
            Ok((metric.clone(), Kind::Histogram(metric), Box::new(vec)))
        })?;
        Ok(metric)
    }
}

/// A counter with a bound on its sets of label values.
pub(crate) type BoundedCounter = Bounded<IntCounterVec>;

/// A metric with a bound on its sets of label values.
pub(crate) struct Bounded<V: Vector> {
    vec: V,
    labels: usize,
    series: RwLock<HashMap<Vec<String>, V::Series>>,
}

/// What the three kinds of vector have in common here.
pub(crate) trait Vector {
    type Series: Clone;
    fn series(&self, labels: &[&str]) -> Option<Self::Series>;
}

impl<B: MetricVecBuilder> Vector for MetricVec<B>
where
    B::M: Clone,
{
    type Series = B::M;
    fn series(&self, labels: &[&str]) -> Option<B::M> {
        self.get_metric_with_label_values(labels).ok()
    }
}

impl<V: Vector> Bounded<V> {
    pub(crate) fn new(vec: V, labels: usize) -> Self {
        Self {
            vec,
            labels,
            series: RwLock::default(),
        }
    }

    fn series(&self, values: &[&str]) -> Option<V::Series> {
        if values.len() != self.labels {
            tracing::debug!(
                expected = self.labels,
                given = values.len(),
                "a metric was given the wrong labels"
            );
            return None;
        }
        let key: Vec<String> = values.iter().map(|&value| value.to_owned()).collect();
        let known = self
            .series
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned();
        if known.is_some() {
            return known;
        }
        let mut all = self.series.write().unwrap_or_else(PoisonError::into_inner);
        let long = values.iter().any(|value| value.len() > LABEL_BYTES_MAX);
        if long || all.len() >= LABEL_SETS_MAX {
            return self.vec.series(&vec![OTHER; self.labels]);
        }
        let series = self.vec.series(values)?;
        all.insert(key, series.clone());
        Some(series)
    }
}

impl Counter for Bounded<IntCounterVec> {
    fn add(&self, labels: &[&str], by: u64) {
        if let Some(series) = self.series(labels) {
            IntCounter::inc_by(&series, by);
        }
    }
}

impl Gauge for Bounded<IntGaugeVec> {
    fn set(&self, labels: &[&str], to: i64) {
        if let Some(series) = self.series(labels) {
            IntGauge::set(&series, to);
        }
    }

    fn add(&self, labels: &[&str], by: i64) {
        if let Some(series) = self.series(labels) {
            IntGauge::add(&series, by);
        }
    }
}

impl Histogram for Bounded<HistogramVec> {
    fn observe(&self, labels: &[&str], value: f64) {
        if let Some(series) = self.series(labels) {
            series.observe(value);
        }
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && name.len() <= LABEL_BYTES_MAX
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use prometheus::TextEncoder;

    use super::*;

    fn shown(registry: &Registry) -> String {
        TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap()
    }

    #[test]
    fn filters_make_metrics_that_a_reload_finds_again() {
        let registry = Registry::new();
        let metrics = FilterMetrics::new(registry.clone());
        for _ in 0..2 {
            metrics
                .counter("hits_total", "Hits", &["kind"])
                .unwrap()
                .add(&["a"], 2);
        }
        let gauge = metrics.gauge("open", "Open", &[]).unwrap();
        gauge.set(&[], 5);
        gauge.add(&[], -2);
        metrics
            .histogram("seconds", "Seconds", &[], &[0.1, 1.0])
            .unwrap()
            .observe(&[], 0.5);
        let text = shown(&registry);
        for line in [
            "adit_hits_total{kind=\"a\"} 4",
            "adit_open 3",
            "adit_seconds_bucket{le=\"1\"} 1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn names_that_are_wrong_or_taken_are_refused() {
        let registry = Registry::new();
        registry
            .register(Box::new(IntGauge::new("adit_engine_clients", "x").unwrap()))
            .unwrap();
        let metrics = FilterMetrics::new(registry);
        metrics.counter("hits", "Hits", &["kind"]).unwrap();
        let conflict = |name: &str| {
            Some(MetricsError::Conflict {
                name: name.to_owned(),
            })
        };
        assert_eq!(
            metrics.gauge("hits", "Hits", &["kind"]).err(),
            conflict("hits")
        );
        assert_eq!(
            metrics.counter("hits", "Hits", &["other"]).err(),
            conflict("hits")
        );
        assert_eq!(
            metrics.gauge("engine_clients", "x", &[]).err(),
            conflict("engine_clients")
        );
        for name in [
            "",
            "Hits",
            "1st",
            "a-b",
            "a b",
            &"x".repeat(LABEL_BYTES_MAX + 1),
        ] {
            assert_eq!(
                metrics.counter(name, "x", &[]).err(),
                Some(MetricsError::Invalid {
                    name: name.to_owned()
                })
            );
        }
        assert!(metrics.counter("fine", "x", &["Not"]).is_err());
    }

    #[test]
    fn metrics_and_their_labels_are_bounded() {
        let registry = Registry::new();
        let metrics = FilterMetrics::new(registry.clone());
        let counter = metrics.counter("m0", "x", &["visitor"]).unwrap();
        for n in 0..LABEL_SETS_MAX + 10 {
            counter.add(&[&n.to_string()], 1);
        }
        counter.add(&[&"x".repeat(LABEL_BYTES_MAX + 1)], 1);
        counter.add(&["0"], 1);
        counter.add(&["too", "many"], 1);
        let text = shown(&registry);
        assert_eq!(text.matches("adit_m0{").count(), LABEL_SETS_MAX + 1);
        assert!(text.contains("adit_m0{visitor=\"other\"} 11"), "{text}");
        assert!(text.contains("adit_m0{visitor=\"0\"} 2"));
        for n in 1..METRICS_MAX {
            metrics.counter(&format!("m{n}"), "x", &[]).unwrap();
        }
        assert_eq!(
            metrics.counter("more", "x", &[]).err(),
            Some(MetricsError::OverLimit { limit: METRICS_MAX })
        );
    }
}
