//! Lines written beside the data path.
//!
//! The data path puts what a line is made of into a bounded queue; a thread formats and writes. When that thread cannot
//! keep up, lines are dropped and counted: visitors do not wait for a disk.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use adit_config::NearPath;
use adit_filters::env::Counter;
use adit_filters::{ConfigError, Env};
use serde::Deserialize;

use super::entry::Entry;
use super::file::LogFile;

/// How many records wait at most, unless the configuration says otherwise. Each is a kilobyte or so.
pub const QUEUE_DEFAULT: usize = 4096;

/// The longest queue that can be configured.
pub const QUEUE_MAX: usize = 65_536;

/// How long the writer gathers records before it writes again: it is woken fifty times a second at most.
const GATHER: Duration = Duration::from_millis(20);

/// How many records are written at once: what is gathered in memory stays near a megabyte.
const BATCH_MAX: usize = 1024;

/// Where lines are written.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
    /// The end of a file, made if it is not there, and made anew when it was moved away.
    File(NearPath),
}

impl Target {
    fn open(&self) -> Result<Box<dyn Write + Send>, ConfigError> {
        Ok(match self {
            Self::Stdout => Box::new(io::stdout()),
            Self::Stderr => Box::new(io::stderr()),
            Self::File(NearPath(path)) => {
                let shown = path.display().to_string();
                let file = LogFile::open(path.clone()).map_err(|error| {
                    let message = format!("`{shown}` cannot be opened to append: {error}");
                    ConfigError::at("to", message)
                })?;
                Box::new(file)
            }
        })
    }
}

/// The default of every `queue`.
pub(super) fn default_queue() -> usize {
    QUEUE_DEFAULT
}

/// A queue that can be configured.
pub(super) fn check_queue(queue: usize) -> Result<(), ConfigError> {
    if queue == 0 || queue > QUEUE_MAX {
        let message = format!("`queue` must be between 1 and {QUEUE_MAX} records");
        return Err(ConfigError::at("queue", message));
    }
    Ok(())
}

/// Formats what a line is made of.
type Line = dyn Fn(&Entry, &mut Vec<u8>) + Send + Sync;

/// What a line is made of, and how.
struct Record {
    entry: Entry,
    line: Arc<Line>,
}

/// Hands what lines are made of to the thread that writes them.
pub(super) struct Writer {
    outlet: Arc<Outlet>,
    line: Arc<Line>,
    dropped: Arc<dyn Counter>,
}

impl Writer {
    /// Leaves an entry to the thread, or drops it where too many wait.
    pub(super) fn write(&self, entry: Entry) {
        let line = Arc::clone(&self.line);
        let sent = self.outlet.queue.try_send(Record { entry, line });
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = sent {
            self.dropped.add(&[self.outlet.name], 1);
        }
    }
}

/// A thread that writes lines to one place, and their queue. It ends when nobody holds it and the queue is empty.
#[derive(Debug)]
struct Outlet {
    /// The filter it writes for, as the metrics name it.
    name: &'static str,
    to: Target,
    room: usize,
    queue: SyncSender<Record>,
}

/// The places that lines go to. Clones share what is open, and a reload takes a clone: filters of one kind that write to
/// one place share its thread, from one load to the next. So threads are as many as places, however often an engine
/// reads its configuration while old exchanges are still under way.
#[derive(Clone, Debug, Default)]
pub struct Outlets(Arc<Mutex<Vec<Weak<Outlet>>>>);

impl Outlets {
    /// Lines to `to`, one for each entry, as `line` formats it. `queue` of them wait at most.
    pub(super) fn writer(
        &self,
        name: &'static str,
        to: Target,
        queue: usize,
        env: &Env,
        line: impl Fn(&Entry, &mut Vec<u8>) + Send + Sync + 'static,
    ) -> Result<Writer, ConfigError> {
        check_queue(queue)?;
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = open
            .iter()
            .filter_map(Weak::upgrade)
            .find(|outlet| (outlet.name, &outlet.to, outlet.room) == (name, &to, queue));
        let outlet = match known {
            Some(outlet) => outlet,
            None => {
                let sink = to.open()?;
                let outlet = Arc::new(Outlet::start(name, to, queue, sink, env)?);
                open.retain(|outlet| outlet.strong_count() > 0);
                open.push(Arc::downgrade(&outlet));
                outlet
            }
        };
        outlet.writer(env, line)
    }
}

impl Outlet {
    fn start(
        name: &'static str,
        to: Target,
        room: usize,
        sink: Box<dyn Write + Send>,
        env: &Env,
    ) -> Result<Self, ConfigError> {
        let lost = counter(
            env,
            "log_lost_total",
            "Log records lost because they could not be written",
        )?;
        let (queue, records) = sync_channel(room);
        let job = Box::new(move || write_all(name, &records, sink, &*lost));
        env.jobs
            .spawn_blocking(name, job)
            .map_err(|error| failed(&error))?;
        Ok(Self {
            name,
            to,
            room,
            queue,
        })
    }

    fn writer(
        self: Arc<Self>,
        env: &Env,
        line: impl Fn(&Entry, &mut Vec<u8>) + Send + Sync + 'static,
    ) -> Result<Writer, ConfigError> {
        Ok(Writer {
            outlet: self,
            line: Arc::new(line),
            dropped: dropped(env)?,
        })
    }
}

