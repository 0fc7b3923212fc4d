//! A small key-value store.

use std::time::Duration;

use bytes::Bytes;

/// Keeps small values for a while, bounded, in a key space that is this filter's own. Values may vanish before their
/// time when room is short.
pub trait Store: Send + Sync {
    /// The value, if it is still there.
    fn get(&self, key: &str) -> Option<Bytes>;
    /// Puts a value.
    ///
    /// # Errors
    /// [`StoreError`]; the old value stays.
    fn set(&self, key: &str, value: Bytes, ttl: Duration) -> Result<(), StoreError>;
    /// Adds to a number in one step and answers the sum. A missing number is 0; the time to live counts from the
    /// first addition.
    ///
    /// # Errors
    /// [`StoreError`]; the old number stays.
    fn add(&self, key: &str, by: i64, ttl: Duration) -> Result<i64, StoreError>;
    /// Forgets a value.
    fn remove(&self, key: &str);
}

/// Why a value was not kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Key and value are larger than one entry may be.
    #[error("key and value are larger than {limit} bytes")]
    OverLimit {
        /// That limit, in bytes.
        limit: usize,
    },
    /// What is stored there is not a number, or the sum is too large for one.
    #[error("stored value is not a number that can be added to")]
    NotANumber,
}
