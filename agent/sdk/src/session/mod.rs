//! One control channel, from its opening to its end.

mod streams;
#[cfg(test)]
mod tests;
mod tunnels;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use adit_protocol::ProtocolError;
use adit_protocol::agent::{AgentChannel, AgentEvent, StreamRequest};
use adit_protocol::liveness::Interval;
use adit_protocol::message::{Message, ServerDetails};
use adit_transport::messages::{self, MessageReader};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::client::CLOSE_WAIT;
use crate::registry::Registry;
use crate::{Dialer, Error, Retry, Status, TunnelStatus};

/// How long the engine may take to answer the opening of a control channel.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Messages that wait for an engine which does not read; one more ends the channel. Every stream
/// request may be answered at once, and then some.
pub const UNSENT_MESSAGES_MAX: usize = 512;

/// How a session ended.
pub(crate) enum End {
    /// As its owner wished.
    Closed,
    /// Otherwise.
    Lost(Error),
}

/// Any connection a control channel runs over.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

pub use streams::DIALS_MAX;
pub use tunnels::OPEN_TUNNEL_TIMEOUT;

type Incoming = MessageReader<ReadHalf<Box<dyn Io>>>;

pub(crate) struct Session {
    channel: AgentChannel,
    reader: Incoming,
    outgoing: mpsc::Sender<Message>,
    writer: JoinHandle<Error>,
    dialer: Dialer,
    registry: Arc<Registry>,
    retry: Retry,
    /// What each tunnel wanted has come to on this channel.
    tunnels: HashMap<u64, tunnels::State>,
    requests: u64,
    dials: JoinSet<(String, Result<(), ProtocolError>)>,
    waiting: VecDeque<StreamRequest>,
    /// When to stop waiting for the engine's confirmation of the end.
    closing: Option<Instant>,
}

impl Session {
    /// Opens a control channel over `stream`.
    pub(crate) async fn open(
        stream: impl Io,
        dialer: Dialer,
        registry: Arc<Registry>,
        heartbeat: Interval,
        retry: Retry,
    ) -> Result<Self, Error> {
        let stream: Box<dyn Io> = Box::new(stream);
        let (read, mut write) = tokio::io::split(stream);
        let mut reader = MessageReader::new(read);
        let mut channel = AgentChannel::open(dialer.details(), Some(heartbeat));
        while let Some(message) = channel.poll_message() {
            messages::write(&mut write, &message).await?;
        }
        let answer = reader.expect(OPEN_TIMEOUT).await?;
        let (client_id, server, timeout) = match channel.handle(now(), answer)? {
            Some(AgentEvent::Opened {
                client_id,
                server_details,
                liveness,
            }) => (
                client_id,
                server_details,
                liveness.map(|agreed| agreed.timeout),
            ),
            Some(AgentEvent::Refused(error)) => return Err(Error::Engine(error)),
            _ => return Err(Error::Ended),
        };
        let (outgoing, queue) = mpsc::channel(UNSENT_MESSAGES_MAX);
        let session = Self {
            channel,
            reader,
            outgoing,
            writer: tokio::spawn(write_all(write, queue)),
            dialer,
            registry,
            retry,
            tunnels: HashMap::new(),
            requests: 0,
            dials: JoinSet::new(),
            waiting: VecDeque::new(),
            closing: None,
        };
        session.announce(client_id, server, timeout);
        Ok(session)
    }

    fn announce(&self, client_id: String, server: ServerDetails, timeout: Option<Duration>) {
        self.registry.status.send_replace(Status::Online {
            client_id,
            server,
            timeout,
        });
    }