/// Lines to a sink of a test's own.
#[cfg(test)]
pub(super) fn to_sink(
    sink: Box<dyn Write + Send>,
    queue: usize,
    env: &Env,
    line: impl Fn(&Entry, &mut Vec<u8>) + Send + Sync + 'static,
) -> Result<Writer, ConfigError> {
    Arc::new(Outlet::start("f", Target::Stdout, queue, sink, env)?).writer(env, line)
}

/// Counts what is dropped for want of room, by filter.
pub(super) fn dropped(env: &Env) -> Result<Arc<dyn Counter>, ConfigError> {
    counter(
        env,
        "log_dropped_total",
        "Log records dropped because too many were waiting",
    )
}

/// A counter with the kind of filter as its label.
pub(super) fn counter(env: &Env, name: &str, help: &str) -> Result<Arc<dyn Counter>, ConfigError> {
    env.metrics
        .counter(name, help, &["filter"])
        .map_err(|error| failed(&error))
}

/// The engine does not give what the filter needs.
pub(super) fn failed(error: &dyn std::error::Error) -> ConfigError {
    ConfigError {
        key: None,
        message: error.to_string(),
    }
}

/// Writes until no filter is left and the queue is empty.
fn write_all(
    name: &str,
    queue: &Receiver<Record>,
    mut sink: Box<dyn Write + Send>,
    lost: &dyn Counter,
) {
    let mut lines = Vec::new();
    let mut failing = false;
    while let Ok(first) = queue.recv() {
        let mut count = 0;
        for record in std::iter::once(first).chain(queue.try_iter().take(BATCH_MAX)) {
            count += 1;
            (record.line)(&record.entry, &mut lines);
            lines.push(b'\n');
        }
        let written = sink.write_all(&lines).and_then(|()| sink.flush());
        lines.clear();
        match written {
            Ok(()) => failing = false,
            Err(error) => {
                lost.add(&[name], count);
                if !failing {
                    tracing::warn!(filter = name, %error, "log records cannot be written");
                }
                failing = true;
            }
        }
        if count > BATCH_MAX as u64 {
            // More is waiting.
            continue;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the writer has a thread of its own, which no task waits for"
        )]
        std::thread::sleep(GATHER);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use adit_filters::env::fake::Fake;

    use adit_filters::Outcome;

    use super::super::testing::{self, Sink, outcome};
    use super::*;

    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::other("full"))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Entries told apart by how long they took.
    async fn entries(count: u64) -> Vec<Entry> {
        let outcomes = (0..count).map(|seconds| Outcome {
            duration: Duration::from_secs(seconds),
            ..outcome()
        });
        testing::entries(outcomes.collect()).await
    }

    fn seconds(entry: &Entry, line: &mut Vec<u8>) {
        line.extend(entry.outcome.duration.as_secs().to_string().bytes());
    }

    fn work(fake: &Fake) -> usize {
        let jobs = fake.jobs.take_blocking().into_iter();
        jobs.map(|(_, job)| job()).count()
    }

    async fn write(sink: Box<dyn Write + Send>, queue: usize, records: u64) -> Fake {
        let fake = Fake::default();
        let writer = to_sink(sink, queue, &fake.env(), seconds).unwrap();
        for entry in entries(records).await {
            writer.write(entry);
        }
        drop(writer); // the filter goes, so the thread ends once the queue is empty
        work(&fake);
        fake
    }

    #[tokio::test]
    async fn filters_that_write_to_one_place_share_its_thread_and_format_for_themselves() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        let to = || Target::File(NearPath(path.clone()));
        let fake = Fake::default();
        let outlets = Outlets::default();
        let old = outlets.writer("f", to(), 8, &fake.env(), seconds).unwrap();
        let loud = |entry: &Entry, line: &mut Vec<u8>| {
            line.extend_from_slice(b"new ");
            seconds(entry, line);
        };
        // The next load has a clone.
        let next = outlets.clone();
        let new = next.writer("f", to(), 8, &fake.env(), loud).unwrap();
        for (one, other) in entries(2).await.into_iter().zip(entries(2).await) {
            old.write(one);
            new.write(other);
        }
        drop((old, new));
        assert_eq!(work(&fake), 1);
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "0\nnew 0\n1\nnew 1\n"
        );
        // Nobody wrote there any more, so it was let go of; and what differs has a thread of its own.
        let again = outlets.writer("f", to(), 8, &fake.env(), seconds).unwrap();
        let other = outlets.writer("g", to(), 8, &fake.env(), seconds).unwrap();
        let longer = outlets.writer("f", to(), 9, &fake.env(), seconds).unwrap();
        drop((again, other, longer));
        assert_eq!(work(&fake), 3);
    }

    #[tokio::test]
    async fn records_beyond_the_queue_are_dropped_and_counted() {
        let sink = Sink::default();
        let fake = write(Box::new(sink.clone()), 3, 5).await;
        assert_eq!(sink.text(), "0\n1\n2\n");
        assert_eq!(fake.metrics.value("log_dropped_total{f}"), Some(2.0));
        assert_eq!(fake.metrics.value("log_lost_total{f}"), None);
    }

    #[tokio::test]
    async fn records_that_cannot_be_written_are_counted() {
        let fake = write(Box::new(Broken), 8, 2).await;
        assert_eq!(fake.metrics.value("log_lost_total{f}"), Some(2.0));
    }

    #[test]
    fn a_queue_has_bounds() {
        assert!(check_queue(1).is_ok() && check_queue(QUEUE_MAX).is_ok());
        for queue in [0, QUEUE_MAX + 1] {
            let error = check_queue(queue).unwrap_err();
            assert_eq!(error.key.as_deref(), Some("queue"));
        }
    }
}
