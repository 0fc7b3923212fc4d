//! Requests whose proof was taken: each counts once.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use crate::identity::rstream_auth::Millis;

/// How many taken proofs are remembered. Each took somebody's work, and is forgotten once its request is over.
pub const SPENT_MAX: usize = 100_000;

/// Ids of requests whose proof was taken.
#[derive(Debug, Default)]
pub(super) struct Spent {
    ids: HashSet<String>,
    order: BTreeSet<(Millis, String)>,
}

impl Spent {
    /// Takes a proof. False if it was taken before, or if there is no room to remember it: then nobody's is taken.
    pub(super) fn take(&mut self, id: &str, life: Duration, now: Millis) -> bool {
        while self.order.first().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, id)) = self.order.pop_first() {
                self.ids.remove(&id);
            }
        }
        if self.ids.len() >= SPENT_MAX || !self.ids.insert(id.to_owned()) {
            return false;
        }
        self.order.insert((now.after(life), id.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(600);

    #[test]
    fn a_proof_is_taken_once() {
        let mut spent = Spent::default();
        assert!(spent.take("a", LIFE, Millis(0)));
        assert!(!spent.take("a", LIFE, Millis(599_999)));
        assert!(spent.take("b", LIFE, Millis(0)));
        // By then its request is over by itself.
        assert!(spent.take("a", LIFE, Millis(600_000)));
    }

    #[test]
    fn what_cannot_be_remembered_is_not_taken() {
        let mut spent = Spent::default();
        for id in 0..SPENT_MAX {
            assert!(spent.take(&id.to_string(), LIFE, Millis(0)));
        }
        assert!(!spent.take("more", LIFE, Millis(1)));
        assert!(spent.take("more", LIFE, Millis(600_000)), "room again");
        assert_eq!((spent.ids.len(), spent.order.len()), (1, 1));
    }
}
