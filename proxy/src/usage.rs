//! What tunnels use: bytes, connections and their time (edge behaviour §12.1).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use adit_filters::TunnelInfo;
use prometheus::{Counter, CounterVec, IntCounter, IntCounterVec, Opts, Registry};

/// What tells users apart. The operator chose the projects' names; the rest are words of short lists.
const LABELS: [&str; 4] = ["project", "protocol", "type", "publish"];

/// What stands for a project where projects are not told apart.
const ANY_PROJECT: &str = "";

/// What all tunnels use.
#[derive(Debug)]
pub struct Usages {
    upstream: IntCounterVec,
    downstream: IntCounterVec,
    connections: IntCounterVec,
    seconds: CounterVec,
    projects: AtomicBool,
}

/// What tunnels of one kind use.
#[derive(Debug)]
pub(crate) struct Usage {
    upstream: IntCounter,
    downstream: IntCounter,
    connections: IntCounter,
    seconds: Counter,
}

impl Usages {
    /// Makes the counters and registers them.
    ///
    /// # Errors
    /// Where a name is taken on this registry.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let integers = |name: &str, help: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &LABELS)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let seconds = Opts::new(
            "adit_usage_connection_seconds_total",
            "Time that connections to tunnels were open, counted when they end",
        );
        let seconds = CounterVec::new(seconds, &LABELS)?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self {
            upstream: integers(
                "adit_usage_upstream_bytes_total",
                "Bytes from visitors and dialers to services, heads not counted",
            )?,
            downstream: integers(
                "adit_usage_downstream_bytes_total",
                "Bytes from services to visitors and dialers, heads not counted",
            )?,
            connections: integers(
                "adit_usage_connections_total",
                "Connections of visitors and dialers to tunnels",
            )?,
            seconds,
            projects: AtomicBool::new(true),
        })
    }

    /// Tells projects apart from now on, or no longer.
    pub(crate) fn set_projects(&self, apart: bool) {
        self.projects.store(apart, Ordering::Relaxed);
    }

    /// What a tunnel's traffic is counted as.
    pub(crate) fn of(&self, tunnel: &TunnelInfo) -> Arc<Usage> {
        let project = match self.projects.load(Ordering::Relaxed) {
            true => tunnel.project.as_str(),
            false => ANY_PROJECT,
        };
        let labels = [
            project,
            tunnel.protocol.as_deref().unwrap_or("none"),
            &tunnel.kind,
            if tunnel.published { "true" } else { "false" },
        ];
        Arc::new(Usage {
            upstream: self.upstream.with_label_values(&labels),
            downstream: self.downstream.with_label_values(&labels),
            connections: self.connections.with_label_values(&labels),
            seconds: self.seconds.with_label_values(&labels),
        })
    }
}

impl Usage {
    pub(crate) fn add(&self, upstream: u64, downstream: u64) {
        self.upstream.inc_by(upstream);
        self.downstream.inc_by(downstream);
    }

    /// Counts a connection, and its time once what is returned goes.
    pub(crate) fn connect(self: &Arc<Self>) -> Open {
        self.connections.inc();
        Open {
            usage: Arc::clone(self),
            since: Instant::now(),
        }
    }
}

/// A connection to a tunnel, while it is open.
#[derive(Debug)]
pub(crate) struct Open {
    usage: Arc<Usage>,
    since: Instant,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.usage
            .seconds
            .inc_by(self.since.elapsed().as_secs_f64());
    }
}
