//! How a refusal looks to the client: one table from reason and surface to status, body or code.
//!
//! Filters and the driver say *why*; only this module says what that looks like
//! (edge behaviour §9.4). Bodies are plain text, or a small page where the client prefers HTML.

use adit_filters::{Reason, Refusal};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header, response};

/// Header that carries the id of a request on every answer the edge makes itself.
pub const REQUEST_ID: &str = "x-request-id";

/// Seconds a client is told to wait before it asks again for a tunnel whose agent is away.
const RETRY_AFTER_SECONDS: u32 = 5;

/// Why the edge itself could not hand an exchange to an upstream. Filters use [`Reason`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failure {
    /// The request is malformed or can be read in two ways.
    BadRequest,
    /// The head is over a limit (RFC 6585 §5).
    HeadTooLarge,
    /// No such tunnel.
    NotFound,
    /// The authority belongs to something this connection cannot serve (RFC 9110 §15.5.20).
    Misdirected,
    /// The tunnel is known, its agent is away.
    Offline,
    /// A limit of the engine or the agent is reached.
    Capacity,
    /// The agent did not bring the stream in time.
    AgentTimeout,
    /// The agent refused, or the upstream's connection failed before its answer.
    Upstream,
    /// The method, upgrade or protocol is not served.
    Unsupported,
    /// The request body stalled (RFC 9110 §15.5.9).
    RequestTimeout,
}

impl Failure {
    /// The status this failure has on HTTP.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Offline | Self::Capacity => StatusCode::SERVICE_UNAVAILABLE,
            Self::AgentTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Upstream => StatusCode::BAD_GATEWAY,
            Self::Unsupported => StatusCode::NOT_IMPLEMENTED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        }
    }

    fn explanation(self) -> &'static str {
        match self {
            Self::BadRequest => "The request is malformed or ambiguous.",
            Self::HeadTooLarge => {
                "The request's header fields are larger than this engine accepts."
            }
            Self::NotFound => "No tunnel answers at this address.",
            Self::Misdirected => "This connection cannot serve the requested host.",
            Self::Offline => "The tunnel's agent is not connected.",
            Self::Capacity => "The tunnel is at its limit of connections.",
            Self::AgentTimeout => "The tunnel's agent did not answer in time.",
            Self::Upstream => "The service behind the tunnel could not be reached.",
            Self::Unsupported => "This method or upgrade is not available here.",
            Self::RequestTimeout => "The request body did not arrive in time.",
        }
    }
}

/// The status a filter's refusal has on HTTP.
pub fn status_of(reason: Reason) -> StatusCode {
    match reason {
        Reason::AmbiguousCredentials | Reason::BadRequest => StatusCode::BAD_REQUEST,
        Reason::MissingToken | Reason::InvalidToken | Reason::ExpiredToken | Reason::Login => {
            StatusCode::UNAUTHORIZED
        }
        Reason::NotFound => StatusCode::NOT_FOUND,
        Reason::Misdirected => StatusCode::MISDIRECTED_REQUEST,
        Reason::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Reason::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::Capacity | Reason::TimeLimit | Reason::Unavailable => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Reason::Plugin => StatusCode::INTERNAL_SERVER_ERROR,
        Reason::Unsupported => StatusCode::NOT_IMPLEMENTED,
        // Challenge, Country, InsufficientScope, Ip, Mtls, Origin, Policy and whatever a later
        // version adds: the visitor may not.
        _ => StatusCode::FORBIDDEN,
    }
}

/// An answer the edge makes itself, ready to be sent.
#[derive(Debug)]
pub struct Rendered {
    /// Status and header fields.
    pub head: response::Parts,
    /// The whole body; empty for `HEAD`.
    pub body: Bytes,
}

/// What of the request decides the form of the answer.
#[derive(Clone, Copy, Debug)]
pub struct Audience<'a> {
    /// The request is `HEAD`: fields as for `GET`, no body (RFC 9110 §9.3.2).
    pub head_only: bool,
    /// The client prefers HTML.
    pub html: bool,
    /// Id of the request, shown to the visitor and found in the log.
    pub request_id: &'a str,
}

impl<'a> Audience<'a> {
    /// Reads the form from the request's method and `Accept`.
    pub fn of(method: &http::Method, headers: &HeaderMap, request_id: &'a str) -> Self {
        let html = headers
            .get(header::ACCEPT)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|accept| accept.contains("text/html"));
        Self {
            head_only: method == http::Method::HEAD,
            html,
            request_id,
        }
    }
}

/// A filter refused.
pub fn refusal(refusal: &Refusal, audience: Audience<'_>) -> Rendered {
    let reason = refusal.reason;
    let mut rendered = page(status_of(reason), refusal_text(reason), audience);
    if let Some(wait) = refusal.retry_after {
        // Whole seconds, rounded up: who comes back then is not refused for having come too soon.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        rendered
            .head
            .headers
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    if rendered.head.status == StatusCode::UNAUTHORIZED {
        rendered.head.headers.insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"rstream\""),
        );
    }
    rendered
}

