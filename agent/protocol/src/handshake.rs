//! The first frames of a connection, for the side that connects and the side that answers.
//!
//! ```text
//!          control            proxy leg            private dial
//! client   OpenControl…Req    ProxyReq             StreamReq
//! engine   OpenControl…Rsp    ProxyRsp *           StreamRsp *
//! then     messages           payload              payload
//!                             * not if the request said zero_rtt
//! ```

use bytes::{Bytes, BytesMut};

use crate::frame::{Decoder, FrameError};
use crate::message::message::Payload;
use crate::message::{
    ClientDetails, ControlChannelLiveness, MalformedMessage, Message, OpenControlChannelRsp,
    ProxyReq, ProxyRsp, StreamReq, StreamRsp, open_control_channel_rsp, stream_rsp,
};
use crate::{ProtocolError, Secret};

/// What the first frame of a connection made it, on the engine.
#[derive(Debug)]
#[non_exhaustive]
pub enum Opening {
    /// An agent's control channel.
    Control(ControlRequest),
    /// The agent's leg of a stream the engine asked for.
    Proxy(ProxyClaim),
    /// A private dial.
    Dial(DialRequest),
}

impl Opening {
    /// Reads the role of a connection off its first message.
    ///
    /// # Errors
    ///
    /// [`HandshakeError::Unexpected`] for a message that opens nothing.
    pub fn read(message: Message) -> Result<Self, HandshakeError> {
        match message.payload {
            Some(Payload::OpenControlChannelReq(request)) => {
                let (details, token) = take_token(request.client_details);
                Ok(Self::Control(ControlRequest {
                    details,
                    token,
                    liveness: request.liveness,
                }))
            }
            Some(Payload::ProxyReq(request)) => Ok(Self::Proxy(ProxyClaim {
                secret: take_token(request.client_details).1,
                stream_id: request.stream_id,
                zero_rtt: request.zero_rtt.unwrap_or(false),
            })),
            Some(Payload::StreamReq(request)) => {
                let (details, token) = take_token(request.client_details);
                Ok(Self::Dial(DialRequest {
                    details,
                    token,
                    target: request.tunnel_id_name,
                    zero_rtt: request.zero_rtt.unwrap_or(false),
                    datagram_channel: request.datagram_channel.unwrap_or(false),
                }))
            }
            _ => Err(HandshakeError::Unexpected),
        }
    }
}

/// An agent asks for a control channel.
#[derive(Debug)]
pub struct ControlRequest {
    /// What the agent says of itself, without the token.
    pub details: ClientDetails,
    /// Its credential, unless it uses a certificate or none.
    pub token: Option<Secret>,
    /// Its wish for negotiated heartbeats.
    pub liveness: Option<ControlChannelLiveness>,
}

/// The answer that refuses a control channel; the connection is closed after it.
#[must_use]
pub fn refuse_control(error: ProtocolError) -> Message {
    Message::new(OpenControlChannelRsp {
        result: Some(open_control_channel_rsp::Result::Error(error.into())),
    })
}

/// An agent brings a stream.
#[derive(Debug)]
pub struct ProxyClaim {
    /// Which stream.
    pub stream_id: String,
    /// The proof that it was asked for it.
    pub secret: Option<Secret>,
    /// Whether the agent expects no answer.
    pub zero_rtt: bool,
}

impl ProxyClaim {
    /// The answer before the payload, if one is expected.
    #[must_use]
    pub fn accepted(&self) -> Option<Message> {
        (!self.zero_rtt).then(|| Message::new(ProxyRsp { error: None }))
    }

    /// The answer before closing, if one is expected.
    #[must_use]
    pub fn refused(&self, error: ProtocolError) -> Option<Message> {
        (!self.zero_rtt).then(|| {
            Message::new(ProxyRsp {
                error: Some(error.into()),
            })
        })
    }
}

/// A client dials a tunnel.
#[derive(Debug)]
pub struct DialRequest {
    /// What the client says of itself, without the token.
    pub details: ClientDetails,
    /// Its credential, unless it uses a certificate or none.
    pub token: Option<Secret>,
    /// Id or name of the tunnel.
    pub target: String,
    /// Whether the client expects no answer.
    pub zero_rtt: bool,
    /// Whether the client wants packets as QUIC datagrams.
    pub datagram_channel: bool,
}

impl DialRequest {
    /// Whether the client reads an answer before payload: a datagram channel always has one.
    #[must_use]
    pub fn expects_answer(&self) -> bool {
        !self.zero_rtt || self.datagram_channel
    }

    /// The answer before the payload, if one is expected.
    #[must_use]
    pub fn opened(&self, stream_id: impl Into<String>) -> Option<Message> {
        self.expects_answer().then(|| {
            Message::new(StreamRsp {
                result: Some(stream_rsp::Result::StreamId(stream_id.into())),
            })
        })
    }

    /// The answer before closing, if one is expected.
    #[must_use]
    pub fn refused(&self, error: ProtocolError) -> Option<Message> {
        self.expects_answer().then(|| {
            Message::new(StreamRsp {
                result: Some(stream_rsp::Result::Error(error.into())),
            })
        })
    }
}

