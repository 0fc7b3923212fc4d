//! An environment for tests: a clock that stands until told, known randomness, scripted answers, metrics to look at.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::{
    BoxFuture, Clock, Counter, Env, FetchError, Gauge, Histogram, HttpClient, HttpRequest,
    HttpResponse, Jobs, JobsError, Metrics, MetricsError, Random, Store, StoreError,
};

/// The parts of a fake [`Env`], to be driven and looked at.
#[derive(Clone, Default)]
pub struct Fake {
    /// The clock; it begins at 2027-01-15T08:00:00Z.
    pub clock: Arc<FakeClock>,
    /// Counting bytes.
    pub random: Arc<FakeRandom>,
    /// Scripted answers.
    pub http: Arc<FakeHttp>,
    /// A map.
    pub store: Arc<FakeStore>,
    /// Metrics to look at.
    pub metrics: Arc<FakeMetrics>,
    /// Jobs, run only when told.
    pub jobs: Arc<FakeJobs>,
}

impl Fake {
    /// A new [`Env`] over these parts.
    #[must_use]
    pub fn env(&self) -> Env {
        Env::new(
            "test/filter",
            self.clock.clone(),
            self.random.clone(),
            self.http.clone(),
            Arc::new(StoreView {
                of: self.store.clone(),
                clock: self.clock.clone(),
            }),
            self.metrics.clone(),
            self.jobs.clone(),
        )
    }
}

/// Stands until told.
#[derive(Default)]
pub struct FakeClock(Mutex<Duration>);

/// 2027-01-15T08:00:00Z, in seconds since 1970.
const EPOCH_SECONDS: u64 = 1_800_000_000;

impl FakeClock {
    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let mut passed = lock(&self.0);
        *passed = passed.saturating_add(by);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH_SECONDS) + *lock(&self.0)
    }

    fn monotonic(&self) -> Duration {
        *lock(&self.0)
    }

    /// Time passes at once.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.advance(duration);
        Box::pin(std::future::ready(()))
    }
}

/// Counts up: different on each call, the same on each run.
#[derive(Default)]
pub struct FakeRandom(AtomicU64);

impl Random for FakeRandom {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let bytes = self.0.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            for (to, from) in chunk.iter_mut().zip(bytes) {
                *to = from;
            }
        }
    }
}

type Answer = Box<dyn Fn(&HttpRequest) -> Result<HttpResponse, FetchError> + Send>;

/// Answers as scripted; nobody is there until it is.
#[derive(Default)]
pub struct FakeHttp {
    answer: Mutex<Option<Answer>>,
    asked: Mutex<Vec<HttpRequest>>,
}

impl FakeHttp {
    /// Says how requests are answered from now on.
    pub fn answer(
        &self,
        answer: impl Fn(&HttpRequest) -> Result<HttpResponse, FetchError> + Send + 'static,
    ) {
        *lock(&self.answer) = Some(Box::new(answer));
    }

    /// The requests so far.
    #[must_use]
    pub fn asked(&self) -> Vec<HttpRequest> {
        lock(&self.asked).clone()
    }
}

impl HttpClient for FakeHttp {
    fn fetch(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, FetchError>> {
        let answer = match &*lock(&self.answer) {
            Some(answer) => answer(&request),
            None => Err(FetchError::Unreachable {
                host: request.uri.host().unwrap_or_default().to_owned(),
                source: "nobody is there".into(),
            }),
        };
        lock(&self.asked).push(request);
        Box::pin(std::future::ready(answer))
    }
}

/// A map, without bounds.
#[derive(Default)]
pub struct FakeStore(Mutex<BTreeMap<String, (Bytes, Duration)>>);

struct StoreView {
    of: Arc<FakeStore>,
    clock: Arc<FakeClock>,
}

impl StoreView {
    fn live(
        &self,
        map: &BTreeMap<String, (Bytes, Duration)>,
        key: &str,
    ) -> Option<(Bytes, Duration)> {
        map.get(key)
            .filter(|(_, until)| *until > self.clock.monotonic())
            .cloned()
    }
}

impl Store for StoreView {
    fn get(&self, key: &str) -> Option<Bytes> {
        self.live(&lock(&self.of.0), key).map(|(value, _)| value)
    }

    fn set(&self, key: &str, value: Bytes, ttl: Duration) -> Result<(), StoreError> {
        lock(&self.of.0).insert(key.to_owned(), (value, self.clock.monotonic() + ttl));
        Ok(())
    }

