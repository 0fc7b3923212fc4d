//! Buffers: bodies, the answer to a call, configurations.

use adit_wasm::module::Imports;
use bytes::Bytes;

use super::{Answer, Caller, MODULE, answer, give, read, write_u32};
use crate::abi::{Status, Way};
use crate::host::Host;

pub(super) fn offer(imports: &mut Imports<'_, Host>) {
    imports
        .add(MODULE, "proxy_get_buffer_bytes", get_bytes)
        .add(MODULE, "proxy_get_buffer_status", get_status)
        .add(MODULE, "proxy_set_buffer_bytes", set_bytes);
}

/// The body that a buffer's number means, if it may be seen now.
fn way(host: &mut Host, buffer: u32) -> Option<Way> {
    let way = match buffer {
        0 => Way::Request,
        1 => Way::Response,
        _ => return None,
    };
    let open = host.context()?.open;
    (open == Some(way)).then_some(way)
}

fn buffer(host: &mut Host, buffer: u32) -> Result<Bytes, Status> {
    match buffer {
        0 | 1 => {
            let way = way(host, buffer).ok_or(Status::NotFound)?;
            let context = host.context().ok_or(Status::NotFound)?;
            let body = context.bodies.get(way as usize).ok_or(Status::NotFound)?;
            Ok(body.bytes.clone())
        }
        4 => {
            let answer = host.answer.as_ref().ok_or(Status::NotFound)?;
            Ok(answer.body.clone())
        }
        6 => Ok(host.common.settings.vm.clone()),
        7 => Ok(host.common.settings.plugin.clone()),
        // Those of TCP, gRPC and foreign functions are never there.
        2 | 3 | 5 | 8 => Err(Status::NotFound),
        _ => Err(Status::BadArgument),
    }
}

fn get_bytes(
    guest: &mut Caller<'_>,
    number: u32,
    start: u32,
    max: u32,
    data_at: u32,
    size_at: u32,
) -> Answer {
    answer(guest, |guest| {
        let bytes = buffer(guest.host(), number)?;
        let start = start as usize;
        if start > bytes.len() {
            return Err(Status::BadArgument.into());
        }
        let end = start.saturating_add(max as usize).min(bytes.len());
        give(guest, &bytes.slice(start..end), data_at, size_at)
    })
}

fn get_status(guest: &mut Caller<'_>, number: u32, size_at: u32, flags_at: u32) -> Answer {
    answer(guest, |guest| {
        let bytes = buffer(guest.host(), number)?;
        let size = u32::try_from(bytes.len()).map_err(|_| Status::InternalFailure)?;
        write_u32(guest, size_at, size)?;
        write_u32(guest, flags_at, 0)
    })
}

fn set_bytes(
    guest: &mut Caller<'_>,
    number: u32,
    start: u32,
    length: u32,
    data: u32,
    size: u32,
) -> Answer {
    answer(guest, |guest| {
        let value = read(guest, data, size)?;
        if !matches!(number, 0 | 1) {
            return Err(Status::BadArgument.into());
        }
        // What is before and after it is copied too.
        let whole = buffer(guest.host(), number)?.len();
        guest.charge(whole)?;
        let host = guest.host();
        let way = way(host, number).ok_or(Status::NotFound)?;
        let context = host.context().ok_or(Status::NotFound)?;
        let body = context.bodies.get_mut(way as usize);
        let body = body.ok_or(Status::NotFound)?;
        Ok(body.put(start as usize, length as usize, &value)?)
    })
}
