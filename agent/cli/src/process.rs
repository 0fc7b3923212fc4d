//! This process: its runtime, its signals, its limits.

use anyhow::Context;

/// Runs `future` on a runtime of its own and leaves at once when it is done: a thread that waits for
/// standard input would otherwise hold the process.
pub(crate) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // With one core, a scheduler that hands tasks between threads is only overhead.
    let mut builder = if cores == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = builder
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let outcome = runtime.block_on(future);
    runtime.shutdown_background();
    outcome
}

/// Raises the soft limit of open files to the hard one. Every stream takes two descriptors, and the
/// usual soft limit of 1,024 is for programs that still call `select`.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        // Without the raise there is room for fewer streams, and accepting says so when it ends.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// Keeps the kernel from backing the heap with huge pages, which the allocator asks for: thousands
/// of idle connections, each with a few pages in use, then hold half again as much memory.
pub(crate) fn use_small_pages() {
    #[cfg(target_os = "linux")]
    // A kernel without the setting has no huge pages to keep away.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// The wishes of whoever runs this process to end it.
pub(crate) struct Stop {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Stop {
    /// Catches SIGINT and SIGTERM from now on.
    pub(crate) fn new() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let catch = |kind| signal(kind).context("cannot catch signals");
        Ok(Self {
            interrupt: catch(SignalKind::interrupt())?,
            terminate: catch(SignalKind::terminate())?,
        })
    }

    /// The next wish.
    pub(crate) async fn wanted(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