    fn add(&self, key: &str, by: i64, ttl: Duration) -> Result<i64, StoreError> {
        let mut map = lock(&self.of.0);
        let (old, until) = match self.live(&map, key) {
            None => (0, self.clock.monotonic() + ttl),
            Some((value, until)) => {
                let number = std::str::from_utf8(&value)
                    .ok()
                    .and_then(|text| text.parse::<i64>().ok());
                (number.ok_or(StoreError::NotANumber)?, until)
            }
        };
        let sum = old.checked_add(by).ok_or(StoreError::NotANumber)?;
        map.insert(key.to_owned(), (Bytes::from(sum.to_string()), until));
        Ok(sum)
    }

    fn remove(&self, key: &str) {
        lock(&self.of.0).remove(key);
    }
}

/// Metrics to look at: `name{value,value}`.
#[derive(Default)]
pub struct FakeMetrics(Arc<Mutex<BTreeMap<String, f64>>>);

impl FakeMetrics {
    /// What a series stands at; a histogram's is the sum of what it saw.
    #[must_use]
    pub fn value(&self, series: &str) -> Option<f64> {
        lock(&self.0).get(series).copied()
    }

    fn series(&self, name: &str) -> Arc<FakeSeries> {
        Arc::new(FakeSeries {
            name: name.to_owned(),
            all: self.0.clone(),
        })
    }
}

struct FakeSeries {
    name: String,
    all: Arc<Mutex<BTreeMap<String, f64>>>,
}

impl FakeSeries {
    fn update(&self, labels: &[&str], change: impl FnOnce(f64) -> f64) {
        let mut all = lock(&self.all);
        let value = all
            .entry(format!("{}{{{}}}", self.name, labels.join(",")))
            .or_default();
        *value = change(*value);
    }
}

#[expect(clippy::cast_precision_loss, reason = "tests count far below 2^52")]
impl Counter for FakeSeries {
    fn add(&self, labels: &[&str], by: u64) {
        self.update(labels, |value| value + by as f64);
    }
}

#[expect(clippy::cast_precision_loss, reason = "tests count far below 2^52")]
impl Gauge for FakeSeries {
    fn set(&self, labels: &[&str], to: i64) {
        self.update(labels, |_| to as f64);
    }

    fn add(&self, labels: &[&str], by: i64) {
        self.update(labels, |value| value + by as f64);
    }
}

impl Histogram for FakeSeries {
    fn observe(&self, labels: &[&str], value: f64) {
        self.update(labels, |sum| sum + value);
    }
}

impl Metrics for FakeMetrics {
    fn counter(&self, name: &str, _: &str, _: &[&str]) -> Result<Arc<dyn Counter>, MetricsError> {
        Ok(self.series(name))
    }

    fn gauge(&self, name: &str, _: &str, _: &[&str]) -> Result<Arc<dyn Gauge>, MetricsError> {
        Ok(self.series(name))
    }

    fn histogram(
        &self,
        name: &str,
        _: &str,
        _: &[&str],
        _: &[f64],
    ) -> Result<Arc<dyn Histogram>, MetricsError> {
        Ok(self.series(name))
    }
}

type Blocking = Box<dyn FnOnce() + Send>;

/// Jobs wait here until a test runs them.
#[derive(Default)]
pub struct FakeJobs {
    waiting: Mutex<Vec<(String, BoxFuture<'static, ()>)>>,
    blocking: Mutex<Vec<(String, Blocking)>>,
}

impl FakeJobs {
    /// Takes the jobs that were started, to be polled by the test.
    pub fn take(&self) -> Vec<(String, BoxFuture<'static, ()>)> {
        std::mem::take(&mut lock(&self.waiting))
    }

    /// Takes the blocking jobs that were started, to be called by the test.
    pub fn take_blocking(&self) -> Vec<(String, Blocking)> {
        std::mem::take(&mut lock(&self.blocking))
    }
}

impl Jobs for FakeJobs {
    fn spawn(&self, name: &str, job: BoxFuture<'static, ()>) -> Result<(), JobsError> {
        lock(&self.waiting).push((name.to_owned(), job));
        Ok(())
    }

    fn spawn_to_end(&self, name: &str, job: BoxFuture<'static, ()>) -> Result<(), JobsError> {
        self.spawn(name, job)
    }

    fn spawn_blocking(&self, name: &str, job: Box<dyn FnOnce() + Send>) -> Result<(), JobsError> {
        lock(&self.blocking).push((name.to_owned(), job));
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