/// The connecting side of a stream, agent or dialer.
///
/// Send [`request`](Self::request), then read into [`buffer`](Self::buffer) and call
/// [`advance`](Self::advance) until it returns; with `zero_rtt` it does at the first call.
#[derive(Debug)]
pub struct ClientHandshake {
    request: Message,
    awaits: Awaits,
    decoder: Decoder,
}

#[derive(Clone, Copy, Debug)]
enum Awaits {
    Nothing,
    ProxyRsp,
    StreamRsp,
}

impl ClientHandshake {
    /// Brings the stream `stream_id` an engine asked for, proving it with that request's secret.
    #[must_use]
    pub fn proxy(
        stream_id: impl Into<String>,
        secret: Option<&Secret>,
        details: ClientDetails,
        zero_rtt: bool,
    ) -> Self {
        let request = Message::new(ProxyReq {
            client_details: Some(ClientDetails {
                token: secret.map(|secret| secret.expose().to_owned()),
                ..details
            }),
            stream_id: stream_id.into(),
            zero_rtt: Some(zero_rtt),
        });
        let awaits = if zero_rtt {
            Awaits::Nothing
        } else {
            Awaits::ProxyRsp
        };
        Self::new(request, awaits)
    }

    /// Dials the tunnel `target`, an id or a name; `details` holds the credential.
    #[must_use]
    pub fn dial(target: impl Into<String>, details: ClientDetails, zero_rtt: bool) -> Self {
        let request = Message::new(StreamReq {
            client_details: Some(details),
            tunnel_id_name: target.into(),
            zero_rtt: Some(zero_rtt),
            datagram_channel: None,
        });
        let awaits = if zero_rtt {
            Awaits::Nothing
        } else {
            Awaits::StreamRsp
        };
        Self::new(request, awaits)
    }

    /// Dials a datagram tunnel for packets in QUIC datagrams; always answered.
    #[must_use]
    pub fn dial_datagrams(target: impl Into<String>, details: ClientDetails) -> Self {
        let request = Message::new(StreamReq {
            client_details: Some(details),
            tunnel_id_name: target.into(),
            zero_rtt: Some(false),
            datagram_channel: Some(true),
        });
        Self::new(request, Awaits::StreamRsp)
    }

    fn new(request: Message, awaits: Awaits) -> Self {
        Self {
            request,
            awaits,
            decoder: Decoder::new(),
        }
    }

    /// The request as a frame, the first bytes of the connection.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`] if the caller's strings do not fit into a frame.
    pub fn request(&self) -> Result<Bytes, FrameError> {
        self.request.to_frame()
    }

    /// Where received bytes go.
    pub fn buffer(&mut self) -> &mut BytesMut {
        self.decoder.buffer()
    }

    /// Looks at what has arrived; `None` until the answer is complete.
    ///
    /// # Errors
    ///
    /// The engine's refusal, or an answer that is none.
    pub fn advance(&mut self) -> Result<Option<Established>, HandshakeError> {
        let stream_id = match self.awaits {
            Awaits::Nothing => None,
            Awaits::ProxyRsp | Awaits::StreamRsp => {
                let Some(body) = self.decoder.next_frame()? else {
                    return Ok(None);
                };
                self.read_answer(Message::from_frame(&body)?)?
            }
        };
        let decoder = std::mem::take(&mut self.decoder);
        Ok(Some(Established {
            stream_id,
            early: decoder.into_rest(),
        }))
    }

    fn read_answer(&self, answer: Message) -> Result<Option<String>, HandshakeError> {
        match (self.awaits, answer.payload) {
            (Awaits::ProxyRsp, Some(Payload::ProxyRsp(ProxyRsp { error: None }))) => Ok(None),
            (Awaits::ProxyRsp, Some(Payload::ProxyRsp(ProxyRsp { error: Some(error) }))) => {
                Err(HandshakeError::Refused(error.into()))
            }
            (Awaits::StreamRsp, Some(Payload::StreamRsp(StreamRsp { result }))) => match result {
                Some(stream_rsp::Result::StreamId(stream_id)) => Ok(Some(stream_id)),
                Some(stream_rsp::Result::Error(error)) => {
                    Err(HandshakeError::Refused(error.into()))
                }
                None => Err(HandshakeError::EmptyAnswer),
            },
            _ => Err(HandshakeError::Unexpected),
        }
    }
}

/// A stream past its handshake.
#[derive(Debug, PartialEq, Eq)]
pub struct Established {
    /// The engine's name for a dialled stream; none with `zero_rtt` and on proxy legs.
    pub stream_id: Option<String>,
    /// Payload that came along with the answer: the first bytes to hand on.
    pub early: Bytes,
}

