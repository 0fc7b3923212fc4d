//! Ending an exchange from outside, whatever it is doing.
//!
//! At any moment one task drives the exchange: the visitor's connection or stream, or its relay. That one waits here
//! beside what it does, so that nobody has to look.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::Notify;

/// The way to end one exchange.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    asked: AtomicBool,
    driver: Notify,
    /// A connection that an answer has begun on, in a protocol where only its end ends the answer.
    connection: OnceLock<Arc<Notify>>,
}

impl Stop {
    /// Ends the exchange. Once is for all.
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
        // Who comes to wait only later finds it.
        self.driver.notify_one();
        if let Some(connection) = self.connection.get() {
            connection.notify_one();
        }
    }

    /// Whether the exchange has to end.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Waits until the exchange has to end. For one task at a time.
    pub(crate) async fn asked(&self) {
        self.driver.notified().await;
    }

    /// From now on the end of the exchange is that of the connection, which `cut` tells.
    pub(crate) fn cuts(&self, cut: Arc<Notify>) {
        let cut = self.connection.get_or_init(|| cut);
        if self.is_asked() {
            cut.notify_one();
        }
    }
}
