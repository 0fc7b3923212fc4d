//! A store in one file of the engine's state folder.
//!
//! The file is a redb database. A change is one of its transactions, committed with an `fsync` before
//! the call returns; a transaction that a crash cuts short is not there when the file is opened again.
//! The file is locked while an engine has it open, and all of it is checked when it is opened.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase as _, ReadableTable as _,
    ReadableTableMetadata as _, StorageError, TableDefinition, TableError,
};

use super::{Change, KEY_BYTES_MAX, RECORD_BYTES_MAX, SPACE_RECORDS_MAX, Store, StoreError};

/// The file's name in the state folder.
const FILE: &str = "state.redb";

/// Bytes of the file kept in memory: the whole of one with a few hundred records.
const CACHE_BYTES: usize = 1 << 20;

/// What this version writes. One that writes otherwise counts on.
const FORMAT: u64 = 1;

/// Where the file says what it is.
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("adit");

/// A store in a file.
#[derive(Debug)]
pub struct Embedded {
    database: Database,
    path: PathBuf,
}

impl Embedded {
    /// Opens the store in `folder`; both are made, for their owner alone, if they are not there.
    ///
    /// # Errors
    /// If the file cannot be made or opened, is damaged, or is open already.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| io_at(folder, source))?;
        if !path.try_exists().map_err(|source| io_at(&path, source))? {
            make(folder, &path)?;
        }
        let database = open(&path, false)?;
        Ok(Self { database, path })
    }

    fn failed(&self, failure: impl Into<Failure>) -> StoreError {
        failure.into().at(&self.path)
    }
}

/// Makes an empty store whole before it has its name, so that a crash leaves none or all of it.
fn make(folder: &Path, path: &Path) -> Result<(), StoreError> {
    let fresh = folder.join(format!("{FILE}.{}", std::process::id()));
    let _left_by_a_crash = fs::remove_file(&fresh);
    drop(open(&fresh, true)?);
    fs::rename(&fresh, path)
        .and_then(|()| File::open(folder)?.sync_all())
        .map_err(|source| io_at(path, source))
}

fn open(path: &Path, is_new: bool) -> Result<Database, StoreError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(is_new)
        .mode(0o600)
        .open(path)
        .map_err(|source| io_at(path, source))?;
    let length = file.metadata().map_err(|source| io_at(path, source))?.len();
    if length == 0 && !is_new {
        // What is empty would be taken for new, and what was switched be forgotten in silence.
        let detail = "it is empty".to_owned();
        return Err(Failure::Other(detail).at(path));
    }
    open_file(file).map_err(|failure| failure.at(path))
}

fn open_file(file: File) -> Result<Database, Failure> {
    let backend = FileBackend::new(file)?;
    let database = Builder::new()
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true)
        .create_with_backend(backend)?;
    let transaction = database.begin_write()?;
    let format = {
        let mut about = transaction.open_table(ABOUT)?;
        let format = about.get("format")?.map(|format| format.value());
        if format.is_none() {
            about.insert("format", FORMAT)?;
        }
        format
    };
    match format {
        Some(FORMAT) => transaction.abort()?,
        None => transaction.commit()?,
        Some(_) => return Err(Failure::Newer),
    }
    Ok(database)
}

fn io_at(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        path: path.to_owned(),
        source,
    }
}

impl Store for Embedded {
    fn all(&self, space: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let read = || -> Result<_, Failure> {
            let transaction = self.database.begin_read()?;
            let table = match transaction.open_table(table(space)) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let mut all = Vec::new();
            for entry in table.iter()? {
                let (key, value) = entry?;
                all.push((key.value().to_owned(), value.value().to_owned()));
            }
            Ok(all)
        };
        read().map_err(|failure| self.failed(failure))
    }

