//! The agent's end of a control channel.
//!
//! ```text
//!             OpenControlChannelRsp ok            close()             CloseControlChannelRsp
//!   Opening ──────────────────────────► Open ───────────────► Closing ──────────────► Closed
//!      └────── error ──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Send everything [`AgentChannel::poll_message`] gives (the opening request is the first), feed
//! each message to [`AgentChannel::handle`], and call [`AgentChannel::on_time`] at
//! [`AgentChannel::deadline`]. After an error the channel is of no use: drop the connection.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;
use std::time::Instant;

use crate::liveness::{self, AgentPulse, Agreed, Interval, LivenessError};
use crate::message::message::Payload;
use crate::message::{
    ClientDetails, CloseControlChannelReq, CloseTunnelReq, DatagramChannelClose, Message,
    OpenControlChannelReq, OpenControlChannelRsp, OpenTunnelReq, OpenTunnelRsp, ProxyConnReq,
    ProxyConnRsp, ServerDetails, TunnelProperties, open_control_channel_rsp, open_tunnel_rsp,
};
use crate::{ErrorCode, ProtocolError, Secret};

/// Most stream requests an agent holds unanswered: 64 being dialled and 256 waiting. A request
/// above it is answered with an error.
pub const STREAM_REQUESTS_MAX: usize = 320;

/// See the [module](self).
#[derive(Debug)]
pub struct AgentChannel {
    state: State,
    requests: HashSet<String>,
    tunnels: HashSet<String>,
    streams: HashSet<String>,
    out: VecDeque<Message>,
}

#[derive(Debug)]
enum State {
    Opening { interval: Option<Interval> },
    Open { pulse: AgentPulse },
    Closing { pulse: AgentPulse },
    Closed,
}

/// A stream the engine wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRequest {
    /// One of the tunnels of this channel.
    pub tunnel_id: String,
    /// Name of the stream; repeat it when bringing it and when answering.
    pub stream_id: String,
    /// Proof to show when bringing it.
    pub secret: Option<Secret>,
    /// Address of the visitor.
    pub source_ip: Option<IpAddr>,
    /// Another engine to bring it to, `host:port`; a secret is then there.
    pub proxy_endpoint: Option<String>,
}

/// What the engine says.
#[derive(Debug, PartialEq)]
#[non_exhaustive]
pub enum AgentEvent {
    /// The channel is open.
    Opened {
        /// The engine's name for it.
        client_id: String,
        /// Who answered.
        server_details: ServerDetails,
        /// What was agreed about heartbeats.
        liveness: Option<Agreed>,
    },
    /// The channel is refused and closed.
    Refused(ProtocolError),
    /// A tunnel is open; streams for it may be asked for from now on.
    TunnelOpened {
        /// Of the request.
        request_id: String,
        /// As it is.
        properties: Box<TunnelProperties>,
    },
    /// A tunnel was not opened; the channel goes on.
    TunnelFailed {
        /// Of the request.
        request_id: String,
        /// Why.
        error: OpenTunnelError,
    },
    /// A tunnel is gone, asked for or not.
    TunnelClosed {
        /// Which.
        tunnel_id: String,
    },
    /// A stream is wanted. Bring it, then call [`AgentChannel::answer_stream`], once.
    StreamRequested(StreamRequest),
    /// A datagram channel is over.
    DatagramChannelClosed {
        /// The stream it came from.
        stream_id: String,
    },
    /// A line for the log.
    ServerMessage(String),
    /// The channel ended in an orderly way.
    Closed,
}

impl AgentChannel {
    /// Opens a channel as the client `details`, credential and protocol version included, with
    /// heartbeats every `interval`, or none at all.
    #[must_use]
    pub fn open(details: ClientDetails, interval: Option<Interval>) -> Self {
        let request = OpenControlChannelReq {
            client_details: Some(details),
            liveness: interval.map(Interval::to_request),
        };
        Self {
            state: State::Opening { interval },
            requests: HashSet::new(),
            tunnels: HashSet::new(),
            streams: HashSet::new(),
            out: VecDeque::from([request.into()]),
        }
    }

    /// Takes one message of the engine.
    ///
    /// # Errors
    ///
    /// What ends the channel; see [`AgentChannelError`].
    pub fn handle(
        &mut self,
        now: Instant,
        message: Message,
    ) -> Result<Option<AgentEvent>, AgentChannelError> {
        match &mut self.state {
            State::Opening { interval } => {
                let interval = *interval;
                match message.payload {
                    Some(Payload::OpenControlChannelRsp(answer)) => {
                        self.read_opening(now, interval, answer).map(Some)
                    }
                    _ => Err(AgentChannelError::Unexpected),
                }
            }
            State::Open { pulse } | State::Closing { pulse } => {
                pulse.on_frame(now);
                if let Some(Payload::Heartbeat(heartbeat)) = &message.payload {
                    pulse.on_heartbeat(heartbeat)?;
                    return Ok(None);
                }
                self.read_open(message)
            }
            State::Closed => Err(AgentChannelError::Unexpected),
        }
    }

