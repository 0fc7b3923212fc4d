//! What the world outside offers: the list of [`Env`](adit_filters::Env), in the WIT's words.

use std::time::{Duration, SystemTime};

use adit_filters::env::{FetchError as Failed, HttpRequest, MetricsError, StoreError};
use bytes::Bytes;
use http::{Method, Uri};
use tracing::Level;
use wasmtime::Result;

use crate::bindings::adit::filter::http_client::{FetchError, Request, Response};
use crate::bindings::adit::filter::metrics::MetricsError as NoMetric;
use crate::bindings::adit::filter::store::StoreError as NotStored;
use crate::bindings::adit::filter::types::Field;
use crate::bindings::adit::filter::{clock, http_client, log, metrics, random, store};
use crate::convert;
use crate::output;
use crate::state::State;

/// How many random bytes are given at once.
const RANDOM_BYTES_MAX: u32 = 4096;

impl log::Host for State {
    fn log(&mut self, level: log::Level, message: String) -> Result<()> {
        self.called()?;
        let level = match level {
            log::Level::Debug => Level::DEBUG,
            log::Level::Info => Level::INFO,
            log::Level::Warn => Level::WARN,
            log::Level::Error => Level::ERROR,
        };
        output::line(&self.shared, level, &message);
        Ok(())
    }
}

impl clock::Host for State {
    fn now_ms(&mut self) -> Result<u64> {
        self.called()?;
        let now = self.shared.env.clock.now();
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        Ok(u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX))
    }

    fn monotonic_us(&mut self) -> Result<u64> {
        self.called()?;
        let since = self.shared.env.clock.monotonic();
        Ok(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}

impl random::Host for State {
    fn bytes(&mut self, count: u32) -> Result<Vec<u8>> {
        self.called()?;
        if count > RANDOM_BYTES_MAX {
            let text = format!("asked for more than {RANDOM_BYTES_MAX} random bytes at once");
            return Err(wasmtime::Error::msg(text));
        }
        let mut bytes = vec![0; count as usize];
        self.shared.env.random.fill(&mut bytes);
        Ok(bytes)
    }
}

fn not_stored(error: StoreError) -> NotStored {
    match error {
        StoreError::NotANumber => NotStored::NotANumber,
        _ => NotStored::OverLimit,
    }
}

impl store::Host for State {
    fn get(&mut self, key: String) -> Result<Option<Vec<u8>>> {
        self.called()?;
        Ok(self.shared.env.store.get(&key).map(|value| value.to_vec()))
    }

    fn set(
        &mut self,
        key: String,
        value: Vec<u8>,
        ttl_ms: u64,
    ) -> Result<std::result::Result<(), NotStored>> {
        self.called()?;
        let ttl = Duration::from_millis(ttl_ms);
        let set = self.shared.env.store.set(&key, Bytes::from(value), ttl);
        Ok(set.map_err(not_stored))
    }

    fn add(
        &mut self,
        key: String,
        by: i64,
        ttl_ms: u64,
    ) -> Result<std::result::Result<i64, NotStored>> {
        self.called()?;
        let ttl = Duration::from_millis(ttl_ms);
        Ok(self.shared.env.store.add(&key, by, ttl).map_err(not_stored))
    }

    fn remove(&mut self, key: String) -> Result<()> {
        self.called()?;
        self.shared.env.store.remove(&key);
        Ok(())
    }
}

fn no_metric(error: MetricsError) -> NoMetric {
    match error {
        MetricsError::OverLimit { .. } => NoMetric::TooMany,
        _ => NoMetric::Invalid,
    }
}

impl metrics::Host for State {
    fn add(&mut self, name: String, by: u64) -> Result<std::result::Result<(), NoMetric>> {
        self.called()?;
        let plugin = &*self.shared.plugin;
        let counter = self.shared.counter(&name).map_err(no_metric);
        Ok(counter.map(|counter| counter.add(&[plugin], by)))
    }

    fn set(&mut self, name: String, to: i64) -> Result<std::result::Result<(), NoMetric>> {
        self.called()?;
        let plugin = &*self.shared.plugin;
        let gauge = self.shared.gauge(&name).map_err(no_metric);
        Ok(gauge.map(|gauge| gauge.set(&[plugin], to)))
    }
}

impl http_client::Host for State {
    async fn fetch(
        &mut self,
        request: Request,
    ) -> Result<std::result::Result<Response, FetchError>> {
        self.called()?;
        if !self.call.waits {
            return Ok(Err(FetchError::NotHere));
        }
        let request = match self.sendable(request) {
            Ok(request) => request,
            Err(error) => return Ok(Err(error)),
        };
        let max = self.shared.limits.fetch_bytes;
        let answer = match self.shared.env.http.fetch(request).await {
            Ok(answer) if answer.body.len() > max => return Ok(Err(FetchError::OverLimit)),
            Ok(answer) => answer,
            Err(error) => return Ok(Err(failed(&error))),
        };
        let headers = answer.headers.iter().map(|(name, value)| Field {
            name: name.as_str().to_owned(),
            value: value.as_bytes().to_vec(),
        });
        Ok(Ok(Response {
            status: answer.status.as_u16(),
            headers: headers.collect(),
            body: answer.body.to_vec(),
        }))
    }
}

impl State {
    /// The request as it goes out, if it may.
    fn sendable(&self, request: Request) -> std::result::Result<HttpRequest, FetchError> {
        let invalid = |text: &str| FetchError::Invalid(text.to_owned());
        let method: Method = request
            .method
            .parse()
            .map_err(|_| invalid("not a method"))?;
        let uri: Uri = request.url.parse().map_err(|_| invalid("not an address"))?;
        let host = uri
            .host()
            .map(str::to_ascii_lowercase)
            .ok_or_else(|| invalid("the address has no host"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(invalid("the address is neither of http nor of https"));
        }
        let reach = self.shared.grants.reach(&host);
        let reach = reach.ok_or(FetchError::NotGranted)?;
        let headers = convert::headers(request.headers, &self.shared.limits)
            .map_err(|error| FetchError::Invalid(error.detail()))?;
        Ok(HttpRequest {
            method,
            uri,
            headers,
            body: Bytes::from(request.body),
            timeout: Duration::from_millis(request.timeout_ms.into()).min(self.shared.limits.wait),
            reach,
        })
    }
}

fn failed(error: &Failed) -> FetchError {
    match error {
        Failed::NotGranted { .. } => FetchError::NotGranted,
        Failed::Invalid { reason } => FetchError::Invalid(reason.clone()),
        Failed::TimedOut { .. } => FetchError::TimedOut,
        Failed::OverLimit { .. } => FetchError::OverLimit,
        other => FetchError::Unreachable(other.to_string()),
    }
}
