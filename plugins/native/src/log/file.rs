//! A file that lines are added to, wherever its name leads at the time.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

/// The end of a file. When the file was renamed or removed, as programs that rotate logs do, the next write goes to a
/// new one of the old name.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = open(&path)?;
        Ok(Self { path, file })
    }

    /// Opens the file anew where its name no longer leads to it. If that cannot be done, what is open goes on: lines in
    /// the wrong file are better than none.
    fn follow(&mut self) {
        let moved = match (std::fs::metadata(&self.path), self.file.metadata()) {
            (Ok(there), Ok(here)) => !is_same(&there, &here),
            (Err(error), _) => error.kind() == io::ErrorKind::NotFound,
            _ => false,
        };
        if moved && let Ok(file) = open(&self.path) {
            self.file = file;
        }
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    /// All the lines of one batch go to one file.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.follow();
        self.file.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        // Addresses and paths of visitors are not for everyone on the machine.
        options.mode(0o640);
    }
    options.open(path)
}

#[cfg(unix)]
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Elsewhere a file cannot be renamed while it is open.
#[cfg(not(unix))]
fn is_same(_: &Metadata, _: &Metadata) -> bool {
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn lines_follow_the_name_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.jsonl");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        std::fs::write(&path, "before\n").unwrap();
        let mut file = LogFile::open(path.clone()).unwrap();
        file.write_all(b"one\n").unwrap();
        assert_eq!(read("access.jsonl"), "before\none\n");
        std::fs::rename(&path, folder.path().join("access.jsonl.1")).unwrap();
        file.write_all(b"two\n").unwrap();
        assert_eq!(
            (read("access.jsonl"), read("access.jsonl.1")),
            ("two\n".into(), "before\none\n".into())
        );
        std::fs::remove_file(&path).unwrap();
        file.write_all(b"three\n").unwrap();
        assert_eq!(read("access.jsonl"), "three\n");
    }

    #[test]
    fn lines_are_not_lost_while_the_name_leads_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/access.jsonl");
        std::fs::create_dir(folder.path().join("logs")).unwrap();
        let mut file = LogFile::open(path).unwrap();
        std::fs::rename(folder.path().join("logs"), folder.path().join("old")).unwrap();
        file.write_all(b"one\n").unwrap();
        let text = std::fs::read_to_string(folder.path().join("old/access.jsonl")).unwrap();
        assert_eq!(text, "one\n");
    }
}
