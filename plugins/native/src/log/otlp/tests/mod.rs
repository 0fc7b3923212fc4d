#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod traces;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use adit_filters::env::fake::Fake;
use adit_filters::env::{Clock as _, FetchError, HttpResponse, Reach};
use adit_filters::{
    By, Cause, Chain, Connected, ConnectionInfo, Failure, FailureKind, Fields, Outcome, Placed,
    Reason, RequestLine, Termination, Transport, TunnelInfo,
};
use http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::json;

use super::super::testing::{TOKEN, head, outcome, refused, run};
use super::*;
use crate::identity::token::{TokenProof, TokenSource};

fn config() -> Config {
    serde_json::from_value(json!({ "endpoint": "http://collector.example:4318/" })).unwrap()
}

fn answer(status: u16, body: Vec<u8>) -> HttpResponse {
    HttpResponse {
        status: StatusCode::from_u16(status).unwrap(),
        headers: HeaderMap::new(),
        body: body.into(),
    }
}

/// Logs outcomes and runs the job to its end.
async fn send(fake: &Fake, config: Config, outcomes: Vec<Outcome>) {
    let proof = TokenProof {
        source: TokenSource::Authorization,
        kind: None,
    };
    let filter = Otlp::new(config, &mut fake.env()).unwrap();
    run(Arc::new(filter).hooks(), Some(proof), outcomes).await;
    for (_, job) in fake.jobs.take() {
        job.await;
    }
}

/// What a collector was sent.
fn sent(fake: &Fake) -> (Vec<Span>, Vec<LogRecord>) {
    let (mut spans, mut records) = (Vec::new(), Vec::new());
    for request in fake.http.asked() {
        assert_eq!(request.reach, Reach::Named);
        assert_eq!(request.headers["content-type"], "application/x-protobuf");
        let bytes = String::from_utf8_lossy(&request.body).into_owned();
        assert!(!bytes.contains("c2lnbmF0dXJl"), "a token was sent");
        match request.uri.to_string().as_str() {
            "http://collector.example:4318/v1/traces" => {
                let request = ExportTraceServiceRequest::decode(&request.body[..]).unwrap();
                let all = request.resource_spans.into_iter();
                spans.extend(
                    all.flat_map(|all| all.scope_spans)
                        .flat_map(|all| all.spans),
                );
            }
            "http://collector.example:4318/v1/logs" => {
                let request = ExportLogsServiceRequest::decode(&request.body[..]).unwrap();
                let all = request.resource_logs.into_iter();
                let scopes = all.flat_map(|all| all.scope_logs);
                records.extend(scopes.flat_map(|all| all.log_records));
            }
            other => panic!("{other}"),
        }
    }
    (spans, records)
}

fn shown(attributes: &[KeyValue]) -> Vec<(String, String)> {
    attributes
        .iter()
        .map(|attribute| {
            let value = match attribute.value.as_ref().unwrap().value.as_ref().unwrap() {
                Value::StringValue(text) => text.clone(),
                Value::IntValue(number) => number.to_string(),
                other => panic!("{other:?}"),
            };
            (attribute.key.clone(), value)
        })
        .collect()
}

fn get(attributes: &[KeyValue], key: &str) -> Option<String> {
    let all = shown(attributes).into_iter();
    all.filter(|(name, _)| name == key)
        .map(|(_, value)| value)
        .next()
}

