//! A client of an engine.

use std::sync::Arc;
use std::time::Duration;

use adit_protocol::liveness::Interval;
use tokio::sync::{mpsc, watch};

use crate::registry::Registry;
use crate::supervisor::Supervisor;
use crate::tunnel::ACCEPT_QUEUE_LEN;
use crate::{ClientBuilder, Dialer, Error, Retry, Status, Stream, Tunnel, TunnelOptions};

/// How long closing waits for the engine's confirmation.
pub const CLOSE_WAIT: Duration = Duration::from_secs(5);

/// A client of an engine: one control channel, replaced when it is lost, and the tunnels on it.
///
/// Clones share the channel. It is closed when the last clone and the last tunnel are gone.
#[derive(Clone, Debug)]
pub struct Client {
    handle: Arc<Handle>,
    dialer: Dialer,
}

/// Keeps the tasks of a client alive.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) registry: Arc<Registry>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.registry.close();
    }
}

impl Client {
    /// Starts with the settings.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(crate) fn start(dialer: Dialer, heartbeat: Interval, retry: Retry) -> Self {
        let registry = Arc::new(Registry::new());
        let supervisor = Supervisor::new(dialer.clone(), Arc::clone(&registry), heartbeat, retry);
        tokio::spawn(supervisor.run());
        Self {
            handle: Arc::new(Handle { registry }),
            dialer,
        }
    }

    /// How the client is doing, now and from now on.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.handle.registry.status.subscribe()
    }

    /// What dials tunnels of the same engine with the same credential.
    #[must_use]
    pub const fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    pub(crate) async fn first_connection(&self) -> Result<(), Error> {
        let mut status = self.status();
        loop {
            match &*status.borrow_and_update() {
                Status::Online { .. } => return Ok(()),
                Status::Disconnected { reason, .. } | Status::Failed(reason) => {
                    return Err(reason.clone());
                }
                Status::Closed => return Err(Error::Closed),
                Status::Connecting => {}
            }
            if status.changed().await.is_err() {
                return Err(Error::Closed);
            }
        }
    }

    /// Creates a tunnel and waits until it is open. A refusal that may pass is waited out.
    ///
    /// # Errors
    ///
    /// Why the engine refuses for good, or why the client is over.
    pub async fn create_tunnel(&self, options: TunnelOptions) -> Result<Tunnel, Error> {
        let tunnel = self.tunnel(options);
        tunnel.online().await?;
        Ok(tunnel)
    }

    /// Creates a tunnel without waiting; its [`status`](Tunnel::status) tells the rest.
    #[must_use]
    pub fn tunnel(&self, options: TunnelOptions) -> Tunnel {
        let (queue, streams) = mpsc::channel(ACCEPT_QUEUE_LEN);
        let entry = self.handle.registry.add(options, queue);
        Tunnel::new(Arc::clone(&self.handle), entry, streams)
    }

    /// Dials a tunnel by id or name.
    ///
    /// # Errors
    ///
    /// See [`Dialer::dial`].
    pub async fn dial(&self, tunnel: &str) -> Result<Stream, Error> {
        self.dialer.dial(tunnel).await
    }

    /// Closes the control channel with its tunnels and waits for the engine's confirmation, at most
    /// [`CLOSE_WAIT`]. Streams accepted before go on.
    pub async fn close(&self) {
        let mut status = self.status();
        self.handle.registry.close();
        while !status.borrow_and_update().is_final() {
            if status.changed().await.is_err() {
                return;
            }
        }
    }
}
