//! Rates of very many keys in little memory.
//!
//! What is kept of a key is one moment: when it would be even again had it come at its rate (GCRA's theoretical
//! arrival time). A key that is even is the same as one that was never seen. So there is always something that can be
//! forgotten for nothing, or else for the least: **the key that is even soonest**. Whoever is at its limit is the last
//! to be forgotten, however many strangers come by once; and forgetting a key only ever lets more in, so nobody within
//! its limit is refused for what others did.
//!
//! Why not one of the crates: a cache such as `moka` or `lru` takes 70 to 150 bytes for a key, which is more than 64
//! MiB for a million, and forgets by the time of the last visit, so that a crowd flushes out whoever it hides; a sketch
//! of counters (`pingora-limits`) is small, but adds the visits of strangers to a key's own.

use std::sync::{Mutex, PoisonError};

use governor::nanos::Nanos;
use governor::state::StateStore;

/// How many keys one filter remembers at most, in [`KEYS_MAX`] × 16 bytes: 32 MiB.
pub const KEYS_MAX: usize = PARTS * BUCKETS_MAX * WAYS;

/// The table is made of parts with a lock each, so that threads seldom wait for one another and growing is done
/// piece by piece.
const PARTS: usize = 256;

/// A part begins with one bucket and doubles up to this many.
const BUCKETS_MAX: usize = 512;

/// How many keys a bucket holds. A table filled by half, with a million keys, forgets one in a thousand before its time:
/// the more ways, the fewer, at the price of a longer search. Sixteen are four lines of a processor's cache.
const WAYS: usize = 16;

/// What is remembered of one key.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    key: u64,
    /// When it is even. 0 where nothing is kept: nobody is even before the clock began.
    even: u64,
}

type Bucket = [Slot; WAYS];

/// Where rates are kept.
pub(super) struct Store {
    parts: Box<[Mutex<Vec<Bucket>>]>,
    /// What one visit costs, in nanoseconds.
    cost: u64,
}

impl Store {
    /// A store for a rate of one visit in `cost` nanoseconds.
    pub(super) fn new(cost: u64) -> Self {
        let part = || Mutex::new(vec![Bucket::default()]);
        Self {
            parts: std::iter::repeat_with(part).take(PARTS).collect(),
            cost,
        }
    }

    /// How much it holds, in bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let parts = self
            .parts
            .iter()
            .map(|part| part.lock().unwrap().capacity());
        parts.sum::<usize>() * size_of::<Bucket>() + PARTS * size_of::<Mutex<Vec<Bucket>>>()
    }
}

impl StateStore for Store {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (part, spread) = split(*key);
        let Some(part) = self.parts.get(part) else {
            // There are as many parts as the remainder has values.
            return measure(None).map(|(outcome, _)| outcome);
        };
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        let known = bucket(&mut part, spread).and_then(|bucket| {
            let mut slots = bucket.iter_mut();
            slots.find(|slot| slot.key == *key && slot.even > 0)
        });
        if let Some(slot) = known {
            let (outcome, even) = measure(Some(Nanos::new(slot.even)))?;
            slot.even = even.into();
            return Ok(outcome);
        }
        let (outcome, even) = measure(None)?;
        let even: u64 = even.into();
        let new = Slot { key: *key, even };
        // A key never seen is even one visit from now.
        let now = even.saturating_sub(self.cost);
        while !place(&mut part, spread, new, now) {}
        Ok(outcome)
    }
}

/// The part a key is in, and what it is spread over its buckets by.
fn split(key: u64) -> (usize, u64) {
    let parts = PARTS as u64;
    (usize::try_from(key % parts).unwrap_or(0), key / parts)
}

fn bucket(part: &mut [Bucket], spread: u64) -> Option<&mut Bucket> {
    let buckets = u64::try_from(part.len()).ok()?;
    let at = usize::try_from(spread.checked_rem(buckets)?).ok()?;
    part.get_mut(at)
}

