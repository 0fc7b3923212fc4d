//! An exchange as OpenTelemetry's signals: a server's span and a log record, in the words of the semantic conventions
//! for [HTTP](https://opentelemetry.io/docs/specs/semconv/http/http-spans/).

use std::time::{Duration, SystemTime};

use adit_filters::{Cause, Outcome};
use http::{Method, Version};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};

use super::context::{TRACESTATE, TraceContext};
use crate::log::entry::{Entry, country, text};

/// Bits of a span's flags that say whether its parent is elsewhere: known, and yes.
const PARENT_IS_REMOTE: u32 = 0x300;

/// An exchange and its place in a trace.
pub(super) struct Traced {
    pub(super) entry: Entry,
    pub(super) context: TraceContext,
}

impl Traced {
    /// The span, where it is to be recorded.
    pub(super) fn span(&self) -> Option<Span> {
        let TraceContext {
            trace,
            span,
            parent,
            sampled,
        } = self.context;
        if !sampled {
            return None;
        }
        let outcome = &self.entry.outcome;
        let remote = parent.map_or(0, |_| PARENT_IS_REMOTE);
        let state = parent.and_then(|_| {
            let fields = outcome.request.fields();
            fields.only(&http::HeaderName::from_static(TRACESTATE))
        });
        Some(Span {
            trace_id: trace.to_be_bytes().to_vec(),
            span_id: span.to_be_bytes().to_vec(),
            parent_span_id: parent.map_or_else(Vec::new, |parent| parent.to_be_bytes().to_vec()),
            trace_state: state.unwrap_or_default().into_owned(),
            flags: u32::from(sampled) | remote,
            name: known_method(outcome.request.method())
                .unwrap_or("HTTP")
                .to_owned(),
            kind: SpanKind::Server.into(),
            start_time_unix_nano: nanoseconds(outcome.started),
            end_time_unix_nano: nanoseconds(outcome.started + outcome.duration),
            attributes: self.attributes(),
            status: self.broken().then(|| Status {
                code: StatusCode::Error.into(),
                message: self.reason().unwrap_or_default(),
            }),
            ..Span::default()
        })
    }

    /// The log record.
    pub(super) fn record(&self) -> LogRecord {
        let (outcome, request) = (&self.entry.outcome, &self.entry.outcome.request);
        let ended = nanoseconds(outcome.started + outcome.duration);
        let severity = match (self.broken(), self.entry.decision()) {
            (true, _) => SeverityNumber::Error,
            (false, Some(_)) => SeverityNumber::Warn,
            (false, None) => SeverityNumber::Info,
        };
        let status = outcome
            .status
            .map_or_else(|| "no answer".to_owned(), |status| status.to_string());
        let mut body = format!(
            "{} {}{}: {status}",
            request.method(),
            request.host(),
            request.path()
        );
        if let Some(reason) = self.reason() {
            body.push_str(", ");
            body.push_str(&reason);
        }
        LogRecord {
            time_unix_nano: ended,
            observed_time_unix_nano: ended,
            severity_number: severity.into(),
            severity_text: severity_text(severity).to_owned(),
            body: Some(AnyValue {
                value: Some(Value::StringValue(body)),
            }),
            attributes: self.attributes(),
            flags: u32::from(self.context.sampled),
            trace_id: id(&self.context.trace.to_be_bytes()),
            span_id: id(&self.context.span.to_be_bytes()),
            ..LogRecord::default()
        }
    }

    /// Whether something went wrong that is not the visitor's mistake.
    fn broken(&self) -> bool {
        let outcome = &self.entry.outcome;
        match outcome.status {
            Some(status) => status >= 500 || is_cut(outcome),
            None => true,
        }
    }

