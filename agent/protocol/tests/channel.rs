//! Both ends of a control channel against each other, on a link without I/O and a clock that moves
//! when told.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::time::{Duration, Instant};

use adit_protocol::agent::{
    AgentChannel, AgentChannelError, AgentEvent, OpenTunnelError, STREAM_REQUESTS_MAX,
};
use adit_protocol::engine::{EngineChannel, EngineChannelError, EngineEvent, OPEN_REQUESTS_MAX};
use adit_protocol::frame::Decoder;
use adit_protocol::handshake::{Opening, refuse_control};
use adit_protocol::liveness::{EnginePolicy, Interval, LivenessError};
use adit_protocol::message::message::Payload;
use adit_protocol::message::{
    ClientDetails, CloseTunnelReq, Heartbeat, Message, OpenControlChannelRsp, OpenTunnelReq,
    OpenTunnelRsp, ProxyConnReq, ServerDetails, TunnelProperties, open_control_channel_rsp,
    open_tunnel_rsp,
};
use adit_protocol::{ErrorCode, ProtocolError, Version};

/// An agent and an engine with a channel between them.
struct Pair {
    now: Instant,
    agent: AgentChannel,
    engine: EngineChannel,
    agent_events: Vec<AgentEvent>,
    engine_events: Vec<EngineEvent>,
    agent_to_engine: usize,
    engine_to_agent: usize,
}

impl Pair {
    fn open(interval: Option<Interval>, policy: &EnginePolicy) -> Self {
        Self::open_at(interval, policy, Version::CURRENT)
    }

    fn open_at(interval: Option<Interval>, policy: &EnginePolicy, version: Version) -> Self {
        let now = Instant::now();
        let mut agent = AgentChannel::open(ClientDetails::default(), interval);
        let first = over_the_wire(agent.poll_message().unwrap());
        let Opening::Control(request) = Opening::read(first).unwrap() else {
            panic!("wrong role");
        };
        let engine = EngineChannel::open(
            &request,
            version,
            "c1".to_owned(),
            ServerDetails::default(),
            policy,
            now,
        );
        let mut pair = Self {
            now,
            agent,
            engine,
            agent_events: Vec::new(),
            engine_events: Vec::new(),
            agent_to_engine: 0,
            engine_to_agent: 0,
        };
        pair.drive();
        pair
    }

    /// Moves messages until neither side has any.
    fn drive(&mut self) {
        loop {
            self.agent.on_time(self.now).unwrap();
            self.engine.on_time(self.now).unwrap();
            if let Some(message) = self.engine.poll_message() {
                self.engine_to_agent += 1;
                let event = self.agent.handle(self.now, over_the_wire(message)).unwrap();
                self.agent_events.extend(event);
            } else if let Some(message) = self.agent.poll_message() {
                self.agent_to_engine += 1;
                let event = self
                    .engine
                    .handle(self.now, over_the_wire(message))
                    .unwrap();
                self.engine_events.extend(event);
            } else {
                return;
            }
        }
    }

    fn with_tunnel() -> Self {
        let mut pair = Self::open(Some(Interval::DEFAULT), &EnginePolicy::default());
        assert!(pair.agent.open_tunnel("r1", TunnelProperties::default()));
        pair.drive();
        assert!(pair.engine.tunnel_opened("r1", tunnel("t1")));
        pair.drive();
        pair.agent_events.clear();
        pair.engine_events.clear();
        pair
    }
}

fn over_the_wire(message: Message) -> Message {
    let mut decoder = Decoder::new();
    decoder
        .buffer()
        .extend_from_slice(&message.to_frame().unwrap());
    let body = decoder.next_frame().unwrap().unwrap();
    Message::from_frame(&body).unwrap()
}

fn tunnel(id: &str) -> TunnelProperties {
    TunnelProperties {
        id: Some(id.to_owned()),
        ..TunnelProperties::default()
    }
}

fn stream(stream_id: &str) -> ProxyConnReq {
    ProxyConnReq {
        tunnel_id: "t1".to_owned(),
        stream_id: stream_id.to_owned(),
        secret: Some("s".to_owned()),
        ..ProxyConnReq::default()
    }
}

fn opened_agent(interval: Option<Interval>, ok: open_control_channel_rsp::Ok) -> AgentResult {
    let mut agent = AgentChannel::open(ClientDetails::default(), interval);
    let answer = OpenControlChannelRsp {
        result: Some(open_control_channel_rsp::Result::Ok(ok)),
    };
    agent.handle(Instant::now(), Message::new(answer))
}

type AgentResult = Result<Option<AgentEvent>, AgentChannelError>;