/// The edge could not serve the exchange.
pub fn failure(failure: Failure, audience: Audience<'_>) -> Rendered {
    let mut rendered = page(failure.status(), failure.explanation(), audience);
    if failure == Failure::Offline {
        rendered
            .head
            .headers
            .insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
    }
    rendered
}

fn refusal_text(reason: Reason) -> &'static str {
    match reason {
        Reason::MissingToken => "This tunnel asks for a token.",
        Reason::InvalidToken => "The token is not valid here.",
        Reason::ExpiredToken => "The token has expired.",
        Reason::InsufficientScope => "The token does not allow this request.",
        Reason::AmbiguousCredentials => "The request carries more than one credential.",
        Reason::RateLimited => "Too many requests; try again later.",
        Reason::TimeLimit => "The request took longer than this tunnel allows.",
        Reason::TooLarge => "The request is larger than this tunnel accepts.",
        Reason::Unavailable => "A check this tunnel depends on is not available.",
        Reason::Capacity => "The tunnel is at its limit.",
        Reason::Unsupported => "This method or upgrade is not available here.",
        Reason::Misdirected => "This connection cannot serve the requested host.",
        Reason::BadRequest => "The request is malformed or ambiguous.",
        _ => "The tunnel's policy does not allow this request.",
    }
}

fn page(status: StatusCode, text: &str, audience: Audience<'_>) -> Rendered {
    let reason = status.canonical_reason().unwrap_or("Error");
    let (kind, body) = if audience.html {
        // Every inserted string is ours: a fixed table and a hexadecimal id.
        let page = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><title>{code} {reason}</title><body \
             style=\"font:16px/1.5 system-ui;max-width:40rem;margin:4rem auto;padding:0 \
             1rem\"><h1>{code} {reason}</h1><p>{text}</p><p><small>Request \
             <code>{id}</code></small></p></body></html>\n",
            code = status.as_u16(),
            id = audience.request_id,
        );
        ("text/html; charset=utf-8", page)
    } else {
        let line = format!("{reason}\n{text}\nrequest {}\n", audience.request_id);
        ("text/plain; charset=utf-8", line)
    };
    let (mut head, ()) = http::Response::new(()).into_parts();
    head.status = status;
    let fields = &mut head.headers;
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(audience.request_id) {
        fields.insert(REQUEST_ID, id);
    }
    let body = if audience.head_only {
        Bytes::new()
    } else {
        Bytes::from(body)
    };
    Rendered { head, body }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn plain(id: &str) -> Audience<'_> {
        Audience {
            head_only: false,
            html: false,
            request_id: id,
        }
    }

    #[test]
    fn every_refusal_has_the_status_of_the_table() {
        // edge behaviour §9.4
        for (reason, status) in [
            (Reason::Ip, 403),
            (Reason::Country, 403),
            (Reason::MissingToken, 401),
            (Reason::InvalidToken, 401),
            (Reason::ExpiredToken, 401),
            (Reason::InsufficientScope, 403),
            (Reason::AmbiguousCredentials, 400),
            (Reason::Misdirected, 421),
            (Reason::Capacity, 503),
            (Reason::Unsupported, 501),
        ] {
            assert_eq!(status_of(reason).as_u16(), status, "{reason:?}");
        }
    }

    #[test]
    fn a_missing_token_names_the_scheme_and_a_denied_address_does_not() {
        let asked = refusal(&Refusal::edge(Reason::MissingToken), plain("1"));
        assert!(asked.head.headers.contains_key(header::WWW_AUTHENTICATE));
        let denied = refusal(&Refusal::edge(Reason::Ip), plain("1"));
        assert!(!denied.head.headers.contains_key(header::WWW_AUTHENTICATE));
    }

    #[test]
    fn the_form_follows_accept_and_method() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, "text/html,*/*;q=0.8".parse().unwrap());
        let html = failure(
            Failure::NotFound,
            Audience::of(&http::Method::GET, &headers, "abc"),
        );
        assert!(html.body.starts_with(b"<!doctype html>"));
        let head = failure(
            Failure::NotFound,
            Audience::of(&http::Method::HEAD, &headers, "abc"),
        );
        assert!(head.body.is_empty());
        assert_eq!(
            head.head.headers.get(header::CONTENT_LENGTH),
            html.head.headers.get(header::CONTENT_LENGTH)
        );
        assert_eq!(head.head.headers.get(REQUEST_ID).unwrap(), "abc");
    }

    #[test]
    fn a_misdirected_request_is_told_so_in_words() {
        let rendered = failure(Failure::Misdirected, plain("1"));
        assert!(rendered.body.starts_with(b"Misdirected Request"));
    }

    #[test]
    fn an_offline_tunnel_says_when_to_come_back() {
        // edge behaviour R17
        let rendered = failure(Failure::Offline, plain("1"));
        assert_eq!(rendered.head.status, 503);
        assert_eq!(rendered.head.headers.get(header::RETRY_AFTER).unwrap(), "5");
    }
}
