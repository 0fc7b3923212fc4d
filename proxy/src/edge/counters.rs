//! What the HTTP edge counts.

use adit_filters::Refusal;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Classes of status, each at the place of its first digit; the first stands for no answer.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Counters of the edge, on the engine's own metrics registry.
pub struct Counters {
    requests: [IntCounter; CLASSES.len()],
    denied: IntCounterVec,
    bytes_up: IntCounter,
    bytes_down: IntCounter,
    /// Visitor connections now open.
    pub(crate) connections: IntGauge,
    /// Upstream connections opened so far.
    pub(crate) upstream_connections: IntCounter,
}

impl Counters {
    /// Makes the counters and registers them.
    ///
    /// # Errors
    /// Where a name is taken on this registry.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new(
                "adit_edge_requests_total",
                "Requests finished, by class of status",
            ),
            &["status"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        let counters = Self {
            requests: CLASSES.map(|class| requests.with_label_values(&[class])),
            denied: IntCounterVec::new(
                Opts::new("adit_edge_denied_total", "Requests refused, by reason"),
                &["reason"],
            )?,
            bytes_up: IntCounter::new(
                "adit_usage_upstream_bytes_total",
                "Body bytes from visitors to upstreams",
            )?,
            bytes_down: IntCounter::new(
                "adit_usage_downstream_bytes_total",
                "Body bytes from upstreams to visitors",
            )?,
            connections: IntGauge::new("adit_edge_connections", "Visitor connections now open")?,
            upstream_connections: IntCounter::new(
                "adit_edge_upstream_connections_total",
                "Connections opened to upstreams",
            )?,
        };
        registry.register(Box::new(counters.denied.clone()))?;
        registry.register(Box::new(counters.bytes_up.clone()))?;
        registry.register(Box::new(counters.bytes_down.clone()))?;
        registry.register(Box::new(counters.connections.clone()))?;
        registry.register(Box::new(counters.upstream_connections.clone()))?;
        Ok(counters)
    }

    /// Counts a finished exchange. `status` is `None` where the visitor got no answer.
    pub(crate) fn finished(
        &self,
        status: Option<u16>,
        refusal: Option<&Refusal>,
        up: u64,
        down: u64,
    ) {
        let class = usize::from(status.unwrap_or_default() / 100);
        if let Some(counter) = self.requests.get(class).or(self.requests.first()) {
            counter.inc();
        }
        if let Some(refusal) = refusal {
            self.denied
                .with_label_values(&[refusal.reason.as_str()])
                .inc();
        }
        self.bytes_up.inc_by(up);
        self.bytes_down.inc_by(down);
    }
}
