//! The databases of an engine: one reader for each file, whoever needs it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use adit_filters::Env;
use adit_filters::env::{Jobs, JobsError};

use super::database::{Database, DatabaseError};

/// Opens databases. Clones share what is open; a reload takes a clone, and so keeps what it does not change.
#[derive(Clone, Debug, Default)]
pub struct Databases {
    open: Arc<Mutex<BTreeMap<PathBuf, Weak<Database>>>>,
    /// The engine's own, for filters that name none.
    shared: Option<Arc<Database>>,
    unusable: Unusable,
}

/// What becomes of a file that is not there, or is no database, when it is first asked for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Unusable {
    /// It is a mistake in the configuration, which then changes nothing: for a reload and a check.
    #[default]
    Mistake,
    /// It is waited for, and its filters refuse until it is there: for a start, which must not depend on it.
    Awaited,
}

/// Why there is no database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The file cannot be used.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Nobody can watch it.
    #[error("nothing would notice when it changes: {0}")]
    Jobs(#[from] JobsError),
}

impl Databases {
    /// The same databases, with this said about files that cannot be used.
    #[must_use]
    pub fn with(&self, unusable: Unusable) -> Self {
        Self {
            open: Arc::clone(&self.open),
            shared: self.shared.clone(),
            unusable,
        }
    }

    /// The same, with this database for filters that name none.
    #[must_use]
    pub fn with_shared(self, shared: Option<Arc<Database>>) -> Self {
        Self { shared, ..self }
    }

    /// The engine's own database.
    #[must_use]
    pub fn shared(&self) -> Option<&Arc<Database>> {
        self.shared.as_ref()
    }

    /// The database at `path`: the one that is open, or else it is read and from then on watched by a job of `env`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, path: &Path, env: &Env) -> Result<Arc<Database>, OpenError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = open.get(path).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let database = match (Database::open(path), self.unusable) {
            (Ok(database), _) => database,
            (Err(error), Unusable::Mistake) => return Err(error.into()),
            (Err(error), Unusable::Awaited) => {
                tracing::error!(%error, "there is no GeoIP database: whoever it would decide about is refused until there is one");
                Database::absent(path)
            }
        };
        let jobs: &dyn Jobs = &*env.jobs;
        let database = database.watched(jobs)?;
        open.retain(|_, database| database.strong_count() > 0);
        open.insert(path.to_owned(), Arc::downgrade(&database));
        Ok(database)
    }
}
