//! The functions of the host.

mod buffers;
mod fields;
mod http_call;
mod other;
mod properties;
mod shared;
mod stream;
pub(crate) mod wasi;

use std::sync::Arc;

use adit_wasm::module::{Guest, Imports, Stop};

use crate::abi::{Fail, Status};
use crate::host::Host;

/// The instance that calls.
type Caller<'a> = Guest<'a, Host>;

/// What a function of the host answers.
type Answer = Result<u32, Stop>;

/// Where functions of the ABI are imported from.
const MODULE: &str = "env";

/// How long the name of a metric, a queue or a shared value may be, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// Offers all of them.
pub(crate) fn offer(imports: &mut Imports<'_, Host>) {
    buffers::offer(imports);
    fields::offer(imports);
    http_call::offer(imports);
    other::offer(imports);
    properties::offer(imports);
    shared::offer(imports);
    stream::offer(imports);
    wasi::offer(imports);
}

/// Counts one call of the host.
fn count(guest: &mut Caller<'_>) -> Result<(), Stop> {
    let host = guest.host();
    match host.calls_left.checked_sub(1) {
        Some(left) => {
            host.calls_left = left;
            Ok(())
        }
        None => Err(Stop::new(format!(
            "called the host more than {} times in one hook",
            host.common.services.limits().host_calls
        ))),
    }
}

/// Does one function's work, and says how it went.
fn answer(
    guest: &mut Caller<'_>,
    work: impl FnOnce(&mut Caller<'_>) -> Result<(), Fail>,
) -> Answer {
    count(guest)?;
    match work(guest) {
        Ok(()) => Ok(Status::Ok as u32),
        Err(Fail::Status(status)) => Ok(status as u32),
        Err(Fail::Stop(stop)) => Err(stop),
    }
}

fn read(guest: &mut Caller<'_>, at: u32, length: u32) -> Result<Vec<u8>, Fail> {
    Ok(guest.read(at, length)?.ok_or(Status::InvalidMemory)?)
}

/// Reads a name: nothing of one that is too long.
fn read_name(guest: &mut Caller<'_>, at: u32, length: u32) -> Result<Vec<u8>, Fail> {
    match length as usize > NAME_BYTES_MAX {
        true => Err(Status::BadArgument.into()),
        false => read(guest, at, length),
    }
}

fn read_text(guest: &mut Caller<'_>, at: u32, length: u32) -> Result<String, Fail> {
    let bytes = read(guest, at, length)?;
    Ok(String::from_utf8(bytes).map_err(|_| Status::BadArgument)?)
}

fn write(guest: &mut Caller<'_>, at: u32, bytes: &[u8]) -> Result<(), Fail> {
    match guest.write(at, bytes)? {
        true => Ok(()),
        false => Err(Status::InvalidMemory.into()),
    }
}

fn write_u32(guest: &mut Caller<'_>, at: u32, number: u32) -> Result<(), Fail> {
    write(guest, at, &number.to_le_bytes())
}

/// Gives bytes to the guest, in memory that it allocates; none are no memory.
fn give(guest: &mut Caller<'_>, bytes: &[u8], data_at: u32, size_at: u32) -> Result<(), Fail> {
    let size = u32::try_from(bytes.len()).map_err(|_| Status::InternalFailure)?;
    let mut data = 0;
    if size > 0 {
        let exports = Arc::clone(&guest.host().exports);
        let allocate = exports.allocate.as_ref().ok_or(Status::InternalFailure)?;
        data = guest.call(allocate, size)?;
        if data == 0 {
            return Err(Status::InvalidMemory.into());
        }
        write(guest, data, bytes)?;
    }
    write_u32(guest, data_at, data)?;
    write_u32(guest, size_at, size)
}
