//! What becomes of an exchange: it goes on, is closed, or is answered here.

use adit_filters::Reply;
use adit_wasm::module::{Imports, own_field};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use percent::encode;

use super::{Answer, Caller, MODULE, answer, give, read, write_u32};
use crate::abi::{Pairs, Status, read_pairs};
use crate::host::Host;

pub(super) fn offer(imports: &mut Imports<'_, Host>) {
    imports
        .add(MODULE, "proxy_continue_stream", continue_stream)
        .add(MODULE, "proxy_close_stream", close_stream)
        .add(MODULE, "proxy_get_status", get_status)
        .add(MODULE, "proxy_send_local_response", send_local_response);
}

fn continue_stream(guest: &mut Caller<'_>, kind: u32) -> Answer {
    answer(guest, |guest| {
        let context = guest.host().context();
        match kind {
            0 | 1 => {
                let context = context.ok_or(Status::BadArgument)?;
                if let Some(resumed) = context.resumed.get_mut(kind as usize) {
                    *resumed = true;
                }
                context.wake.notify_one();
                Ok(())
            }
            2 | 3 => Err(Status::Unimplemented.into()),
            _ => Err(Status::BadArgument.into()),
        }
    })
}

fn close_stream(guest: &mut Caller<'_>, kind: u32) -> Answer {
    answer(guest, |guest| {
        let context = guest.host().context();
        match kind {
            0..=3 => {
                let context = context.ok_or(Status::BadArgument)?;
                context.closed = true;
                context.wake.notify_one();
                Ok(())
            }
            _ => Err(Status::BadArgument.into()),
        }
    })
}

fn get_status(guest: &mut Caller<'_>, code_at: u32, data_at: u32, size_at: u32) -> Answer {
    answer(guest, |guest| {
        let answer = guest.host().answer.as_ref();
        let status = answer.map_or(0, |answer| answer.status.as_u16());
        write_u32(guest, code_at, status.into())?;
        give(guest, b"", data_at, size_at)
    })
}

#[allow(clippy::too_many_arguments, reason = "the ABI's")]
fn send_local_response(
    guest: &mut Caller<'_>,
    status: u32,
    _details: u32,
    _details_size: u32,
    body: u32,
    body_size: u32,
    fields: u32,
    fields_size: u32,
    grpc_status: u32,
) -> Answer {
    answer(guest, |guest| {
        let body = read(guest, body, body_size)?;
        let fields = read(guest, fields, fields_size)?;
        let fields = read_pairs(&fields).ok_or(Status::BadArgument)?;
        let host = guest.host();
        let limits = *host.common.services.limits();
        let context = host.context().ok_or(Status::BadArgument)?;
        if !context.may_reply || body.len() > limits.reply_bytes || fields.len() > limits.fields {
            return Err(Status::BadArgument.into());
        }
        let status = u16::try_from(status).ok();
        let status = status
            .and_then(|status| StatusCode::from_u16(status).ok())
            .filter(|status| !status.is_informational())
            .ok_or(Status::BadArgument)?;
        let mut reply = Reply {
            status,
            headers: headers(fields, limits.field_bytes)?,
            body: Bytes::from(body),
            because: None,
        };
        let wants = context.request.as_ref();
        let wants = wants.and_then(|head| head.headers.get(header::CONTENT_TYPE));
        let wants = wants.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if wants && grpc_status != u32::MAX {
            as_grpc(&mut reply, grpc_status, limits.field_bytes)?;
        }
        context.reply = Some(Box::new(reply));
        context.wake.notify_one();
        Ok(())
    })
}

fn headers(fields: Pairs, field_bytes: usize) -> Result<HeaderMap, Status> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        // Framing is the edge's, and a status has been given.
        if name.starts_with(':') || own_field(&name).is_err() {
            continue;
        }
        let name = HeaderName::try_from(name).map_err(|_| Status::BadArgument)?;
        let value = HeaderValue::from_maybe_shared(Bytes::from(value));
        let value = value.map_err(|_| Status::BadArgument)?;
        if value.len() > field_bytes {
            return Err(Status::BadArgument);
        }
        headers.append(name, value);
    }
    Ok(headers)
}

/// Says the same as gRPC does: in fields, with the status of HTTP for all is well.
fn as_grpc(reply: &mut Reply, status: u32, max: usize) -> Result<(), Status> {
    let bad = |_| Status::BadArgument;
    let body = std::mem::take(&mut reply.body);
    let message = HeaderValue::try_from(encode(&body, max)).map_err(bad)?;
    let headers = &mut reply.headers;
    headers.insert("grpc-status", HeaderValue::from(status));
    headers.insert("grpc-message", message);
    let kind = HeaderValue::from_static("application/grpc");
    headers.insert(header::CONTENT_TYPE, kind);
    reply.status = StatusCode::OK;
    Ok(())
}

/// The encoding of gRPC's messages.
mod percent {
    use std::fmt::Write as _;

    /// What may not stand in a field as it is becomes `%` and two digits. What would be longer than it may be is cut
    /// off.
    pub(super) fn encode(bytes: &[u8], max: usize) -> String {
        let mut text = String::new();
        for octet in bytes {
            // Room for one that takes three.
            if text.len() + 3 > max {
                break;
            }
            match octet {
                b' '..=b'~' if *octet != b'%' => text.push(char::from(*octet)),
                _ => {
                    let _ = write!(text, "%{octet:02X}");
                }
            }
        }
        text
    }
}
