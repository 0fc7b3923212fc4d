//! What has passed one way, and when the next may.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::rate::Rate;

/// How much may pass at once after a pause, as the time it would take: enough for timers that ring late, and so little
/// that a second still holds a second's worth.
const BURST: Duration = Duration::from_millis(100);

/// The shortest wait: a timer is no finer, and what passes too early now waits the longer later.
const WAIT_MIN: Duration = Duration::from_millis(1);

/// One direction of a request or of all requests of a connection. Those that share one wait in the order they come.
#[derive(Debug, Default)]
pub(super) struct Meter {
    passed: AtomicU64,
    /// When everything so far will have passed at the rate, in nanoseconds of the clock.
    due: AtomicU64,
}

impl Meter {
    /// Counts bytes, and says how many it has been.
    pub(super) fn count(&self, bytes: usize) -> u64 {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let before = self.passed.fetch_add(bytes, Ordering::Relaxed);
        before.saturating_add(bytes)
    }

    /// How many bytes it has been.
    pub(super) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Takes the time these bytes need, and says how long they wait for it.
    pub(super) fn wait(&self, rate: Rate, bytes: usize, now: Duration) -> Duration {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let (now, needs) = (nanos(now), nanos(rate.time_for(bytes)));
        let after = |due: u64| due.max(now).saturating_add(needs);
        let before = self
            .due
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |due| Some(after(due)));
        let (Ok(before) | Err(before)) = before;
        let allowed = now.saturating_add(nanos(BURST));
        let wait = Duration::from_nanos(after(before).saturating_sub(allowed));
        if wait < WAIT_MIN {
            Duration::ZERO
        } else {
            wait
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn rate() -> Rate {
        Rate::try_from("1Mbit/s".to_owned()).unwrap()
    }

    /// Sends pieces one after the other and says how long all of them took.
    fn took(meter: &Meter, pieces: usize, bytes: usize, mut now: Duration) -> Duration {
        let began = now;
        for _ in 0..pieces {
            now += meter.wait(rate(), bytes, now);
        }
        now - began
    }

    #[test]
    fn pieces_pass_at_the_rate_but_for_a_small_burst() {
        for (pieces, bytes) in [(41, 6_250), (250, 1_024), (4, 64_000)] {
            let start = Duration::from_secs(1000);
            let whole = rate().time_for(pieces * bytes);
            let took = took(&Meter::default(), pieces, bytes, start);
            assert!(
                whole - BURST <= took + WAIT_MIN && took <= whole,
                "{took:?} {whole:?}"
            );
        }
    }

    #[test]
    fn a_pause_earns_no_more_than_a_burst() {
        let meter = Meter::default();
        let start = Duration::from_secs(1);
        took(&meter, 10, 6_250, start);
        let later = Duration::from_secs(3600);
        let whole = rate().time_for(20 * 6_250);
        assert!(took(&meter, 20, 6_250, later) >= whole - BURST);
    }

    #[test]
    fn those_that_share_a_meter_share_its_rate() {
        let (meter, now) = (Meter::default(), Duration::from_secs(1));
        let waits: Vec<Duration> = (0..8).map(|_| meter.wait(rate(), 6_250, now)).collect();
        let ms: Vec<u128> = waits.iter().map(Duration::as_millis).collect();
        assert_eq!(ms, [0, 0, 50, 100, 150, 200, 250, 300]);
    }

    #[test]
    fn numbers_without_sense_do_no_harm() {
        let meter = Meter::default();
        meter.count(usize::MAX);
        assert_eq!(meter.count(usize::MAX), u64::MAX);
        meter.wait(rate(), usize::MAX, Duration::MAX);
        let wait = meter.wait(rate(), 1, Duration::ZERO);
        assert!(wait > Duration::from_secs(3600));
    }
}
