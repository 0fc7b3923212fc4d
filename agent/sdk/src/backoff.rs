//! How long to wait before trying again.

use std::time::Duration;

use tokio::time::Instant;

/// Wait before the first retry after a loss: most losses are a restart or a change of network.
const FIRST: Duration = Duration::from_millis(250);

/// Wait before the second retry.
const SECOND: Duration = Duration::from_secs(1);

/// Longest wait while the outage is young, so that an engine which comes back is found within
/// about 2 s.
const YOUNG_MAX: Duration = Duration::from_secs(2);

/// How long an outage counts as young: longer than a restart or an upgrade takes.
const YOUNG: Duration = Duration::from_secs(60);

/// Longest wait of all.
const MAX: Duration = Duration::from_secs(30);

/// Part of a wait, in percent, that is cut off at random, so that agents which lost their engine
/// together do not come back together.
const JITTER_PERCENT: u32 = 20;

/// A connection that held this long was good: the next loss starts a new outage. A shorter one
/// does not, or an engine that accepts and hangs up would be called four times a second.
const STABLE: Duration = Duration::from_secs(10);

/// Whether and when to try again after a failure that may pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retry {
    /// After 250 ms, then 1 s, then every 2 s for the first minute, then doubling to 30 s; each
    /// wait shortened by up to a fifth at random.
    #[default]
    BackOff,
    /// Always after the same time.
    Every(Duration),
    /// Not at all.
    Never,
}

/// The state of one outage.
#[derive(Debug)]
pub(crate) struct Backoff {
    retry: Retry,
    since: Option<Instant>,
    last: Option<Duration>,
}

impl Backoff {
    pub(crate) const fn new(retry: Retry) -> Self {
        Self {
            retry,
            since: None,
            last: None,
        }
    }

    /// A connection made at `start` is over.
    pub(crate) fn lost(&mut self, start: Instant, now: Instant) {
        if now.duration_since(start) >= STABLE {
            self.reset();
        }
    }

    /// The outage is over.
    pub(crate) fn reset(&mut self) {
        self.since = None;
        self.last = None;
    }

    /// How long to wait now, or `None` if there is to be no retry. `random` is any number.
    pub(crate) fn next(&mut self, now: Instant, random: u32) -> Option<Duration> {
        let full = match self.retry {
            Retry::Never => return None,
            Retry::Every(interval) => return Some(interval),
            Retry::BackOff => {
                let since = *self.since.get_or_insert(now);
                let max = if now.duration_since(since) < YOUNG {
                    YOUNG_MAX
                } else {
                    MAX
                };
                match self.last {
                    None => FIRST,
                    Some(FIRST) => SECOND,
                    Some(last) => last.saturating_mul(2).min(max),
                }
            }
        };
        self.last = Some(full);
        let cut = full * JITTER_PERCENT / 100;
        let share = f64::from(random) / f64::from(u32::MAX);
        Some(full.saturating_sub(cut.mul_f64(share)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The moments of the retries of one outage, in milliseconds, without jitter.
    fn moments(until: Duration) -> Vec<u128> {
        let start = Instant::now();
        let mut now = start;
        let mut backoff = Backoff::new(Retry::BackOff);
        let mut moments = Vec::new();
        while let Some(wait) = backoff.next(now, 0) {
            now += wait;
            if now.duration_since(start) > until {
                break;
            }
            moments.push(now.duration_since(start).as_millis());
        }
        moments
    }

    #[test]
    fn an_engine_that_restarts_is_called_within_three_seconds_of_listening() {
        let moments = moments(Duration::from_secs(60));
        assert_eq!(moments.first_chunk(), Some(&[250, 1250, 3250, 5250]));
        for pair in moments.windows(2) {
            if let [a, b] = pair {
                assert!(b - a < 3000, "{a} {b}");
            }
        }
    }

    #[test]
    fn a_long_outage_is_asked_about_every_thirty_seconds() {
        let moments = moments(Duration::from_secs(600));
        let gaps: Vec<u128> = moments
            .iter()
            .zip(moments.iter().skip(1))
            .map(|(a, b)| b - a)
            .collect();
        assert_eq!(gaps.last(), Some(&30_000));
        assert_eq!(gaps.iter().max(), Some(&30_000));
    }

    #[test]
    fn jitter_takes_up_to_a_fifth() {
        let now = Instant::now();
        for (random, expected) in [(0, 250), (u32::MAX, 200), (u32::MAX / 2, 225)] {
            let wait = Backoff::new(Retry::BackOff).next(now, random);
            assert_eq!(wait.map(|wait| wait.as_millis()), Some(expected));
        }
    }

    #[test]
    fn only_a_connection_that_held_starts_a_new_outage() {
        let start = Instant::now();
        let mut backoff = Backoff::new(Retry::BackOff);
        backoff.next(start, 0);
        backoff.lost(start, start + Duration::from_secs(1));
        assert_eq!(backoff.next(start, 0), Some(SECOND));
        backoff.lost(start, start + STABLE);
        assert_eq!(backoff.next(start, 0), Some(FIRST));
    }

    #[test]
    fn fixed_and_no_retries_are_just_that() {
        let now = Instant::now();
        let five = Duration::from_secs(5);
        assert_eq!(Backoff::new(Retry::Every(five)).next(now, 7), Some(five));
        assert_eq!(Backoff::new(Retry::Never).next(now, 7), None);
    }
}
