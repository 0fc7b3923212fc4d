//! Leaving HTTP: which upgrade a request asks for, and the upstream's half of it, in whatever
//! version the upstream speaks.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_filters::Upgrade;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use http::{header, request, response};
use sha1::{Digest, Sha1};

use super::body::{Outbound, RequestBody};
use super::duplex::{Duplex, Relay};
use super::http1;
use super::record::Record;
use super::site::{Site, UpstreamMode};
use super::upstream::{self, Leg, UpstreamError};
use super::visit::Visit;

/// What a WebSocket server adds to a key before it hashes it (RFC 6455 §1.3).
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes in a WebSocket key (RFC 6455 §4.1).
const WEBSOCKET_KEY_BYTES: usize = 16;

/// An upgrade a request asks for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) kind: Upgrade,
    token: HeaderValue,
    /// Whether it was asked by HTTP/1.1 `Upgrade`; otherwise by extended CONNECT.
    http1: bool,
    /// The visitor's WebSocket key, where it came over HTTP/1.1.
    key: Option<HeaderValue>,
}

impl Asked {
    /// Reads `CONNECT` and `Upgrade` of an HTTP/1.1 request (RFC 9110 §7.8). An offer of `h2c` is
    /// none: HTTP/2 is agreed on in the TLS handshake.
    pub(crate) fn of_http1(method: &Method, version: Version, headers: &HeaderMap) -> Option<Self> {
        if method == Method::CONNECT {
            return Some(Self {
                kind: Upgrade::Connect,
                token: HeaderValue::from_static("connect"),
                http1: true,
                key: None,
            });
        }
        let has_body = headers.contains_key(header::TRANSFER_ENCODING)
            || headers
                .get(header::CONTENT_LENGTH)
                .is_some_and(|length| length != "0");
        if version != Version::HTTP_11
            || has_body
            || !lists(headers, &header::CONNECTION, "upgrade")
        {
            return None;
        }
        let offered = headers.get(header::UPGRADE)?.to_str().ok()?;
        let first = offered.split(',').next()?.trim();
        if first.is_empty() || first.eq_ignore_ascii_case("h2c") {
            return None;
        }
        let websocket = first.eq_ignore_ascii_case("websocket");
        Some(Self {
            kind: if websocket {
                Upgrade::WebSocket
            } else {
                Upgrade::Other
            },
            token: HeaderValue::from_str(first).ok()?,
            http1: true,
            key: headers.get(header::SEC_WEBSOCKET_KEY).cloned(),
        })
    }

    /// Reads `CONNECT` and its `:protocol` (RFC 8441 §4).
    pub(crate) fn of_http2(head: &request::Parts) -> Option<Self> {
        if head.method != Method::CONNECT {
            return None;
        }
        let protocol = super::http2::protocol(head);
        let kind = match protocol.as_deref() {
            None => Upgrade::Connect,
            Some(token) if token.eq_ignore_ascii_case("websocket") => Upgrade::WebSocket,
            Some("webtransport") => Upgrade::WebTransport,
            Some("connect-udp") => Upgrade::ConnectUdp,
            Some("connect-ip") => Upgrade::ConnectIp,
            Some(_) => Upgrade::Other,
        };
        Some(Self {
            kind,
            token: HeaderValue::from_static("websocket"),
            http1: false,
            key: None,
        })
    }

    /// Whether the edge can carry it at all.
    pub(crate) fn is_served(&self) -> bool {
        match self.kind {
            Upgrade::WebSocket => true,
            // Any other token is relayed as it is, but only HTTP/1.1 has such tokens.
            Upgrade::Other => self.http1,
            _ => false,
        }
    }
}

fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().any(|value| {
        value.to_str().is_ok_and(|list| {
            list.split(',')
                .any(|item| item.trim().eq_ignore_ascii_case(token))
        })
    })
}

/// What came of an upgrade at the upstream.
pub(crate) enum Outcome {
    /// Both sides leave HTTP; the head is in the visitor's terms.
    Switched(response::Parts, Relay),
    /// The upstream answered in HTTP instead.
    Answered(response::Parts, Outbound),
    /// The upstream's HTTP version has no such upgrade: the request goes on without it.
    NotThere(request::Parts),
}

/// Asks the upstream to leave HTTP, on a stream of this visitor's own.
pub(crate) async fn perform(
    visit: &Visit,
    site: &Site,
    head: request::Parts,
    asked: &Asked,
    client: IpAddr,
    record: &Arc<Record>,
) -> Result<Outcome, UpstreamError> {
    if asked.kind != Upgrade::WebSocket && site.mode == UpstreamMode::H2c {
        return Ok(Outcome::NotThere(head));
    }
    let half_closed = visit.limits().half_closed;
    match upstream::fresh(visit, site, Some(client)).await? {
        Leg::Http1 { client, .. } => over_http1(client, head, asked, record, half_closed).await,
        Leg::Http2(_) if asked.kind != Upgrade::WebSocket => Ok(Outcome::NotThere(head)),
        Leg::Http2(reserved) => over_http2(reserved, site, head, asked, record, half_closed).await,
    }
}

