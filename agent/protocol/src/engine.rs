//! The engine's end of a control channel, from the answer that opened it.
//!
//! ```text
//!            CloseControlChannelReq      finish()
//!   Open ───────────────────────────► Closing ─────────► Closed
//!     └── handle() or on_time() fails: drop the connection, agents reconnect
//! ```
//!
//! Feed each message to [`EngineChannel::handle`], act on the event, then send everything
//! [`EngineChannel::poll_message`] gives. Call [`EngineChannel::on_time`] at
//! [`EngineChannel::deadline`]. The strictest clients end a channel when something arrives that
//! their state does not expect, so each command here is a no-op that returns `false` when sending
//! would be such a surprise.

use std::collections::{HashSet, VecDeque};
use std::time::Instant;

use crate::handshake::ControlRequest;
use crate::liveness::{EnginePolicy, EngineWatch};
use crate::message::message::Payload;
use crate::message::{
    CloseControlChannelRsp, CloseTunnelRsp, DatagramChannelClose, Message, OpenControlChannelRsp,
    OpenTunnelRsp, ProxyConnReq, ServerDetails, ServerMessage, TunnelProperties,
    open_control_channel_rsp, open_tunnel_rsp,
};
use crate::{ErrorCode, ProtocolError, Version};

/// Most tunnel requests of one agent that may be unanswered at a time.
pub const OPEN_REQUESTS_MAX: usize = 64;

/// First revision that knows DatagramChannelClose.
const DATAGRAM_CHANNELS_SINCE: Version = Version {
    major: 1,
    minor: 4,
    patch: 2,
};

/// See the [module](self).
#[derive(Debug)]
pub struct EngineChannel {
    state: State,
    version: Version,
    watch: EngineWatch,
    requests: HashSet<String>,
    tunnels: HashSet<String>,
    out: VecDeque<Message>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Closing,
    Closed,
}

/// What an agent wants.
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub enum EngineEvent {
    /// A tunnel. Answer with [`EngineChannel::tunnel_opened`] or [`EngineChannel::tunnel_refused`].
    OpenTunnel {
        /// For the answer.
        request_id: String,
        /// As asked for.
        properties: Box<TunnelProperties>,
    },
    /// A tunnel removed. Answer with [`EngineChannel::close_tunnel`].
    CloseTunnel {
        /// One of the tunnels of this channel.
        tunnel_id: String,
    },
    /// The outcome of a stream request, as the agent sees it.
    StreamAnswered {
        /// Which request; not necessarily one still waited for.
        stream_id: String,
        /// Whether the agent brought it.
        outcome: Result<(), ProtocolError>,
    },
    /// A datagram channel is over.
    DatagramChannelClosed {
        /// The stream it came from.
        stream_id: String,
    },
    /// The end. Remove the tunnels, then call [`EngineChannel::finish`].
    Close,
}

impl EngineChannel {
    /// Opens the channel: the answer to `request` is the first message out.
    #[must_use]
    pub fn open(
        request: &ControlRequest,
        version: Version,
        client_id: String,
        server_details: ServerDetails,
        policy: &EnginePolicy,
        now: Instant,
    ) -> Self {
        let agreed = policy.answer(request.liveness.as_ref());
        let ok = open_control_channel_rsp::Ok {
            client_id,
            server_details: Some(server_details),
            liveness: agreed.map(crate::liveness::Agreed::to_response),
        };
        let answer = OpenControlChannelRsp {
            result: Some(open_control_channel_rsp::Result::Ok(ok)),
        };
        Self {
            state: State::Open,
            version,
            watch: EngineWatch::new(agreed, policy, now),
            requests: HashSet::new(),
            tunnels: HashSet::new(),
            out: VecDeque::from([answer.into()]),
        }
    }

    /// Takes one message of the agent.
    ///
    /// # Errors
    ///
    /// [`EngineChannelError::Unexpected`] for a message agents do not send here.
    pub fn handle(
        &mut self,
        now: Instant,
        message: Message,
    ) -> Result<Option<EngineEvent>, EngineChannelError> {
        if self.state != State::Open {
            // The agent may still have been talking when it asked for the end.
            return Ok(None);
        }
        self.watch.on_frame(now);
        let Some(payload) = message.payload else {
            return Ok(None);
        };
        Ok(match payload {
            Payload::Heartbeat(heartbeat) => {
                let answer = self.watch.on_heartbeat(now, &heartbeat);
                self.out.extend(answer.map(Message::new));
                None
            }
            Payload::OpenTunnelReq(request) => {
                let properties = request.tunnel_properties.unwrap_or_default();
                self.open_tunnel(request.request_id, properties)
            }
            Payload::CloseTunnelReq(request) => self.ask_to_close(request.tunnel_id),
            Payload::ProxyConnRsp(answer) => Some(EngineEvent::StreamAnswered {
                stream_id: answer.stream_id,
                outcome: answer.error.map_or(Ok(()), |error| Err(error.into())),
            }),
            Payload::DatagramChannelClose(close) => Some(EngineEvent::DatagramChannelClosed {
                stream_id: close.stream_id,
            }),
            Payload::CloseControlChannelReq(_) => {
                self.state = State::Closing;
                Some(EngineEvent::Close)
            }
            _ => return Err(EngineChannelError::Unexpected),
        })
    }

