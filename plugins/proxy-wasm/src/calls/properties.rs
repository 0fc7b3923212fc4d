//! Properties: what Envoy calls its attributes, as far as there is the like here.

use adit_filters::{Outcome, Transport};
use adit_wasm::module::Imports;
use bytes::Bytes;

use super::other::nanoseconds;
use super::{Answer, Caller, MODULE, answer, give, read};
use crate::abi::{Map, Status, Way, write_pairs};
use crate::context::Context;
use crate::host::Host;

/// Longest path of a property, in bytes.
const PATH_BYTES_MAX: usize = 1024;

pub(super) fn offer(imports: &mut Imports<'_, Host>) {
    imports.add(MODULE, "proxy_get_property", get_property).add(
        MODULE,
        "proxy_set_property",
        set_property,
    );
}

fn get_property(
    guest: &mut Caller<'_>,
    path: u32,
    path_size: u32,
    data_at: u32,
    size_at: u32,
) -> Answer {
    answer(guest, |guest| {
        let path = read(guest, path, path_size)?;
        let value = property(guest.host(), &path).ok_or(Status::NotFound)?;
        give(guest, &value, data_at, size_at)
    })
}

fn set_property(guest: &mut Caller<'_>, path: u32, path_size: u32, data: u32, size: u32) -> Answer {
    answer(guest, |guest| {
        let path = read(guest, path, path_size)?;
        let value = read(guest, data, size)?;
        let host = guest.host();
        let max = host.common.services.limits().variable_bytes;
        let context = host.context().ok_or(Status::NotFound)?;
        Ok(context.set_property(path, value, max)?)
    })
}

fn number(value: impl Into<i64>) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(&value.into().to_le_bytes()))
}

fn count(value: u64) -> Option<Bytes> {
    number(i64::try_from(value).unwrap_or(i64::MAX))
}

fn text(value: impl Into<String>) -> Option<Bytes> {
    Some(value.into().into())
}

fn truth(value: bool) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(&[u8::from(value)]))
}

fn property(host: &mut Host, path: &[u8]) -> Option<Bytes> {
    if path.len() > PATH_BYTES_MAX {
        return None;
    }
    // The SDK for C++ ends every part of a path, the last one too.
    let path = path.strip_suffix(b"\0").unwrap_or(path);
    let services = &host.common.services;
    match path {
        b"plugin_name" => return text(&*services.env().name),
        b"plugin_vm_id" => return text(services.plugin()),
        b"plugin_root_id" => return Some(Bytes::new()),
        _ => {}
    }
    let context = host.context()?;
    if let Some(own) = context.property(path) {
        return Some(own);
    }
    let path = std::str::from_utf8(path).ok()?;
    // Names of fields have dots in other places than between parts: only the first two are told apart.
    let mut parts = path.splitn(3, '\0');
    let (group, name) = (parts.next()?, parts.next().unwrap_or_default());
    let rest = parts.next();
    match group {
        "request" => request(context, name, rest),
        "response" => response(context, name, rest),
        "source" => match name {
            "address" => text(context.connection.info().peer.to_string()),
            "port" => number(context.connection.info().peer.port()),
            _ => None,
        },
        "destination" => match name {
            "address" => text(context.connection.tunnel().hostname.clone()?),
            _ => None,
        },
        "connection" => connection(context, name),
        "adit" => own(context, name, rest),
        _ => None,
    }
}

fn field(context: &Context, way: Way, name: &str) -> Option<Bytes> {
    context.value(Map::Headers(way), name).map(Bytes::from)
}

fn all_or_one(context: &Context, way: Way, name: Option<&str>) -> Option<Bytes> {
    match name {
        Some(name) => field(context, way, name),
        None => Some(write_pairs(&context.pairs(Map::Headers(way))).into()),
    }
}

fn outcome<R>(context: &Context, with: impl FnOnce(&Outcome) -> Option<R>) -> Option<R> {
    context.outcome.as_deref().and_then(with)
}

fn request(context: &Context, name: &str, rest: Option<&str>) -> Option<Bytes> {
    let head = context.request.as_ref()?;
    match name {
        "path" => field(context, Way::Request, ":path"),
        "url_path" => text(head.uri.path()),
        "query" => text(head.uri.query().unwrap_or_default()),
        "host" => field(context, Way::Request, ":authority"),
        "scheme" => field(context, Way::Request, ":scheme"),
        "method" => field(context, Way::Request, ":method"),
        "headers" => all_or_one(context, Way::Request, rest),
        "referer" => field(context, Way::Request, "referer"),
        "useragent" => field(context, Way::Request, "user-agent"),
        // It has its name in the end, and the visitor's until then.
        "id" => outcome(context, |outcome| text(outcome.request_id.to_string()))
            .or_else(|| field(context, Way::Request, "x-request-id")),
        "protocol" => text(match head.version {
            http::Version::HTTP_10 => "HTTP/1.0",
            http::Version::HTTP_2 => "HTTP/2",
            http::Version::HTTP_3 => "HTTP/3",
            _ => "HTTP/1.1",
        }),
        "time" => count(nanoseconds(context.started)),
        "duration" => outcome(context, |outcome| {
            count(u64::try_from(outcome.duration.as_nanos()).unwrap_or(u64::MAX))
        }),
        "size" | "total_size" => outcome(context, |outcome| count(outcome.bytes_up)),
        _ => None,
    }
}

fn response(context: &Context, name: &str, rest: Option<&str>) -> Option<Bytes> {
    match name {
        "code" => {
            let sent = outcome(context, |outcome| outcome.status);
            let head = context.response.as_ref().map(|head| head.status.as_u16());
            number(sent.or(head)?)
        }
        "code_details" => outcome(context, |outcome| {
            text(outcome.refusal.as_ref()?.reason.as_str())
        }),
        "headers" => {
            context.response.as_ref()?;
            all_or_one(context, Way::Response, rest)
        }
        "size" | "total_size" => outcome(context, |outcome| count(outcome.bytes_down)),
        _ => None,
    }
}

fn connection(context: &Context, name: &str) -> Option<Bytes> {
    let info = context.connection.info();
    let tls = info.tls.as_ref();
    let certificate = tls.and_then(|tls| tls.client_certificate.as_ref());
    match name {
        "id" => count(info.id),
        "mtls" => truth(certificate.is_some()),
        "requested_server_name" => text(info.hello.as_ref()?.server_name.clone()?),
        "tls_version" => text(tls?.version),
        "sha256_peer_certificate_digest" => {
            let octets = certificate?.sha256.iter();
            text(
                octets
                    .map(|octet| format!("{octet:02x}"))
                    .collect::<String>(),
            )
        }
        "transport" => text(match info.transport {
            Transport::Tls | Transport::Tcp => "tcp",
            other => other.as_str(),
        }),
        _ => None,
    }
}

/// What other proxies do not have.
fn own(context: &Context, name: &str, rest: Option<&str>) -> Option<Bytes> {
    let tunnel = context.connection.tunnel();
    match (name, rest?) {
        ("tunnel", "id") => text(&*tunnel.id),
        ("tunnel", "name") => text(tunnel.name.clone()?),
        ("tunnel", "host") => text(tunnel.hostname.clone()?),
        ("tunnel", "project") => text(&*tunnel.project),
        ("label", label) => text(tunnel.labels.get(label)?.clone()),
        ("identity", "subject") => text(&*context.identity()?.subject),
        ("identity", "email") => text(context.identity()?.email.clone()?),
        _ => None,
    }
}