#[test]
fn the_first_answer_names_the_client_and_agrees_on_heartbeats() {
    // agent-protocol §16 cases 1, 3 and 5
    let interval = Interval::from_millis(1_000).unwrap();
    let mut pair = Pair::open(Some(interval), &EnginePolicy::default());
    let AgentEvent::Opened {
        client_id,
        liveness,
        ..
    } = &pair.agent_events[0]
    else {
        panic!("not opened");
    };
    assert_eq!(client_id, "c1");
    assert_eq!(liveness.unwrap().interval, interval);
    // The answer, then one acknowledgement for the one heartbeat.
    assert_eq!((pair.agent_to_engine, pair.engine_to_agent), (1, 2));
    pair.now += Duration::from_secs(1);
    pair.drive();
    assert_eq!((pair.agent_to_engine, pair.engine_to_agent), (2, 3));
}

#[test]
fn without_liveness_the_engine_never_beats() {
    // agent-protocol §16 case 4
    let policy = EnginePolicy::default();
    let mut pair = Pair::open(None, &policy);
    pair.now += Duration::from_secs(100_000);
    pair.drive();
    assert_eq!((pair.agent_to_engine, pair.engine_to_agent), (0, 1));

    for _ in 0..3 {
        let beat = Message::new(Heartbeat::default());
        assert_eq!(pair.engine.handle(pair.now, beat), Ok(None));
    }
    assert!(pair.engine.poll_message().is_none());
    let idle = pair.now + policy.legacy_idle;
    assert_eq!(pair.engine.on_time(idle), Err(EngineChannelError::Silent));
}

#[test]
fn a_pause_shorter_than_the_timeout_is_survived_and_a_longer_one_is_not() {
    // agent-protocol §16 cases 8 and 10
    let interval = Interval::from_millis(1_000).unwrap();
    let mut pair = Pair::open(Some(interval), &EnginePolicy::default());
    pair.now += Duration::from_millis(4_200);
    pair.drive();
    assert!(pair.agent.open_tunnel("r1", TunnelProperties::default()));
    pair.drive();
    assert_eq!(pair.engine_events.len(), 1);
    let late = pair.now + Duration::from_secs(60);
    assert_eq!(
        pair.agent.on_time(late),
        Err(AgentChannelError::Liveness(LivenessError::Expired))
    );
    assert_eq!(pair.engine.on_time(late), Err(EngineChannelError::Silent));
}

#[test]
fn an_agent_ends_a_channel_that_opens_wrongly() {
    let ok = |client_id: &str, liveness| open_control_channel_rsp::Ok {
        client_id: client_id.to_owned(),
        server_details: None,
        liveness,
    };
    // agent-protocol §16 case 1
    assert_eq!(
        opened_agent(None, ok("", None)),
        Err(AgentChannelError::NoClientId)
    );
    // agent-protocol §9.2 rule 1
    let unasked = Some(Interval::DEFAULT.to_request());
    assert_eq!(
        opened_agent(None, ok("c1", unasked)),
        Err(AgentChannelError::Liveness(LivenessError::NotRequested))
    );
    let mut agent = AgentChannel::open(ClientDetails::default(), None);
    assert_eq!(
        agent.handle(Instant::now(), Message::new(Heartbeat::default())),
        Err(AgentChannelError::Unexpected)
    );
}

#[test]
fn a_refusal_carries_its_code_and_text() {
    // agent-protocol §16 case 2
    let mut agent = AgentChannel::open(ClientDetails::default(), None);
    let refusal = refuse_control(ProtocolError::new(ErrorCode::UNAUTHORIZED, "bad token"));
    let event = agent.handle(Instant::now(), refusal).unwrap().unwrap();
    let AgentEvent::Refused(error) = event else {
        panic!("not refused");
    };
    assert_eq!(error.to_string(), "engine error 1000: bad token");
    assert!(!agent.open_tunnel("r1", TunnelProperties::default()));
}

