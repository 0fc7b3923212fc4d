//! A bounded key-value store in memory, one key space for each filter.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use adit_filters::env::{Clock, Store, StoreError};
use bytes::Bytes;
use moka::Expiry;
use moka::ops::compute::Op;
use moka::sync::Cache;

/// How much one filter may keep, keys and values together, in bytes. When there is more, what was used least goes.
pub const STORE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// How large one key and its value may be together, in bytes.
pub const ENTRY_BYTES_MAX: usize = 64 * 1024;

/// What an entry costs beside its key and value, roughly, in bytes.
const ENTRY_OVERHEAD: usize = 128;

/// The key spaces of all filters, by name. They outlive a reload: a limit is not reset by it.
pub struct Stores {
    clock: Arc<dyn Clock>,
    open: Mutex<HashMap<String, Arc<MemoryStore>>>,
}

impl Stores {
    /// No key space yet.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            open: Mutex::default(),
        }
    }

    /// The key space of this name.
    #[must_use]
    pub fn open(&self, name: &str) -> Arc<dyn Store> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Names of filters that a reload took away would gather: nobody holds those any more.
        if !open.contains_key(name) {
            open.retain(|_, store| Arc::strong_count(store) > 1);
        }
        open.entry(name.to_owned())
            .or_insert_with(|| Arc::new(MemoryStore::new(self.clock.clone())))
            .clone()
    }
}

struct MemoryStore {
    clock: Arc<dyn Clock>,
    cache: Cache<String, Kept>,
}

#[derive(Clone)]
struct Kept {
    value: Stored,
    /// By the clock's monotonic time.
    until: Duration,
    ttl: Duration,
}

#[derive(Clone)]
enum Stored {
    Bytes(Bytes),
    Number(i64),
}

/// Tells the cache how long to keep an entry at most; whether it is over is judged by our own clock.
struct Until;

impl Expiry<String, Kept> for Until {
    fn expire_after_create(&self, _: &String, kept: &Kept, _: Instant) -> Option<Duration> {
        Some(kept.ttl)
    }

    fn expire_after_update(
        &self,
        _: &String,
        kept: &Kept,
        _: Instant,
        left: Option<Duration>,
    ) -> Option<Duration> {
        match kept.value {
            // A number's time counts from its first addition.
            Stored::Number(_) => left.or(Some(kept.ttl)),
            Stored::Bytes(_) => Some(kept.ttl),
        }
    }
}

impl MemoryStore {
    fn new(clock: Arc<dyn Clock>) -> Self {
        let weigh = |key: &String, kept: &Kept| {
            let value = match &kept.value {
                Stored::Bytes(bytes) => bytes.len(),
                Stored::Number(_) => 8,
            };
            u32::try_from(key.len() + value + ENTRY_OVERHEAD).unwrap_or(u32::MAX)
        };
        let cache = Cache::builder()
            .max_capacity(STORE_BYTES_MAX)
            .weigher(weigh)
            .expire_after(Until)
            .build();
        Self { clock, cache }
    }

    fn until(&self, ttl: Duration) -> Duration {
        self.clock.monotonic().saturating_add(ttl)
    }

    fn live(&self, kept: Kept) -> Option<Kept> {
        (kept.until > self.clock.monotonic()).then_some(kept)
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &str) -> Option<Bytes> {
        self.live(self.cache.get(key)?)
            .map(|kept| match kept.value {
                Stored::Bytes(bytes) => bytes,
                Stored::Number(number) => Bytes::from(number.to_string()),
            })
    }

    fn set(&self, key: &str, value: Bytes, ttl: Duration) -> Result<(), StoreError> {
        check_size(key, value.len())?;
        let kept = Kept {
            value: Stored::Bytes(value),
            until: self.until(ttl),
            ttl,
        };
        self.cache.insert(key.to_owned(), kept);
        Ok(())
    }

    fn add(&self, key: &str, by: i64, ttl: Duration) -> Result<i64, StoreError> {
        check_size(key, 8)?;
        let mut sum = 0;
        // The cache lets one caller at a time compute for a key: no addition is lost.
        self.cache.entry_by_ref(key).and_try_compute_with(|entry| {
            let kept = entry.and_then(|entry| self.live(entry.into_value()));
            let (old, until) = match kept {
                None => (0, self.until(ttl)),
                Some(Kept {
                    value: Stored::Number(number),
                    until,
                    ..
                }) => (number, until),
                Some(Kept {
                    value: Stored::Bytes(bytes),
                    until,
                    ..
                }) => {
                    let number = std::str::from_utf8(&bytes)
                        .ok()
                        .and_then(|text| text.parse().ok());
                    (number.ok_or(StoreError::NotANumber)?, until)
                }
            };
            sum = old.checked_add(by).ok_or(StoreError::NotANumber)?;
            Ok(Op::Put(Kept {
                value: Stored::Number(sum),
                until,
                ttl,
            }))
        })?;
        Ok(sum)
    }