    fn open_tunnel(
        &mut self,
        request_id: String,
        properties: Box<TunnelProperties>,
    ) -> Option<EngineEvent> {
        if self.requests.contains(&request_id) {
            return None;
        }
        if self.requests.len() >= OPEN_REQUESTS_MAX {
            let text = format!("more than {OPEN_REQUESTS_MAX} tunnel requests are unanswered");
            self.answer_tunnel(
                request_id,
                Err(ProtocolError::new(ErrorCode::CAPACITY_EXHAUSTED, text)),
            );
            return None;
        }
        self.requests.insert(request_id.clone());
        Some(EngineEvent::OpenTunnel {
            request_id,
            properties,
        })
    }

    /// A tunnel this channel does not know is gone already, which is all that was asked for.
    fn ask_to_close(&mut self, tunnel_id: String) -> Option<EngineEvent> {
        if self.tunnels.contains(&tunnel_id) {
            return Some(EngineEvent::CloseTunnel { tunnel_id });
        }
        self.out
            .push_back(Message::new(CloseTunnelRsp { tunnel_id }));
        None
    }

    /// Announces the tunnel that `request_id` asked for, with its whole set of properties.
    pub fn tunnel_opened(&mut self, request_id: &str, properties: TunnelProperties) -> bool {
        if self.state != State::Open || !self.requests.remove(request_id) {
            return false;
        }
        self.tunnels
            .insert(properties.id.clone().unwrap_or_default());
        self.answer_tunnel(request_id.to_owned(), Ok(properties));
        true
    }

    /// Refuses the tunnel that `request_id` asked for.
    pub fn tunnel_refused(&mut self, request_id: &str, error: ProtocolError) -> bool {
        if self.state != State::Open || !self.requests.remove(request_id) {
            return false;
        }
        self.answer_tunnel(request_id.to_owned(), Err(error));
        true
    }

    fn answer_tunnel(
        &mut self,
        request_id: String,
        result: Result<TunnelProperties, ProtocolError>,
    ) {
        let result = match result {
            Ok(properties) => open_tunnel_rsp::Result::TunnelProperties(Box::new(properties)),
            Err(error) => open_tunnel_rsp::Result::Error(error.into()),
        };
        self.out.push_back(Message::new(OpenTunnelRsp {
            request_id,
            result: Some(result),
        }));
    }

    /// Says that a tunnel of this channel is gone, asked for or not.
    pub fn close_tunnel(&mut self, tunnel_id: &str) -> bool {
        if self.state != State::Open || !self.tunnels.remove(tunnel_id) {
            return false;
        }
        self.out.push_back(Message::new(CloseTunnelRsp {
            tunnel_id: tunnel_id.to_owned(),
        }));
        true
    }

    /// Asks for a stream of one of the announced tunnels.
    pub fn request_stream(&mut self, request: ProxyConnReq) -> bool {
        if self.state != State::Open || !self.tunnels.contains(&request.tunnel_id) {
            return false;
        }
        self.out.push_back(Message::new(request));
        true
    }

    /// Sends a line for the agent's log.
    pub fn server_message(&mut self, message: String) -> bool {
        let open = self.state == State::Open;
        if open {
            self.out.push_back(Message::new(ServerMessage { message }));
        }
        open
    }

    /// Ends a datagram channel, if the agent's revision knows the message.
    pub fn close_datagram_channel(&mut self, stream_id: String) -> bool {
        let may = self.state == State::Open && self.version >= DATAGRAM_CHANNELS_SINCE;
        if may {
            self.out.push_back(Message::new(DatagramChannelClose {
                stream_id,
                error: None,
            }));
        }
        may
    }

    /// Confirms [`EngineEvent::Close`]; nothing is sent afterwards.
    pub fn finish(&mut self) -> bool {
        let closing = self.state == State::Closing;
        if closing {
            self.out.push_back(Message::new(CloseControlChannelRsp {}));
            self.state = State::Closed;
        }
        closing
    }

    /// The next message to send.
    pub fn poll_message(&mut self) -> Option<Message> {
        self.out.pop_front()
    }

    /// Whether the channel ended in an orderly way: send what is left, then close.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// When the agent counts as gone if nothing comes.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.watch.deadline()
    }

    /// Looks at the time.
    ///
    /// # Errors
    ///
    /// [`EngineChannelError::Silent`] if the deadline has passed.
    pub fn on_time(&self, now: Instant) -> Result<(), EngineChannelError> {
        if self.watch.is_expired(now) {
            return Err(EngineChannelError::Silent);
        }
        Ok(())
    }
}

/// Why the engine ends a control channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineChannelError {
    /// Nothing came for the agreed time.
    #[error("the agent has been silent for the agreed time")]
    Silent,
    /// The message is the engine's to send, or opens what is open.
    #[error("the agent sent a message that does not belong on an open control channel")]
    Unexpected,
}
