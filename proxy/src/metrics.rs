//! Prometheus metrics, on a listener of their own.

mod filters;

use std::sync::Arc;

use adit_config::{Listen, Secret};
use arc_swap::ArcSwap;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use tokio::net::TcpStream;

use crate::edge::Counters;
use crate::listen::plain::{self, Answer, PlainLimits, Request};

pub use filters::{FilterMeter, PAIRS_MAX};

/// Every metric of the engine. All names begin with `adit_`.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    listeners: Arc<ListenerMetrics>,
    clients: IntGauge,
    streams: IntGauge,
    tunnels: IntGaugeVec,
    certificate_ends: IntGauge,
    filters: FilterMeter,
}

/// What is counted when somebody asks.
#[derive(Debug)]
pub(crate) struct Observed<'a, T: Iterator<Item = TunnelLabels<'a>>> {
    /// Agents connected.
    pub(crate) clients: usize,
    /// Streams of agents that are open.
    pub(crate) streams: usize,
    /// Each tunnel.
    pub(crate) tunnels: T,
    /// When the certificate ends, in seconds since 1970.
    pub(crate) certificate_ends: Option<i64>,
}

/// What tells tunnels apart in the metrics: words of a short list, never a name of somebody's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TunnelLabels<'a> {
    pub(crate) protocol: &'a str,
    pub(crate) kind: &'a str,
    pub(crate) published: bool,
}

impl Metrics {
    /// Makes the metrics, those of the HTTP edge among them.
    ///
    /// # Errors
    /// Where two of them have one name, which a test would show.
    pub(crate) fn new() -> Result<(Self, Arc<Counters>), prometheus::Error> {
        let registry = Registry::new();
        let edge = Arc::new(Counters::register(&registry)?);
        let build = IntGaugeVec::new(
            Opts::new("adit_build_info", "Always 1; the version is a label"),
            &["version"],
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(build))?;
        let clients = IntGauge::new("adit_engine_clients", "Agents connected now")?;
        registry.register(Box::new(clients.clone()))?;
        let streams = IntGauge::new(
            "adit_engine_streams_active",
            "Streams brought by agents and open now, for visitors and dialers together",
        )?;
        registry.register(Box::new(streams.clone()))?;
        let certificate_ends = IntGauge::new(
            "adit_cert_not_after_seconds",
            "When the engine's certificate ends, in seconds since 1970; 0 where it does not say",
        )?;
        registry.register(Box::new(certificate_ends.clone()))?;
        let tunnels = IntGaugeVec::new(
            Opts::new("adit_engine_tunnels", "Tunnels open now"),
            &["protocol", "type", "publish"],
        )?;
        registry.register(Box::new(tunnels.clone()))?;
        let listeners = Arc::new(ListenerMetrics::register(&registry)?);
        let filters = FilterMeter::register(&registry)?;
        let metrics = Self {
            filters,
            registry,
            listeners,
            clients,
            streams,
            tunnels,
            certificate_ends,
        };
        Ok((metrics, edge))
    }

    /// The registry, for what filters count.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What measures the filters of every chain.
    pub(crate) fn filters(&self) -> FilterMeter {
        self.filters.clone()
    }

    pub(crate) fn listeners(&self) -> Arc<ListenerMetrics> {
        Arc::clone(&self.listeners)
    }

    /// Sets the gauges that are counted when somebody asks.
    pub(crate) fn observe<'a>(
        &self,
        observed: Observed<'a, impl Iterator<Item = TunnelLabels<'a>>>,
    ) {
        self.clients.set(gauge(observed.clients));
        self.streams.set(gauge(observed.streams));
        self.certificate_ends
            .set(observed.certificate_ends.unwrap_or(0));
        self.tunnels.reset();
        for tunnel in observed.tunnels {
            let publish = if tunnel.published { "true" } else { "false" };
            self.tunnels
                .with_label_values(&[tunnel.protocol, tunnel.kind, publish])
                .inc();
        }
    }

    fn text(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What the listeners count.
#[derive(Debug)]
pub(crate) struct ListenerMetrics {
    failures: IntCounterVec,
    turned_away: IntCounter,
}

impl ListenerMetrics {
    pub(crate) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            failures: IntCounterVec::new(
                Opts::new(
                    "adit_edge_handshake_failures_total",
                    "Connections that ended before they were served, by reason or alert",
                ),
                &["alert"],
            )?,
            turned_away: IntCounter::new(
                "adit_listen_turned_away_total",
                "Connections closed because limits.connections was reached",
            )?,
        };
        registry.register(Box::new(metrics.failures.clone()))?;
        registry.register(Box::new(metrics.turned_away.clone()))?;
        Ok(metrics)
    }

    pub(crate) fn failed(&self, reason: &str) {
        self.failures.with_label_values(&[reason]).inc();
    }

    pub(crate) fn turned_away(&self) {
        self.turned_away.inc();
    }
}

