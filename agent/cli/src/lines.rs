//! Lines for whoever watches, written by a thread of their own for each of stdout and stderr.
//!
//! A reader that stops reading (a paused terminal, a full pipe) must not stop the service: lines wait
//! in a bounded queue, and those above its bound are lost.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::terminal::clean;

/// Texts that wait for a reader of each of stdout and stderr.
const QUEUE_TEXTS: usize = 1024;

/// How long the end of the process waits for what is still to be written.
const FLUSH_WAIT: Duration = Duration::from_millis(200);

static OUT: LazyLock<Sink> = LazyLock::new(|| Sink::start("stdout", io::stdout()));
static ERR: LazyLock<Sink> = LazyLock::new(|| Sink::start("stderr", io::stderr()));

/// Writes `text`, which ends with a line end, to stdout.
pub(crate) fn print(text: impl Into<String>) {
    OUT.put(text.into());
}

/// Writes `text` as a line to stderr, without control characters.
pub(crate) fn tell(text: &str) {
    ERR.put(clean(text) + "\n");
}

/// Writes `text` as it is and a line end to stderr.
pub(crate) fn complain(text: &str) {
    ERR.put(format!("{text}\n"));
}

/// Waits until everything is written, for a short while each.
pub(crate) fn flush() {
    for sink in [&OUT, &ERR] {
        if let Some(sink) = LazyLock::get(sink) {
            sink.flush(FLUSH_WAIT);
        }
    }
}

/// Where the log goes: to stderr, one event at a time.
pub(crate) fn log() -> impl Write {
    Log
}

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        ERR.put(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Sink(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    more: Condvar,
    less: Condvar,
}

#[derive(Default)]
struct Queue {
    texts: VecDeque<String>,
    writing: bool,
}

impl Sink {
    /// Starts the thread that writes to `out`.
    fn start(name: &str, out: impl Write + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        // Without a thread the lines are lost, and the service is not.
        let _ = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || writer.write_all(out));
        Self(shared)
    }

    /// Queues `text`, unless the queue is full.
    fn put(&self, text: String) {
        let mut queue = self.0.lock();
        if queue.texts.len() < QUEUE_TEXTS {
            queue.texts.push_back(text);
            self.0.more.notify_one();
        }
    }

    /// Waits until everything is written, for no longer than `limit`.
    fn flush(&self, limit: Duration) {
        let _ = self
            .0
            .less
            .wait_timeout_while(self.0.lock(), limit, |queue| {
                queue.writing || !queue.texts.is_empty()
            });
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing that could panic runs under the lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self, mut out: impl Write) {
        loop {
            let waiting = self.more.wait_while(self.lock(), |queue| {
                queue.writing = false;
                self.less.notify_all();
                queue.texts.is_empty()
            });
            let mut queue = waiting.unwrap_or_else(PoisonError::into_inner);
            let texts: String = queue.texts.drain(..).collect();
            queue.writing = true;
            drop(queue);
            // Nobody may be reading any more, which is no reason to take the service down.
            let _gone = out.write_all(texts.as_bytes()).and_then(|()| out.flush());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::sync::mpsc;

    /// Takes a write when the test does, and reports it.
    struct Slow(mpsc::SyncSender<String>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let text = String::from_utf8_lossy(bytes).into_owned();
            self.0.send(text).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nobody_waits_for_a_reader_and_the_queue_is_bounded() {
        let (send, written) = mpsc::sync_channel(0);
        let sink = Sink::start("test", Slow(send));
        let total = QUEUE_TEXTS * 3;
        for number in 0..total {
            sink.put(format!("{number}\n"));
        }
        // Ends although nothing was written, which is what the end of a process needs.
        sink.flush(Duration::from_millis(1));
        let mut lines = Vec::new();
        while lines.len() < QUEUE_TEXTS {
            let text = written.recv().unwrap();
            lines.extend(text.lines().map(|line| line.parse::<usize>().unwrap()));
        }
        assert!(lines.is_sorted(), "in order");
        // One batch may have been taken before the queue filled again.
        assert!(lines.len() < total, "{} lines", lines.len());
    }

    #[test]
    fn a_flush_waits_for_what_was_queued() {
        #[derive(Clone, Default)]
        struct Kept(Arc<Mutex<Vec<u8>>>);
        impl Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let kept = Kept::default();
        let sink = Sink::start("test", kept.clone());
        for _ in 0..100 {
            sink.put("line\n".to_owned());
        }
        sink.flush(Duration::from_secs(30));
        assert_eq!(kept.0.lock().unwrap().len(), 500);
    }
}
