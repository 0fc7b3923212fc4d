//! What all instances of one configured filter share.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_filters::Env;
use adit_filters::env::{Counter, Gauge, Histogram, MetricsError, Reach};

use crate::limits::Limits;
use crate::spent::Spent;

/// How long the budget of log lines is counted over.
const LOG_WINDOW: Duration = Duration::from_secs(1);

/// Longest name of a metric, in bytes.
const METRIC_NAME_BYTES_MAX: usize = 64;

/// What a plugin may do beyond judging; nothing of it unless the operator says so.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Grants {
    /// Hosts that `fetch` may reach at public addresses, lower case.
    pub allow_hosts: BTreeSet<String>,
    /// Hosts that it may reach wherever they are, lower case.
    pub allow_private_hosts: BTreeSet<String>,
    /// Whether it may say who a visitor is.
    pub establish_identity: bool,
}

impl Grants {
    /// Where a request to this host (in lower case) may lead; none if the operator has not named it.
    pub(crate) fn reach(&self, host: &str) -> Option<Reach> {
        match (
            self.allow_private_hosts.contains(host),
            self.allow_hosts.contains(host),
        ) {
            (true, _) => Some(Reach::Named),
            (false, true) => Some(Reach::Public),
            (false, false) => None,
        }
    }
}

/// What all instances of one configured filter share.
pub(crate) struct Shared {
    /// The kind of filter: the plugin's name.
    pub(crate) plugin: Arc<str>,
    pub(crate) env: Env,
    pub(crate) grants: Grants,
    pub(crate) limits: Limits,
    /// Where what is used is counted, if anybody wants to know.
    pub(crate) spent: Option<Arc<Spent>>,
    counters: Mutex<HashMap<String, Arc<dyn Counter>>>,
    gauges: Mutex<HashMap<String, Arc<dyn Gauge>>>,
    logged: Mutex<Logged>,
    failures: AtomicU64,
}

/// How much of the budget of log lines is used.
#[derive(Default)]
struct Logged {
    since: Duration,
    lines: u32,
    dropped: u64,
}

/// Whether a line may be logged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Room {
    /// It may, and so many were dropped since the last one.
    Yes {
        dropped: u64,
    },
    No,
}

impl Shared {
    pub(crate) fn new(plugin: Arc<str>, env: Env, grants: Grants, limits: Limits) -> Self {
        Self {
            plugin,
            env,
            grants,
            limits,
            spent: None,
            counters: Mutex::default(),
            gauges: Mutex::default(),
            logged: Mutex::default(),
            failures: AtomicU64::new(0),
        }
    }

    /// Takes a line out of the budget.
    pub(crate) fn room(&self) -> Room {
        let now = self.env.clock.monotonic();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_sub(logged.since) >= LOG_WINDOW {
            logged.since = now;
            logged.lines = 0;
        }
        if logged.lines >= self.limits.log_lines {
            logged.dropped += 1;
            return Room::No;
        }
        logged.lines += 1;
        Room::Yes {
            dropped: std::mem::take(&mut logged.dropped),
        }
    }

    /// Counts a failure; true for those that are worth a line: the first, and whenever their number has doubled.
    pub(crate) fn failed(&self) -> Option<u64> {
        let total = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        total.is_power_of_two().then_some(total)
    }

    pub(crate) fn counter(&self, name: &str) -> Result<Arc<dyn Counter>, MetricsError> {
        let mut known = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = known.get(name) {
            return Ok(Arc::clone(counter));
        }
        let counter = self.env.metrics.counter(&named(name)?, HELP, &[LABEL])?;
        known.insert(name.to_owned(), Arc::clone(&counter));
        Ok(counter)
    }

    pub(crate) fn gauge(&self, name: &str) -> Result<Arc<dyn Gauge>, MetricsError> {
        let mut known = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gauge) = known.get(name) {
            return Ok(Arc::clone(gauge));
        }
        let gauge = self.env.metrics.gauge(&named(name)?, HELP, &[LABEL])?;
        known.insert(name.to_owned(), Arc::clone(&gauge));
        Ok(gauge)
    }

    pub(crate) fn histogram(
        &self,
        name: &str,
        buckets: &[f64],
    ) -> Result<Arc<dyn Histogram>, MetricsError> {
        let metrics = &self.env.metrics;
        metrics.histogram(&named(name)?, HELP, &[LABEL], buckets)
    }
}

/// What is said of a metric that a plugin has made.
const HELP: &str = "Made by plugins of this name";

/// The label that says which plugin.
const LABEL: &str = "plugin";

fn named(name: &str) -> Result<String, MetricsError> {
    match name.len() <= METRIC_NAME_BYTES_MAX {
        true => Ok(format!("plugin_{name}")),
        false => Err(MetricsError::Invalid {
            name: name.chars().take(METRIC_NAME_BYTES_MAX).collect(),
        }),
    }
}
