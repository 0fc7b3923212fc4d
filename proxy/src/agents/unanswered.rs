//! Streams an agent was asked for and has not said a word about.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// Stream requests the agent has not answered. One that is never answered gives its turn back when
/// the opener has given up too; nothing else happens.
pub(super) struct Unanswered {
    wait: Duration,
    permits: HashMap<String, OwnedSemaphorePermit>,
    /// By deadline, which is the order of asking; answered ones are among them until they are due.
    order: VecDeque<(Instant, String)>,
}

impl Unanswered {
    /// None yet. Each is waited for `wait` at most.
    pub(super) fn new(wait: Duration) -> Self {
        Self {
            wait,
            permits: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    pub(super) fn asked(&mut self, stream_id: String, permit: OwnedSemaphorePermit) {
        self.order
            .push_back((Instant::now() + self.wait, stream_id.clone()));
        self.permits.insert(stream_id, permit);
    }

    pub(super) fn answered(&mut self, stream_id: &str) {
        self.permits.remove(stream_id);
        // Keeps the order as short as the unanswered front allows.
        while let Some((_, oldest)) = self.order.front() {
            if self.permits.contains_key(oldest) {
                break;
            }
            self.order.pop_front();
        }
        // One request that stays open would otherwise keep all later ones in the order.
        if self.order.len() > 2 * self.permits.len() + ORDER_SLACK {
            self.order.retain(|(_, id)| self.permits.contains_key(id));
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.order.front().map(|(deadline, _)| *deadline)
    }

    pub(super) fn forget(&mut self, now: Instant) {
        while let Some((deadline, stream_id)) = self.order.front() {
            if *deadline > now {
                return;
            }
            self.permits.remove(stream_id);
            self.order.pop_front();
        }
    }
}

/// Answered requests kept in the order before it is cleared, so that clearing is rare.
const ORDER_SLACK: usize = 64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    #[tokio::test(start_paused = true)]
    async fn turns_come_back_with_the_answer_or_with_time_and_nothing_piles_up() {
        let turns = Arc::new(Semaphore::new(2));
        let take = || Arc::clone(&turns).try_acquire_owned().unwrap();
        let mut unanswered = Unanswered::new(Duration::from_secs(30));
        unanswered.asked("stuck".to_owned(), take());
        for number in 0..10 * ORDER_SLACK {
            unanswered.asked(number.to_string(), take());
            unanswered.answered(&number.to_string());
        }
        assert_eq!(turns.available_permits(), 1);
        assert!(unanswered.order.len() <= ORDER_SLACK + 2);
        unanswered.answered("never asked");
        let due = unanswered.deadline().unwrap();
        unanswered.forget(due - Duration::from_millis(1));
        assert_eq!(turns.available_permits(), 1);
        unanswered.forget(due);
        assert_eq!(turns.available_permits(), 2);
        assert_eq!(unanswered.deadline(), None);
    }
}
