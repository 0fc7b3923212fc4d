//! Streams asked for and not yet brought.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use adit_protocol::Secret;
use tokio::sync::oneshot;

use super::session::BoxLeg;
use crate::edge::DialError;

/// The table of streams some opener waits for.
#[derive(Default)]
pub(super) struct Pending {
    waiting: Mutex<HashMap<String, Waiting>>,
}

/// One opener and what an agent must show to give it a stream.
pub(super) struct Waiting {
    secret: Secret,
    /// The client id of the agent that was asked.
    session: String,
    opener: oneshot::Sender<Result<BoxLeg, DialError>>,
}

/// Takes the entry out of the table when the opener gives up.
pub(super) struct Entry<'a> {
    pending: &'a Pending,
    stream_id: String,
}

impl Pending {
    /// Waits for the stream `stream_id`, which the agent `session` must prove with `secret`.
    pub(super) fn add(
        &self,
        stream_id: String,
        secret: Secret,
        session: String,
    ) -> (Entry<'_>, oneshot::Receiver<Result<BoxLeg, DialError>>) {
        let (opener, stream) = oneshot::channel();
        let waiting = Waiting {
            secret,
            session,
            opener,
        };
        self.table().insert(stream_id.clone(), waiting);
        let entry = Entry {
            pending: self,
            stream_id,
        };
        (entry, stream)
    }

    /// Takes the opener that waits for this stream, if the secret is right. A wrong one changes
    /// nothing, so that nobody can spoil a stream whose id they have seen.
    pub(super) fn claim(&self, stream_id: &str, secret: Option<&Secret>) -> Option<Waiting> {
        let mut table = self.table();
        let right = |waiting: &Waiting| secret == Some(&waiting.secret);
        if table.get(stream_id).is_some_and(right) {
            table.remove(stream_id)
        } else {
            None
        }
    }

    /// Lets an opener whose stream broke before it could be handed over wait for another attempt of
    /// its agent, if that is still there.
    pub(super) fn put_back(
        &self,
        stream_id: &str,
        waiting: Waiting,
        is_connected: impl Fn(&str) -> bool,
    ) {
        let mut table = self.table();
        // Under the lock as well: an agent that goes leaves the list before its entries are failed.
        if !is_connected(&waiting.session) {
            let _ = waiting.opener.send(Err(DialError::Offline));
            return;
        }
        // Checked under the lock: an opener that gives up closes its end first and then clears its entry.
        if !waiting.opener.is_closed() {
            table.insert(stream_id.to_owned(), waiting);
        }
    }

    /// Tells the opener that its stream will not come, if `session` is the agent it asked.
    pub(super) fn fail(&self, stream_id: &str, session: &str, error: DialError) {
        let mut table = self.table();
        let asked = |waiting: &Waiting| waiting.session == session;
        if table.get(stream_id).is_some_and(asked)
            && let Some(waiting) = table.remove(stream_id)
        {
            // The opener may have given up this moment.
            let _ = waiting.opener.send(Err(error));
        }
    }

    /// Tells every opener that asked `session` that the agent is gone.
    pub(super) fn fail_session(&self, session: &str) {
        let mut table = self.table();
        for (_, waiting) in table.extract_if(|_, waiting| waiting.session == session) {
            let _ = waiting.opener.send(Err(DialError::Offline));
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table().len()
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Hands the stream over; `false` if nobody waits any more.
    pub(super) fn hand_over(self, stream: BoxLeg) -> bool {
        self.opener.send(Ok(stream)).is_ok()
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.pending.table().remove(&self.stream_id);
    }
}
