//! A tunnel of a client.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::client::Handle;
use crate::registry::Entry;
use crate::{Error, Stream, TunnelInfo, TunnelStatus};

/// Streams of one tunnel that are being brought or wait to be accepted; more are refused. Twice
/// [`DIALS_MAX`](crate::limits::DIALS_MAX), so that those being brought leave room for as many waiting.
pub const ACCEPT_QUEUE_LEN: usize = 128;

/// A tunnel. It lives, across reconnects, until it is closed or dropped, or the engine refuses it
/// for good.
#[derive(Debug)]
pub struct Tunnel {
    handle: Arc<Handle>,
    entry: Arc<Entry>,
    streams: mpsc::Receiver<Stream>,
}

impl Tunnel {
    pub(crate) fn new(
        handle: Arc<Handle>,
        entry: Arc<Entry>,
        streams: mpsc::Receiver<Stream>,
    ) -> Self {
        Self {
            handle,
            entry,
            streams,
        }
    }

    /// The next stream. May be dropped before it is done and called again; nothing is lost.
    ///
    /// # Errors
    ///
    /// Why the tunnel is over; it waits while the client reconnects.
    pub async fn accept(&mut self) -> Result<Stream, Error> {
        match self.streams.recv().await {
            Some(stream) => Ok(stream),
            None => match &*self.entry.status.borrow() {
                TunnelStatus::Failed(error) => Err(error.clone()),
                _ => Err(Error::Closed),
            },
        }
    }

    /// How the tunnel is doing, now and from now on.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<TunnelStatus> {
        self.entry.status.subscribe()
    }

    /// The tunnel as the engine has it, while it is open.
    #[must_use]
    pub fn info(&self) -> Option<TunnelInfo> {
        match &*self.entry.status.borrow() {
            TunnelStatus::Online(info) => Some(info.clone()),
            _ => None,
        }
    }

    /// The address to tell visitors, while it is open.
    #[must_use]
    pub fn forwarding(&self) -> Option<String> {
        self.info().and_then(|info| info.forwarding())
    }

    /// Waits until the tunnel is open.
    ///
    /// # Errors
    ///
    /// Why it will never be.
    pub async fn online(&self) -> Result<TunnelInfo, Error> {
        let mut status = self.status();
        loop {
            match &*status.borrow_and_update() {
                TunnelStatus::Online(info) => return Ok(info.clone()),
                TunnelStatus::Failed(error) => return Err(error.clone()),
                TunnelStatus::Closed => return Err(Error::Closed),
                TunnelStatus::Waiting | TunnelStatus::Rejected { .. } => {}
            }
            if status.changed().await.is_err() {
                return Err(Error::Closed);
            }
        }
    }

    /// Closes the tunnel and waits for the engine's confirmation, or for the end of the connection.
    /// Streams accepted before go on.
    pub async fn close(self) {
        let mut status = self.status();
        self.handle.registry.remove(&self.entry);
        while !matches!(
            *status.borrow_and_update(),
            TunnelStatus::Closed | TunnelStatus::Failed(_)
        ) {
            if status.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.handle.registry.remove(&self.entry);
    }
}
