//! The agents' side of the engine: control channels, streams agents bring, private dials.
//!
//! [`serve`] takes one connection of the agent protocol from its first frame to its end. A control
//! channel becomes a [`Session`]; the edge opens streams through it. The tunnels of a session leave
//! the routes the moment its channel ends; streams already joined go on until they end themselves.

mod authority;
mod control;
mod dial;
mod ids;
mod join;
mod listing;
mod open;
mod pending;
mod pins;
mod session;
mod settings;
mod tunnels;
mod unanswered;

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use adit_filters::{Chain, ClientCertificate, TunnelInfo};
use adit_protocol::handshake::Opening;
use adit_protocol::message::Message;
use adit_protocol::{ErrorCode, ProtocolError};
use adit_transport::Abort;
use adit_transport::messages::{self, MessageReader};
use arc_swap::ArcSwap;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use crate::properties::Effective;
use crate::route::{Routes, Tunnel};
use crate::usage::Usages;

pub use authority::{Anyone, Authority, Principal, Shown, TokenAuthority};
pub use listing::{ClientRecord, TunnelRecord};
pub use session::{AgentDial, BoxLeg, Leg, Session};
pub use settings::Settings;

/// Longest first frame, in bytes: a token may have 8 KiB, everything else in it is short.
pub const FIRST_FRAME_BYTES_MAX: usize = 16 << 10;

/// How long a last message may take to be written before the connection is dropped.
const LAST_WORD: Duration = Duration::from_secs(5);

/// Gives a tunnel its chain.
type Assemble = dyn Fn(&TunnelInfo, &Effective) -> Result<Arc<Chain>, ProtocolError> + Send + Sync;

/// What is known of a connection when its first frame is read.
#[derive(Clone, Debug)]
pub struct ConnInfo {
    /// The other end, in canonical form.
    pub peer: SocketAddr,
    /// The name the client asked for in its handshake, lower case; chooses the project.
    pub server_name: Option<String>,
    /// The certificate it presented in its handshake, if any.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// What all agent connections share.
pub struct Agents {
    routes: Arc<Routes>,
    settings: ArcSwap<Settings>,
    authority: ArcSwap<Box<dyn Authority>>,
    assemble: ArcSwap<Box<Assemble>>,
    pending: pending::Pending,
    open: open::OpenStreams,
    sessions: Mutex<HashMap<String, Arc<Session>>>,
    drain: watch::Sender<bool>,
    relays: watch::Sender<usize>,
    /// Counts what private streams carry.
    usages: Arc<Usages>,
    /// Says when everybody is judged again.
    judged: watch::Sender<()>,
}

/// Tunnels whose chains were made anew.
#[derive(Default)]
pub(crate) struct Swapped {
    /// Those that have a new chain.
    pub(crate) count: usize,
    /// Those that got none and are closed, with the reason.
    pub(crate) closed: Vec<(Arc<Tunnel>, ProtocolError)>,
}

impl Agents {
    /// An engine without agents yet.
    pub fn new(
        routes: Arc<Routes>,
        usages: Arc<Usages>,
        settings: Settings,
        authority: impl Authority + 'static,
        assemble: impl Fn(&TunnelInfo, &Effective) -> Result<Arc<Chain>, ProtocolError>
        + Send
        + Sync
        + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            routes,
            usages,
            settings: ArcSwap::from_pointee(settings),
            authority: ArcSwap::from_pointee(Box::new(authority) as Box<dyn Authority>),
            assemble: ArcSwap::from_pointee(Box::new(assemble) as Box<Assemble>),
            pending: pending::Pending::default(),
            open: open::OpenStreams::default(),
            sessions: Mutex::default(),
            drain: watch::Sender::new(false),
            relays: watch::Sender::new(0),
            judged: watch::Sender::new(()),
        })
    }

    /// Replaces the settings; sessions keep the limits they began with.
    pub fn set_settings(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
    }

    /// Replaces who is let in; sessions stay.
    pub fn set_authority(&self, authority: impl Authority + 'static) {
        self.authority.store(Arc::new(Box::new(authority)));
    }

    /// Judges everybody who was let in again, by what is known of their credentials now: agents that
    /// may not stay are disconnected, and private streams of those who may not dial any more are cut.
    pub fn judge_again(&self) {
        self.judged.send_replace(());
        for session in self.sessions().values() {
            if !session.principal.may_stay() {
                session.dismiss();
            }
        }
    }

    /// Replaces how chains are made and gives every live tunnel its new one. A tunnel that gets
    /// none is closed, since the old chain may let in what the new rules do not; its agent is told.
    /// Returns those tunnels with the reason.
    pub fn set_assemble(
        &self,
        assemble: impl Fn(&TunnelInfo, &Effective) -> Result<Arc<Chain>, ProtocolError>
        + Send
        + Sync
        + 'static,
    ) -> Vec<(Arc<Tunnel>, ProtocolError)> {
        self.set_assemble_of(assemble, |_| true).closed
    }

    /// The same where chains are made otherwise for tunnels of some projects alone: those of others
    /// keep theirs.
    pub(crate) fn set_assemble_of(
        &self,
        assemble: impl Fn(&TunnelInfo, &Effective) -> Result<Arc<Chain>, ProtocolError>
        + Send
        + Sync
        + 'static,
        concerns: impl Fn(&str) -> bool,
    ) -> Swapped {
        let assemble: Arc<Box<Assemble>> = Arc::new(Box::new(assemble));
        // New tunnels use it from here on; those opened meanwhile are merely given it twice.
        self.assemble.store(Arc::clone(&assemble));
        let mut swapped = Swapped::default();
        for tunnel in self.routes.tunnels() {
            let site = tunnel.site.as_ref();
            let Some(site) = site.filter(|_| concerns(&tunnel.info.project)) else {
                continue;
            };
            match (**assemble)(&tunnel.info, &tunnel.properties) {
                Ok(chain) => {
                    site.set_chain(chain);
                    swapped.count += 1;
                }
                Err(error) => {
                    self.routes.remove([tunnel.info.id.as_str()]);
                    tunnel.session.close_tunnel(&tunnel.info.id);
                    swapped.closed.push((tunnel, error));
                }
            }
        }
        swapped
    }

    /// Lets every agent go, in a way that makes it reconnect at once, and takes no new ones.
    /// Streams already joined go on; [`relays_ended`](Self::relays_ended) waits for private ones.
    pub fn drain(&self) {
        self.drain.send_replace(true);
    }

    /// Waits until no private stream is left.
    pub async fn relays_ended(&self) {
        let mut relays = self.relays.subscribe();
        // The sender lives in `self`.
        let _ = relays.wait_for(|count| *count == 0).await;
    }

    /// The agents connected, as the Engine API lists them.
    #[must_use]
    pub fn clients(&self) -> Vec<ClientRecord> {
        let sessions = self.sessions();
        sessions.values().map(|session| session.record()).collect()
    }

    /// The live tunnels, as the Engine API lists them.
    #[must_use]
    pub fn tunnels(&self) -> Vec<TunnelRecord> {
        let settings = self.settings.load();
        let tunnels = self.routes.tunnels();
        tunnels
            .iter()
            .map(|tunnel| TunnelRecord::of(tunnel, settings.public_port))
            .collect()
    }

    /// How many agents are connected.
    #[must_use]
    pub fn agent_count(&self) -> usize {
        self.sessions().len()
    }

    /// How many streams agents have brought are open, for visitors and dialers together.
    #[must_use]
    pub fn stream_count(&self) -> usize {
        self.open.now()
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_draining(&self) -> bool {
        *self.drain.borrow()
    }

    /// Who asks, if they may.
    fn verify(
        &self,
        info: &ConnInfo,
        token: Option<&adit_protocol::Secret>,
    ) -> Result<(Arc<dyn Principal>, String), ProtocolError> {
        let project = self.settings.load().project_of(info.server_name.as_deref());
        let shown = Shown {
            token,
            certificate: info.certificate.as_deref(),
        };
        let principal = self
            .authority
            .load()
            .verify(shown, &project, SystemTime::now())?;
        Ok((principal, project))
    }
}

