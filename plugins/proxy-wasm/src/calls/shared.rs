//! Data and queues that all machines of a filter share.

use adit_wasm::module::Imports;

use super::{Answer, Caller, MODULE, answer, give, read, read_name, write_u32};
use crate::host::Host;

pub(super) fn offer(imports: &mut Imports<'_, Host>) {
    imports
        .add(MODULE, "proxy_get_shared_data", get_data)
        .add(MODULE, "proxy_set_shared_data", set_data)
        .add(MODULE, "proxy_register_shared_queue", register_queue)
        .add(MODULE, "proxy_resolve_shared_queue", resolve_queue)
        .add(MODULE, "proxy_enqueue_shared_queue", enqueue)
        .add(MODULE, "proxy_dequeue_shared_queue", dequeue);
}

fn get_data(
    guest: &mut Caller<'_>,
    key: u32,
    key_size: u32,
    data_at: u32,
    size_at: u32,
    cas_at: u32,
) -> Answer {
    answer(guest, |guest| {
        let key = read_name(guest, key, key_size)?;
        let (cas, value) = guest.host().common.shared_data(&key)?;
        give(guest, &value, data_at, size_at)?;
        write_u32(guest, cas_at, cas)
    })
}

fn set_data(
    guest: &mut Caller<'_>,
    key: u32,
    key_size: u32,
    data: u32,
    size: u32,
    cas: u32,
) -> Answer {
    answer(guest, |guest| {
        let key = read_name(guest, key, key_size)?;
        let value = read(guest, data, size)?;
        Ok(guest.host().common.set_shared_data(&key, &value, cas)?)
    })
}

fn register_queue(guest: &mut Caller<'_>, name: u32, size: u32, id_at: u32) -> Answer {
    answer(guest, |guest| {
        let name = read_name(guest, name, size)?;
        let host = guest.host();
        let id = host.common.register_queue(name, host.which)?;
        write_u32(guest, id_at, id)
    })
}

/// Queues are the filter's own: it has one machine by any name.
fn resolve_queue(
    guest: &mut Caller<'_>,
    _vm: u32,
    _vm_size: u32,
    name: u32,
    size: u32,
    id_at: u32,
) -> Answer {
    answer(guest, |guest| {
        let name = read_name(guest, name, size)?;
        let id = guest.host().common.resolve_queue(&name)?;
        write_u32(guest, id_at, id)
    })
}

fn enqueue(guest: &mut Caller<'_>, id: u32, data: u32, size: u32) -> Answer {
    answer(guest, |guest| {
        let item = read(guest, data, size)?;
        Ok(guest.host().common.enqueue(id, item)?)
    })
}

fn dequeue(guest: &mut Caller<'_>, id: u32, data_at: u32, size_at: u32) -> Answer {
    answer(guest, |guest| {
        let item = guest.host().common.dequeue(id)?;
        give(guest, &item, data_at, size_at)
    })
}
