//! A control channel, from its request to its end.
//!
//! One task reads, writes and keeps time. It never waits for anything but its own connection:
//! writing does not hold up reading, and what an agent does not read is limited in size and time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use adit_protocol::engine::{EngineChannel, EngineChannelError, EngineEvent};
use adit_protocol::handshake::{ControlRequest, refuse_control};
use adit_protocol::message::ServerDetails;
use adit_protocol::{ErrorCode, ProtocolError, Version};
use adit_transport::Abort;
use adit_transport::messages::{MessageReader, ReadError};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::session::{Command, Identity, Session};
use super::unanswered::Unanswered;
use super::{Agents, ConnInfo, close, draining, ids, internal, refuse, tunnels};
use crate::edge::DialError;

/// Most bytes an agent may leave unread before it counts as gone.
const UNREAD_BYTES_MAX: usize = 1 << 20;

/// Longest time an agent may leave bytes unread, or its machine leave them unacknowledged, before it
/// counts as gone.
const UNREAD_WAIT: Duration = Duration::from_secs(60);

/// Runs a control channel.
pub(super) async fn serve<I>(
    agents: Arc<Agents>,
    reader: MessageReader<I>,
    info: ConnInfo,
    mut request: ControlRequest,
) where
    I: AsyncRead + AsyncWrite + Abort + Unpin + Send + 'static,
{
    let io = reader.into_inner();
    io.give_up_after(UNREAD_WAIT);
    let mut drain = agents.drain.subscribe();
    let admitted = match admit(&agents, &info, &mut request) {
        Ok(admitted) => admitted,
        Err(error) => {
            tracing::debug!(peer = %info.peer, %error, "an agent was refused");
            return refuse(io, Some(refuse_control(error))).await;
        }
    };
    let session = &admitted.session;
    let engine = EngineChannel::open(
        &request,
        admitted.version,
        session.client_id.clone(),
        server_details(),
        &agents.settings.load().liveness,
        Instant::now().into_std(),
    );
    tracing::info!(client = %session.client_id, peer = %info.peer, "agent connected");
    let (source, sink) = tokio::io::split(io);
    let mut control = Control {
        // Dropped first: the names are free before the connection is closed.
        ending: Ending {
            agents: Arc::clone(&agents),
            session: Arc::clone(session),
            tunnels: BTreeSet::new(),
            inbox: admitted.inbox,
        },
        engine,
        version: admitted.version,
        reader: MessageReader::new(source),
        sink,
        unread: BytesMut::new(),
        unflushed: false,
        unread_since: None,
        unanswered: Unanswered::new(agents.settings.load().stream_request),
    };
    let end = control.run(&mut drain).await;
    let Control {
        ending,
        sink,
        reader,
        ..
    } = control;
    drop(ending);
    tracing::info!(client = %admitted.session.client_id, %end, "agent disconnected");
    match end {
        End::Closed | End::Dismissed | End::Drain | End::Gone => {
            close(reader.into_inner().unsplit(sink)).await;
        }
        End::Silent | End::Misbehaved | End::NotReading | End::Lost => {}
    }
}

struct Admitted {
    session: Arc<Session>,
    inbox: mpsc::Receiver<Command>,
    version: Version,
}

fn admit(
    agents: &Arc<Agents>,
    info: &ConnInfo,
    request: &mut ControlRequest,
) -> Result<Admitted, ProtocolError> {
    let version = Version::accept(request.details.protocol_version.as_deref())?;
    if agents.is_draining() {
        return Err(draining());
    }
    let (principal, project) = agents.verify(info, request.token.as_ref())?;
    let client_id = ids::id().map_err(|_| internal())?;
    let identity = Identity {
        client_id: client_id.clone(),
        project,
        principal,
        details: std::mem::take(&mut request.details),
        version,
        peer: info.peer,
    };
    let (session, inbox) = Session::new(agents, identity);
    let max = agents.settings.load().agents_max;
    let mut sessions = agents.sessions();
    if sessions.len() >= max {
        return Err(ProtocolError::new(
            ErrorCode::CAPACITY_EXHAUSTED,
            format!("{max} agents are connected, which is the limit"),
        ));
    }
    sessions.insert(client_id, Arc::clone(&session));
    drop(sessions);
    // Its credential may have been taken back before it was among those who are judged again.
    if !session.principal.may_stay() {
        session.dismiss();
    }
    Ok(Admitted {
        session,
        inbox,
        version,
    })
}

fn server_details() -> ServerDetails {
    ServerDetails {
        agent: Some("adit".to_owned()),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        ..ServerDetails::default()
    }
}