    fn reason(&self) -> Option<String> {
        let decision = self.entry.decision().map(|decision| decision.message());
        decision.or_else(|| {
            self.entry
                .outcome
                .termination
                .detail
                .clone()
                .map(Into::into)
        })
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let entry = &self.entry;
        let (outcome, connection) = (&entry.outcome, &entry.connection);
        let (request, tunnel) = (&outcome.request, connection.tunnel());
        let mut all = Attributes::default();
        match known_method(request.method()) {
            Some(method) => all.text("http.request.method", method),
            None => {
                all.text("http.request.method", "_OTHER");
                all.text("http.request.method_original", request.method().as_str());
            }
        }
        all.text("url.scheme", "https");
        all.text("url.path", &request.path());
        all.maybe("url.query", request.query().as_deref());
        let (host, port) = match request.host().rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()),
            None => (request.host(), None),
        };
        all.text("server.address", host.trim_matches(['[', ']']));
        all.number("server.port", port.unwrap_or(443));
        all.text("client.address", &entry.ip());
        all.text("network.protocol.name", "http");
        all.text("network.protocol.version", version(outcome.version));
        all.maybe("user_agent.original", request.user_agent().as_deref());
        if let Some(tls) = &connection.info().tls {
            all.text("tls.protocol.name", "tls");
            all.text(
                "tls.protocol.version",
                tls.version.trim_start_matches("TLSv"),
            );
            all.maybe("tls.cipher", text(&tls.cipher));
            all.maybe("tls.curve", tls.group.as_deref());
        }
        if let Some(status) = outcome.status {
            all.number("http.response.status_code", u64::from(status));
        }
        all.number("http.request.body.size", outcome.bytes_up);
        all.number("http.response.body.size", outcome.bytes_down);
        if self.broken() {
            all.text("error.type", &self.error_type());
        }
        all.maybe("geo.country.iso_code", country(connection).as_deref());
        all.maybe(
            "enduser.id",
            entry.who.as_ref().map(|who| who.subject.as_str()),
        );
        all.maybe(
            "adit.identity.method",
            entry.who.as_ref().map(|who| who.method),
        );
        all.maybe("adit.project", text(&tunnel.project));
        all.maybe("adit.tunnel.id", text(&tunnel.id));
        all.maybe("adit.tunnel.name", tunnel.name.as_deref());
        all.text("adit.request.id", &outcome.request_id.to_string());
        all.maybe(
            "adit.upgrade",
            outcome.upgrade.map(|upgrade| upgrade.as_str()),
        );
        if let Some(decision) = entry.decision() {
            all.text("adit.filter", decision.by.unwrap_or("edge"));
            all.text("adit.reason", decision.reason);
        }
        all.0
    }

    /// A word of a short list, or the status.
    fn error_type(&self) -> String {
        let outcome = &self.entry.outcome;
        match (self.entry.decision(), outcome.status) {
            (Some(decision), _) => decision.reason.to_owned(),
            (None, Some(status)) if status >= 500 => status.to_string(),
            (None, _) => outcome.termination.cause.as_str().to_owned(),
        }
    }
}

/// Whether the exchange did not end in order.
fn is_cut(outcome: &Outcome) -> bool {
    matches!(
        outcome.termination.cause,
        Cause::Reset | Cause::Timeout | Cause::Error
    )
}

#[derive(Default)]
struct Attributes(Vec<KeyValue>);

impl Attributes {
    fn text(&mut self, key: &str, value: &str) {
        self.push(key, Value::StringValue(value.to_owned()));
    }

    fn maybe(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    fn number(&mut self, key: &str, value: u64) {
        self.push(
            key,
            Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)),
        );
    }

    fn push(&mut self, key: &str, value: Value) {
        self.0.push(key_value(key, value));
    }
}

/// An id in a record; nothing where it is 0, which is none.
fn id(bytes: &[u8]) -> Vec<u8> {
    match bytes.iter().all(|byte| *byte == 0) {
        true => Vec::new(),
        false => bytes.to_vec(),
    }
}

/// One attribute.
pub(super) fn key_value(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// The method, if the conventions know it: any other could be anything.
fn known_method(method: &Method) -> Option<&str> {
    let known = [
        Method::CONNECT,
        Method::DELETE,
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::PATCH,
        Method::POST,
        Method::PUT,
        Method::TRACE,
    ];
    known.contains(method).then(|| method.as_str())
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

fn severity_text(severity: SeverityNumber) -> &'static str {
    match severity {
        SeverityNumber::Error => "ERROR",
        SeverityNumber::Warn => "WARN",
        _ => "INFO",
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let since = since.unwrap_or(Duration::ZERO).as_nanos();
    u64::try_from(since).unwrap_or(u64::MAX)
}
