//! How long to wait before trying again.

use std::time::Duration;

use tokio::time::Instant;

/// Shortest and longest wait before the first retry after a loss: most losses are a restart or a
/// change of network. Anything between is as likely, so that agents which lost their engine together
/// do not come back together.
const FIRST: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(450));

/// Wait before the second retry.
const SECOND: Duration = Duration::from_secs(1);

/// Longest wait while the outage is young, so that an engine which comes back is found within 3 s.
const YOUNG_MAX: Duration = Duration::from_millis(2500);

/// How long an outage counts as young: longer than a restart, an upgrade or a reboot takes.
const YOUNG: Duration = Duration::from_secs(600);

/// Time for one connection while an outage is [`HASTY`]: a machine that is down does not answer at
/// all, and while it is waited for nobody sees that it is back.
const HASTY_CONNECT: Duration = Duration::from_secs(3);

/// How long an outage is hurried through. A path that takes longer than [`HASTY_CONNECT`] gets its
/// full time afterwards.
const HASTY: Duration = Duration::from_secs(120);

/// Longest wait of all.
const MAX: Duration = Duration::from_secs(30);

/// Part of a later wait, in percent, that is cut off at random; of a fixed wait, that it differs by
/// in either direction.
const JITTER_PERCENT: u32 = 20;

/// A connection that held this long was good: the next loss starts a new outage. A shorter one
/// does not, or an engine that accepts and hangs up would be called four times a second.
const STABLE: Duration = Duration::from_secs(10);

/// Whether and when to try again after a failure that may pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retry {
    /// After up to half a second, then 1 s, then every 2.5 s for the first ten minutes, then doubling
    /// to 30 s; waits after the first are shortened by up to a fifth at random.
    #[default]
    BackOff,
    /// Always after the same time, give or take a fifth at random.
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

    /// How long one connection may take now, if less than usual.
    pub(crate) fn connect_limit(&self, now: Instant) -> Option<Duration> {
        let since = self.since?;
        (now.duration_since(since) < HASTY).then_some(HASTY_CONNECT)
    }

    /// How long to wait now, or `None` if there is to be no retry. `random` is any number.
    pub(crate) fn next(&mut self, now: Instant, random: u32) -> Option<Duration> {
        let share = f64::from(random) / f64::from(u32::MAX);
        let full = match self.retry {
            Retry::Never => return None,
            Retry::Every(interval) => {
                let swing = interval * JITTER_PERCENT / 100;
                return Some(interval.saturating_sub(swing) + swing.mul_f64(2.0 * share));
            }
            Retry::BackOff => {
                let since = *self.since.get_or_insert(now);
                let max = if now.duration_since(since) < YOUNG {
                    YOUNG_MAX
                } else {
                    MAX
                };
                match self.last {
                    None => {
                        let (shortest, longest) = FIRST;
                        self.last = Some(longest);
                        return Some(shortest + (longest - shortest).mul_f64(share));
                    }
                    Some(last) if last < SECOND => SECOND,
                    Some(last) => last.saturating_mul(2).min(max),
                }
            }
        };
        self.last = Some(full);
        let cut = full * JITTER_PERCENT / 100;
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
        let moments = moments(YOUNG);
        assert_eq!(moments.first_chunk(), Some(&[50, 1050, 3050, 5550]));
        for pair in moments.windows(2) {
            if let [a, b] = pair {
                assert!(b - a < 3000, "{a} {b}");
            }
        }
    }

    #[test]
    fn a_long_outage_is_asked_about_every_thirty_seconds() {
        let moments = moments(YOUNG * 2);
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
        for (random, first, second) in [
            (0, 50, 1000),
            (u32::MAX, 450, 800),
            (u32::MAX / 2, 250, 900),
        ] {
            let mut backoff = Backoff::new(Retry::BackOff);
            for expected in [first, second] {
                let wait = backoff.next(now, random);
                assert_eq!(wait.map(|wait| wait.as_millis()), Some(expected));
            }
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
        assert_eq!(backoff.next(start, 0), Some(FIRST.0));
    }

    #[test]
    fn connections_are_hurried_only_while_an_outage_has_just_begun() {
        let start = Instant::now();
        let mut backoff = Backoff::new(Retry::BackOff);
        assert_eq!(backoff.connect_limit(start), None);
        backoff.next(start, 0);
        assert_eq!(backoff.connect_limit(start), Some(HASTY_CONNECT));
        assert_eq!(backoff.connect_limit(start + HASTY), None);
        backoff.reset();
        assert_eq!(backoff.connect_limit(start), None);
    }

    #[test]
    fn fixed_and_no_retries_are_just_that() {
        let now = Instant::now();
        let five = Duration::from_secs(5);
        for (random, ms) in [(0, 4000), (u32::MAX, 6000)] {
            let wait = Backoff::new(Retry::Every(five)).next(now, random);
            assert_eq!(wait, Some(Duration::from_millis(ms)));
        }
        assert_eq!(Backoff::new(Retry::Never).next(now, 7), None);
    }
}