/// What is undone when a channel ends, however it ends.
struct Ending {
    agents: Arc<Agents>,
    session: Arc<Session>,
    tunnels: BTreeSet<String>,
    inbox: mpsc::Receiver<Command>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        // From here on openers are told at once; those that asked before are in the table.
        self.session.end();
        self.inbox.close();
        self.agents
            .routes
            .remove(self.tunnels.iter().map(String::as_str));
        // In this order: a stream is put back only for a session that is listed.
        self.agents.sessions().remove(&self.session.client_id);
        self.agents.pending.fail_session(&self.session.client_id);
    }
}

/// Why a channel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The agent asked for it.
    Closed,
    /// The agent's credential does not let it stay.
    Dismissed,
    /// The engine is shutting down.
    Drain,
    /// The agent closed its connection.
    Gone,
    /// The connection broke.
    Lost,
    /// The agent sent what it must not.
    Misbehaved,
    /// The agent reads nothing of what it is sent.
    NotReading,
    /// Nothing came for too long.
    Silent,
}

impl std::fmt::Display for End {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Closed => "closed by the agent",
            Self::Dismissed => "its credential does not count any longer",
            Self::Drain => "the engine is shutting down",
            Self::Gone => "the agent ended its connection",
            Self::Lost => "the connection broke",
            Self::Misbehaved => "the agent broke the protocol",
            Self::NotReading => "the agent reads nothing",
            Self::Silent => "the agent fell silent",
        })
    }
}

struct Control<I> {
    ending: Ending,
    engine: EngineChannel,
    version: Version,
    reader: MessageReader<ReadHalf<I>>,
    sink: WriteHalf<I>,
    unread: BytesMut,
    unflushed: bool,
    /// Since when the agent has read nothing of what there is for it.
    unread_since: Option<Instant>,
    unanswered: Unanswered,
}

/// What woke the task.
enum Wake {
    Message(Result<Option<adit_protocol::message::Message>, ReadError>),
    Written(std::io::Result<()>),
    Command(Option<Command>),
    Time,
    Dismissed,
    Drain,
}

impl<I: AsyncRead + AsyncWrite + Unpin + Send> Control<I> {
    async fn run(&mut self, drain: &mut watch::Receiver<bool>) -> End {
        loop {
            if let Err(end) = self.collect() {
                return end;
            }
            if self.engine.is_closed() && self.unread.is_empty() && !self.unflushed {
                return End::Closed;
            }
            let mut wake = self.wait(drain).await;
            // After a pause of this process, what came meanwhile is there with the late timer.
            if matches!(wake, Wake::Time)
                && self.engine.on_time(Instant::now().into_std()).is_err()
                && let Ok(message) = tokio::time::timeout(Duration::ZERO, self.reader.next()).await
            {
                wake = Wake::Message(message);
            }
            let end = match wake {
                Wake::Message(Ok(Some(message))) => self.take(message),
                Wake::Message(Ok(None)) => Err(End::Gone),
                Wake::Message(Err(ReadError::Frame(_) | ReadError::Malformed(_))) => {
                    Err(End::Misbehaved)
                }
                Wake::Message(Err(_)) | Wake::Written(Err(_)) => Err(End::Lost),
                Wake::Written(Ok(())) => {
                    // An agent is idle most of its life; its buffer need not be there then.
                    self.unread = BytesMut::new();
                    self.unread_since = None;
                    Ok(())
                }
                Wake::Command(command) => {
                    self.obey(command);
                    Ok(())
                }
                Wake::Time => self.look_at_the_time(),
                Wake::Dismissed => Err(End::Dismissed),
                Wake::Drain => Err(End::Drain),
            };
            if let Err(end) = end {
                return end;
            }
        }
    }

    async fn wait(&mut self, drain: &mut watch::Receiver<bool>) -> Wake {
        let deadline = self.deadline();
        let writes = !self.unread.is_empty() || self.unflushed;
        let reads = !self.engine.is_closed();
        tokio::select! {
            written = push(
                &mut self.sink,
                &mut self.unread,
                &mut self.unflushed,
                &mut self.unread_since,
            ), if writes => Wake::Written(written),
            message = self.reader.next(), if reads => Wake::Message(message),
            command = self.ending.inbox.recv(), if reads => Wake::Command(command),
            () = sleep_until(deadline) => Wake::Time,
            () = self.ending.session.dismissed() => Wake::Dismissed,
            _ = drain.wait_for(|draining| *draining) => Wake::Drain,
        }
    }

