//! One agent, as long as its control channel lives.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use adit_protocol::Version;
use adit_protocol::message::{ClientDetails, IpAddress, ProxyConnReq};
use adit_transport::Abort;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use super::listing::ClientRecord;
use super::{Agents, Principal, ids};
use crate::edge::{BoxStream, Dial, DialError, Dialing, Stream};

/// Commands a control channel holds beyond the stream requests, which are limited by themselves:
/// tunnels closed by the engine.
const COMMANDS_SPARE: usize = 64;

/// A stream an agent brought. Dropping it without shutting it down resets it.
pub trait Leg: Stream + Abort {}

impl<T: Stream + Abort> Leg for T {}

/// A [`Leg`] of whatever carrier.
pub type BoxLeg = Box<dyn Leg>;

/// An agent whose control channel is open, or was when this was looked up.
pub struct Session {
    /// The engine's name for it.
    pub client_id: String,
    /// The project it entered.
    pub project: String,
    pub(super) principal: Arc<dyn Principal>,
    details: ClientDetails,
    version: Version,
    peer: SocketAddr,
    agents: Weak<Agents>,
    commands: mpsc::Sender<Command>,
    dismissed: Notify,
    turns: Arc<Semaphore>,
    queued: AtomicUsize,
    queued_max: usize,
    stream_request: Duration,
}

/// What a control channel is told to do.
pub(super) enum Command {
    /// Ask the agent for a stream. The permit is kept until the agent has answered.
    RequestStream {
        request: Box<ProxyConnReq>,
        permit: OwnedSemaphorePermit,
    },
    /// Tell the agent that a tunnel is gone.
    CloseTunnel { tunnel_id: String },
}

/// Who a session is for.
pub(super) struct Identity {
    pub(super) client_id: String,
    pub(super) project: String,
    pub(super) principal: Arc<dyn Principal>,
    pub(super) details: ClientDetails,
    pub(super) version: Version,
    pub(super) peer: SocketAddr,
}

impl Session {
    pub(super) fn new(
        agents: &Arc<Agents>,
        identity: Identity,
    ) -> (Arc<Self>, mpsc::Receiver<Command>) {
        let settings = agents.settings.load();
        let (commands, inbox) = mpsc::channel(settings.pending_opens + COMMANDS_SPARE);
        let session = Self {
            client_id: identity.client_id,
            project: identity.project,
            principal: identity.principal,
            details: identity.details,
            version: identity.version,
            peer: identity.peer,
            agents: Arc::downgrade(agents),
            commands,
            dismissed: Notify::new(),
            turns: Arc::new(Semaphore::new(settings.pending_opens)),
            queued: AtomicUsize::new(0),
            queued_max: settings.queued_opens,
            stream_request: settings.stream_request,
        };
        (Arc::new(session), inbox)
    }

    /// Opens a stream to the service behind a tunnel of this agent. `source` is the visitor's
    /// address, if the stream serves one visitor only.
    ///
    /// # Errors
    ///
    /// [`DialError`]: the agent is gone or the tunnel closed, too many wait already, the agent
    /// refused, or the time for all of it is over.
    pub async fn open(&self, tunnel_id: &str, source: Option<IpAddr>) -> Result<BoxLeg, DialError> {
        let opening = self.ask(tunnel_id, source);
        match tokio::time::timeout(self.stream_request, opening).await {
            Ok(outcome) => outcome,
            Err(_) => Err(DialError::Timeout(self.stream_request)),
        }
    }

    async fn ask(&self, tunnel_id: &str, source: Option<IpAddr>) -> Result<BoxLeg, DialError> {
        let agents = self.agents.upgrade().ok_or(DialError::Offline)?;
        let permit = self.turn().await?;
        let refused = |error: ids::NoRandomness| DialError::Refused(error.to_string());
        let stream_id = ids::id().map_err(refused)?;
        let secret = ids::secret().map_err(refused)?;
        let request = ProxyConnReq {
            tunnel_id: tunnel_id.to_owned(),
            stream_id: stream_id.clone(),
            secret: Some(secret.expose().to_owned()),
            source_ip: source.map(IpAddress::from),
            proxy_endpoint: None,
        };
        let session = self.client_id.clone();
        let (entry, stream) = agents.pending.add(stream_id, secret, session);
        let command = Command::RequestStream {
            request: Box::new(request),
            permit,
        };
        if self.commands.send(command).await.is_err() {
            return Err(DialError::Offline);
        }
        let outcome = stream.await.unwrap_or(Err(DialError::Offline));
        drop(entry);
        outcome
    }

