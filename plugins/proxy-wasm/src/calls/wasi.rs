//! What runtimes of languages want of WASI preview 1: a log, clocks and randomness. The world is empty otherwise.

use adit_wasm::module::{Imports, Stop};
use tracing::Level;

use super::other::nanoseconds;
use super::{Caller, count};
use crate::host::Host;

/// Where functions of WASI are imported from.
pub(crate) const MODULE: &str = "wasi_snapshot_preview1";

/// Results.
const SUCCESS: u32 = 0;
const BADF: u32 = 8;
const FAULT: u32 = 21;
const INVAL: u32 = 28;
const NOTSUP: u32 = 58;

/// How many random bytes are given at once.
const RANDOM_BYTES_MAX: u32 = 4096;

/// How many parts may be written at once.
const PARTS_MAX: u32 = 1024;

/// How many bytes are taken at once of what is written.
const WRITE_BYTES_MAX: u32 = 64 << 10;

/// What a line costs beyond its bytes, as if it had so many more.
const LINE_COST: usize = 4096;

/// What every other function of WASI answers: no file is there, and nothing else is offered.
pub(crate) fn otherwise(name: &str) -> i32 {
    let result = match name.starts_with("fd_") || name.starts_with("path_") {
        true => BADF,
        false => NOTSUP,
    };
    result.cast_signed()
}

pub(super) fn offer(imports: &mut Imports<'_, Host>) {
    imports
        .add(MODULE, "fd_write", fd_write)
        .add(MODULE, "clock_time_get", clock_time_get)
        .add(MODULE, "random_get", random_get)
        .add(MODULE, "environ_sizes_get", nothing)
        .add(MODULE, "environ_get", no_list)
        .add(MODULE, "args_sizes_get", nothing)
        .add(MODULE, "args_get", no_list)
        .add(MODULE, "proc_exit", proc_exit);
}

type Answer = Result<u32, Stop>;

fn fd_write(
    guest: &mut Caller<'_>,
    file: u32,
    parts: u32,
    count_of_parts: u32,
    written_at: u32,
) -> Answer {
    count(guest)?;
    let level = match file {
        1 => Level::INFO,
        2 => Level::ERROR,
        _ => return Ok(BADF),
    };
    if count_of_parts > PARTS_MAX {
        return Ok(INVAL);
    }
    let Some(parts) = guest.read(parts, count_of_parts * 8)? else {
        return Ok(FAULT);
    };
    let mut written: u32 = 0;
    let (parts, _) = parts.as_chunks::<8>();
    for [a, b, c, d, e, f, g, h] in parts {
        let at = u32::from_le_bytes([*a, *b, *c, *d]);
        let length = u32::from_le_bytes([*e, *f, *g, *h]);
        // Who hears that less was written comes again with the rest.
        let length = length.min(WRITE_BYTES_MAX - written);
        let Some(bytes) = guest.read(at, length)? else {
            return Ok(FAULT);
        };
        let lines = bytes.iter().filter(|octet| **octet == b'\n').count();
        guest.charge(lines * LINE_COST)?;
        guest.host().written(&bytes, level);
        written += length;
        if written == WRITE_BYTES_MAX {
            break;
        }
    }
    match guest.write(written_at, &written.to_le_bytes())? {
        true => Ok(SUCCESS),
        false => Ok(FAULT),
    }
}

fn clock_time_get(guest: &mut Caller<'_>, clock: u32, _: u64, time_at: u32) -> Answer {
    count(guest)?;
    let known = &guest.host().common.services.env().clock;
    let time = match clock {
        0 => nanoseconds(known.now()),
        1 => u64::try_from(known.monotonic().as_nanos()).unwrap_or(u64::MAX),
        _ => return Ok(NOTSUP),
    };
    match guest.write(time_at, &time.to_le_bytes())? {
        true => Ok(SUCCESS),
        false => Ok(FAULT),
    }
}

fn random_get(guest: &mut Caller<'_>, at: u32, length: u32) -> Answer {
    count(guest)?;
    if length > RANDOM_BYTES_MAX {
        return Ok(INVAL);
    }
    let mut bytes = vec![0; length as usize];
    guest.host().common.services.env().random.fill(&mut bytes);
    match guest.write(at, &bytes)? {
        true => Ok(SUCCESS),
        false => Ok(FAULT),
    }
}

/// No environment, no arguments.
fn nothing(guest: &mut Caller<'_>, count_at: u32, size_at: u32) -> Answer {
    count(guest)?;
    match guest.write(count_at, &[0; 4])? && guest.write(size_at, &[0; 4])? {
        true => Ok(SUCCESS),
        false => Ok(FAULT),
    }
}

fn no_list(guest: &mut Caller<'_>, _: u32, _: u32) -> Answer {
    count(guest)?;
    Ok(SUCCESS)
}

fn proc_exit(_: &mut Caller<'_>, code: u32) -> Result<(), Stop> {
    Err(Stop::new(format!("it exited with {code}")))
}
