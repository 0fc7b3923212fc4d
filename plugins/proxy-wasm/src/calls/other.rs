//! The log, the time, the timer, contexts, metrics.

use std::time::{Duration, SystemTime};

use adit_wasm::module::Imports;
use tracing::Level;

use super::{Answer, Caller, MODULE, answer, read, read_name, write, write_u32};
use crate::abi::Status;
use crate::host::{Host, ROOT};

/// A timer is not called more often than this.
const TICK_MIN: Duration = Duration::from_millis(10);

pub(super) fn offer(imports: &mut Imports<'_, Host>) {
    imports
        .add(MODULE, "proxy_log", log)
        .add(MODULE, "proxy_get_log_level", log_level)
        .add(MODULE, "proxy_get_current_time_nanoseconds", now)
        .add(MODULE, "proxy_set_tick_period_milliseconds", set_tick)
        .add(MODULE, "proxy_set_effective_context", set_effective)
        .add(MODULE, "proxy_done", done)
        .add(MODULE, "proxy_define_metric", define_metric)
        .add(MODULE, "proxy_record_metric", record_metric)
        .add(MODULE, "proxy_increment_metric", increment_metric)
        .add(MODULE, "proxy_get_metric", get_metric);
}

fn log(guest: &mut Caller<'_>, level: u32, data: u32, size: u32) -> Answer {
    answer(guest, |guest| {
        let level = match level {
            0 | 1 => Level::DEBUG,
            2 => Level::INFO,
            3 => Level::WARN,
            4 | 5 => Level::ERROR,
            _ => return Err(Status::BadArgument.into()),
        };
        // One byte more, to show that something was cut off.
        let max = guest.host().common.services.limits().log_line_bytes + 1;
        let size = size.min(u32::try_from(max).unwrap_or(u32::MAX));
        let text = read(guest, data, size)?;
        guest.host().log(level, &String::from_utf8_lossy(&text));
        Ok(())
    })
}

fn log_level(guest: &mut Caller<'_>, level_at: u32) -> Answer {
    answer(guest, |guest| {
        let level = match tracing::enabled!(Level::DEBUG) {
            true => 1,
            false => 2,
        };
        write_u32(guest, level_at, level)
    })
}

/// Nanoseconds since 1970.
pub(super) fn nanoseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

fn now(guest: &mut Caller<'_>, time_at: u32) -> Answer {
    answer(guest, |guest| {
        let now = guest.host().common.services.env().clock.now();
        write(guest, time_at, &nanoseconds(now).to_le_bytes())
    })
}

fn set_tick(guest: &mut Caller<'_>, period: u32) -> Answer {
    answer(guest, |guest| {
        let period = Duration::from_millis(period.into());
        let host = guest.host();
        host.tick = (!period.is_zero()).then(|| period.max(TICK_MIN));
        host.tick_is_new = true;
        Ok(())
    })
}

fn set_effective(guest: &mut Caller<'_>, id: u32) -> Answer {
    answer(guest, |guest| {
        let host = guest.host();
        if id != ROOT && !host.contexts.contains_key(&id) {
            return Err(Status::BadArgument.into());
        }
        host.effective = id;
        Ok(())
    })
}

fn done(guest: &mut Caller<'_>) -> Answer {
    answer(guest, |guest| {
        let host = guest.host();
        let id = host.effective;
        let context = host.context().filter(|context| context.deferred);
        context.ok_or(Status::NotFound)?.deferred = false;
        host.done.push(id);
        Ok(())
    })
}

fn define_metric(guest: &mut Caller<'_>, kind: u32, name: u32, size: u32, id_at: u32) -> Answer {
    answer(guest, |guest| {
        let name = read_name(guest, name, size)?;
        let name = String::from_utf8(name).map_err(|_| Status::BadArgument)?;
        let id = guest.host().common.define_metric(kind, &name)?;
        write_u32(guest, id_at, id)
    })
}

fn record_metric(guest: &mut Caller<'_>, id: u32, value: u64) -> Answer {
    answer(guest, |guest| {
        Ok(guest.host().common.record_metric(id, value)?)
    })
}

fn increment_metric(guest: &mut Caller<'_>, id: u32, by: i64) -> Answer {
    answer(guest, |guest| {
        Ok(guest.host().common.increment_metric(id, by)?)
    })
}

fn get_metric(guest: &mut Caller<'_>, id: u32, value_at: u32) -> Answer {
    answer(guest, |guest| {
        let value = guest.host().common.read_metric(id)?;
        write(guest, value_at, &value.to_le_bytes())
    })
}
