//! Work beside the data path: tasks that end with the load they belong to, and a few threads.

use std::sync::{Arc, Mutex, PoisonError};

use adit_filters::env::{BoxFuture, JobsError};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// How many tasks the filters of one load may have running.
pub const JOBS_MAX: usize = 256;

/// How many threads the filters of all loads may have running: those of an old load end with its last exchange.
pub const THREADS_MAX: usize = 64;

/// The jobs of one load.
pub struct Jobs {
    runtime: Option<Handle>,
    running: Mutex<Vec<AbortHandle>>,
    threads: Arc<Threads>,
}

/// How many threads run.
#[derive(Debug, Default)]
pub(super) struct Threads(watch::Sender<usize>);

impl Threads {
    /// Waits until none runs.
    pub(super) async fn ended(&self) {
        // Fails only without a sender, and that is this one.
        let _ = self.0.subscribe().wait_for(|running| *running == 0).await;
    }
}

impl Jobs {
    pub(super) fn new(runtime: Option<Handle>, threads: Arc<Threads>) -> Self {
        Self {
            runtime,
            running: Mutex::default(),
            threads,
        }
    }

    /// Ends every task.
    pub fn cancel(&self) {
        for task in self
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            task.abort();
        }
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl adit_filters::env::Jobs for Jobs {
    fn spawn(&self, name: &str, job: BoxFuture<'static, ()>) -> Result<(), JobsError> {
        // Without a runtime the configuration is only being checked.
        let Some(runtime) = &self.runtime else {
            return Ok(());
        };
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|task| !task.is_finished());
        if running.len() >= JOBS_MAX {
            return Err(JobsError::OverLimit { limit: JOBS_MAX });
        }
        tracing::debug!(job = name, "job started");
        running.push(runtime.spawn(job).abort_handle());
        Ok(())
    }

    fn spawn_blocking(&self, name: &str, job: Box<dyn FnOnce() + Send>) -> Result<(), JobsError> {
        if self.runtime.is_none() {
            return Ok(());
        }
        let place =
            Place::take(&self.threads).ok_or(JobsError::OverLimit { limit: THREADS_MAX })?;
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _place = place;
                job();
            })
            .map_err(|source| JobsError::Thread { source })?;
        Ok(())
    }
}

/// A thread's place among those that may run, given back when it ends, by a panic too.
struct Place(Arc<Threads>);

impl Place {
    fn take(threads: &Arc<Threads>) -> Option<Self> {
        let taken = threads.0.send_if_modified(|running| {
            let free = *running < THREADS_MAX;
            *running += usize::from(free);
            free
        });
        taken.then(|| Self(threads.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.0.send_modify(|running| *running -= 1);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::mpsc;

    use adit_filters::env::Jobs as _;
    use tokio::sync::oneshot;

    use super::*;

    fn jobs() -> Jobs {
        Jobs::new(Some(Handle::current()), Arc::default())
    }

    #[tokio::test]
    async fn a_job_runs_until_its_load_is_gone() {
        let (started, is_started) = oneshot::channel();
        let (held, dropped) = oneshot::channel::<()>();
        let jobs = jobs();
        jobs.spawn(
            "waits",
            Box::pin(async move {
                started.send(()).unwrap();
                let _held = held;
                std::future::pending::<()>().await;
            }),
        )
        .unwrap();
        is_started.await.unwrap();
        drop(jobs);
        assert!(dropped.await.is_err(), "the job and what it held are gone");
    }

    #[tokio::test]
    async fn no_more_jobs_run_than_the_bound_allows() {
        let jobs = jobs();
        let forever = || Box::pin(std::future::pending());
        for _ in 0..JOBS_MAX {
            jobs.spawn("waits", forever()).unwrap();
        }
        assert!(matches!(
            jobs.spawn("waits", forever()),
            Err(JobsError::OverLimit { limit: JOBS_MAX })
        ));
        jobs.cancel();
        jobs.spawn("waits", forever()).unwrap();
    }

    #[tokio::test]
    async fn threads_are_bounded_and_give_their_place_back() {
        let jobs = jobs();
        let mut stops = Vec::new();
        let mut start = || {
            let (stop, stopped) = mpsc::channel::<()>();
            let started =
                jobs.spawn_blocking("waits", Box::new(move || assert!(stopped.recv().is_err())));
            stops.push(stop);
            started
        };
        for _ in 0..THREADS_MAX {
            start().unwrap();
        }
        assert!(matches!(
            start(),
            Err(JobsError::OverLimit { limit: THREADS_MAX })
        ));
        drop(stops);
        jobs.threads.ended().await;
        let (done, is_done) = oneshot::channel();
        jobs.spawn_blocking("ends", Box::new(move || done.send(()).unwrap()))
            .unwrap();
        is_done.await.unwrap();
    }

    #[test]
    fn a_check_starts_nothing() {
        let jobs = Jobs::new(None, Arc::default());
        let (held, dropped) = mpsc::channel::<()>();
        jobs.spawn_blocking("never", Box::new(move || drop(held)))
            .unwrap();
        assert!(dropped.recv().is_err());
        jobs.spawn("never", Box::pin(std::future::ready(())))
            .unwrap();
    }
}
