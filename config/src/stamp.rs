//! What a file looks like from outside, from one look to the next: for whoever reads it again when it has changed.
//!
//! By looking at it from time to time. That works for editors that write in place, tools that rename, and folders that
//! are mounted anew, on every file system.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stamp {
    modified: SystemTime,
    length: u64,
    /// Which file it is and when it was last touched in any way: a copy may bring its date with it, and a file that
    /// could not be read may be made readable.
    touched: (u64, i64, i64),
}

impl Stamp {
    /// The file as it is; none while there is none.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            modified: metadata.modified().ok()?,
            length: metadata.len(),
            touched: touched(&metadata),
        })
    }
}

#[cfg(unix)]
fn touched(metadata: &fs::Metadata) -> (u64, i64, i64) {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn touched(_: &fs::Metadata) -> (u64, i64, i64) {
    (0, 0, 0)
}

/// A file, or what stands for it, that may change and then stays as it is.
#[derive(Debug)]
pub struct Settling<S = Stamp> {
    /// As it was when it was last acted upon.
    acted: Option<S>,
    /// As it was at the last look.
    last: Option<S>,
}

impl<S: Clone + PartialEq> Settling<S> {
    /// One that has been acted upon in this state.
    #[must_use]
    pub fn acted_upon(state: Option<S>) -> Self {
        Self {
            acted: state.clone(),
            last: state,
        }
    }

    /// Whether it is time to act on what is seen now: it is another than was acted upon, and has been seen twice.
    pub fn look(&mut self, now: Option<S>) -> bool {
        let settled = now == self.last;
        let act = settled && now != self.acted;
        if act {
            self.acted = now.clone();
        }
        self.last = now;
        act
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_it_has_settled_and_so_does_an_end() {
        let mut settling = Settling::acted_upon(Some(1));
        for (now, act) in [
            (Some(1), false),
            (Some(2), false), // changed
            (Some(3), false), // still being written
            (Some(3), true),  // settled
            (Some(3), false),
            (None, false), // being replaced, or gone
            (Some(3), false),
            (None, false),
            (None, true), // gone
            (None, false),
            (Some(3), false), // there again
            (Some(3), true),
        ] {
            assert_eq!(settling.look(now), act, "{now:?}");
        }
    }
}
