//! From a tunnel to one exchange with the service behind it: a connection from the pool or a fresh
//! one, the request in that connection's HTTP version, one retry where it is safe.

use std::net::IpAddr;
use std::sync::Arc;

use adit_filters::FailureKind;
use http::{HeaderValue, Request, Uri, Version, header, request, response, uri};

use http_body::Body as _;
use tokio::time::Instant;

use super::abort::Abort;
use super::body::{ContinueWait, Outbound, RequestBody};
use super::dial::DialError;
use super::limits::Limits;
use super::pool::{FailedOpening, Keep, Returning};
use super::record::Record;
use super::site::{Site, UpstreamMode};
use super::visit::Visit;
use super::{http1, http2};
use crate::render::Failure;

/// Why a request got no answer from its upstream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("cannot open a stream: {0}")]
    Dial(#[from] DialError),
    #[error("the upstream did not finish its handshake in time")]
    HandshakeTimeout,
    #[error("the upstream's TLS handshake failed: {0}")]
    Tls(#[source] std::io::Error),
    #[error("the upstream does not speak HTTP/2: {0}")]
    Http2(#[source] http2::Error),
    #[error("the upstream's connection broke: {0}")]
    Http1(#[source] http1::Error),
    #[error("another request could not open the connection both waited for")]
    WithOthers(Failure),
    #[error("the exchange ended early: {0}")]
    Aborted(#[source] Abort),
    #[error("the upstream does not take WebSocket over HTTP/2 (RFC 8441)")]
    NoExtendedConnect,
    #[error("the upstream's answer to the upgrade is not one")]
    BadUpgrade,
}

impl UpstreamError {
    /// What the visitor is told (edge behaviour §9.4).
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::Dial(DialError::Offline) => Failure::Offline,
            Self::Dial(DialError::Capacity) => Failure::Capacity,
            Self::Dial(DialError::Timeout(_)) => Failure::AgentTimeout,
            Self::Aborted(Abort::Stalled) => Failure::RequestTimeout,
            Self::WithOthers(failure) => *failure,
            _ => Failure::Upstream,
        }
    }

    /// What the log is told, with what was waited for.
    pub(crate) fn logged(&self, limits: &Limits) -> adit_filters::Failure {
        let kind = match self {
            Self::Dial(DialError::Timeout(limit)) => FailureKind::Timeout(*limit),
            Self::HandshakeTimeout => FailureKind::Timeout(limits.upstream_handshake),
            Self::Aborted(Abort::Stalled) => FailureKind::Timeout(limits.body_idle),
            Self::NoExtendedConnect => FailureKind::Unsupported,
            _ => match self.failure() {
                Failure::Offline => FailureKind::Offline,
                Failure::Capacity => FailureKind::Capacity,
                _ => FailureKind::Io,
            },
        };
        adit_filters::Failure {
            kind,
            detail: self.to_string(),
        }
    }
}

/// A connection that can take one exchange now.
pub(crate) enum Leg {
    Http1 { client: http1::Client, reused: bool },
    Http2(http2::Reserved),
}

/// Finds a pooled connection or opens one.
pub(crate) async fn lease(visit: &Visit, site: &Site) -> Result<Leg, UpstreamError> {
    if site.mode != UpstreamMode::Http1 {
        // One that is going away is not offered again.
        while let Some(mut reserved) = site.pool.http2() {
            if reserved.ready().await {
                return Ok(Leg::Http2(reserved));
            }
        }
    }
    if site.mode != UpstreamMode::H2c
        && let Some(client) = site.pool.http1().await
    {
        return Ok(Leg::Http1 {
            client,
            reused: true,
        });
    }
    if site.mode != UpstreamMode::H2c {
        return fresh(visit, site, None).await;
    }
    // Requests that arrive together share the connection the first of them opens, or its failure.
    let began = Instant::now();
    let mut opening = site.pool.opening().await;
    while let Some(mut reserved) = site.pool.http2() {
        if reserved.ready().await {
            return Ok(Leg::Http2(reserved));
        }
    }
    if let Some(failed) = opening.as_ref().filter(|failed| failed.at > began) {
        return Err(UpstreamError::WithOthers(failed.failure));
    }
    let opened = fresh(visit, site, None).await;
    *opening = opened.as_ref().err().map(|error| FailedOpening {
        at: Instant::now(),
        failure: error.failure(),
    });
    opened
}

/// Opens a connection; `source` is set where it will serve one visitor only.
pub(crate) async fn fresh(
    visit: &Visit,
    site: &Site,
    source: Option<IpAddr>,
) -> Result<Leg, UpstreamError> {
    let limits = visit.limits();
    let stream = site.dial.dial(source).await?;
    visit.counters().upstream_connections.inc();
    let handshake = async {
        let (stream, h2) = match site.mode {
            UpstreamMode::Http1 => (stream, false),
            UpstreamMode::H2c => (stream, true),
            UpstreamMode::Tls => visit.edge.upstream_tls.connect(stream, site).await?,
        };
        if !h2 {
            let client = http1::connect(stream, &limits)
                .await
                .map_err(UpstreamError::Http1)?;
            return Ok(Leg::Http1 {
                client,
                reused: false,
            });
        }
        let client = http2::connect(stream, &limits)
            .await
            .map_err(UpstreamError::Http2)?;
        let reserved = client.reserve();
        if source.is_none() {
            site.pool.share(client, keep(visit));
        }
        reserved
            .map(Leg::Http2)
            .ok_or(UpstreamError::Dial(DialError::Capacity))
    };
    tokio::time::timeout(limits.upstream_handshake, handshake)
        .await
        .map_err(|_| UpstreamError::HandshakeTimeout)?
}

fn keep(visit: &Visit) -> Keep {
    let limits = visit.limits();
    Keep {
        idle_max: limits.upstream_idle_max,
        idle: limits.upstream_idle,
    }
}

/// A request on its way, hop-by-hop fields gone, `head.uri` absolute.
pub(crate) struct Outgoing {
    pub(crate) head: request::Parts,
    pub(crate) body: RequestBody,
    /// The visitor takes trailers.
    pub(crate) trailers: bool,
    pub(crate) record: Arc<Record>,
}

/// Sends a request and waits for the head of the answer.
pub(crate) async fn send(
    visit: &Visit,
    site: &Site,
    outgoing: Outgoing,
) -> Result<(response::Parts, Outbound), UpstreamError> {
    let Outgoing {
        head,
        body,
        trailers,
        record,
    } = outgoing;
    match lease(visit, site).await? {
        Leg::Http2(reserved) => over_http2(reserved, site, head, body, trailers).await,
        Leg::Http1 { client, reused } => {
            let again =
                (reused && body.is_empty() && head.method.is_idempotent()).then(|| head.clone());
            let failed = match over_http1(visit, site, client, head, body, trailers).await {
                Ok(sent) => return Ok(sent),
                Err(failed) => failed,
            };
            // An idle connection may close just as it is used again. What was not sent can be sent
            // elsewhere; what was sent only where nothing came back, it has no body and may be done
            // twice.
            let half_answered = failed.is_half_answered();
            let (head, body) = match (failed.unsent, again) {
                (Some(unsent), _) if reused => unsent.into_parts(),
                (None, Some(head)) if !half_answered => (head, RequestBody::none(record)),
                _ => return Err(UpstreamError::Http1(failed.error)),
            };
            tracing::debug!(error = %failed.error, "retrying on a fresh upstream connection");
            match fresh(visit, site, None).await? {
                Leg::Http1 { client, .. } => over_http1(visit, site, client, head, body, trailers)
                    .await
                    .map_err(|failed| UpstreamError::Http1(failed.error)),
                Leg::Http2(reserved) => over_http2(reserved, site, head, body, trailers).await,
            }
        }
    }
}

async fn over_http1(
    visit: &Visit,
    site: &Site,
    client: http1::Client,
    mut head: request::Parts,
    mut body: RequestBody,
    trailers: bool,
) -> Result<(response::Parts, Outbound), http1::Unanswered> {
    http1_form(&mut head);
    if trailers {
        head.headers
            .insert(header::TE, HeaderValue::from_static("trailers"));
        head.headers
            .insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    let mut interim = http1::Interim { proceed: None };
    if head.headers.contains_key(header::EXPECT) && !body.is_empty() {
        let (proceed, wait) = ContinueWait::new(visit.limits().continue_wait);
        body.wait_for(wait);
        interim.proceed = Some(proceed);
    }
    let (pool, keep) = (Arc::clone(&site.pool), keep(visit));
    let request = Request::from_parts(head, body);
    let sent = client
        .send(request, interim, |client| {
            Returning::new(client, pool, keep)
        })
        .await?;
    match sent {
        http1::Sent::Response(head, body) => Ok((head, Outbound::Http1(body))),
        // Only a request sent with `send_once` can switch.
        http1::Sent::Switched(switched) => Ok((switched.head, Outbound::Empty)),
    }
}

async fn over_http2(
    reserved: http2::Reserved,
    site: &Site,
    mut head: request::Parts,
    body: RequestBody,
    trailers: bool,
) -> Result<(response::Parts, Outbound), UpstreamError> {
    http2_form(&mut head, site);
    // The wait for `100 Continue` is the edge's own on this side.
    head.headers.remove(header::EXPECT);
    if let Some(length) = body.size_hint().exact().filter(|length| *length > 0) {
        head.headers
            .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if trailers {
        head.headers
            .insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let sent = reserved
        .send(Request::from_parts(head, body))
        .await
        .map_err(UpstreamError::Aborted)?;
    Ok((sent.head, Outbound::Http2(sent.body)))
}

/// Origin form with a `Host` field (RFC 9112 §3.2.1).
pub(crate) fn http1_form(head: &mut request::Parts) {
    head.version = Version::HTTP_11;
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    parts.scheme = None;
    if let Some(authority) = parts.authority.take()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(header::HOST, host);
    }
    head.uri = rebuilt(parts);
}

/// Absolute form without a `Host` field (RFC 9113 §8.3.1).
pub(crate) fn http2_form(head: &mut request::Parts, site: &Site) {
    head.version = Version::HTTP_2;
    head.headers.remove(header::HOST);
    if site.mode == UpstreamMode::H2c {
        let mut parts = std::mem::take(&mut head.uri).into_parts();
        parts.scheme = Some(uri::Scheme::HTTP);
        head.uri = rebuilt(parts);
    }
}

fn rebuilt(parts: uri::Parts) -> Uri {
    // The parts come from one URI and are only fewer or of another scheme.
    Uri::from_parts(parts).unwrap_or_default()
}
