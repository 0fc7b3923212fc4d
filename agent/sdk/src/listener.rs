//! Tunnels as listeners of [`axum::serve`].

use std::io;
use std::net::IpAddr;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};

use crate::{Stream, Tunnel};

/// The other end of a stream, for `ConnectInfo<Peer>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where the visitor comes from, if the engine said so.
    pub source: Option<IpAddr>,
    /// The engine's name for the stream.
    pub stream_id: String,
}

impl Listener for Tunnel {
    type Io = Stream;
    type Addr = Peer;

    /// The next stream. Once the tunnel is over none will come: end the server by
    /// `with_graceful_shutdown` when the [`status`](Tunnel::status) says so.
    async fn accept(&mut self) -> (Stream, Peer) {
        match Self::accept(self).await {
            Ok(stream) => {
                let peer = Peer {
                    source: stream.source(),
                    stream_id: stream.id().to_owned(),
                };
                (stream, peer)
            }
            Err(error) => {
                tracing::warn!(%error, "the tunnel is over");
                std::future::pending().await
            }
        }
    }

    /// A tunnel is not bound to an address of this machine.
    fn local_addr(&self) -> io::Result<Peer> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Connected<IncomingStream<'_, Tunnel>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Tunnel>) -> Self {
        stream.remote_addr().clone()
    }
}