    /// Waits until the agent may be asked for one more stream.
    async fn turn(&self) -> Result<OwnedSemaphorePermit, DialError> {
        let turns = Arc::clone(&self.turns);
        match Arc::clone(&turns).try_acquire_owned() {
            Ok(permit) => return Ok(permit),
            Err(tokio::sync::TryAcquireError::Closed) => return Err(DialError::Offline),
            Err(tokio::sync::TryAcquireError::NoPermits) => {}
        }
        let _place = Place::take(&self.queued, self.queued_max).ok_or(DialError::Capacity)?;
        turns.acquire_owned().await.map_err(|_| DialError::Offline)
    }

    /// Tells the agent that one of its tunnels is gone. Best effort: an agent that does not read
    /// learns of it when a stream for it is not asked for any more.
    pub(crate) fn close_tunnel(&self, tunnel_id: &str) {
        let _ = self.commands.try_send(Command::CloseTunnel {
            tunnel_id: tunnel_id.to_owned(),
        });
    }

    /// Ends the channel: its agent may not be here any longer.
    pub(super) fn dismiss(&self) {
        self.dismissed.notify_one();
    }

    /// Waits until the agent is dismissed.
    pub(super) async fn dismissed(&self) {
        self.dismissed.notified().await;
    }

    /// The channel has ended: nobody waits for a turn any longer.
    pub(super) fn end(&self) {
        self.turns.close();
    }

    /// Where the agent connected from.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The agent as the Engine API lists it.
    #[must_use]
    pub fn record(&self) -> ClientRecord {
        ClientRecord {
            id: self.client_id.clone(),
            status: "online",
            user_id: self.principal.user_id().map(str::to_owned),
            project_id: Some(self.project.clone()),
            agent: self.details.agent.clone(),
            channel: self.details.channel.clone(),
            version: self.details.version.clone(),
            os: self.details.os.clone(),
            arch: self.details.arch.clone(),
            protocol_version: Some(self.version.to_string()),
        }
    }

    #[cfg(test)]
    pub(crate) fn for_tests() -> Arc<Self> {
        Arc::new(Self {
            client_id: "c".to_owned(),
            project: "p".to_owned(),
            principal: Arc::new(super::Anyone),
            details: ClientDetails::default(),
            version: Version::CURRENT,
            peer: ([127, 0, 0, 1], 1).into(),
            agents: Weak::new(),
            commands: mpsc::channel(1).0,
            dismissed: Notify::new(),
            turns: Arc::new(Semaphore::new(0)),
            queued: AtomicUsize::new(0),
            queued_max: 0,
            stream_request: Duration::ZERO,
        })
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Session")
            .field("client", &self.client_id)
            .field("project", &self.project)
            .finish_non_exhaustive()
    }
}

/// A place in the queue, given back on drop.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(queued: &'a AtomicUsize, max: usize) -> Option<Self> {
        let taken = queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            (count < max).then_some(count + 1)
        });
        taken.ok().map(|_| Self(queued))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The way from the edge to the service behind one tunnel.
#[derive(Clone, Debug)]
pub struct AgentDial {
    /// The agent.
    pub session: Arc<Session>,
    /// Its tunnel.
    pub tunnel_id: String,
}

impl Dial for AgentDial {
    fn dial(&self, source: Option<IpAddr>) -> Dialing<'_> {
        Box::pin(async move {
            let leg = self.session.open(&self.tunnel_id, source).await?;
            Ok(leg as BoxStream)
        })
    }
}
