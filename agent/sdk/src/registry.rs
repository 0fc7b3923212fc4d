//! The tunnels a client wants, whatever the state of its connection.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_protocol::message::TunnelProperties;
use tokio::sync::{Notify, mpsc, watch};

use crate::{Error, Status, Stream, TunnelOptions, TunnelStatus};

/// What handles (client, tunnels) and the tasks that serve them share.
///
/// Handles change what is wanted and ring `changed`; the session compares it with what it has. That
/// needs no queue of commands, which would need a limit and a reaction to reaching it.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) status: watch::Sender<Status>,
    changed: Notify,
    closing: AtomicBool,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    by_key: BTreeMap<u64, Arc<Entry>>,
}

/// A tunnel that is wanted.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: u64,
    options: TunnelOptions,
    /// The host name suggested or chosen by the engine, asked for again after a reconnect.
    pinned: Mutex<Option<String>>,
    pub(crate) status: watch::Sender<TunnelStatus>,
    /// Where accepted streams go; gone when the tunnel is over.
    queue: Mutex<Option<mpsc::Sender<Stream>>>,
    closing: AtomicBool,
}

/// A task that panicked with a lock held has left plain data behind, which is still sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self {
            status: watch::Sender::new(Status::Connecting),
            changed: Notify::new(),
            closing: AtomicBool::new(false),
            entries: Mutex::default(),
        }
    }

    /// Returns when something may have changed since the last call.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Wants one more tunnel. One wanted of a client that is over fails at once.
    pub(crate) fn add(&self, options: TunnelOptions, queue: mpsc::Sender<Stream>) -> Arc<Entry> {
        let entry = {
            let mut entries = lock(&self.entries);
            let key = entries.next;
            entries.next += 1;
            let entry = Arc::new(Entry {
                key,
                pinned: Mutex::new(options.suggested().map(str::to_owned)),
                options,
                status: watch::Sender::new(TunnelStatus::Waiting),
                queue: Mutex::new(Some(queue)),
                closing: AtomicBool::new(false),
            });
            entries.by_key.insert(key, Arc::clone(&entry));
            entry
        };
        match &*self.status.borrow() {
            Status::Failed(error) => self.end(&entry, TunnelStatus::Failed(error.clone())),
            Status::Closed => self.end(&entry, TunnelStatus::Closed),
            _ => self.changed.notify_one(),
        }
        entry
    }

    /// Stops wanting a tunnel.
    pub(crate) fn remove(&self, entry: &Entry) {
        entry.closing.store(true, Ordering::Release);
        entry.end_queue();
        self.changed.notify_one();
    }

    /// A tunnel is over and nobody need ask for it again.
    pub(crate) fn end(&self, entry: &Entry, status: TunnelStatus) {
        lock(&self.entries).by_key.remove(&entry.key);
        entry.end_queue();
        entry.status.send_replace(status);
    }

    pub(crate) fn get(&self, key: u64) -> Option<Arc<Entry>> {
        lock(&self.entries).by_key.get(&key).cloned()
    }

    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        lock(&self.entries).by_key.values().cloned().collect()
    }

    /// Ends the tunnels that were closed while there is no channel to close them on.
    pub(crate) fn end_closing(&self) {
        for entry in self.entries() {
            if entry.is_closing() {
                self.end(&entry, TunnelStatus::Closed);
            }
        }
    }

    /// The client is over.
    pub(crate) fn finish(&self, error: Option<&Error>) {
        let (client, tunnel) = match error {
            Some(error) => (
                Status::Failed(error.clone()),
                TunnelStatus::Failed(error.clone()),
            ),
            None => (Status::Closed, TunnelStatus::Closed),
        };
        self.status.send_replace(client);
        for entry in self.entries() {
            self.end(&entry, tunnel.clone());
        }
    }
}

impl Entry {
    /// What to ask of the engine.
    pub(crate) fn wanted(&self) -> TunnelProperties {
        let mut properties = self.options.properties().clone();
        if properties.hostname.is_none() {
            properties.hostname.clone_from(&lock(&self.pinned));
        }
        properties
    }

    /// Remembers the host name the engine chose.
    pub(crate) fn pin(&self, hostname: Option<&str>) {
        if self.options.properties().hostname.is_none() {
            *lock(&self.pinned) = hostname.map(str::to_owned);
        }
    }

    /// Forgets it; false if there was none.
    pub(crate) fn unpin(&self) -> bool {
        lock(&self.pinned).take().is_some()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(crate) fn queue(&self) -> Option<mpsc::Sender<Stream>> {
        lock(&self.queue).clone()
    }

    fn end_queue(&self) {
        *lock(&self.queue) = None;
    }
}