#[tokio::test]
async fn an_exchange_becomes_a_span_and_a_record_of_the_conventions() {
    let fake = Fake::default();
    fake.http.answer(|_| Ok(answer(200, Vec::new())));
    send(&fake, config(), vec![outcome()]).await;
    let (spans, records) = sent(&fake);
    let (span, record) = (spans.first().unwrap(), records.first().unwrap());
    assert_eq!((spans.len(), records.len()), (1, 1));
    assert_eq!((span.name.as_str(), span.kind), ("GET", 2));
    assert_eq!(span.start_time_unix_nano, 1_800_000_000_000_000_000);
    assert_eq!(span.end_time_unix_nano, 1_800_000_001_500_000_000);
    assert!(span.status.is_none() && span.parent_span_id.is_empty());
    let expected = [
        ("http.request.method", "GET"),
        ("url.scheme", "https"),
        ("url.path", "/x"),
        (
            "url.query",
            "a=1&rstream.token=REDACTED&rstream%2Etoken=REDACTED",
        ),
        ("server.address", "a.example"),
        ("server.port", "443"),
        ("client.address", "192.0.2.1"),
        ("network.protocol.name", "http"),
        ("network.protocol.version", "2"),
        ("user_agent.original", "curl/8"),
        ("tls.protocol.name", "tls"),
        ("tls.protocol.version", "1.3"),
        ("http.response.status_code", "200"),
        ("http.request.body.size", "10"),
        ("http.response.body.size", "20"),
        ("enduser.id", "u-9"),
        ("adit.identity.method", "token"),
        ("adit.project", "default"),
        ("adit.tunnel.id", "t-1"),
        ("adit.tunnel.name", "shop"),
        ("adit.request.id", "00000000000000a1"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(shown(&span.attributes), expected);
    assert_eq!(shown(&record.attributes), expected);
    assert_eq!(
        (&record.trace_id, &record.span_id),
        (&span.trace_id, &span.span_id)
    );
    assert_eq!(record.severity_text, "INFO");
    let body = record.body.as_ref().unwrap().value.clone();
    assert_eq!(
        body,
        Some(Value::StringValue("GET a.example/x: 200".into()))
    );
}

#[tokio::test]
async fn refusals_are_warnings_and_failures_are_errors() {
    let failed = Outcome {
        status: Some(504),
        establish: None,
        failure: Some(Failure {
            kind: FailureKind::Timeout(Duration::from_secs(30)),
            detail: "too late".into(),
        }),
        ..outcome()
    };
    let cut = Outcome {
        termination: Termination::new(By::Upstream, Cause::Reset),
        ..outcome()
    };
    let closed = Outcome {
        status: None,
        ..refused(Reason::Policy, Some("edge/f"))
    };
    let odd = Outcome {
        status: Some(502),
        request: RequestLine::of(
            &http::Request::builder()
                .method("BREW")
                .uri("https://[::1]:8443/pot")
                .body(())
                .unwrap()
                .into_parts()
                .0,
            &[],
        ),
        response: Fields::default(),
        ..outcome()
    };
    let cases = [
        (
            refused(Reason::Ip, Some("edge/f")),
            "WARN",
            None,
            Some(("edge/f", "ip")),
        ),
        (failed, "ERROR", Some("timeout"), Some(("edge", "timeout"))),
        (cut, "ERROR", Some("reset"), None),
        (closed, "ERROR", Some("policy"), Some(("edge/f", "policy"))),
        (odd, "ERROR", Some("502"), None),
    ];
    for (outcome, severity, error, decision) in cases {
        let fake = Fake::default();
        fake.http.answer(|_| Ok(answer(200, Vec::new())));
        send(&fake, config(), vec![outcome]).await;
        let (spans, records) = sent(&fake);
        let (span, record) = (spans.first().unwrap(), records.first().unwrap());
        assert_eq!(record.severity_text, severity);
        assert_eq!(get(&span.attributes, "error.type").as_deref(), error);
        assert_eq!(span.status.is_some(), error.is_some());
        let filter = get(&span.attributes, "adit.filter");
        let reason = get(&span.attributes, "adit.reason");
        assert_eq!(filter.as_deref().zip(reason.as_deref()), decision);
        if span.name == "HTTP" {
            let original = get(&span.attributes, "http.request.method_original");
            assert_eq!(original.as_deref(), Some("BREW"));
            assert_eq!(
                get(&span.attributes, "server.address").as_deref(),
                Some("::1")
            );
            assert_eq!(
                get(&span.attributes, "server.port").as_deref(),
                Some("8443")
            );
        }
    }
}

#[tokio::test]
async fn a_collector_that_is_away_is_waited_for_and_gets_all() {
    let fake = Fake::default();
    let attempts = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&attempts);
    fake.http
        .answer(move |request| match count.fetch_add(1, Ordering::Relaxed) {
            0 => Err(FetchError::Unreachable {
                host: request.uri.host().unwrap().to_owned(),
                source: "nobody is there".into(),
            }),
            1 => {
                let mut busy = answer(503, Vec::new());
                busy.headers.insert("retry-after", "20".parse().unwrap());
                Ok(busy)
            }
            2..10 => Ok(answer(429, Vec::new())),
            _ => Ok(answer(200, Vec::new())),
        });
    // The filter stays, so that the job does not give up.
    let filter = Arc::new(Otlp::new(config(), &mut fake.env()).unwrap());
    let began = fake.clock.monotonic();
    run(
        Arc::clone(&filter).hooks(),
        None,
        vec![outcome(), outcome()],
    )
    .await;
    let (_, job) = fake.jobs.take().into_iter().next().unwrap();
    let job = tokio::spawn(job);
    while attempts.load(Ordering::Relaxed) < 12 {
        tokio::task::yield_now().await;
    }
    drop(filter);
    job.await.unwrap();
    assert!(
        fake.clock.monotonic() - began > Duration::from_secs(20),
        "it was waited for"
    );
    let asked = fake.http.asked();
    let bodies: Vec<_> = asked.iter().take(11).map(|request| &request.body).collect();
    assert!(bodies.iter().all(|body| body == bodies.first().unwrap()));
    assert_eq!(asked.len(), 12, "spans eleven times, then records once");
    assert_eq!(fake.metrics.value("log_lost_total{otlp}"), None);
}

#[tokio::test]
async fn what_a_collector_refuses_is_counted() {
    let partial = ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess {
            rejected_spans: 1,
            error_message: "no".into(),
        }),
    };
    let partial = partial.encode_to_vec();
    let cases: [(u16, Vec<u8>, Option<f64>); 4] = [
        (200, Vec::new(), None),
        (200, partial, Some(1.0)),
        (400, Vec::new(), Some(2.0)),
        (500, Vec::new(), Some(2.0)),
    ];
    for (status, body, lost) in cases {
        let fake = Fake::default();
        fake.http.answer(move |_| Ok(answer(status, body.clone())));
        let traces = Config {
            logs: false,
            ..config()
        };
        send(&fake, traces, vec![outcome(), outcome()]).await;
        assert_eq!(fake.metrics.value("log_lost_total{otlp}"), lost, "{status}");
        assert_eq!(fake.http.asked().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn once_the_filter_is_gone_a_collector_that_is_away_is_asked_once() {
    let fake = Fake::default();
    let large = Outcome {
        request: RequestLine::of(
            &http::Request::get(format!("https://a.example/{}", "x".repeat(2000)))
                .body(())
                .unwrap()
                .into_parts()
                .0,
            &[],
        ),
        ..outcome()
    };
    let many = 2 * BATCH_BYTES_MAX / 2000;
    send(&fake, config(), vec![large; many]).await;
    let asked = fake.http.asked();
    assert_eq!(asked.len(), 2, "traces and logs of the first batch");
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    let lost = fake.metrics.value("log_lost_total{otlp}").unwrap() - many as f64;
    assert!(lost > 0.0, "spans and records both count");
    for request in asked {
        assert!(request.body.len() < BATCH_BYTES_MAX + 16_384);
    }
}

#[tokio::test]
async fn exchanges_beyond_the_queue_are_dropped_and_counted() {
    let fake = Fake::default();
    fake.http.answer(|_| Ok(answer(200, Vec::new())));
    let short = Config {
        queue: 3,
        ..config()
    };
    send(&fake, short, vec![outcome(); 5]).await;
    let (spans, records) = sent(&fake);
    assert_eq!((spans.len(), records.len()), (3, 3));
    assert_eq!(fake.metrics.value("log_dropped_total{otlp}"), Some(2.0));
}

#[test]
fn an_endpoint_is_an_address_and_nothing_more() {
    for right in [
        "http://collector:4318",
        "https://otel.example.com/prefix/",
        "http://[::1]:4318",
    ] {
        assert!(Endpoint::try_from(right.to_owned()).is_ok(), "{right}");
    }
    for wrong in [
        "collector:4318",
        "grpc://collector:4317",
        "http://",
        "http://u:p@collector",
        "http://collector?x=1",
        "/v1",
        "",
    ] {
        assert!(Endpoint::try_from(wrong.to_owned()).is_err(), "{wrong}");
    }
}

#[test]
fn settings_have_bounds() {
    let key = |config: Config| {
        Otlp::new(config, &mut Fake::default().env())
            .err()
            .unwrap()
            .key
    };
    let entries = |count: usize| {
        (0..count)
            .map(|number| (number.to_string(), "x".to_owned()))
            .collect()
    };
    for ratio in [-0.1, 1.1, f64::NAN] {
        let config = Config {
            sample_ratio: ratio,
            ..config()
        };
        assert_eq!(key(config).as_deref(), Some("sample-ratio"));
    }
    let nothing = Config {
        traces: false,
        logs: false,
        ..config()
    };
    assert_eq!(key(nothing).as_deref(), Some("traces"));
    let many = Config {
        resource: entries(ENTRIES_MAX + 1),
        ..config()
    };
    assert_eq!(key(many).as_deref(), Some("resource"));
    let most = Config {
        resource: entries(ENTRIES_MAX),
        ..config()
    };
    assert!(Otlp::new(most, &mut Fake::default().env()).is_ok());
    let none = Config {
        queue: 0,
        ..config()
    };
    assert_eq!(key(none).as_deref(), Some("queue"));
    assert!(!TOKEN.is_empty());
}
