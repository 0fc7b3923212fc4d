//! Many connections, each to an upstream of its own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use adit_agent::TunnelOptions;
use adit_transport::{Abort, Guarded, dial};
use anyhow::Context;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::command::CommandLine;
use super::endpoint::{Dialer, Endpoint, On};
use crate::connection::ConnectionArgs;
use crate::forward::DRAIN_TIMEOUT;
use crate::lines::tell;
use crate::process::Stop;

/// Pause after accepting failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections are served from.
pub(super) enum Upstream {
    Command(CommandLine),
    Endpoint(Dialer, Endpoint),
}

pub(super) struct Server {
    upstream: Upstream,
    max: usize,
    free: Arc<Semaphore>,
}

impl Server {
    pub(super) fn new(upstream: Upstream, max: usize) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        Self {
            upstream,
            max,
            free: Arc::new(Semaphore::new(max)),
        }
    }

    /// Listens until told to stop.
    pub(super) async fn run(
        self: Arc<Self>,
        on: On,
        connection: &ConnectionArgs,
    ) -> anyhow::Result<()> {
        let mut stop = Stop::new()?;
        match on {
            On::Tcp(host, port) => {
                let listener = TcpListener::bind((host.as_str(), port))
                    .await
                    .with_context(|| format!("cannot listen on port {port} of {host}"))?;
                tell(&format!("listening on {}", listener.local_addr()?));
                let accept = async {
                    loop {
                        match listener.accept().await {
                            Ok((stream, _)) => self.take(stream),
                            Err(error) => pause_after(&error).await,
                        }
                    }
                };
                tokio::select! {
                    () = accept => {}
                    () = stop.wanted() => {}
                }
            }
            On::Tunnel(name) => {
                let name = name.unwrap_or_else(made_up);
                self.serve_tunnel(name, connection, &mut stop).await?;
            }
        }
        self.drain(&mut stop).await;
        Ok(())
    }

    async fn serve_tunnel(
        self: &Arc<Self>,
        name: String,
        connection: &ConnectionArgs,
        stop: &mut Stop,
    ) -> anyhow::Result<()> {
        let client = connection.resolve()?.client().start()?;
        let mut tunnel = client.tunnel(TunnelOptions::private(&name));
        let serve = async {
            tunnel.online().await?;
            tell(&format!("listening on rstrm://{name}"));
            loop {
                let stream = tunnel.accept().await?;
                self.serve(stream);
            }
        };
        tokio::select! {
            outcome = serve => outcome,
            () = stop.wanted() => {
                client.close().await;
                Ok(())
            }
        }
    }

    /// Serves a connection to the port, unless it is gone already.
    fn take(self: &Arc<Self>, stream: TcpStream) {
        match dial::tune(&stream) {
            Ok(()) => self.serve(Guarded::new(stream)),
            Err(error) => tracing::debug!(%error, "a connection was gone before it was served"),
        }
    }

    /// Serves one connection in a task of its own, or closes it when there are too many.
    fn serve<S>(self: &Arc<Self>, mut stream: S)
    where
        S: AsyncRead + AsyncWrite + Abort + Send + Unpin + 'static,
    {
        let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() else {
            tell(&format!("connection closed: {} are open already", self.max));
            return;
        };
        let server = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = server.pass_on(&mut stream).await {
                tell(&crate::failure::text(&error));
            }
            drop(permit);
        });
    }

    async fn pass_on(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Abort + Unpin),
    ) -> anyhow::Result<()> {
        let relayed = match &self.upstream {
            Upstream::Command(command) => {
                adit_transport::relay(stream, &mut command.start()?).await
            }
            Upstream::Endpoint(dialer, to) => {
                adit_transport::relay(stream, &mut dialer.dial(to).await?).await
            }
        };
        if let Err(error) = relayed {
            tracing::debug!(%error, "a connection was reset");
        }
        Ok(())
    }

    /// Waits for the connections under way, until told again to stop.
    async fn drain(&self, stop: &mut Stop) {
        let all = u32::try_from(self.max).unwrap_or(u32::MAX);
        tokio::select! {
            _ = tokio::time::timeout(DRAIN_TIMEOUT, self.free.acquire_many(all)) => {}
            () = stop.wanted() => {}
        }
    }
}

/// Says why a connection could not be accepted, and waits: without free descriptors the next one
/// cannot either.
async fn pause_after(error: &io::Error) {
    tell(&format!("cannot accept a connection: {error}"));
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// A name for a tunnel nobody named.
fn made_up() -> String {
    let mut random = [0; 4];
    if getrandom::fill(&mut random).is_err() {
        random = std::process::id().to_be_bytes();
    }
    format!("nc-{:08x}", u32::from_be_bytes(random))
}
