//! What the filters of a plugin use, for whoever tries it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counts what the filters of a plugin use. See [`Plugin::counted`](crate::Plugin::counted).
#[derive(Debug, Default)]
pub struct Spent {
    fuel: AtomicU64,
    hooks: AtomicU64,
    failure: Mutex<Option<String>>,
}

impl Spent {
    /// Fuel of all hooks together. Setting instances up is not among it.
    #[must_use]
    pub fn fuel(&self) -> u64 {
        self.fuel.load(Ordering::Relaxed)
    }

    /// How many hooks were called.
    #[must_use]
    pub fn hooks(&self) -> u64 {
        self.hooks.load(Ordering::Relaxed)
    }

    /// What failed last, in the log too, which can refuse nothing. It is told once.
    #[must_use]
    pub fn take_failure(&self) -> Option<String> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.take()
    }

    pub(crate) fn hook(&self, fuel: u64) {
        self.fuel.fetch_add(fuel, Ordering::Relaxed);
        self.hooks.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, detail: String) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        *failure = Some(detail);
    }
}
