//! A MaxMind database in memory, read again when its file changes.

use std::convert::Infallible;
use std::fs;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_config::{Settling, Stamp};
use adit_filters::Location;
use adit_filters::env::{Jobs, JobsError};
use arc_swap::ArcSwap;
use maxminddb::{MaxMindDbError, Reader};

use super::location;

/// The largest database taken, in bytes: the largest that are sold stay below half of it. It is held in memory, for
/// a moment together with the one it replaces.
pub const DATABASE_BYTES_MAX: u64 = 1 << 30;

/// Time between two looks at the file.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why addresses cannot be found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// There is nothing in memory: the file was not there when it was needed, or has gone.
    #[error("`{}` is not there, or could not be used when it was read", path.display())]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// The file is larger than [`DATABASE_BYTES_MAX`].
    #[error("`{}` is larger than {DATABASE_BYTES_MAX} bytes, which no database of places is", path.display())]
    OverLimit {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("`{}` cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is none of its kind, or its end is missing.
    #[error("`{}` is not a whole MaxMind database: {source}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: MaxMindDbError,
    },
    /// What it says of an address makes no sense.
    #[error("`{}` has a record that cannot be read: {source}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: MaxMindDbError,
    },
}

/// Where addresses are. While its file is gone it knows nothing, and says so.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    held: ArcSwap<Held>,
    settling: Mutex<Settling>,
    /// Its watcher ends when this goes.
    _alive: Option<Sender<Infallible>>,
}

/// What is in memory.
#[derive(Debug)]
struct Held {
    edition: Edition,
    reader: Option<Reader<Vec<u8>>>,
}

/// Which database, as it was read when: another number for each, in the whole process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Edition(u64);

impl Held {
    fn new(reader: Option<Reader<Vec<u8>>>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            edition: Edition(NEXT.fetch_add(1, Ordering::Relaxed)),
            reader,
        }
    }
}

impl Database {
    /// Reads the database at `path`. Nobody watches it.
    ///
    /// # Errors
    /// [`DatabaseError`].
    pub fn open(path: &Path) -> Result<Self, DatabaseError> {
        let stamp = Stamp::of(path);
        let reader = read(path)?;
        Ok(Self::new(path, stamp, Some(reader)))
    }

    /// One whose file is not there, or of no use as it is. It is looked at again soon: it may have come since.
    #[must_use]
    pub fn absent(path: &Path) -> Self {
        Self::new(path, None, None)
    }

    fn new(path: &Path, stamp: Option<Stamp>, reader: Option<Reader<Vec<u8>>>) -> Self {
        Self {
            path: path.to_owned(),
            held: ArcSwap::from_pointee(Held::new(reader)),
            settling: Mutex::new(Settling::acted_upon(stamp)),
            _alive: None,
        }
    }

    /// Starts to look at its file every second, on a thread of its own, for as long as anybody holds the database: to
    /// read a large one takes longer than a task may.
    ///
    /// # Errors
    /// [`JobsError`], if there is no thread.
    pub fn watched(mut self, jobs: &dyn Jobs) -> Result<Arc<Self>, JobsError> {
        let (alive, gone) = channel();
        self._alive = Some(alive);
        let database = Arc::new(self);
        let of = Arc::downgrade(&database);
        let look = move || {
            while let Err(RecvTimeoutError::Timeout) = gone.recv_timeout(LOOK_EVERY) {
                let Some(database) = of.upgrade() else { return };
                database.look();
            }
        };
        jobs.spawn_blocking("geoip", Box::new(look))?;
        Ok(database)
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where `address` is.
    ///
    /// # Errors
    /// [`DatabaseError::Absent`] and [`DatabaseError::Record`]. An address it does not have is no error: nothing is
    /// known of it.
    pub fn locate(&self, address: IpAddr) -> Result<Location, DatabaseError> {
        self.found(address).map(|(location, _)| location)
    }

    /// Where `address` is, and which edition says so.
    pub(super) fn found(&self, address: IpAddr) -> Result<(Location, Edition), DatabaseError> {
        let held = self.held.load();
        let reader = held.reader.as_ref().ok_or_else(|| DatabaseError::Absent {
            path: self.path.clone(),
        })?;
        let location = location::read(reader, address.to_canonical());
        let location = location.map_err(|source| DatabaseError::Record {
            path: self.path.clone(),
            source,
        })?;
        Ok((location, held.edition))
    }

    /// What is in memory now.
    pub(super) fn edition(&self) -> Edition {
        self.held.load().edition
    }

    /// One look at the file. A changed one is read once it has stayed as it is from one look to the next, so that one
    /// being written is not read half; a broken one leaves the database as it was and is told of once; one that is
    /// gone takes the database away.
    pub fn look(&self) {
        let now = Stamp::of(&self.path);
        {
            let mut settling = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
            if !settling.look(now) {
                return;
            }
        }
        let path = self.path.display();
        match now.map(|_| read(&self.path)) {
            None => {
                self.held.store(Arc::new(Held::new(None)));
                tracing::error!(%path, "the GeoIP database is gone: whoever it would decide about is refused until it is back");
            }
            Some(Ok(reader)) => {
                self.held.store(Arc::new(Held::new(Some(reader))));
                tracing::info!(%path, "the GeoIP database was read again");
            }
            Some(Err(error)) => {
                tracing::error!(%error, "the GeoIP database changed and cannot be used: what was read before stays");
            }
        }
    }
}

fn read(path: &Path) -> Result<Reader<Vec<u8>>, DatabaseError> {
    let unreadable = |source| DatabaseError::Read {
        path: path.to_owned(),
        source,
    };
    let file = fs::File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    let mut bytes =
        Vec::with_capacity(usize::try_from(length.min(DATABASE_BYTES_MAX)).unwrap_or(0));
    file.take(DATABASE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > DATABASE_BYTES_MAX) {
        return Err(DatabaseError::OverLimit {
            path: path.to_owned(),
        });
    }
    Reader::from_source(bytes).map_err(|source| DatabaseError::Invalid {
        path: path.to_owned(),
        source,
    })
}