    fn update(&self, space: &str, key: &str, change: &mut Change<'_>) -> Result<(), StoreError> {
        if key.len() > KEY_BYTES_MAX {
            let text = format!(
                "a key of {} bytes is too long, {KEY_BYTES_MAX} are kept",
                key.len()
            );
            return Err(StoreError::Full(text));
        }
        let mut refused = None;
        let mut write = || -> Result<(), Failure> {
            let transaction = self.database.begin_write()?;
            {
                let mut table = transaction.open_table(table(space))?;
                let before = table.get(key)?.map(|value| value.value().to_owned());
                let after = match change(before.as_deref()) {
                    Ok(after) => after,
                    Err(error) => {
                        refused = Some(error);
                        return Ok(());
                    }
                };
                match after {
                    Some(record) if record.len() > RECORD_BYTES_MAX => {
                        let text = format!(
                            "a record of {} bytes is too large, {RECORD_BYTES_MAX} are kept",
                            record.len()
                        );
                        refused = Some(StoreError::Full(text));
                        return Ok(());
                    }
                    Some(_) if before.is_none() && table.len()? >= SPACE_RECORDS_MAX as u64 => {
                        let text = format!("{SPACE_RECORDS_MAX} records are kept, no more");
                        refused = Some(StoreError::Full(text));
                        return Ok(());
                    }
                    Some(record) => drop(table.insert(key, record.as_slice())?),
                    None => drop(table.remove(key)?),
                }
            }
            Ok(transaction.commit()?)
        };
        let written = write().map_err(|failure| self.failed(failure));
        refused.map_or(written, Err)
    }
}

fn table(space: &str) -> TableDefinition<'_, &'static str, &'static [u8]> {
    TableDefinition::new(space)
}

/// What redb says, before it is known of which file.
enum Failure {
    Database(DatabaseError),
    Newer,
    Storage(StorageError),
    Other(String),
}

impl Failure {
    fn at(self, path: &Path) -> StoreError {
        let path = path.to_owned();
        match self {
            Self::Newer | Self::Database(DatabaseError::UpgradeRequired(_)) => {
                StoreError::Newer { path }
            }
            Self::Database(
                DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch,
            ) => StoreError::InUse { path },
            Self::Database(DatabaseError::Storage(error)) | Self::Storage(error) => match error {
                StorageError::Io(source) if !says_damaged(&source) => {
                    StoreError::Io { path, source }
                }
                other => StoreError::Damaged {
                    path,
                    detail: other.to_string(),
                },
            },
            Self::Database(error) => StoreError::Damaged {
                path,
                detail: error.to_string(),
            },
            Self::Other(detail) => StoreError::Damaged { path, detail },
        }
    }
}