    /// Moves what the channel has to say into the write buffer.
    fn collect(&mut self) -> Result<(), End> {
        while let Some(message) = self.engine.poll_message() {
            // An answer that fits in no frame can only be a set of properties that came in one;
            // the agent would wait for it forever.
            if message.put_frame(&mut self.unread).is_err() {
                return Err(End::Misbehaved);
            }
            self.unread_since.get_or_insert_with(Instant::now);
        }
        if self.unread.len() > UNREAD_BYTES_MAX {
            return Err(End::NotReading);
        }
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        let liveness = self.engine.deadline().map(Instant::from_std);
        let unread = self.unread_since.map(|since| since + UNREAD_WAIT);
        let unanswered = self.unanswered.deadline();
        [liveness, unread, unanswered].into_iter().flatten().min()
    }

    fn look_at_the_time(&mut self) -> Result<(), End> {
        let now = Instant::now();
        self.unanswered.forget(now);
        if self
            .unread_since
            .is_some_and(|since| now >= since + UNREAD_WAIT)
        {
            return Err(End::NotReading);
        }
        self.engine.on_time(now.into_std()).map_err(|_| End::Silent)
    }

    fn take(&mut self, message: adit_protocol::message::Message) -> Result<(), End> {
        let now = Instant::now().into_std();
        let event = match self.engine.handle(now, message) {
            Ok(event) => event,
            Err(EngineChannelError::Silent) => return Err(End::Silent),
            Err(_) => return Err(End::Misbehaved),
        };
        match event {
            Some(EngineEvent::OpenTunnel {
                request_id,
                properties,
            }) => self.open_tunnel(&request_id, &properties),
            Some(EngineEvent::CloseTunnel { tunnel_id }) => {
                self.ending.agents.routes.remove([tunnel_id.as_str()]);
                self.ending.tunnels.remove(&tunnel_id);
                self.engine.close_tunnel(&tunnel_id);
            }
            Some(EngineEvent::StreamAnswered { stream_id, outcome }) => {
                self.unanswered.answered(&stream_id);
                if let Err(error) = outcome {
                    let ending = &self.ending;
                    ending.agents.pending.fail(
                        &stream_id,
                        &ending.session.client_id,
                        DialError::Refused(error.message),
                    );
                }
            }
            Some(EngineEvent::Close) => {
                let tunnels = std::mem::take(&mut self.ending.tunnels);
                let ids = tunnels.iter().map(String::as_str);
                self.ending.agents.routes.remove(ids);
                // No stream will come any more, however long the agent takes to read the answer.
                self.ending.session.end();
                self.ending.inbox.close();
                let client = &self.ending.session.client_id;
                self.ending.agents.pending.fail_session(client);
                self.engine.finish();
            }
            Some(_) | None => {}
        }
        Ok(())
    }

    fn open_tunnel(
        &mut self,
        request_id: &str,
        properties: &adit_protocol::message::TunnelProperties,
    ) {
        let Ending {
            agents,
            session,
            tunnels: own,
            ..
        } = &mut self.ending;
        match tunnels::open(agents, session, own, self.version, properties) {
            Ok((tunnel, answer)) => {
                let id = tunnel.info.id.clone();
                tracing::info!(client = %session.client_id, tunnel = %id, hostname = ?tunnel.info.hostname, "tunnel opened");
                own.insert(id);
                self.engine.tunnel_opened(request_id, answer);
            }
            Err(error) => {
                tracing::debug!(client = %session.client_id, %error, "a tunnel was refused");
                self.engine.tunnel_refused(request_id, error);
            }
        }
    }

    fn obey(&mut self, command: Option<Command>) {
        match command {
            Some(Command::RequestStream { request, permit }) => {
                let stream_id = request.stream_id.clone();
                if self.engine.request_stream(*request) {
                    self.unanswered.asked(stream_id, permit);
                } else {
                    let ending = &self.ending;
                    let client = &ending.session.client_id;
                    let pending = &ending.agents.pending;
                    pending.fail(&stream_id, client, DialError::Offline);
                }
            }
            Some(Command::CloseTunnel { tunnel_id }) => {
                self.ending.tunnels.remove(&tunnel_id);
                self.engine.close_tunnel(&tunnel_id);
            }
            // The session holds a sender, and this task holds the session.
            None => {}
        }
    }
}

/// Writes until everything is out. Dropped in between, it goes on where it was.
async fn push<W: AsyncWrite + Unpin>(
    sink: &mut W,
    unread: &mut BytesMut,
    unflushed: &mut bool,
    unread_since: &mut Option<Instant>,
) -> std::io::Result<()> {
    while unread.has_remaining() {
        if sink.write_buf(unread).await? == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        *unflushed = true;
        // An agent that reads slowly is there all the same.
        *unread_since = Some(Instant::now());
    }
    if *unflushed {
        sink.flush().await?;
        *unflushed = false;
    }
    Ok(())
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