    fn read_opening(
        &mut self,
        now: Instant,
        interval: Option<Interval>,
        answer: OpenControlChannelRsp,
    ) -> Result<AgentEvent, AgentChannelError> {
        match answer.result {
            Some(open_control_channel_rsp::Result::Ok(ok)) => {
                if ok.client_id.is_empty() {
                    return Err(AgentChannelError::NoClientId);
                }
                let liveness = liveness::check_response(interval, ok.liveness.as_ref())?;
                self.state = State::Open {
                    pulse: AgentPulse::new(interval, liveness, now),
                };
                Ok(AgentEvent::Opened {
                    client_id: ok.client_id,
                    server_details: ok.server_details.unwrap_or_default(),
                    liveness,
                })
            }
            Some(open_control_channel_rsp::Result::Error(error)) => {
                self.state = State::Closed;
                Ok(AgentEvent::Refused(error.into()))
            }
            None => Err(AgentChannelError::Unexpected),
        }
    }

    fn read_open(&mut self, message: Message) -> Result<Option<AgentEvent>, AgentChannelError> {
        // A message of a later revision has no payload here.
        let Some(payload) = message.payload else {
            return Ok(None);
        };
        Ok(match payload {
            Payload::OpenTunnelRsp(answer) => self.read_tunnel(answer),
            Payload::CloseTunnelRsp(answer) => {
                self.tunnels
                    .remove(&answer.tunnel_id)
                    .then_some(AgentEvent::TunnelClosed {
                        tunnel_id: answer.tunnel_id,
                    })
            }
            Payload::ProxyConnReq(request) => self.read_stream_request(request)?,
            Payload::DatagramChannelClose(close) => Some(AgentEvent::DatagramChannelClosed {
                stream_id: close.stream_id,
            }),
            Payload::ServerMessage(line) => Some(AgentEvent::ServerMessage(line.message)),
            Payload::CloseControlChannelRsp(_) => {
                self.state = State::Closed;
                Some(AgentEvent::Closed)
            }
            Payload::OpenControlChannelRsp(_) => return Err(AgentChannelError::Unexpected),
            _ => None,
        })
    }

    fn read_tunnel(&mut self, answer: OpenTunnelRsp) -> Option<AgentEvent> {
        let request_id = answer.request_id;
        if !self.requests.remove(&request_id) {
            return None;
        }
        let error = match answer.result {
            Some(open_tunnel_rsp::Result::TunnelProperties(properties)) => {
                let id = properties.id.as_deref().unwrap_or_default();
                if !id.trim().is_empty() && self.tunnels.insert(id.to_owned()) {
                    return Some(AgentEvent::TunnelOpened {
                        request_id,
                        properties,
                    });
                }
                OpenTunnelError::InvalidAnswer
            }
            Some(open_tunnel_rsp::Result::Error(error)) => OpenTunnelError::Refused(error.into()),
            None => OpenTunnelError::InvalidAnswer,
        };
        Some(AgentEvent::TunnelFailed { request_id, error })
    }

    fn read_stream_request(
        &mut self,
        request: ProxyConnReq,
    ) -> Result<Option<AgentEvent>, AgentChannelError> {
        let stream_id = request.stream_id;
        if stream_id.trim().is_empty() {
            return Err(AgentChannelError::NoStreamId);
        }
        if self.streams.contains(&stream_id) {
            return Ok(None);
        }
        let secret = request.secret.map(Secret::new);
        let redirect_is_invalid = request.proxy_endpoint.as_ref().is_some_and(|endpoint| {
            endpoint.trim().is_empty() || secret.as_ref().is_none_or(Secret::is_blank)
        });
        let refusal = if matches!(self.state, State::Closing { .. }) {
            Some((ErrorCode::SERVICE_UNAVAILABLE, "the agent is closing"))
        } else if !self.tunnels.contains(&request.tunnel_id) {
            Some((
                ErrorCode::TUNNEL_NOT_FOUND,
                "the agent has no tunnel of this id",
            ))
        } else if redirect_is_invalid {
            Some((
                ErrorCode::INVALID_REQUEST,
                "a redirect needs an endpoint and a secret",
            ))
        } else if self.streams.len() >= STREAM_REQUESTS_MAX {
            Some((
                ErrorCode::CAPACITY_EXHAUSTED,
                "too many streams are being opened",
            ))
        } else {
            None
        };
        if let Some((code, text)) = refusal {
            self.put_answer(stream_id, Err(ProtocolError::new(code, text)));
            return Ok(None);
        }
        self.streams.insert(stream_id.clone());
        Ok(Some(AgentEvent::StreamRequested(StreamRequest {
            tunnel_id: request.tunnel_id,
            stream_id,
            secret,
            source_ip: request.source_ip.as_ref().and_then(|ip| ip.to_ip()),
            proxy_endpoint: request.proxy_endpoint,
        })))
    }

