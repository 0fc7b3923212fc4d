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

/// How many tasks the filters of all loads may have running that end by themselves.
pub const ENDING_MAX: usize = 256;

/// The jobs of one load.
pub struct Jobs {
    runtime: Option<Handle>,
    running: Mutex<Vec<AbortHandle>>,
    endings: Arc<Endings>,
}

/// Jobs that outlive their load and end by themselves.
#[derive(Debug)]
pub(super) struct Endings {
    threads: Places,
    tasks: Places,
}

impl Default for Endings {
    fn default() -> Self {
        Self {
            threads: Places::new(THREADS_MAX),
            tasks: Places::new(ENDING_MAX),
        }
    }
}

impl Endings {
    /// Waits until none runs.
    pub(super) async fn ended(&self) {
        for places in [&self.threads, &self.tasks] {
            // Fails only without a sender, and that is this one.
            let _ = places
                .taken
                .subscribe()
                .wait_for(|running| *running == 0)
                .await;
        }
    }
}

impl Jobs {
    pub(super) fn new(runtime: Option<Handle>, endings: Arc<Endings>) -> Self {
        Self {
            runtime,
            running: Mutex::default(),
            endings,
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

    fn spawn_to_end(&self, name: &str, job: BoxFuture<'static, ()>) -> Result<(), JobsError> {
        let Some(runtime) = &self.runtime else {
            return Ok(());
        };
        let place = self.endings.tasks.take()?;
        tracing::debug!(job = name, "job started");
        runtime.spawn(async move {
            let _place = place;
            job.await;
        });
        Ok(())
    }

    fn spawn_blocking(&self, name: &str, job: Box<dyn FnOnce() + Send>) -> Result<(), JobsError> {
        if self.runtime.is_none() {
            return Ok(());
        }
        let place = self.endings.threads.take()?;
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

/// How many jobs of one kind run, and may.
#[derive(Debug)]
struct Places {
    taken: watch::Sender<usize>,
    max: usize,
}

impl Places {
    fn new(max: usize) -> Self {
        Self {
            taken: watch::Sender::default(),
            max,
        }
    }

    fn take(&self) -> Result<Place, JobsError> {
        let taken = self.taken.send_if_modified(|running| {
            let free = *running < self.max;
            *running += usize::from(free);
            free
        });
        match taken {
            true => Ok(Place(self.taken.clone())),
            false => Err(JobsError::OverLimit { limit: self.max }),
        }
    }
}

/// A job's place among those that may run, given back when it ends, by a panic too.
struct Place(watch::Sender<usize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
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
        jobs.endings.ended().await;
        let (done, is_done) = oneshot::channel();
        jobs.spawn_blocking("ends", Box::new(move || done.send(()).unwrap()))
            .unwrap();
        is_done.await.unwrap();
    }

    #[tokio::test]
    async fn a_job_that_ends_by_itself_outlives_its_load_and_is_waited_for() {
        let jobs = jobs();
        let mut stops = Vec::new();
        let mut start = || {
            let (stop, stopped) = oneshot::channel::<()>();
            let ends = Box::pin(async move { assert!(stopped.await.is_err()) });
            stops.push(stop);
            jobs.spawn_to_end("ends", ends)
        };
        for _ in 0..ENDING_MAX {
            start().unwrap();
        }
        assert!(matches!(
            start(),
            Err(JobsError::OverLimit { limit: ENDING_MAX })
        ));
        let endings = Arc::clone(&jobs.endings);
        drop(jobs);
        tokio::task::yield_now().await;
        assert_eq!(*endings.tasks.taken.borrow(), ENDING_MAX);
        drop(stops);
        endings.ended().await;
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