    fn remove(&self, key: &str) {
        self.cache.invalidate(key);
    }
}

fn check_size(key: &str, value: usize) -> Result<(), StoreError> {
    if key.len().saturating_add(value) > ENTRY_BYTES_MAX {
        return Err(StoreError::OverLimit {
            limit: ENTRY_BYTES_MAX,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use adit_filters::env::fake::FakeClock;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn stores() -> (Stores, Arc<FakeClock>) {
        let clock = Arc::new(FakeClock::default());
        (Stores::new(clock.clone()), clock)
    }

    #[test]
    fn filters_do_not_see_one_another_and_a_reload_sees_what_was_kept() {
        let (stores, _) = stores();
        let first = stores.open("edge/a");
        first.set("k", Bytes::from_static(b"v"), MINUTE).unwrap();
        assert_eq!(stores.open("edge/b").get("k"), None);
        assert_eq!(stores.open("edge/a").get("k").unwrap(), "v");
        first.remove("k");
        assert_eq!(first.get("k"), None);
        drop(first);
        drop(stores.open("edge/c"));
        let _new = stores.open("edge/d");
        assert_eq!(
            stores.open.lock().unwrap().len(),
            1,
            "spaces that nobody holds are let go"
        );
    }

    #[test]
    fn values_end_with_their_time() {
        let (stores, clock) = stores();
        let store = stores.open("a");
        store.set("k", Bytes::from_static(b"v"), MINUTE).unwrap();
        clock.advance(MINUTE - Duration::from_millis(1));
        assert!(store.get("k").is_some());
        clock.advance(Duration::from_millis(1));
        assert_eq!(store.get("k"), None);
    }

    #[test]
    fn a_number_lives_from_its_first_addition() {
        let (stores, clock) = stores();
        let store = stores.open("a");
        assert_eq!(store.add("n", 2, MINUTE), Ok(2));
        clock.advance(MINUTE / 2);
        assert_eq!(store.add("n", -5, MINUTE), Ok(-3));
        assert_eq!(store.get("n").unwrap(), "-3");
        clock.advance(MINUTE / 2);
        assert_eq!(store.add("n", 1, MINUTE), Ok(1));
        store.set("n", Bytes::from_static(b"41"), MINUTE).unwrap();
        assert_eq!(store.add("n", 1, MINUTE), Ok(42));
        store.set("n", Bytes::from_static(b"many"), MINUTE).unwrap();
        assert_eq!(store.add("n", 1, MINUTE), Err(StoreError::NotANumber));
        assert_eq!(store.get("n").unwrap(), "many");
        store.remove("n");
        store.add("n", i64::MAX, MINUTE).unwrap();
        assert_eq!(store.add("n", 1, MINUTE), Err(StoreError::NotANumber));
    }

    #[test]
    fn additions_from_many_threads_are_all_counted() {
        let (stores, _) = stores();
        let store = stores.open("a");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..500).for_each(|_| assert!(store.add("n", 1, MINUTE).is_ok())));
            }
        });
        assert_eq!(store.get("n").unwrap(), "2000");
    }

    #[test]
    fn entries_and_the_whole_are_bounded() {
        let clock = Arc::new(FakeClock::default());
        let store = MemoryStore::new(clock);
        let fits = Bytes::from(vec![0; ENTRY_BYTES_MAX - 1]);
        store.set("k", fits, MINUTE).unwrap();
        let large = Bytes::from(vec![0; ENTRY_BYTES_MAX]);
        assert_eq!(
            store.set("k", large, MINUTE),
            Err(StoreError::OverLimit {
                limit: ENTRY_BYTES_MAX
            })
        );
        for n in 0..200 {
            store
                .set(
                    &n.to_string(),
                    Bytes::from(vec![0; ENTRY_BYTES_MAX / 2]),
                    MINUTE,
                )
                .unwrap();
        }
        store.cache.run_pending_tasks();
        assert!(store.cache.weighted_size() <= STORE_BYTES_MAX);
    }
}