/// Who may read the metrics, and where.
#[derive(Debug)]
pub(crate) struct Access {
    path: String,
    token: Option<Secret<String>>,
}

impl Access {
    pub(crate) fn new(listen: &Listen) -> Self {
        Self {
            path: listen.metrics_path.clone(),
            token: listen.metrics_token.clone(),
        }
    }

    /// Whether `request` may see the metrics; otherwise what it gets instead.
    fn refuse(&self, request: &Request) -> Option<Answer> {
        if let Some(token) = &self.token {
            let shown = request
                .authorization
                .as_deref()
                .and_then(|value| value.split_once(' '))
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            if !shown.is_some_and(|(_, shown)| token.matches(shown.trim())) {
                let why = "the metrics need their bearer token";
                return Some(
                    Answer::text("401 Unauthorized", why).with("www-authenticate", "Bearer"),
                );
            }
        }
        let path = request.target.split('?').next().unwrap_or_default();
        if path != self.path {
            return Some(Answer::text("404 Not Found", "not found"));
        }
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return Some(
                Answer::text("405 Method Not Allowed", "use GET").with("allow", "GET, HEAD"),
            );
        }
        None
    }
}

/// The metrics as a service of one connection each.
pub(crate) struct MetricsServer {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) access: ArcSwap<Access>,
    pub(crate) limits: PlainLimits,
    /// Brings the gauges up to date.
    pub(crate) refresh: Box<dyn Fn(&Metrics) + Send + Sync>,
}

impl MetricsServer {
    pub(crate) async fn serve(self: Arc<Self>, stream: TcpStream) {
        plain::serve(stream, Vec::new(), &self.limits, |request| {
            self.answer(request)
        })
        .await;
    }

    fn answer(&self, request: &Request) -> Answer {
        if let Some(refusal) = self.access.load().refuse(request) {
            return refusal;
        }
        (self.refresh)(&self.metrics);
        match self.metrics.text() {
            Ok(text) => Answer {
                status: "200 OK",
                fields: vec![("content-type", prometheus::TEXT_FORMAT.to_owned())],
                body: text.into_bytes(),
            },
            Err(error) => {
                tracing::error!(%error, "metrics cannot be written");
                Answer::text("500 Internal Server Error", "the metrics cannot be written")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn server(token: Option<&str>) -> MetricsServer {
        let (metrics, _) = Metrics::new().unwrap();
        MetricsServer {
            metrics: Arc::new(metrics),
            access: ArcSwap::from_pointee(Access {
                path: "/metrics".to_owned(),
                token: token.map(|token| Secret::new(token.to_owned())),
            }),
            limits: PlainLimits {
                header_bytes: 1024,
                header_fields: 16,
                header_wait: std::time::Duration::from_secs(1),
                lingering: std::time::Duration::from_secs(1),
                lingering_bytes: 0,
            },
            refresh: Box::new(|metrics| {
                let tunnel = TunnelLabels {
                    protocol: "http",
                    kind: "bytestream",
                    published: true,
                };
                metrics.observe(Observed {
                    clients: 2,
                    streams: 3,
                    tunnels: [tunnel].into_iter(),
                    certificate_ends: Some(1_800_000_000),
                });
            }),
        }
    }

    fn status(server: &MetricsServer, target: &str, authorization: Option<&str>) -> &'static str {
        let request = Request {
            method: "GET".to_owned(),
            target: target.to_owned(),
            host: None,
            authorization: authorization.map(str::to_owned),
        };
        server.answer(&request).status
    }

    // edge-behaviour §14.7 X12
    #[test]
    fn a_token_is_asked_for_where_one_is_set() {
        let open = server(None);
        assert_eq!(status(&open, "/metrics", None), "200 OK");
        assert_eq!(status(&open, "/", None), "404 Not Found");
        let closed = server(Some("let-me-in"));
        for wrong in [
            None,
            Some("Bearer other"),
            Some("Basic let-me-in"),
            Some("let-me-in"),
        ] {
            assert_eq!(status(&closed, "/metrics", wrong), "401 Unauthorized");
        }
        assert_eq!(
            status(&closed, "/metrics?x", Some("bearer let-me-in")),
            "200 OK"
        );
    }

    #[test]
    fn every_metric_carries_the_prefix() {
        let server = server(None);
        server.metrics.listeners().failed("timeout");
        (server.refresh)(&server.metrics);
        let text = server.metrics.text().unwrap();
        for line in [
            "adit_engine_clients 2\n",
            "adit_engine_streams_active 3\n",
            "adit_cert_not_after_seconds 1800000000\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(
            text.contains(
                r#"adit_engine_tunnels{protocol="http",publish="true",type="bytestream"} 1"#
            ),
            "{text}"
        );
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.starts_with("adit_"), "{line}");
        }
    }
}