/// Puts a key in the place of the one that is even soonest. False where that one is not even at `now` and the part can
/// grow: it has grown then.
fn place(part: &mut Vec<Bucket>, spread: u64, new: Slot, now: u64) -> bool {
    let can_grow = part.len() < BUCKETS_MAX;
    let soonest =
        bucket(part, spread).and_then(|bucket| bucket.iter_mut().min_by_key(|slot| slot.even));
    match soonest {
        Some(slot) if slot.even <= now || !can_grow => {
            *slot = new;
            true
        }
        Some(_) => {
            grow(part, now);
            false
        }
        // Parts are never empty.
        None => true,
    }
}

/// Doubles a part, leaving behind who is even.
fn grow(part: &mut Vec<Bucket>, now: u64) {
    let old = std::mem::take(part);
    part.reserve_exact(old.len() * 2);
    part.resize(old.len() * 2, Bucket::default());
    for slot in old.into_iter().flatten().filter(|slot| slot.even > now) {
        // Each bucket's keys go to two, so there is a place for all.
        let (_, spread) = split(slot.key);
        let free =
            bucket(part, spread).and_then(|bucket| bucket.iter_mut().min_by_key(|slot| slot.even));
        if let Some(free) = free {
            *free = slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(store: &Store) -> Vec<u64> {
        let parts = store.parts.iter();
        let all = parts.flat_map(|part| part.lock().unwrap().clone());
        all.flatten()
            .map(|slot| slot.key)
            .filter(|key| *key > 0)
            .collect()
    }

    /// Counts a key, as even at `even`; what was known of it.
    fn put(store: &Store, key: u64, even: u64) -> Option<u64> {
        let seen = std::cell::Cell::new(None);
        let counted: Result<(), ()> = store.measure_and_replace(&key, |known| {
            seen.set(known.map(u64::from));
            Ok(((), Nanos::new(even)))
        });
        assert_eq!(counted, Ok(()));
        seen.get()
    }

    #[test]
    fn what_is_refused_is_not_counted() {
        let store = Store::new(10);
        let refused: Result<(), &str> = store.measure_and_replace(&1, |_| Err("no"));
        assert_eq!(refused, Err("no"));
        assert_eq!(slots(&store), [0u64; 0]);
        assert_eq!(put(&store, 1, 50), None);
        assert_eq!(put(&store, 1, 70), Some(50));
    }

    #[test]
    fn a_part_grows_as_long_as_nobody_in_it_is_even_and_keeps_all() {
        let store = Store::new(10);
        // All in the first part, all at odds until 1000.
        let keys: Vec<u64> = (1..=1000u64).map(|n| n * PARTS as u64).collect();
        for key in &keys {
            assert_eq!(put(&store, *key, 1000), None);
        }
        let mut kept = slots(&store);
        kept.sort_unstable();
        assert_eq!(kept, keys);
        let size = store.bytes();
        // From 1000 on they are even: whoever comes now takes their places.
        for key in 2001..=3000u64 {
            put(&store, key * PARTS as u64, 1010);
        }
        assert_eq!(store.bytes(), size);
    }

    #[test]
    fn in_a_full_bucket_the_one_even_soonest_is_forgotten() {
        let store = Store::new(10);
        let step = (PARTS * BUCKETS_MAX) as u64;
        // Of one bucket whatever the size of the part: the first is at its limit, the others came by.
        put(&store, step, 5_000);
        for n in 2..=WAYS as u64 * 8 {
            put(&store, n * step, 1_000 + n);
        }
        assert_eq!(put(&store, step, 6_000), Some(5_000));
        assert_eq!(
            put(&store, WAYS as u64 * 8 * step, 2_000),
            Some(1_000 + WAYS as u64 * 8)
        );
        assert_eq!(put(&store, 2 * step, 2_000), None, "it was even soonest");
        let parts = store.parts.iter().map(|part| part.lock().unwrap().len());
        assert!(parts.max() <= Some(BUCKETS_MAX));
    }
}
