//! Sends what was gathered to a collector, over OTLP/HTTP
//! ([specification](https://opentelemetry.io/docs/specs/otlp/#otlphttp)).

use std::sync::Arc;
use std::time::Duration;

use adit_filters::env::{Clock, Counter, FetchError, HttpClient, HttpRequest, HttpResponse, Reach};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;

use super::signal::Traced;

/// How long records are gathered before they are sent.
const GATHER: Duration = Duration::from_secs(1);

/// How large the signals of one request may be, in bytes: with what stands around them they stay below what the engine
/// lets a filter send.
pub const BATCH_BYTES_MAX: usize = 512 << 10;

/// How long the collector may take to answer.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

/// The shortest and the longest wait before a collector that failed is asked again.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// Where a collector takes each signal, and what it is shown.
pub(super) struct Collector {
    pub(super) http: Arc<dyn HttpClient>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) traces: Option<Uri>,
    pub(super) logs: Option<Uri>,
    pub(super) headers: HeaderMap,
    pub(super) resource: Resource,
    /// Counts what a collector did not take.
    pub(super) lost: Arc<dyn Counter>,
}

/// The signals of one request each.
#[derive(Default)]
struct Batch {
    spans: Vec<Span>,
    records: Vec<LogRecord>,
    bytes: usize,
}

/// What is to be done after an attempt.
enum Attempt {
    Done { rejected: u64 },
    Refused(String),
    Again { wait: Option<Duration>, why: String },
}

impl Collector {
    /// Sends until the filter is gone and the queue is empty. A collector that is away is waited for, and the queue
    /// fills meanwhile; once the filter is gone it is asked once more and no longer.
    pub(super) async fn run(self, queue: async_channel::Receiver<Traced>) {
        while let Ok(first) = queue.recv().await {
            if queue.len() < queue.capacity().unwrap_or_default() / 2 && !queue.is_closed() {
                self.clock.sleep(GATHER).await;
            }
            let mut batch = Batch::default();
            self.gather(&mut batch, &first);
            while batch.bytes < BATCH_BYTES_MAX {
                match queue.try_recv() {
                    Ok(next) => self.gather(&mut batch, &next),
                    Err(_) => break,
                }
            }
            if !self.send(batch, &queue).await && queue.is_closed() {
                // It will not come back in the time that is left.
                let rest = std::iter::from_fn(|| queue.try_recv().ok()).count();
                self.lost.add(&[super::NAME], rest as u64);
                return;
            }
        }
    }

    fn gather(&self, batch: &mut Batch, traced: &Traced) {
        if self.traces.is_some()
            && let Some(span) = traced.span()
        {
            batch.bytes += span.encoded_len();
            batch.spans.push(span);
        }
        if self.logs.is_some() {
            let record = traced.record();
            batch.bytes += record.encoded_len();
            batch.records.push(record);
        }
    }

    /// Whether the collector answered.
    async fn send(&self, batch: Batch, queue: &async_channel::Receiver<Traced>) -> bool {
        let mut answered = true;
        let Batch { spans, records, .. } = batch;
        if let Some(uri) = self.traces.as_ref().filter(|_| !spans.is_empty()) {
            let count = spans.len();
            let request = ExportTraceServiceRequest {
                resource_spans: vec![ResourceSpans {
                    resource: Some(self.resource.clone()),
                    scope_spans: vec![ScopeSpans {
                        scope: Some(scope()),
                        spans,
                        ..ScopeSpans::default()
                    }],
                    ..ResourceSpans::default()
                }],
            };
            let body = request.encode_to_vec().into();
            answered &= self.deliver(uri, body, count, queue, rejected_spans).await;
        }
        if let Some(uri) = self.logs.as_ref().filter(|_| !records.is_empty()) {
            let count = records.len();
            let request = ExportLogsServiceRequest {
                resource_logs: vec![ResourceLogs {
                    resource: Some(self.resource.clone()),
                    scope_logs: vec![ScopeLogs {
                        scope: Some(scope()),
                        log_records: records,
                        ..ScopeLogs::default()
                    }],
                    ..ResourceLogs::default()
                }],
            };
            let body = request.encode_to_vec().into();
            answered &= self
                .deliver(uri, body, count, queue, rejected_records)
                .await;
        }
        answered
    }