/// A file that ends early, or does not begin as it should.
fn says_damaged(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

macro_rules! failure {
    ($($error:ty => $of:expr),* $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                $of(error)
            }
        })*
    };
}
failure! {
    DatabaseError => Self::Database,
    StorageError => Self::Storage,
    redb::TransactionError => |error: redb::TransactionError| match error {
        redb::TransactionError::Storage(error) => Self::Storage(error),
        other => Self::Other(other.to_string()),
    },
    TableError => |error| match error {
        TableError::Storage(error) => Self::Storage(error),
        other => Self::Other(other.to_string()),
    },
    redb::CommitError => |error: redb::CommitError| match error {
        redb::CommitError::Storage(error) => Self::Storage(error),
        other => Self::Other(other.to_string()),
    },
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use serde::{Deserialize, Serialize};

    use super::super::Records;
    use super::*;

    fn set(store: &Embedded, key: &str, value: &str) {
        let value = value.as_bytes().to_vec();
        let set = store.update("s", key, &mut |_| Ok(Some(value.clone())));
        set.unwrap();
    }

    fn shown(store: &Embedded) -> String {
        let all = store.all("s").unwrap().into_iter();
        let all = all.map(|(key, value)| format!("{key}={}", String::from_utf8(value).unwrap()));
        all.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn records_are_there_again_and_their_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a/state");
        let store = Embedded::open(&place).unwrap();
        assert_eq!(shown(&store), "");
        set(&store, "b", "1");
        set(&store, "a", "2");
        store
            .update("other", "a", &mut |_| Ok(Some(vec![9])))
            .unwrap();
        store
            .update("s", "b", &mut |before| {
                assert_eq!(before, Some(&b"1"[..]));
                Ok(Some(b"3".to_vec()))
            })
            .unwrap();
        drop(store);
        let store = Embedded::open(&place).unwrap();
        assert_eq!(shown(&store), "a=2 b=3");
        store.update("s", "a", &mut |_| Ok(None)).unwrap();
        store.update("s", "never", &mut |_| Ok(None)).unwrap();
        assert_eq!(shown(&store), "b=3");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&place), mode(&place.join(FILE))), (0o700, 0o600));
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
    }

    #[test]
    fn a_change_that_is_refused_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        set(&store, "a", "1");
        let refused = store.update("s", "a", &mut |_| Err(StoreError::Full("no".to_owned())));
        assert_eq!(refused.unwrap_err().to_string(), "no");
        let large = vec![0; RECORD_BYTES_MAX + 1];
        let refused = store.update("s", "a", &mut |_| Ok(Some(large.clone())));
        assert!(matches!(refused, Err(StoreError::Full(_))));
        let refused = store.update("s", &"k".repeat(KEY_BYTES_MAX + 1), &mut |_| Ok(None));
        assert!(matches!(refused, Err(StoreError::Full(_))));
        assert_eq!(shown(&store), "a=1");
    }

    #[test]
    fn two_engines_do_not_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let first = Embedded::open(folder.path()).unwrap();
        let second = Embedded::open(folder.path()).unwrap_err();
        assert!(matches!(second, StoreError::InUse { .. }), "{second}");
        assert!(second.to_string().contains("open in another engine"));
        drop(first);
        Embedded::open(folder.path()).unwrap();
    }

    // A copy taken while the store is open is what a crash leaves.
    #[test]
    fn what_was_written_survives_a_crash_at_any_moment() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        for n in 0..20 {
            set(&store, "a", &n.to_string());
            let crashed = tempfile::tempdir().unwrap();
            fs::copy(folder.path().join(FILE), crashed.path().join(FILE)).unwrap();
            let again = Embedded::open(crashed.path()).unwrap();
            assert_eq!(shown(&again), format!("a={n}"));
        }
    }

    #[test]
    fn a_file_that_was_damaged_is_refused_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        for n in 0..50 {
            set(&store, &n.to_string(), &"x".repeat(200));
        }
        let before = shown(&store);
        drop(store);
        let path = folder.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        let mut refused = 0;
        let mut try_with = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            match Embedded::open(folder.path()) {
                // What was damaged held nothing: everything is there.
                Ok(store) => assert_eq!(shown(&store), before),
                Err(error) => {
                    assert!(
                        matches!(error, StoreError::Damaged { .. } | StoreError::Newer { .. }),
                        "{error:?}"
                    );
                    refused += 1;
                }
            }
        };
        for length in [0, 1, 100, 4096, whole.len() / 2, whole.len() - 1] {
            try_with(whole.get(..length).unwrap());
        }
        try_with(b"this is not a store");
        // Every byte of the header, and each page in a few places.
        let places = (0..512).chain((512..whole.len()).step_by(997));
        for at in places {
            let mut bytes = whole.clone();
            *bytes.get_mut(at).unwrap() ^= 0xff;
            try_with(&bytes);
        }
        assert!(refused > 100, "{refused}");
        fs::write(&path, &whole).unwrap();
        assert_eq!(shown(&Embedded::open(folder.path()).unwrap()), before);
    }

    #[test]
    fn a_later_versions_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        let transaction = store.database.begin_write().unwrap();
        transaction
            .open_table(ABOUT)
            .unwrap()
            .insert("format", FORMAT + 1)
            .unwrap();
        transaction.commit().unwrap();
        drop(store);
        let error = Embedded::open(folder.path()).unwrap_err();
        assert!(matches!(error, StoreError::Newer { .. }), "{error}");
    }

    #[test]
    fn records_have_types_and_one_that_has_none_is_told() {
        #[derive(Debug, Deserialize, PartialEq, Serialize)]
        struct Sample {
            n: u8,
        }
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Embedded::open(folder.path()).unwrap());
        let records = Records::<Sample>::new(Arc::clone(&store) as _, "s");
        records.set("b", Some(&Sample { n: 2 })).unwrap();
        records.set("a", Some(&Sample { n: 1 })).unwrap();
        records.set("a", None).unwrap();
        assert_eq!(records.all().unwrap(), [("b".to_owned(), Sample { n: 2 })]);
        set(&store, "c", "nonsense");
        let error = records.all().unwrap_err().to_string();
        assert!(error.contains("record `c` of `s`"), "{error}");
    }

    #[test]
    fn a_space_holds_so_many_records() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        let transaction = store.database.begin_write().unwrap();
        {
            let mut table = transaction.open_table(table("s")).unwrap();
            for n in 0..SPACE_RECORDS_MAX {
                table.insert(&*n.to_string(), &b"1"[..]).unwrap();
            }
        }
        transaction.commit().unwrap();
        let refused = store.update("s", "one-more", &mut |_| Ok(Some(vec![1])));
        assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
        set(&store, "0", "what is there can change");
    }
}
