//! What all machines of one configured filter share.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adit_filters::env::{Counter, Gauge, Histogram};
use adit_wasm::module::Services;
use bytes::Bytes;
use http::Uri;
use tokio::sync::Notify;
use tracing::Level;

use crate::abi::Status;
use crate::under_way::{Call, UnderWay};

/// How many metrics one filter may define.
const METRICS_MAX: usize = 256;

/// How many queues one filter may have.
const QUEUES_MAX: usize = 64;

/// How many items may wait in one queue.
const QUEUE_ITEMS_MAX: usize = 1024;

/// How many bytes may wait in one queue.
const QUEUE_BYTES_MAX: usize = 1 << 20;

/// How many events may wait for the driver; an event beyond them is lost.
const EVENTS_MAX: usize = 4096;

/// How long shared data stays if room is not short.
const SHARED_TTL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Upper bounds of a histogram's buckets, as for times in milliseconds.
const BUCKETS: [f64; 19] = [
    0.5, 1., 5., 10., 25., 50., 100., 250., 500., 1e3, 2500., 5e3, 1e4, 3e4, 6e4, 3e5, 6e5, 1.8e6,
    3.6e6,
];

/// What an operator has configured.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    pub(crate) plugin: Bytes,
    pub(crate) vm: Bytes,
    /// Where upstreams are, by the names that filters call them.
    pub(crate) clusters: HashMap<String, Uri>,
}

/// A machine of a filter, for as long as it lives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Which {
    pub(crate) vm: usize,
    pub(crate) generation: u64,
}

/// What the driver sees to.
pub(crate) enum Event {
    /// A call that nobody waits for.
    Call(Call),
    /// Something waits in a queue.
    Queue(u32),
}

/// What all machines of one configured filter share.
pub(crate) struct Common {
    pub(crate) services: Services,
    pub(crate) settings: Settings,
    metrics: Mutex<Metrics>,
    queues: Mutex<Vec<Queue>>,
    /// Held while shared data is compared and swapped.
    swapping: Mutex<()>,
    events: Mutex<VecDeque<Event>>,
    pub(crate) under_way: Arc<UnderWay>,
    /// Wakes the driver.
    pub(crate) wake: Arc<Notify>,
}

#[derive(Default)]
struct Metrics {
    known: HashMap<(u32, String), u32>,
    all: Vec<Metric>,
}

struct Metric {
    value: i64,
    shown: Shown,
}

/// Where a metric is seen.
enum Shown {
    Counter(Option<Arc<dyn Counter>>),
    Gauge(Option<Arc<dyn Gauge>>),
    Histogram(Option<Arc<dyn Histogram>>),
}

struct Queue {
    name: Vec<u8>,
    items: VecDeque<Bytes>,
    bytes: usize,
    /// Whose root context is told.
    owner: Which,
}

