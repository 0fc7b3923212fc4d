//! Work beside the data path.

use super::BoxFuture;

/// Starts work beside the data path.
pub trait Jobs: Send + Sync {
    /// Starts a job that is cancelled when the configuration it belongs to is replaced.
    ///
    /// # Errors
    /// [`JobsError`].
    fn spawn(&self, name: &str, job: BoxFuture<'static, ()>) -> Result<(), JobsError>;
    /// Starts a job that finishes what it has begun when its configuration is replaced. It must end by itself soon
    /// after its filter is gone: its channel closes then.
    ///
    /// # Errors
    /// [`JobsError`].
    fn spawn_to_end(&self, name: &str, job: BoxFuture<'static, ()>) -> Result<(), JobsError>;
    /// Starts a job that may block, on a thread of its own. It must end by itself once its filter is gone: its
    /// channel closes then.
    ///
    /// # Errors
    /// [`JobsError`].
    fn spawn_blocking(&self, name: &str, job: Box<dyn FnOnce() + Send>) -> Result<(), JobsError>;
}

/// Why a job was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobsError {
    /// Too many run already.
    #[error("at most {limit} jobs may run")]
    OverLimit {
        /// How many may.
        limit: usize,
    },
    /// The system gave no thread.
    #[error("no thread for the job")]
    Thread {
        /// What it said.
        #[source]
        source: std::io::Error,
    },
}
