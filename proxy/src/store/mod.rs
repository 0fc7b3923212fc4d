//! Durable state: small records that outlive the engine.
//!
//! [`Store`] is the one door to it, small enough that several engines can share what is behind it.
//! [`Embedded`] keeps it in one file of this machine. [`Records`] gives the bytes their types.

mod embedded;

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use embedded::Embedded;

/// Longest key of a record, in bytes.
pub const KEY_BYTES_MAX: usize = 512;

/// Largest record, in bytes. What is larger belongs in a file of its own.
pub const RECORD_BYTES_MAX: usize = 64 << 10;

/// Most records of one space: they are read whole when the engine starts.
pub const SPACE_RECORDS_MAX: usize = 10_000;

/// Makes of a record the one that shall be there instead.
pub type Change<'a> = dyn FnMut(Option<&[u8]>) -> Result<Option<Vec<u8>>, StoreError> + 'a;

/// A durable store of keys and values, in spaces that know nothing of each other. Calls may wait for
/// a disk: make them where waiting holds nobody up.
pub trait Store: fmt::Debug + Send + Sync {
    /// Every record of a space, in the order of keys.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn all(&self, space: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Changes the record under `key` to what `change` makes of the one that is there; `None` is
    /// none. No other change of the store comes between. When this returns, the change is durable: it
    /// is there after a crash or a loss of power that happens later. If it fails, or the crash comes
    /// before, either all of the change is there or nothing of it.
    ///
    /// # Errors
    /// If the store cannot be written or has no room, and whatever `change` says.
    fn update(&self, space: &str, key: &str, change: &mut Change<'_>) -> Result<(), StoreError>;
}

/// Why the store did not do as asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file is not what was written.
    #[error(
        "{path} is damaged ({detail}): put back a copy, or move it away to start without what it held"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// No more records, or none as large, are kept.
    #[error("{0}")]
    Full(String),
    /// Another engine has it open.
    #[error("{path} is open in another engine: stop that one, or give this one another folder")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read or written.
    #[error("{path} cannot be used: {source}")]
    Io {
        /// The file or its folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A later version of the engine wrote it.
    #[error("{path} was written by a later version of this engine: run that one")]
    Newer {
        /// The file.
        path: PathBuf,
    },
    /// One record cannot be understood.
    #[error("the record `{key}` of `{space}` cannot be understood: {source}")]
    Record {
        /// The record's space.
        space: &'static str,
        /// Its key.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
}

/// The records of one space, as JSON: a later version can read what this one wrote, and so can people.
pub struct Records<T> {
    store: Arc<dyn Store>,
    space: &'static str,
    of: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> Records<T> {
    /// The records of `space` in `store`.
    pub fn new(store: Arc<dyn Store>, space: &'static str) -> Self {
        Self {
            store,
            space,
            of: PhantomData,
        }
    }

    /// Every record, in the order of keys.
    ///
    /// # Errors
    /// If one cannot be read: something that was decided would be missing without a word.
    pub fn all(&self) -> Result<Vec<(String, T)>, StoreError> {
        let all = self.store.all(self.space)?.into_iter();
        all.map(|(key, bytes)| match serde_json::from_slice(&bytes) {
            Ok(record) => Ok((key, record)),
            Err(source) => Err(StoreError::Record {
                space: self.space,
                key,
                source,
            }),
        })
        .collect()
    }

    /// Writes a record, or with `None` removes it. It is durable when this returns.
    ///
    /// # Errors
    /// If it cannot be written, or is too large.
    pub fn set(&self, key: &str, record: Option<&T>) -> Result<(), StoreError> {
        let bytes = record.map(|record| {
            serde_json::to_vec(record).map_err(|source| StoreError::Record {
                space: self.space,
                key: key.to_owned(),
                source,
            })
        });
        let bytes = bytes.transpose()?;
        self.store
            .update(self.space, key, &mut |_| Ok(bytes.clone()))
    }
}

impl<T> fmt::Debug for Records<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Records").field(&self.space).finish()
    }
}