async fn over_http1(
    client: http1::Client,
    mut head: request::Parts,
    asked: &Asked,
    record: &Arc<Record>,
    half_closed: Duration,
) -> Result<Outcome, UpstreamError> {
    upstream::http1_form(&mut head);
    head.method = if asked.http1 {
        head.method
    } else {
        Method::GET
    };
    head.headers
        .insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    head.headers.insert(header::UPGRADE, asked.token.clone());
    let websocket = asked.kind == Upgrade::WebSocket;
    let key = match (&asked.key, websocket && !asked.http1) {
        (_, true) => Some(random_key()?),
        (key, false) => key.clone(),
    };
    if let Some(key) = &key {
        head.headers.insert(header::SEC_WEBSOCKET_KEY, key.clone());
    }
    let request = Request::from_parts(head, RequestBody::none(Arc::clone(record)));
    let sent = client
        .send_once(request)
        .await
        .map_err(UpstreamError::Http1)?;
    let switched = match sent {
        http1::Sent::Response(head, body) => {
            return Ok(Outcome::Answered(head, Outbound::Http1(body)));
        }
        http1::Sent::Switched(switched) => switched,
    };
    let mut head = switched.head;
    if websocket {
        let expected = key.as_ref().map(accept_of);
        if head.headers.get(header::SEC_WEBSOCKET_ACCEPT) != expected.as_ref() {
            return Err(UpstreamError::BadUpgrade);
        }
    }
    let protocol = head.headers.get(header::UPGRADE).cloned();
    super::fields::strip_hop_by_hop(&mut head.headers);
    if asked.http1 {
        switching(&mut head, protocol.unwrap_or_else(|| asked.token.clone()));
    } else {
        head.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        head.status = StatusCode::OK;
    }
    let relay = Relay::new(switched.leg, Arc::clone(record), half_closed);
    Ok(Outcome::Switched(head, relay))
}

async fn over_http2(
    reserved: super::http2::Reserved,
    site: &Site,
    mut head: request::Parts,
    asked: &Asked,
    record: &Arc<Record>,
    half_closed: Duration,
) -> Result<Outcome, UpstreamError> {
    if !reserved.takes_extended_connect() {
        return Err(UpstreamError::NoExtendedConnect);
    }
    upstream::http2_form(&mut head, site);
    head.headers.remove(header::SEC_WEBSOCKET_KEY);
    let (mut head, leg) = match reserved
        .connect(head, "websocket")
        .await
        .map_err(UpstreamError::Aborted)?
    {
        Ok((head, reader, writer)) => (head, Duplex::http2(reader, writer)),
        Err(sent) => return Ok(Outcome::Answered(sent.head, Outbound::Http2(sent.body))),
    };
    if asked.http1 {
        if let Some(key) = &asked.key {
            head.headers
                .insert(header::SEC_WEBSOCKET_ACCEPT, accept_of(key));
        }
        switching(&mut head, asked.token.clone());
    }
    Ok(Outcome::Switched(
        head,
        Relay::new(leg, Arc::clone(record), half_closed),
    ))
}

fn switching(head: &mut response::Parts, protocol: HeaderValue) {
    head.status = StatusCode::SWITCHING_PROTOCOLS;
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers
        .insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    head.headers.insert(header::UPGRADE, protocol);
}

fn accept_of(key: &HeaderValue) -> HeaderValue {
    let digest = Sha1::new()
        .chain_update(key.as_bytes())
        .chain_update(WEBSOCKET_GUID)
        .finalize();
    HeaderValue::from_str(&STANDARD.encode(digest)).expect("base64 is a field value")
}

fn random_key() -> Result<HeaderValue, UpstreamError> {
    let mut bytes = [0; WEBSOCKET_KEY_BYTES];
    getrandom::fill(&mut bytes).map_err(|_| UpstreamError::BadUpgrade)?;
    HeaderValue::from_str(&STANDARD.encode(bytes)).map_err(|_| UpstreamError::BadUpgrade)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_accept_value_is_that_of_the_rfc() {
        // RFC 6455 §1.3
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accept_of(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    fn of(fields: &[(&str, &str)]) -> Option<Upgrade> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        Asked::of_http1(&Method::GET, Version::HTTP_11, &headers).map(|asked| asked.kind)
    }

    #[test]
    fn only_a_whole_offer_asks_for_an_upgrade() {
        let connection = ("connection", "keep-alive, Upgrade");
        assert_eq!(
            of(&[connection, ("upgrade", "WebSocket")]),
            Some(Upgrade::WebSocket)
        );
        assert_eq!(
            of(&[connection, ("upgrade", "x-thing/1")]),
            Some(Upgrade::Other)
        );
        assert_eq!(of(&[connection, ("upgrade", "h2c")]), None);
        assert_eq!(of(&[("upgrade", "websocket")]), None);
        assert_eq!(of(&[connection]), None);
        let body = ("content-length", "3");
        assert_eq!(of(&[connection, ("upgrade", "websocket"), body]), None);
    }
}
