//! Notices that a file has changed: a look every two seconds costs nothing.

use std::path::PathBuf;
use std::time::Duration;

use adit_config::{Settling, Stamp};
use tokio::sync::watch;

use crate::listen::tcp::{Phase, reached};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(2);

/// Calls `changed` whenever one of the files at `paths` has changed and all then stayed as they are from one look
/// to the next: a file that is being written is not read half. Which files these are may change; then
/// whoever changed it has read the others.
pub(super) async fn files<C: Future<Output = ()>>(
    paths: impl Fn() -> Vec<PathBuf>,
    mut phase: watch::Receiver<Phase>,
    changed: impl Fn() -> C,
) {
    let mut at = paths();
    let mut settling = Settling::acted_upon(stamps(&at));
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = reached(&mut phase, Phase::Draining) => return,
        }
        let now = paths();
        let seen = stamps(&now);
        if now != at {
            (at, settling) = (now, Settling::acted_upon(seen));
        } else if settling.look(seen.clone()) && seen.is_some() {
            // A file that is gone says nothing: what was read from it stays in effect.
            tokio::select! {
                () = changed() => {}
                () = reached(&mut phase, Phase::Draining) => return,
            }
        }
    }
}

/// How the files are; none while one of them is missing.
fn stamps(paths: &[PathBuf]) -> Option<Vec<Stamp>> {
    paths.iter().map(|path| Stamp::of(path)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::fs;
    use std::sync::Arc;

    use tokio::sync::Notify;

    use super::*;

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
            files(
                move || vec![path.clone()],
                receiver,
                move || {
                    noticed.notify_one();
                    std::future::ready(())
                },
            )
        });
        tokio::time::advance(INTERVAL / 2).await;
        // As long as before, and with its date: what tells is that the file was touched.
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "two").unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(before).unwrap();
        noticed.notified().await;
        phase.send_replace(Phase::Draining);
        watching.await.unwrap();
    }
}