/// What is behind these locks stays whole when a holder panics.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Common {
    pub(crate) fn new(services: Services, settings: Settings) -> Self {
        Self {
            services,
            settings,
            metrics: Mutex::default(),
            queues: Mutex::default(),
            swapping: Mutex::default(),
            events: Mutex::default(),
            under_way: Arc::default(),
            wake: Arc::default(),
        }
    }

    pub(crate) fn tell(&self, event: Event) {
        let mut events = lock(&self.events);
        if events.len() < EVENTS_MAX {
            events.push_back(event);
        }
        drop(events);
        self.wake.notify_one();
    }

    /// Takes the next events, at most so many; the driver is woken again if there are more.
    pub(crate) fn events(&self, max: usize) -> Vec<Event> {
        let mut events = lock(&self.events);
        let count = max.min(events.len());
        let next = events.drain(..count).collect();
        if !events.is_empty() {
            self.wake.notify_one();
        }
        next
    }

    // Metrics.

    pub(crate) fn define_metric(&self, kind: u32, name: &str) -> Result<u32, Status> {
        let text: String = name
            .chars()
            .map(|one| match one.to_ascii_lowercase() {
                one if one.is_ascii_alphanumeric() => one,
                _ => '_',
            })
            .collect();
        let mut metrics = lock(&self.metrics);
        let key = (kind, text);
        if let Some(id) = metrics.known.get(&key) {
            return Ok(*id);
        }
        if metrics.all.len() >= METRICS_MAX {
            return Err(Status::InternalFailure);
        }
        let services = &self.services;
        // What cannot be shown counts all the same: a filter does not end for its metrics.
        let told = |error: &adit_filters::env::MetricsError| {
            services.log(Level::WARN, &format!("a metric is not shown: {error}"));
        };
        let shown = match kind {
            0 => Shown::Counter(services.counter(&key.1).inspect_err(told).ok()),
            1 => Shown::Gauge(services.gauge(&key.1).inspect_err(told).ok()),
            2 => {
                let made = services.histogram(&key.1, &BUCKETS);
                Shown::Histogram(made.inspect_err(told).ok())
            }
            _ => return Err(Status::BadArgument),
        };
        let id = u32::try_from(metrics.all.len()).map_err(|_| Status::InternalFailure)?;
        metrics.all.push(Metric { value: 0, shown });
        metrics.known.insert(key, id);
        Ok(id)
    }

    fn metric<R>(
        &self,
        id: u32,
        with: impl FnOnce(&mut Metric, &[&str]) -> Result<R, Status>,
    ) -> Result<R, Status> {
        let mut metrics = lock(&self.metrics);
        let metric = metrics.all.get_mut(id as usize).ok_or(Status::NotFound)?;
        with(metric, &[self.services.plugin()])
    }

    pub(crate) fn record_metric(&self, id: u32, value: u64) -> Result<(), Status> {
        self.metric(id, |metric, labels| {
            let signed = i64::try_from(value).unwrap_or(i64::MAX);
            match &metric.shown {
                Shown::Counter(counter) => {
                    metric.value = metric.value.saturating_add(signed);
                    counter
                        .iter()
                        .for_each(|counter| counter.add(labels, value));
                }
                Shown::Gauge(gauge) => {
                    metric.value = signed;
                    gauge.iter().for_each(|gauge| gauge.set(labels, signed));
                }
                Shown::Histogram(histogram) => {
                    #[allow(clippy::cast_precision_loss, reason = "a bucket's worth")]
                    let value = value as f64;
                    let shown = histogram.iter();
                    shown.for_each(|histogram| histogram.observe(labels, value));
                }
            }
            Ok(())
        })
    }

    pub(crate) fn increment_metric(&self, id: u32, by: i64) -> Result<(), Status> {
        self.metric(id, |metric, labels| {
            match &metric.shown {
                Shown::Counter(counter) => {
                    let by = u64::try_from(by).map_err(|_| Status::BadArgument)?;
                    counter.iter().for_each(|counter| counter.add(labels, by));
                }
                Shown::Gauge(gauge) => gauge.iter().for_each(|gauge| gauge.add(labels, by)),
                Shown::Histogram(_) => return Err(Status::BadArgument),
            }
            metric.value = metric.value.saturating_add(by);
            Ok(())
        })
    }

    pub(crate) fn read_metric(&self, id: u32) -> Result<u64, Status> {
        self.metric(id, |metric, _| match metric.shown {
            Shown::Histogram(_) => Err(Status::BadArgument),
            _ => Ok(metric.value.cast_unsigned()),
        })
    }

    // Shared data: a number that counts its changes, then the value.

    fn shared(&self, key: &str) -> Option<(u32, Bytes)> {
        let mut kept = self.services.env().store.get(key)?;
        let cas = kept.get(..4)?.try_into().ok()?;
        Some((u32::from_le_bytes(cas), kept.split_off(4)))
    }

    pub(crate) fn shared_data(&self, key: &[u8]) -> Result<(u32, Bytes), Status> {
        self.shared(&key_of(key)).ok_or(Status::NotFound)
    }

    pub(crate) fn set_shared_data(&self, key: &[u8], value: &[u8], cas: u32) -> Result<(), Status> {
        let key = key_of(key);
        let _swapping = lock(&self.swapping);
        let known = self.shared(&key).map(|(known, _)| known);
        if cas != 0 && known != Some(cas) {
            return Err(Status::CasMismatch);
        }
        // 0 says that nobody compares.
        let next = known.unwrap_or(0).checked_add(1).unwrap_or(1);
        let mut kept = next.to_le_bytes().to_vec();
        kept.extend(value);
        let store = &self.services.env().store;
        store
            .set(&key, kept.into(), SHARED_TTL)
            .map_err(|_| Status::InternalFailure)
    }

    // Queues.

    pub(crate) fn register_queue(&self, name: Vec<u8>, owner: Which) -> Result<u32, Status> {
        let mut queues = lock(&self.queues);
        let mut waits = false;
        let known = queues.iter().position(|queue| queue.name == name);
        let at = match known {
            Some(at) => {
                queues.iter_mut().skip(at).take(1).for_each(|queue| {
                    queue.owner = owner;
                    waits = !queue.items.is_empty();
                });
                at
            }
            None if queues.len() >= QUEUES_MAX => return Err(Status::InternalFailure),
            None => {
                queues.push(Queue {
                    name,
                    items: VecDeque::new(),
                    bytes: 0,
                    owner,
                });
                queues.len() - 1
            }
        };
        drop(queues);
        // Some take 0 for none.
        let id = u32::try_from(at + 1).map_err(|_| Status::InternalFailure)?;
        if waits {
            // Whose queue it was is gone, perhaps before it could take what was in it.
            self.tell(Event::Queue(id));
        }
        Ok(id)
    }

    pub(crate) fn resolve_queue(&self, name: &[u8]) -> Result<u32, Status> {
        let queues = lock(&self.queues);
        let at = queues.iter().position(|queue| queue.name == name);
        at.and_then(|at| u32::try_from(at + 1).ok())
            .ok_or(Status::NotFound)
    }

    fn queue<R>(
        &self,
        id: u32,
        with: impl FnOnce(&mut Queue) -> Result<R, Status>,
    ) -> Result<R, Status> {
        let at = (id as usize).checked_sub(1).ok_or(Status::NotFound)?;
        with(lock(&self.queues).get_mut(at).ok_or(Status::NotFound)?)
    }

    pub(crate) fn enqueue(&self, id: u32, item: Vec<u8>) -> Result<(), Status> {
        self.queue(id, |queue| {
            let bytes = queue.bytes.saturating_add(item.len());
            if queue.items.len() >= QUEUE_ITEMS_MAX || bytes > QUEUE_BYTES_MAX {
                return Err(Status::InternalFailure);
            }
            queue.bytes = bytes;
            queue.items.push_back(item.into());
            Ok(())
        })?;
        self.tell(Event::Queue(id));
        Ok(())
    }

    pub(crate) fn dequeue(&self, id: u32) -> Result<Bytes, Status> {
        self.queue(id, |queue| {
            let item = queue.items.pop_front().ok_or(Status::Empty)?;
            queue.bytes = queue.bytes.saturating_sub(item.len());
            Ok(item)
        })
    }

    pub(crate) fn owner_of(&self, id: u32) -> Option<Which> {
        self.queue(id, |queue| Ok(queue.owner)).ok()
    }

    pub(crate) fn has_queues(&self) -> bool {
        !lock(&self.queues).is_empty()
    }
}

/// Keys of the store are text.
fn key_of(key: &[u8]) -> String {
    use std::fmt::Write as _;
    match std::str::from_utf8(key) {
        Ok(text) => format!("shared:{text}"),
        Err(_) => key.iter().fold("octets:".to_owned(), |mut text, octet| {
            let _ = write!(text, "{octet:02x}");
            text
        }),
    }
}