    /// Sends one request until it is taken or refused. Whether there was an answer at all.
    async fn deliver(
        &self,
        uri: &Uri,
        body: Bytes,
        count: usize,
        queue: &async_channel::Receiver<Traced>,
        rejected: fn(&[u8]) -> u64,
    ) -> bool {
        let mut waits = ExponentialBuilder::default()
            .with_min_delay(RETRY.0)
            .with_max_delay(RETRY.1)
            .with_jitter()
            .without_max_times()
            .build();
        let mut told = false;
        loop {
            let request = HttpRequest {
                method: Method::POST,
                uri: uri.clone(),
                headers: self.headers.clone(),
                body: body.clone(),
                timeout: ANSWER_WAIT,
                // The operator wrote the address down.
                reach: Reach::Named,
            };
            let (wait, why) = match attempt(self.http.fetch(request).await, rejected) {
                Attempt::Done { rejected } => {
                    if rejected > 0 {
                        tracing::warn!(%uri, rejected, "the collector did not take all");
                        self.lost.add(&[super::NAME], rejected);
                    }
                    return true;
                }
                Attempt::Refused(why) => {
                    self.lose(uri, count, &why);
                    return true;
                }
                Attempt::Again { wait, why } => (wait, why),
            };
            if queue.is_closed() {
                self.lose(uri, count, &why);
                return false;
            }
            if !told {
                tracing::warn!(%uri, why, "the collector takes nothing now, it will be asked again");
                told = true;
            }
            let own = waits.next().unwrap_or(RETRY.1);
            self.clock.sleep(own.max(wait.unwrap_or_default())).await;
        }
    }

    fn lose(&self, uri: &Uri, count: usize, why: &str) {
        tracing::warn!(%uri, count, why, "the collector did not take what was sent to it");
        self.lost.add(&[super::NAME], count as u64);
    }
}

/// The header fields of every request.
pub(super) fn fields(more: impl IntoIterator<Item = (http::HeaderName, HeaderValue)>) -> HeaderMap {
    let mut headers: HeaderMap = more.into_iter().collect();
    let kind = HeaderValue::from_static("application/x-protobuf");
    headers.insert(header::CONTENT_TYPE, kind);
    let agent = concat!("adit/", env!("CARGO_PKG_VERSION"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
    headers
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "adit".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

/// What an answer means (OTLP §"OTLP/HTTP Response").
fn attempt(answer: Result<HttpResponse, FetchError>, rejected: fn(&[u8]) -> u64) -> Attempt {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error @ (FetchError::Invalid { .. } | FetchError::NotGranted { .. })) => {
            return Attempt::Refused(error.to_string());
        }
        // Too long an answer is one all the same, but not one that says what became of the request.
        Err(error) => {
            return Attempt::Again {
                wait: None,
                why: error.to_string(),
            };
        }
    };
    let why = format!("it answered {}", answer.status);
    match answer.status {
        status if status.is_success() => Attempt::Done {
            rejected: rejected(&answer.body),
        },
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Attempt::Again {
            wait: retry_after(&answer.headers),
            why,
        },
        _ => Attempt::Refused(why),
    }
}

/// `Retry-After` in seconds, as far as the collector may make us wait.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(RETRY.1))
}

fn rejected_spans(answer: &[u8]) -> u64 {
    let answer = ExportTraceServiceResponse::decode(answer).ok();
    let partial = answer.and_then(|answer| answer.partial_success);
    partial.map_or(0, |partial| {
        u64::try_from(partial.rejected_spans).unwrap_or(0)
    })
}

fn rejected_records(answer: &[u8]) -> u64 {
    let answer = ExportLogsServiceResponse::decode(answer).ok();
    let partial = answer.and_then(|answer| answer.partial_success);
    partial.map_or(0, |partial| {
        u64::try_from(partial.rejected_log_records).unwrap_or(0)
    })
}
