//! What the HTTP edge counts.

use std::sync::Arc;
use std::time::Duration;

use adit_filters::env::Counter as _;
use adit_filters::{Refusal, Settled, Settlement};
use http::Version;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::env::BoundedCounter;
use crate::usage::{Usage, Usages};

/// Classes of status, each at the place of its first digit; the first stands for no answer.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Versions of HTTP, in ALPN's words; the last stands for any other.
const PROTOCOLS: [&str; 4] = ["http/1.1", "h2", "h3", "other"];

/// How long it takes to reach a service, in seconds: from one on the same machine to one whose agent is slow.
const ESTABLISH_BUCKETS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];

/// Counters of the edge, on the engine's own metrics registry.
pub struct Counters {
    requests: [[IntCounter; CLASSES.len()]; PROTOCOLS.len()],
    denied: BoundedCounter,
    establish: Histogram,
    pub(crate) usages: Arc<Usages>,
    /// Visitor connections now open.
    pub(crate) connections: IntGauge,
    /// Upstream connections opened so far.
    pub(crate) upstream_connections: IntCounter,
}

/// An exchange that is over.
#[derive(Clone, Copy)]
pub(crate) struct Finished<'a> {
    pub(crate) version: Version,
    /// None where the visitor got no answer.
    pub(crate) status: Option<u16>,
    pub(crate) refusal: Option<&'a Refusal>,
    pub(crate) settled: Option<&'a Settled>,
    /// How long it took to reach the service, if it was.
    pub(crate) establish: Option<Duration>,
}

impl Finished<'_> {
    /// One that never came to a tunnel.
    pub(crate) fn without_tunnel(version: Version, status: http::StatusCode) -> Self {
        Self {
            version,
            status: Some(status.as_u16()),
            refusal: None,
            settled: None,
            establish: None,
        }
    }
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
                "Requests finished, by HTTP version and class of status",
            ),
            &["protocol", "status"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        let denied = IntCounterVec::new(
            Opts::new(
                "adit_edge_denied_total",
                "Requests refused, by filter (or `edge`) and reason",
            ),
            &["filter", "reason"],
        )?;
        registry.register(Box::new(denied.clone()))?;
        let counters = Self {
            requests: PROTOCOLS.map(|protocol| {
                CLASSES.map(|class| requests.with_label_values(&[protocol, class]))
            }),
            denied: BoundedCounter::new(denied, 2),
            establish: Histogram::with_opts(
                HistogramOpts::new(
                    "adit_edge_establish_seconds",
                    "Time from a request's head to its service's answer, or to the stream of an upgrade",
                )
                .buckets(ESTABLISH_BUCKETS.to_vec()),
            )?,
            usages: Arc::new(Usages::register(registry)?),
            connections: IntGauge::new("adit_edge_connections", "Visitor connections now open")?,
            upstream_connections: IntCounter::new(
                "adit_edge_upstream_connections_total",
                "Connections opened to upstreams",
            )?,
        };
        registry.register(Box::new(counters.establish.clone()))?;
        registry.register(Box::new(counters.connections.clone()))?;
        registry.register(Box::new(counters.upstream_connections.clone()))?;
        Ok(counters)
    }

    /// Counts a finished exchange.
    pub(crate) fn finished(&self, finished: Finished<'_>) {
        let protocol = match finished.version {
            Version::HTTP_09 | Version::HTTP_10 | Version::HTTP_11 => 0,
            Version::HTTP_2 => 1,
            Version::HTTP_3 => 2,
            _ => 3,
        };
        let class = usize::from(finished.status.unwrap_or_default() / 100);
        if let Some(classes) = self.requests.get(protocol)
            && let Some(counter) = classes.get(class).or(classes.first())
        {
            counter.inc();
        }
        if let Some(refusal) = finished.refusal {
            let filter = refusal.by.as_deref().unwrap_or("edge");
            self.deny(filter, refusal.reason.as_str());
        } else if let Some(settled) = finished.settled
            && settled.how == Settlement::Closed
        {
            self.deny(&settled.by, settled.how.as_str());
        }
        if let Some(establish) = finished.establish {
            self.establish.observe(establish.as_secs_f64());
        }
    }

    fn deny(&self, filter: &str, reason: &str) {
        self.denied.add(&[filter, reason], 1);
    }

    /// What a tunnel's traffic is counted as.
    pub(crate) fn usage(&self, tunnel: &adit_filters::TunnelInfo) -> Arc<Usage> {
        self.usages.of(tunnel)
    }
}