    /// Asks for a tunnel under a request id not used before. `false` unless the channel is open.
    pub fn open_tunnel(
        &mut self,
        request_id: impl Into<String>,
        properties: TunnelProperties,
    ) -> bool {
        let request_id = request_id.into();
        if !self.is_open() || !self.requests.insert(request_id.clone()) {
            return false;
        }
        self.out.push_back(Message::new(OpenTunnelReq {
            request_id,
            tunnel_properties: Some(Box::new(properties)),
        }));
        true
    }

    /// Stops waiting for the answer to a tunnel request. The engine may open the tunnel all the
    /// same; it lives until the channel ends.
    pub fn forget_tunnel_request(&mut self, request_id: &str) -> bool {
        self.requests.remove(request_id)
    }

    /// Asks for the removal of a tunnel, again if the first time brought no answer. `false` if the
    /// channel is not open or the tunnel is not there.
    pub fn close_tunnel(&mut self, tunnel_id: &str) -> bool {
        let known = self.is_open() && self.tunnels.contains(tunnel_id);
        if known {
            self.out.push_back(Message::new(CloseTunnelReq {
                tunnel_id: tunnel_id.to_owned(),
            }));
        }
        known
    }

    /// Answers a stream request. `false`, and nothing sent, if it has been answered.
    pub fn answer_stream(&mut self, stream_id: &str, outcome: Result<(), ProtocolError>) -> bool {
        let alive = matches!(self.state, State::Open { .. } | State::Closing { .. });
        if !alive || !self.streams.remove(stream_id) {
            return false;
        }
        self.put_answer(stream_id.to_owned(), outcome);
        true
    }

    fn put_answer(&mut self, stream_id: String, outcome: Result<(), ProtocolError>) {
        self.out.push_back(Message::new(ProxyConnRsp {
            stream_id,
            error: outcome.err().map(Into::into),
        }));
    }

    /// Ends a datagram channel.
    pub fn close_datagram_channel(&mut self, stream_id: String) -> bool {
        let open = self.is_open();
        if open {
            self.out.push_back(Message::new(DatagramChannelClose {
                stream_id,
                error: None,
            }));
        }
        open
    }

    /// Asks for the end of the channel; [`AgentEvent::Closed`] confirms it.
    pub fn close(&mut self) -> bool {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Open { pulse } => {
                self.state = State::Closing { pulse };
                self.out.push_back(Message::new(CloseControlChannelReq {}));
                true
            }
            other => {
                self.state = other;
                false
            }
        }
    }

    /// The next message to send.
    pub fn poll_message(&mut self) -> Option<Message> {
        self.out.pop_front()
    }

    /// Whether tunnels can be asked for.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// When [`on_time`](Self::on_time) is to be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Open { pulse } | State::Closing { pulse } => pulse.deadline(),
            State::Opening { .. } | State::Closed => None,
        }
    }

    /// Sends a heartbeat if one is due.
    ///
    /// # Errors
    ///
    /// [`LivenessError::Expired`] if the engine has been silent for too long.
    pub fn on_time(&mut self, now: Instant) -> Result<(), AgentChannelError> {
        if let State::Open { pulse } | State::Closing { pulse } = &mut self.state {
            let heartbeat = pulse.on_time(now)?;
            self.out.extend(heartbeat.map(Message::new));
        }
        Ok(())
    }
}

/// Why a tunnel did not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenTunnelError {
    /// The engine's answer holds no usable tunnel.
    #[error("the engine answered without a tunnel id or with one in use")]
    InvalidAnswer,
    /// The engine said no.
    #[error(transparent)]
    Refused(ProtocolError),
}

/// Why the agent ends a control channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AgentChannelError {
    /// Signs of life were missing or wrong.
    #[error(transparent)]
    Liveness(#[from] LivenessError),
    /// The channel was opened without a name.
    #[error("the engine opened the control channel without a client id")]
    NoClientId,
    /// A stream was asked for without a name.
    #[error("the engine asked for a stream without an id")]
    NoStreamId,
    /// The message does not belong here.
    #[error("the engine sent a message that does not belong here")]
    Unexpected,
}
