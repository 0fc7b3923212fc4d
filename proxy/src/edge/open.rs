//! Exchanges under way, found again when the rules or what is known of their visitors have changed.
//!
//! Each connection keeps a list of its own, so that the exchanges of one do not wait for those of another.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use adit_filters::{Reason, Refusal};
use futures_util::{StreamExt as _, stream};
use slab::Slab;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::record::Record;

/// How many exchanges are judged again at a time, as far as their filters wait.
const JUDGED_AT_ONCE: usize = 4096;

/// How long each filter may take to judge an exchange again; then it could not decide.
const JUDGE_WAIT: Duration = Duration::from_secs(1);

/// How long all of them may take together: others wait for their turn.
const JUDGE_WAIT_MAX: Duration = Duration::from_secs(2);

/// Every connection with exchanges under way.
#[derive(Default)]
pub(crate) struct Open {
    connections: Mutex<Slab<Weak<Exchanges>>>,
    /// How often something has changed.
    edition: AtomicU64,
    changes: Mutex<Changes>,
    changed: Notify,
}

/// What has changed, and so who is judged again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    credentials: bool,
    policies: bool,
    projects: BTreeSet<String>,
}

impl Changes {
    /// What is known of visitors.
    pub(crate) fn of_credentials() -> Self {
        Self {
            credentials: true,
            ..Self::default()
        }
    }

    /// The policies of one project.
    pub(crate) fn of_project(project: &str) -> Self {
        Self {
            projects: BTreeSet::from([project.to_owned()]),
            ..Self::default()
        }
    }

    /// Anything at all.
    pub(crate) fn of_everything() -> Self {
        Self {
            credentials: true,
            policies: true,
            ..Self::default()
        }
    }

    fn add(&mut self, other: Self) {
        self.credentials |= other.credentials;
        self.policies |= other.policies;
        self.projects.extend(other.projects);
    }

    fn concerns_policies_of(&self, project: &str) -> bool {
        self.policies || self.projects.contains(project)
    }
}

impl Open {
    /// Has everybody who is concerned judged again, soon. Call it when the change is in effect.
    pub(crate) fn change(&self, changes: Changes) {
        lock(&self.changes).add(changes);
        self.edition.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_one();
    }

    /// What an exchange must have seen before it is judged: it may be let in by what has just changed.
    pub(crate) fn edition(&self) -> u64 {
        self.edition.load(Ordering::SeqCst)
    }

    /// Judges again whenever something has changed.
    pub(crate) async fn keep_judging(self: Arc<Self>) {
        loop {
            self.changed.notified().await;
            let changes = std::mem::take(&mut *lock(&self.changes));
            let (judged, ended) = self.judge(&changes).await;
            if judged > 0 {
                tracing::info!(judged, ended, "open exchanges were judged again");
            }
        }
    }

    /// Judges everybody who is concerned again. Returns how many were, and how many of them had to end.
    async fn judge(&self, changes: &Changes) -> (usize, usize) {
        let connections: Vec<_> = {
            let all = lock(&self.connections);
            all.iter().filter_map(|(_, one)| one.upgrade()).collect()
        };
        let verdicts = stream::iter(connections)
            .flat_map(|connection| stream::iter(connection.records()))
            .map(async |record| {
                // Most are judged without a wait: others want their turn.
                tokio::task::consume_budget().await;
                let verdict = judge(&record, changes).await?;
                Some(verdict.map_err(|refusal| record.stop(refusal)).is_err())
            })
            .buffer_unordered(JUDGED_AT_ONCE)
            .filter_map(async |verdict| verdict);
        verdicts
            .fold((0, 0), async |(judged, ended), ends| {
                (judged + 1, ended + usize::from(ends))
            })
            .await
    }
}

/// Whether an exchange may go on; none if nothing that concerns it has changed.
async fn judge(record: &Record, changes: &Changes) -> Option<Result<(), Refusal>> {
    let site = record.site();
    let of_policies = changes.concerns_policies_of(&site.info.project);
    if of_policies && site.has_ended() {
        // Its agent may have left the tunnel only, or the tunnel may not be what it was: it gets no chain any more.
        let detail =
            Some("judged again: its tunnel has ended, and the policies have changed".into());
        return Some(Err(Refusal {
            detail,
            ..Refusal::edge(Reason::Policy)
        }));
    }
    let chain = site.chain();
    if !changes.credentials && Arc::ptr_eq(&chain, record.chain()) {
        return None;
    }
    let end = Instant::now() + JUDGE_WAIT_MAX;
    let patience = || tokio::time::sleep_until(end.min(Instant::now() + JUDGE_WAIT));
    let (before, exchange) = (record.chain(), record.exchange());
    let judging = chain.rejudge(before, exchange, record.upgrade(), patience);
    Some(judging.await)
}

/// The exchanges under way on one connection.
pub(crate) struct Exchanges {
    records: Mutex<Slab<Weak<Record>>>,
    of: Arc<Open>,
    key: usize,
}

impl Exchanges {
    /// A connection without any yet.
    pub(crate) fn new(of: &Arc<Open>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            records: Mutex::default(),
            of: Arc::clone(of),
            key: lock(&of.connections).insert(Weak::clone(this)),
        })
    }

    /// From now on the exchange is found, until it is over.
    ///
    /// # Errors
    /// Why it has to end, if something has changed since it saw this `edition`.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        record: &Arc<Record>,
        edition: u64,
    ) -> Result<(), Refusal> {
        let key = lock(&self.records).insert(Arc::downgrade(record));
        record.keep(Place {
            of: Arc::clone(self),
            key,
        });
        // Found by now: what changes from here on comes to it by itself.
        match self.of.edition() == edition {
            true => Ok(()),
            false => judge(record, &Changes::of_everything())
                .await
                .unwrap_or(Ok(())),
        }
    }

    /// Those under way. The caller lets go of them with no lock held: it may be the last to.
    fn records(&self) -> Vec<Arc<Record>> {
        let records = lock(&self.records);
        records
            .iter()
            .filter_map(|(_, one)| one.upgrade())
            .collect()
    }
}

impl Drop for Exchanges {
    fn drop(&mut self) {
        lock(&self.of.connections).try_remove(self.key);
    }
}

/// An exchange's place in its connection's list, until it is dropped.
pub(crate) struct Place {
    of: Arc<Exchanges>,
    key: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.of.records).try_remove(self.key);
    }
}

/// Data behind these locks stays whole when a holder panics: every update is one call.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
