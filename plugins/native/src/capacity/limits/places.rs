//! Who is under way, counted by what they have in common.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::whose::Whose;

/// What a place is taken under.
type Key = Whose<'static>;

/// Parts of the table: those who come for different keys seldom wait for each other.
const SHARDS: usize = 16;

/// Room a part keeps although it is empty.
const ROOM_MIN: usize = 64;

/// The table. It remembers a key for as long as somebody has a place under it.
#[derive(Debug, Default)]
pub(super) struct Places {
    shards: [Mutex<HashMap<Key, u32>>; SHARDS],
    hasher: RandomState,
}

/// A place, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    of: Arc<Places>,
    key: Key,
}

impl Place {
    pub(super) fn key(&self) -> &Whose<'static> {
        &self.key
    }
}

impl Places {
    /// One more under this key, unless there are so many already.
    pub(super) fn take(self: &Arc<Self>, key: Whose<'static>, max: NonZeroU32) -> Option<Place> {
        {
            let mut counts = self.shard(&key);
            let count = counts.entry(key.clone()).or_default();
            if *count >= max.get() {
                return None;
            }
            *count += 1;
        }
        let of = Arc::clone(self);
        Some(Place { of, key })
    }

    fn give_back(&self, key: &Key) {
        let mut counts = self.shard(key);
        let left = counts.get_mut(key).map(|count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left == Some(0) {
            counts.remove(key);
            // What a crowd needed is let go of when it is gone, and not at each of its steps.
            if counts.capacity() > ROOM_MIN && counts.len() < counts.capacity() / 8 {
                let room = counts.len().saturating_mul(2).max(ROOM_MIN / 2);
                counts.shrink_to(room);
            }
        }
    }

    #[expect(clippy::indexing_slicing, reason = "a remainder of the length")]
    fn shard(&self, key: &Key) -> MutexGuard<'_, HashMap<Key, u32>> {
        let hash = self.hasher.hash_one(key) as usize;
        let shard = &self.shards[hash % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> (usize, usize) {
        let lock = |shard: &Mutex<HashMap<Key, u32>>| {
            let counts = shard.lock().unwrap_or_else(PoisonError::into_inner);
            (counts.len(), counts.capacity())
        };
        self.shards
            .iter()
            .map(lock)
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.of.give_back(&self.key);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn key(text: &str) -> Key {
        Key::from(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn places_are_counted_exactly_and_forgotten() {
        let places = Arc::new(Places::default());
        let two = NonZeroU32::new(2).unwrap();
        let a = places.take(key("192.0.2.1"), two).unwrap();
        let b = places.take(key("::ffff:192.0.2.1"), two).unwrap();
        assert!(places.take(key("192.0.2.1"), two).is_none());
        let other = places.take(key("192.0.2.2"), two);
        assert!(other.is_some());
        assert_eq!(places.keys().0, 2);
        drop(a);
        let a = places.take(key("192.0.2.1"), two);
        assert!(a.is_some() && places.take(key("192.0.2.1"), two).is_none());
        drop((a, b, other));
        assert_eq!(places.keys().0, 0);
    }

    #[test]
    fn a_crowd_that_has_gone_leaves_no_room_behind() {
        let places = Arc::new(Places::default());
        let max = NonZeroU32::MIN;
        let crowd: Vec<Place> = (0..100_000u32)
            .map(|n| {
                let address = IpAddr::from(Ipv4Addr::from(n));
                places.take(Key::from(address), max).unwrap()
            })
            .collect();
        assert_eq!(places.keys().0, 100_000);
        drop(crowd);
        let (keys, room) = places.keys();
        assert!(keys == 0 && room <= SHARDS * 2 * ROOM_MIN, "{room}");
    }
}