impl fmt::Debug for Agents {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Agents")
            .field("agents", &self.agent_count())
            .field("tunnels", &self.routes.len())
            .finish_non_exhaustive()
    }
}

/// Serves one connection to its end. `io` is past its TLS handshake; dropping it without a shutdown
/// must reset it (`adit_transport::Guarded`), so that a broken stream does not look like a whole one.
pub async fn serve<I>(agents: Arc<Agents>, io: I, info: ConnInfo)
where
    I: AsyncRead + AsyncWrite + Abort + Unpin + Send + 'static,
{
    let wait = agents.settings.load().first_frame;
    let mut reader = MessageReader::with_limit(io, FIRST_FRAME_BYTES_MAX);
    let first = match reader.expect(wait).await {
        Ok(first) => first,
        // A connection that lost the race between two transports says nothing before it goes.
        Err(messages::ReadError::Closed) => return close(reader.into_inner()).await,
        Err(error) => {
            tracing::debug!(peer = %info.peer, %error, "an agent connection opened with no request");
            return;
        }
    };
    match Opening::read(first) {
        Ok(Opening::Control(request)) => control::serve(agents, reader, info, request).await,
        Ok(Opening::Proxy(claim)) => join::serve(&agents, reader.into_inner(), &claim).await,
        Ok(Opening::Dial(request)) => dial::serve(agents, reader.into_inner(), info, request).await,
        Ok(_) | Err(_) => {
            tracing::debug!(peer = %info.peer, "an agent connection opened with an unknown request");
        }
    }
}

/// Says a last word, if there is one, and ends the connection.
async fn refuse<I>(mut io: I, answer: Option<Message>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if let Some(answer) = answer {
        let written = tokio::time::timeout(LAST_WORD, messages::write(&mut io, &answer)).await;
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
    close(io).await;
}

/// Ends a connection in good order; a peer that does not take it is dropped.
async fn close(mut io: impl AsyncWrite + Unpin) {
    let _ = tokio::time::timeout(LAST_WORD, io.shutdown()).await;
}

fn internal() -> ProtocolError {
    ProtocolError::new(ErrorCode::INTERNAL, "the engine failed, try again")
}

fn draining() -> ProtocolError {
    ProtocolError::new(
        ErrorCode::SERVICE_UNAVAILABLE,
        "the engine is shutting down, try again",
    )
}

#[cfg(test)]
mod tests;