#[test]
fn a_tunnel_is_opened_refused_or_answered_badly_and_the_channel_goes_on() {
    // agent-protocol §16 cases 11, 12, 13 and 14
    let mut pair = Pair::open(Some(Interval::DEFAULT), &EnginePolicy::default());
    for request in ["r1", "r2", "r3", "r4"] {
        assert!(pair.agent.open_tunnel(request, TunnelProperties::default()));
    }
    assert!(pair.agent.forget_tunnel_request("r4"));
    pair.drive();
    assert_eq!(pair.engine_events.len(), 4);
    pair.agent_events.clear();
    assert!(pair.engine.tunnel_refused(
        "r2",
        ProtocolError::new(ErrorCode::FEATURE_NOT_AVAILABLE, "forbidden")
    ));
    assert!(pair.engine.tunnel_opened("r1", tunnel("t1")));
    assert!(!pair.engine.tunnel_opened("r1", tunnel("t9")), "once only");
    assert!(pair.engine.tunnel_opened("r3", tunnel(" ")));
    assert!(pair.engine.tunnel_opened("r4", tunnel("t4")));
    pair.drive();
    let [
        AgentEvent::TunnelFailed { error, .. },
        AgentEvent::TunnelOpened { request_id, .. },
        AgentEvent::TunnelFailed { error: bad, .. },
    ] = pair.agent_events.as_slice()
    else {
        panic!("unexpected events: {:?}", pair.agent_events);
    };
    assert_eq!(error.to_string(), "engine error 5000: forbidden");
    assert_eq!(request_id, "r1");
    assert_eq!(*bad, OpenTunnelError::InvalidAnswer);

    let empty = Message::new(OpenTunnelRsp {
        request_id: "r5".to_owned(),
        result: None,
    });
    assert!(pair.agent.open_tunnel("r5", TunnelProperties::default()));
    assert!(matches!(
        pair.agent.handle(pair.now, empty),
        Ok(Some(AgentEvent::TunnelFailed { .. }))
    ));
    let again = Message::new(OpenTunnelRsp {
        request_id: "r6".to_owned(),
        result: Some(open_tunnel_rsp::Result::TunnelProperties(Box::new(tunnel(
            "t1",
        )))),
    });
    assert!(pair.agent.open_tunnel("r6", TunnelProperties::default()));
    assert!(matches!(
        pair.agent.handle(pair.now, again),
        Ok(Some(AgentEvent::TunnelFailed { .. }))
    ));
}

#[test]
fn unanswered_tunnel_requests_are_limited() {
    let mut pair = Pair::open(None, &EnginePolicy::default());
    let request = |number: usize| {
        Message::new(OpenTunnelReq {
            request_id: number.to_string(),
            tunnel_properties: None,
        })
    };
    for number in 0..OPEN_REQUESTS_MAX {
        let event = pair.engine.handle(pair.now, request(number)).unwrap();
        assert!(event.is_some());
    }
    let repeated = pair.engine.handle(pair.now, request(0)).unwrap();
    assert!(repeated.is_none() && pair.engine.poll_message().is_none());
    let above = pair.engine.handle(pair.now, request(OPEN_REQUESTS_MAX));
    assert_eq!(above, Ok(None));
    let Some(Payload::OpenTunnelRsp(answer)) = pair.engine.poll_message().unwrap().payload else {
        panic!("no answer");
    };
    let Some(open_tunnel_rsp::Result::Error(error)) = answer.result else {
        panic!("no error");
    };
    assert_eq!(error.code, 7000);
}

#[test]
fn a_tunnel_is_closed_once_however_often_it_is_asked() {
    // agent-protocol §16 case 15
    let mut pair = Pair::with_tunnel();
    assert!(pair.agent.close_tunnel("t1"));
    assert!(pair.agent.close_tunnel("t1"), "a lost request is repeated");
    let first = pair.agent.poll_message().unwrap();
    drop(first);
    pair.drive();
    assert_eq!(
        pair.engine_events,
        [EngineEvent::CloseTunnel {
            tunnel_id: "t1".to_owned()
        }]
    );
    assert!(pair.engine.close_tunnel("t1"));
    assert!(!pair.engine.close_tunnel("t1"));
    assert!(!pair.engine.request_stream(stream("s1")), "after the close");
    pair.drive();
    assert_eq!(
        pair.agent_events,
        [AgentEvent::TunnelClosed {
            tunnel_id: "t1".to_owned()
        }]
    );
    assert!(!pair.agent.close_tunnel("t1"));
    let unknown = Message::new(CloseTunnelReq {
        tunnel_id: "never".to_owned(),
    });
    assert_eq!(pair.engine.handle(pair.now, unknown), Ok(None));
    assert!(
        pair.engine.poll_message().is_some(),
        "confirmed all the same"
    );
}

#[test]
fn the_channel_closes_with_one_confirmation_and_then_silence() {
    // agent-protocol §16 case 16
    let mut pair = Pair::with_tunnel();
    assert!(!pair.engine.finish(), "nobody asked");
    assert!(pair.agent.close());
    assert!(!pair.agent.close());
    pair.drive();
    assert_eq!(pair.engine_events, [EngineEvent::Close]);
    assert!(!pair.engine.request_stream(stream("s1")));
    assert!(!pair.engine.close_tunnel("t1"));
    assert!(!pair.engine.server_message("late".to_owned()));
    assert!(pair.engine.finish() && pair.engine.is_closed());
    pair.drive();
    assert_eq!(pair.agent_events, [AgentEvent::Closed]);
}

