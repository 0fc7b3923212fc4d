//! Heads and trailers.

use adit_wasm::module::Imports;
use tracing::Level;

use super::{Answer, Caller, MODULE, answer, give, read, read_text, write_u32};
use crate::abi::{Fail, Map, Pairs, Status, read_pairs, write_pairs};
use crate::context::{Changed, shown};
use crate::host::Host;

pub(super) fn offer(imports: &mut Imports<'_, Host>) {
    imports
        .add(MODULE, "proxy_get_header_map_size", get_size)
        .add(MODULE, "proxy_get_header_map_pairs", get_pairs)
        .add(MODULE, "proxy_set_header_map_pairs", set_pairs)
        .add(MODULE, "proxy_get_header_map_value", get_value)
        .add(MODULE, "proxy_add_header_map_value", add_value)
        .add(MODULE, "proxy_replace_header_map_value", replace_value)
        .add(MODULE, "proxy_remove_header_map_value", remove_value);
}

/// Everything in a map; nothing if it is not there.
fn pairs(host: &mut Host, map: Map) -> Pairs {
    if map == Map::CallHeaders {
        let Some(answer) = &host.answer else {
            return Vec::new();
        };
        let status = (":status".to_owned(), answer.status.as_str().into());
        let fields = answer.headers.iter();
        let fields = fields.map(|(name, value)| (name.as_str().to_owned(), shown(value)));
        return std::iter::once(status).chain(fields).collect();
    }
    host.context()
        .map(|context| context.pairs(map))
        .unwrap_or_default()
}

fn value(host: &mut Host, map: Map, name: &str) -> Option<Vec<u8>> {
    if map == Map::CallHeaders {
        let answer = host.answer.as_ref()?;
        if name == ":status" {
            return Some(answer.status.as_str().into());
        }
        return answer.headers.get(name).map(shown);
    }
    host.context()?.value(map, name)
}

fn get_size(guest: &mut Caller<'_>, map: u32, size_at: u32) -> Answer {
    answer(guest, |guest| {
        let text = write_pairs(&pairs(guest.host(), Map::of(map)?));
        guest.charge(text.len())?;
        let size = u32::try_from(text.len()).map_err(|_| Status::InternalFailure)?;
        write_u32(guest, size_at, size)
    })
}

fn get_pairs(guest: &mut Caller<'_>, map: u32, data_at: u32, size_at: u32) -> Answer {
    answer(guest, |guest| {
        let text = write_pairs(&pairs(guest.host(), Map::of(map)?));
        give(guest, &text, data_at, size_at)
    })
}

fn get_value(
    guest: &mut Caller<'_>,
    map: u32,
    name: u32,
    name_size: u32,
    data_at: u32,
    size_at: u32,
) -> Answer {
    answer(guest, |guest| {
        let map = Map::of(map)?;
        let name = read_text(guest, name, name_size)?;
        let value = value(guest.host(), map, &name).ok_or(Status::NotFound)?;
        give(guest, &value, data_at, size_at)
    })
}

/// Says in the filter's log what it did not change, or may not.
fn told(host: &Host, name: &str, changed: Result<Changed, Status>) -> Result<(), Fail> {
    match changed {
        Ok(Changed::Yes) => Ok(()),
        Ok(Changed::Kept) => {
            // A body's length is unset anyway, and every filter for bodies does so itself.
            let level = match name.eq_ignore_ascii_case("content-length") {
                true => Level::DEBUG,
                false => Level::WARN,
            };
            host.log(level, &format!("`{name}` is the edge's and stays as it is"));
            Ok(())
        }
        Err(status) => {
            let text = format!("`{name}` cannot be changed like this, or not any more");
            host.log(Level::WARN, &text);
            Err(status.into())
        }
    }
}

fn set_pairs(guest: &mut Caller<'_>, map: u32, data: u32, size: u32) -> Answer {
    answer(guest, |guest| {
        let map = Map::of(map)?;
        let pairs = read(guest, data, size)?;
        let pairs = read_pairs(&pairs).ok_or(Status::BadArgument)?;
        let host = guest.host();
        let limits = *host.common.services.limits();
        let context = host.context().ok_or(Status::BadArgument)?;
        let changed = context.put_all(map, pairs, &limits);
        told(host, "one of all fields", changed)
    })
}

fn put(
    guest: &mut Caller<'_>,
    map: u32,
    (name, name_size): (u32, u32),
    (data, size): (u32, u32),
    beside: bool,
) -> Answer {
    answer(guest, |guest| {
        let map = Map::of(map)?;
        let name = read_text(guest, name, name_size)?;
        let value = read(guest, data, size)?;
        let host = guest.host();
        let limits = *host.common.services.limits();
        let context = host.context().ok_or(Status::BadArgument)?;
        let changed = context.put(map, &name, value, beside, &limits);
        told(host, &name, changed)
    })
}

fn add_value(
    guest: &mut Caller<'_>,
    map: u32,
    name: u32,
    name_size: u32,
    data: u32,
    size: u32,
) -> Answer {
    put(guest, map, (name, name_size), (data, size), true)
}

fn replace_value(
    guest: &mut Caller<'_>,
    map: u32,
    name: u32,
    name_size: u32,
    data: u32,
    size: u32,
) -> Answer {
    put(guest, map, (name, name_size), (data, size), false)
}

fn remove_value(guest: &mut Caller<'_>, map: u32, name: u32, name_size: u32) -> Answer {
    answer(guest, |guest| {
        let map = Map::of(map)?;
        let name = read_text(guest, name, name_size)?;
        let host = guest.host();
        let context = host.context().ok_or(Status::BadArgument)?;
        let changed = context.remove(map, &name);
        told(host, &name, changed)
    })
}