/// A handshake that did not lead to a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The answer holds neither a stream nor an error.
    #[error("the engine answered a dial with neither a stream nor an error")]
    EmptyAnswer,
    /// A frame of the peer broke the framing.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame of the peer is no message.
    #[error(transparent)]
    Malformed(#[from] MalformedMessage),
    /// The engine said no.
    #[error(transparent)]
    Refused(ProtocolError),
    /// The message does not belong here.
    #[error("the peer sent a message that does not belong into this handshake")]
    Unexpected,
}

/// Takes the credential out of the details, which go on to listings and logs.
fn take_token(details: Option<ClientDetails>) -> (ClientDetails, Option<Secret>) {
    let mut details = details.unwrap_or_default();
    let token = details.token.take().map(Secret::new);
    (details, token)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::panic,
        reason = "tests"
    )]
    use super::*;
    use crate::ErrorCode;
    use crate::message::Heartbeat;

    fn first_message(handshake: &ClientHandshake) -> Message {
        let mut decoder = Decoder::new();
        decoder
            .buffer()
            .extend_from_slice(&handshake.request().unwrap());
        Message::from_frame(&decoder.next_frame().unwrap().unwrap()).unwrap()
    }

    fn details() -> ClientDetails {
        ClientDetails {
            token: Some("tok".to_owned()),
            ..ClientDetails::default()
        }
    }

    #[test]
    fn a_proxy_leg_is_claimed_with_the_secret_and_answered_once() {
        // agent-protocol §16 cases 18 and 19
        for zero_rtt in [false, true] {
            let secret = Secret::new("s");
            let mut agent = ClientHandshake::proxy("id", Some(&secret), details(), zero_rtt);
            let Opening::Proxy(claim) = Opening::read(first_message(&agent)).unwrap() else {
                panic!("wrong role");
            };
            assert_eq!(claim.stream_id, "id");
            assert_eq!(claim.secret.as_ref(), Some(&secret));
            assert_eq!(claim.zero_rtt, zero_rtt);
            if let Some(answer) = claim.accepted() {
                assert_eq!(agent.advance(), Ok(None));
                agent
                    .buffer()
                    .extend_from_slice(&answer.to_frame().unwrap());
            }
            agent.buffer().extend_from_slice(b"payload");
            let established = agent.advance().unwrap().unwrap();
            assert_eq!(established.early, &b"payload"[..]);
            assert_eq!(claim.accepted().is_none(), zero_rtt);
        }
    }

    #[test]
    fn a_dial_is_answered_with_a_stream_or_an_error() {
        // agent-protocol §16 cases 27 and 28
        let mut dialer = ClientHandshake::dial("api", details(), false);
        let Opening::Dial(request) = Opening::read(first_message(&dialer)).unwrap() else {
            panic!("wrong role");
        };
        assert_eq!(request.target, "api");
        assert_eq!(request.token, Some(Secret::new("tok")));
        assert_eq!(request.details.token, None);
        let answer = request.opened("s1").unwrap().to_frame().unwrap();
        for octet in &answer[..answer.len() - 1] {
            dialer.buffer().extend_from_slice(&[*octet]);
            assert_eq!(dialer.advance(), Ok(None));
        }
        dialer
            .buffer()
            .extend_from_slice(&answer[answer.len() - 1..]);
        let established = dialer.advance().unwrap().unwrap();
        assert_eq!(established.stream_id.as_deref(), Some("s1"));

        let mut dialer = ClientHandshake::dial("api", details(), false);
        let refusal = request.refused(ProtocolError::new(ErrorCode::TUNNEL_NOT_FOUND, "no"));
        dialer
            .buffer()
            .extend_from_slice(&refusal.unwrap().to_frame().unwrap());
        assert_eq!(
            dialer.advance().unwrap_err().to_string(),
            "engine error 3000: no"
        );
    }

    #[test]
    fn an_empty_answer_and_a_foreign_one_are_errors() {
        // agent-protocol §16 case 28
        for (answer, expected) in [
            (
                Message::new(StreamRsp { result: None }),
                HandshakeError::EmptyAnswer,
            ),
            (
                Message::new(Heartbeat::default()),
                HandshakeError::Unexpected,
            ),
            (Message { payload: None }, HandshakeError::Unexpected),
        ] {
            let mut dialer = ClientHandshake::dial("api", details(), false);
            dialer
                .buffer()
                .extend_from_slice(&answer.to_frame().unwrap());
            assert_eq!(dialer.advance(), Err(expected));
        }
        assert!(Opening::read(Message::new(Heartbeat::default())).is_err());
        assert!(Opening::read(Message { payload: None }).is_err());
    }

    #[test]
    fn a_datagram_dial_is_answered_whatever_it_says_of_zero_rtt() {
        // agent-protocol §16 cases 31 and 32
        let dialer = ClientHandshake::dial_datagrams("api", details());
        let Opening::Dial(mut request) = Opening::read(first_message(&dialer)).unwrap() else {
            panic!("wrong role");
        };
        assert!(request.datagram_channel && !request.zero_rtt);
        request.zero_rtt = true;
        let error = ProtocolError::new(ErrorCode::INVALID_REQUEST, "no");
        assert!(request.refused(error).is_some());
        assert!(request.opened("s1").is_some());
    }
}
