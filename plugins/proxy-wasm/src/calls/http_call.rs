//! HTTP calls, and what is not there beside them: gRPC and foreign functions.

use std::time::Duration;

use adit_filters::env::HttpRequest;
use adit_wasm::module::Imports;
use bytes::Bytes;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use tracing::Level;

use super::{Answer, Caller, MODULE, answer, read, read_text, write_u32};
use crate::abi::{Pairs, Status, read_pairs};
use crate::host::Host;
use crate::under_way::Outgoing;

/// Fields that whoever sends the request sets.
const FRAMING: [HeaderName; 4] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::HOST,
    header::TRANSFER_ENCODING,
];

/// How large a body may be that a call sends, in bytes.
const BODY_BYTES_MAX: u32 = 1 << 20;

pub(super) fn offer(imports: &mut Imports<'_, Host>) {
    imports
        .add(MODULE, "proxy_http_call", http_call)
        .add(MODULE, "proxy_grpc_call", grpc_call)
        .add(MODULE, "proxy_grpc_stream", grpc_stream)
        .add(MODULE, "proxy_grpc_send", grpc_send)
        .add(MODULE, "proxy_grpc_cancel", grpc_end)
        .add(MODULE, "proxy_grpc_close", grpc_end)
        .add(MODULE, "proxy_call_foreign_function", foreign_function);
}

#[allow(clippy::too_many_arguments, reason = "the ABI's")]
fn http_call(
    guest: &mut Caller<'_>,
    upstream: u32,
    upstream_size: u32,
    fields: u32,
    fields_size: u32,
    body: u32,
    body_size: u32,
    _trailers: u32,
    _trailers_size: u32,
    timeout: u32,
    token_at: u32,
) -> Answer {
    answer(guest, |guest| {
        let upstream = read_text(guest, upstream, upstream_size)?;
        let fields = read(guest, fields, fields_size)?;
        let fields = read_pairs(&fields).ok_or(Status::BadArgument)?;
        if body_size > BODY_BYTES_MAX {
            let text =
                format!("a call to `{upstream}` has a body of more than {BODY_BYTES_MAX} bytes");
            guest.host().log(Level::WARN, &text);
            return Err(Status::BadArgument.into());
        }
        let place = guest.host().call_place(body_size as usize);
        let place = place.ok_or(Status::InternalFailure)?;
        let body = read(guest, body, body_size)?;
        let host = guest.host();
        let request = match request(host, &upstream, fields, body.into(), timeout) {
            Ok(request) => request,
            Err(text) => {
                host.log(Level::WARN, &format!("a call to `{upstream}` {text}"));
                return Err(Status::BadArgument.into());
            }
        };
        host.tokens = host.tokens.wrapping_add(1);
        let token = host.tokens;
        let context = host.effective;
        write_u32(guest, token_at, token)?;
        guest.host().dispatch(Outgoing {
            context,
            token,
            request,
            place,
        });
        Ok(())
    })
}

/// The request as it goes out, if it may; else what is wrong with it.
fn request(
    host: &Host,
    upstream: &str,
    fields: Pairs,
    body: Bytes,
    timeout: u32,
) -> Result<HttpRequest, String> {
    let services = &host.common.services;
    let limits = services.limits();
    let special = |name: &str| {
        let mut all = fields.iter();
        let found = all.find(|(known, _)| known == name);
        found.and_then(|(_, value)| String::from_utf8(value.clone()).ok())
    };
    let needed = |name: &str| special(name).ok_or_else(|| format!("has no `{name}`"));
    let authority = needed(":authority")?;
    let method: Method = needed(":method")?
        .parse()
        .map_err(|_| "has no method of HTTP".to_owned())?;
    let path: PathAndQuery = needed(":path")?
        .parse()
        .map_err(|_| "has no path of HTTP".to_owned())?;
    let named = host.common.settings.clusters.get(upstream);
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(path);
    match named {
        Some(url) => {
            parts.scheme = url.scheme().cloned();
            parts.authority = url.authority().cloned();
        }
        None => {
            parts.scheme = Some(match special(":scheme").as_deref() {
                Some("http") => Scheme::HTTP,
                Some("https") | None => Scheme::HTTPS,
                Some(_) => return Err("is neither by http nor by https".to_owned()),
            });
            let known = authority.parse();
            parts.authority = Some(known.map_err(|_| "has no authority of HTTP".to_owned())?);
        }
    }
    let uri = Uri::from_parts(parts).map_err(|error| format!("has no address: {error}"))?;
    let to = uri.host().unwrap_or_default().to_ascii_lowercase();
    let reach = services
        .reach(&to)
        .ok_or_else(|| format!("leads to `{to}`, which `allow-hosts` does not name"))?;
    if fields.len() > limits.fields {
        return Err(format!("has more than {} fields", limits.fields));
    }
    let mut headers = HeaderMap::with_capacity(fields.len());
    if named.is_some_and(|url| url.authority().is_some_and(|known| *known != *authority)) {
        let value = HeaderValue::try_from(&authority);
        headers.insert(
            header::HOST,
            value.map_err(|_| "has no authority of HTTP".to_owned())?,
        );
    }
    for (name, value) in fields {
        if name.starts_with(':') {
            continue;
        }
        let known = (
            HeaderName::try_from(&name),
            HeaderValue::from_maybe_shared(Bytes::from(value)),
        );
        match known {
            (Ok(name), Ok(_)) if FRAMING.contains(&name) => {}
            (Ok(name), Ok(value)) if value.len() <= limits.field_bytes => {
                headers.append(name, value);
            }
            _ => return Err(format!("has a field `{name}` that cannot be sent")),
        }
    }
    Ok(HttpRequest {
        method,
        uri,
        headers,
        body,
        timeout: Duration::from_millis(timeout.into()).min(limits.wait),
        reach,
    })
}

/// Says what is not there.
fn missing(guest: &mut Caller<'_>, what: &str) -> Answer {
    answer(guest, |guest| {
        guest
            .host()
            .log(Level::WARN, &format!("{what} are not there"));
        Err(Status::Unimplemented.into())
    })
}

#[allow(clippy::too_many_arguments, reason = "the ABI's")]
fn grpc_call(
    guest: &mut Caller<'_>,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
) -> Answer {
    missing(guest, "gRPC calls")
}

#[allow(clippy::too_many_arguments, reason = "the ABI's")]
fn grpc_stream(
    guest: &mut Caller<'_>,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
) -> Answer {
    missing(guest, "gRPC calls")
}

fn grpc_send(guest: &mut Caller<'_>, _: u32, _: u32, _: u32, _: u32) -> Answer {
    missing(guest, "gRPC calls")
}

fn grpc_end(guest: &mut Caller<'_>, _: u32) -> Answer {
    missing(guest, "gRPC calls")
}

fn foreign_function(
    guest: &mut Caller<'_>,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
    _: u32,
) -> Answer {
    missing(guest, "foreign functions")
}