#[test]
fn streams_are_asked_for_announced_tunnels_and_answered_once() {
    // agent-protocol §16 cases 17 and 42
    let mut pair = Pair::open(Some(Interval::DEFAULT), &EnginePolicy::default());
    assert!(pair.agent.open_tunnel("r1", TunnelProperties::default()));
    pair.drive();
    assert!(!pair.engine.request_stream(stream("s1")), "not announced");
    pair.engine.tunnel_opened("r1", tunnel("t1"));
    assert!(pair.engine.request_stream(stream("s1")), "in one burst");
    pair.engine_events.clear();
    pair.drive();
    assert!(matches!(
        pair.agent_events.last(),
        Some(AgentEvent::StreamRequested(request)) if request.stream_id == "s1"
    ));
    assert!(pair.agent.answer_stream("s1", Ok(())));
    assert!(!pair.agent.answer_stream("s1", Ok(())));
    pair.drive();
    assert_eq!(
        pair.engine_events,
        [EngineEvent::StreamAnswered {
            stream_id: "s1".to_owned(),
            outcome: Ok(())
        }]
    );
}

#[test]
fn an_agent_refuses_streams_it_cannot_bring() {
    // agent-protocol §16 cases 24 and 25
    let redirect = |endpoint: &str, secret: Option<&str>| ProxyConnReq {
        proxy_endpoint: Some(endpoint.to_owned()),
        secret: secret.map(str::to_owned),
        ..stream("s1")
    };
    let unknown = ProxyConnReq {
        tunnel_id: "gone".to_owned(),
        ..stream("s1")
    };
    for (request, code) in [
        (unknown, 3000),
        (redirect("", Some("s")), 2000),
        (redirect("other.example:443", None), 2000),
        (redirect("other.example:443", Some(" ")), 2000),
    ] {
        let mut pair = Pair::with_tunnel();
        let event = pair.agent.handle(pair.now, Message::new(request)).unwrap();
        assert_eq!(event, None);
        let Some(Payload::ProxyConnRsp(answer)) = pair.agent.poll_message().unwrap().payload else {
            panic!("no answer");
        };
        assert_eq!(answer.error.unwrap().code, code);
    }
    let mut pair = Pair::with_tunnel();
    assert_eq!(
        pair.agent.handle(pair.now, Message::new(stream(" "))),
        Err(AgentChannelError::NoStreamId)
    );
}

#[test]
fn an_agent_holds_a_bounded_number_of_unanswered_streams() {
    let mut pair = Pair::with_tunnel();
    for number in 0..STREAM_REQUESTS_MAX {
        let request = Message::new(stream(&number.to_string()));
        assert!(pair.agent.handle(pair.now, request).unwrap().is_some());
    }
    let above = Message::new(stream("above"));
    assert_eq!(pair.agent.handle(pair.now, above), Ok(None));
    let Some(Payload::ProxyConnRsp(answer)) = pair.agent.poll_message().unwrap().payload else {
        panic!("no answer");
    };
    assert_eq!(answer.error.unwrap().code, 7000);
}

#[test]
fn only_revisions_that_know_it_hear_of_closed_datagram_channels() {
    // agent-protocol §9.5
    let old: Version = "1.4.1".parse().unwrap();
    let mut pair = Pair::open_at(None, &EnginePolicy::default(), old);
    assert!(!pair.engine.close_datagram_channel("s1".to_owned()));
    let new: Version = "1.4.2".parse().unwrap();
    let mut pair = Pair::open_at(None, &EnginePolicy::default(), new);
    assert!(pair.engine.close_datagram_channel("s1".to_owned()));
}

#[test]
fn messages_of_later_revisions_are_passed_over_and_misplaced_ones_end_the_channel() {
    let mut pair = Pair::with_tunnel();
    let later = || Message { payload: None };
    assert_eq!(pair.engine.handle(pair.now, later()), Ok(None));
    assert_eq!(pair.agent.handle(pair.now, later()), Ok(None));
    let misplaced = Message::new(stream("s1"));
    assert_eq!(
        pair.engine.handle(pair.now, misplaced),
        Err(EngineChannelError::Unexpected)
    );
    let again = Message::new(OpenControlChannelRsp { result: None });
    assert_eq!(
        pair.agent.handle(pair.now, again),
        Err(AgentChannelError::Unexpected)
    );
}