    /// Serves the channel until it ends.
    pub(crate) async fn run(mut self) -> End {
        match self.serve().await {
            Ok(()) => {
                // Lets the writer finish what it has and end the connection in an orderly way.
                let Self {
                    outgoing,
                    mut writer,
                    closing,
                    ..
                } = self;
                drop(outgoing);
                let until = closing.unwrap_or_else(|| Instant::now() + CLOSE_WAIT);
                if tokio::time::timeout_at(until, &mut writer).await.is_err() {
                    writer.abort();
                }
                End::Closed
            }
            Err(error) => {
                self.writer.abort();
                End::Lost(error)
            }
        }
    }

    async fn serve(&mut self) -> Result<(), Error> {
        let registry = Arc::clone(&self.registry);
        loop {
            if let Err(silent) = self.channel.on_time(now()) {
                // After a pause of this process, what came meanwhile is there with the late timer.
                let read = tokio::time::timeout(Duration::ZERO, self.reader.next()).await;
                let message = read.map_err(|_| silent)??.ok_or(Error::Ended)?;
                if let Some(event) = self.channel.handle(now(), message)?
                    && self.on_event(event)?
                {
                    return Ok(());
                }
                continue;
            }
            self.reconcile();
            while let Some(message) = self.channel.poll_message() {
                self.outgoing.try_send(message).map_err(|_| Error::Stuck)?;
            }
            if self.closing.is_some_and(|until| Instant::now() >= until) {
                return Ok(());
            }
            let wake = self.wake();
            tokio::select! {
                message = self.reader.next() => {
                    let message = message?.ok_or(Error::Ended)?;
                    if let Some(event) = self.channel.handle(now(), message)?
                        && self.on_event(event)?
                    {
                        return Ok(());
                    }
                }
                Some(done) = self.dials.join_next() => {
                    if let Ok((stream_id, outcome)) = done {
                        self.channel.answer_stream(&stream_id, outcome);
                    }
                    self.start_dials();
                }
                failure = &mut self.writer => {
                    return Err(failure.unwrap_or(Error::Ended));
                }
                () = registry.changed() => {}
                () = sleep_until(wake) => {}
            }
        }
    }

    /// Reacts to the engine; true at the orderly end of the channel.
    fn on_event(&mut self, event: AgentEvent) -> Result<bool, Error> {
        match event {
            AgentEvent::TunnelOpened {
                request_id,
                properties,
            } => self.on_opened(&request_id, *properties),
            AgentEvent::TunnelFailed { request_id, error } => self.on_failed(&request_id, error),
            AgentEvent::TunnelClosed { tunnel_id } => {
                if let Some(key) = self.key_of(&tunnel_id) {
                    self.tunnels.remove(&key);
                    if let Some(entry) = self.registry.get(key) {
                        self.registry.end(&entry, TunnelStatus::Closed);
                    }
                }
            }
            AgentEvent::StreamRequested(request) => {
                self.waiting.push_back(request);
                self.start_dials();
            }
            AgentEvent::ServerMessage(line) => tracing::info!(%line, "the engine says"),
            AgentEvent::Closed if self.closing.is_some() => return Ok(true),
            AgentEvent::Closed => return Err(Error::Ended),
            AgentEvent::Refused(error) => return Err(Error::Engine(error)),
            _ => {}
        }
        Ok(false)
    }

    /// When to look at the clock again.
    fn wake(&self) -> Option<Instant> {
        let tunnels = self.tunnels.values().filter_map(tunnels::State::wake);
        let channel = self.channel.deadline().map(Instant::from_std);
        tunnels.chain(channel).chain(self.closing).min()
    }
}

/// Writes messages until there are no more, then ends the connection; returns why it could not.
async fn write_all(
    mut stream: WriteHalf<Box<dyn Io>>,
    mut queue: mpsc::Receiver<Message>,
) -> Error {
    while let Some(message) = queue.recv().await {
        if let Err(error) = messages::write(&mut stream, &message).await {
            return error.into();
        }
    }
    match stream.shutdown().await {
        Ok(()) => Error::Closed,
        Err(error) => error.into(),
    }
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// The protocol's clock is the standard library's.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}
