//! Notices that a file has changed.
//!
//! By looking at it from time to time: that works for editors that write in place, tools that
//! rename, and folders that are mounted anew, on every file system; and a look every two seconds
//! costs nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::listen::tcp::{Phase, reached};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(2);

/// Calls `changed` whenever the file at `path` has changed and then stayed as it is from one look
/// to the next: a file that is being written is not read half. Which file that is may change; then
/// whoever changed it has read the other.
pub(super) async fn file(
    path: impl Fn() -> Option<PathBuf>,
    mut phase: watch::Receiver<Phase>,
    changed: impl Fn(),
) {
    let mut at = path();
    let mut watched = Watched::new(at.as_deref().and_then(stamp));
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = reached(&mut phase, Phase::Draining) => return,
        }
        let now = path();
        let seen = now.as_deref().and_then(stamp);
        if now != at {
            (at, watched) = (now, Watched::new(seen));
        } else if watched.look(seen) {
            changed();
        }
    }
}

/// What tells one state of a file from another; `None` while there is none.
type Stamp = Option<(SystemTime, u64)>;

fn stamp(path: &Path) -> Stamp {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

struct Watched {
    /// As it was when it was last acted upon.
    acted: Stamp,
    /// As it was at the last look.
    last: Stamp,
}

impl Watched {
    fn new(stamp: Stamp) -> Self {
        Self {
            acted: stamp,
            last: stamp,
        }
    }

    /// Whether it is time to act on what is seen now.
    fn look(&mut self, now: Stamp) -> bool {
        let settled = now == self.last;
        self.last = now;
        // A file that is gone says nothing: what was read from it stays in effect.
        let act = settled && now.is_some() && now != self.acted;
        if act {
            self.acted = now;
        }
        act
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::sync::Arc;

    use tokio::sync::Notify;

    use super::*;

    #[test]
    fn a_change_counts_once_it_has_settled() {
        let at = |seconds| Some((SystemTime::UNIX_EPOCH + Duration::from_secs(seconds), 9));
        let mut watched = Watched::new(at(1));
        for (now, act) in [
            (at(1), false),
            (at(2), false), // changed
            (at(3), false), // still being written
            (at(3), true),  // settled
            (at(3), false),
            (None, false), // being replaced
            (None, false),
            (at(3), false), // as it was
            (at(3), false),
            (at(4), false),
            (at(4), true),
        ] {
            assert_eq!(watched.look(now), act, "{now:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_noticed_and_watching_ends_with_the_engine() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("engine.toml");
        fs::write(&path, "one").unwrap();
        let phase = watch::Sender::new(Phase::Serving);
        let noticed = Arc::new(Notify::new());
        let watching = tokio::spawn({
            let (noticed, receiver) = (Arc::clone(&noticed), phase.subscribe());
            let path = path.clone();
            file(
                move || Some(path.clone()),
                receiver,
                move || noticed.notify_one(),
            )
        });
        tokio::time::advance(INTERVAL / 2).await;
        fs::write(&path, "another length").unwrap();
        noticed.notified().await;
        phase.send_replace(Phase::Draining);
        watching.await.unwrap();
    }
}
