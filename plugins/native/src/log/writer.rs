//! Lines written beside the data path.
//!
//! The data path puts what a line is made of into a bounded queue; a thread formats and writes. When that thread cannot
//! keep up, lines are dropped and counted: visitors do not wait for a disk.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use adit_config::NearPath;
use adit_filters::env::Counter;
use adit_filters::{ConfigError, Env};
use serde::Deserialize;

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
    fn open(self) -> Result<Box<dyn Write + Send>, ConfigError> {
        Ok(match self {
            Self::Stdout => Box::new(io::stdout()),
            Self::Stderr => Box::new(io::stderr()),
            Self::File(NearPath(path)) => {
                let shown = path.display().to_string();
                let file = LogFile::open(path).map_err(|error| {
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

/// Hands records to the thread that writes them.
pub(super) struct Writer<T> {
    /// The filter it writes for, as the metrics name it.
    name: &'static str,
    queue: SyncSender<T>,
    dropped: Arc<dyn Counter>,
}

impl<T: Send + 'static> Writer<T> {
    /// Starts to write to `to`, one line a record, as `line` formats it.
    pub(super) fn start(
        name: &'static str,
        to: Target,
        queue: usize,
        env: &Env,
        line: impl Fn(&T, &mut Vec<u8>) + Send + 'static,
    ) -> Result<Self, ConfigError> {
        check_queue(queue)?;
        Self::to_sink(name, to.open()?, queue, env, line)
    }

    pub(super) fn to_sink(
        name: &'static str,
        sink: Box<dyn Write + Send>,
        queue: usize,
        env: &Env,
        line: impl Fn(&T, &mut Vec<u8>) + Send + 'static,
    ) -> Result<Self, ConfigError> {
        let dropped = dropped(env)?;
        let lost = counter(
            env,
            "log_lost_total",
            "Log records lost because they could not be written",
        )?;
        let (sender, receiver) = sync_channel(queue);
        let job = Box::new(move || write_all(name, &receiver, sink, &*lost, &line));
        env.jobs
            .spawn_blocking(name, job)
            .map_err(|error| failed(&error))?;
        Ok(Self {
            name,
            queue: sender,
            dropped,
        })
    }

    /// Leaves a record to the thread, or drops it where too many wait.
    pub(super) fn write(&self, record: T) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.queue.try_send(record)
        {
            self.dropped.add(&[self.name], 1);
        }
    }
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

/// Writes until the filter is gone and the queue is empty.
fn write_all<T>(
    name: &str,
    queue: &Receiver<T>,
    mut sink: Box<dyn Write + Send>,
    lost: &dyn Counter,
    line: &dyn Fn(&T, &mut Vec<u8>),
) {
    let mut lines = Vec::new();
    let mut failing = false;
    while let Ok(first) = queue.recv() {
        let mut count = 0;
        for record in std::iter::once(first).chain(queue.try_iter().take(BATCH_MAX)) {
            count += 1;
            line(&record, &mut lines);
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

    use super::super::testing::Sink;
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

    fn write(sink: Box<dyn Write + Send>, queue: usize, records: usize) -> Fake {
        let fake = Fake::default();
        let line = |number: &usize, line: &mut Vec<u8>| line.extend(number.to_string().bytes());
        let writer = Writer::to_sink("f", sink, queue, &fake.env(), line).unwrap();
        (0..records).for_each(|number| writer.write(number));
        drop(writer); // the filter goes, so the thread ends once the queue is empty
        for (_, job) in fake.jobs.take_blocking() {
            job();
        }
        fake
    }

    #[test]
    fn records_beyond_the_queue_are_dropped_and_counted() {
        let sink = Sink::default();
        let fake = write(Box::new(sink.clone()), 3, 5);
        assert_eq!(sink.text(), "0\n1\n2\n");
        assert_eq!(fake.metrics.value("log_dropped_total{f}"), Some(2.0));
        assert_eq!(fake.metrics.value("log_lost_total{f}"), None);
    }

    #[test]
    fn records_that_cannot_be_written_are_counted() {
        let fake = write(Box::new(Broken), 8, 2);
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
