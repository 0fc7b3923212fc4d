//! The system's time and randomness.

use std::time::{Duration, Instant, SystemTime};

use adit_filters::env::{BoxFuture, Clock, Random};

/// The system's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    /// What monotonic time is counted from.
    origin: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self {
            origin: Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// The operating system's randomness.
#[derive(Clone, Copy, Debug)]
pub struct OsRandom;

impl Random for OsRandom {
    fn fill(&self, buffer: &mut [u8]) {
        // Keys made of anything else would be worse than none, and no caller could do without.
        getrandom::fill(buffer).expect("the operating system gives randomness");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn randomness_differs_and_time_goes_on() {
        let (mut first, mut second) = ([0; 32], [0; 32]);
        OsRandom.fill(&mut first);
        OsRandom.fill(&mut second);
        assert_ne!(first, second);
        let clock = SystemClock::default();
        assert!(clock.monotonic() <= clock.monotonic());
        assert!(clock.now() > SystemTime::UNIX_EPOCH);
    }
}
