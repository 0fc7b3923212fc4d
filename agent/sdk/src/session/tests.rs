#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use super::*;
use crate::{ClientBuilder, TunnelOptions};
use adit_protocol::ErrorCode;
use adit_protocol::message::message::Payload;
use adit_protocol::message::{
    CloseTunnelRsp, ControlChannelLiveness, Heartbeat, OpenControlChannelRsp, OpenTunnelReq,
    OpenTunnelRsp, ProxyConnReq, TunnelProperties, open_control_channel_rsp, open_tunnel_rsp,
};
use adit_transport::trust::Trust;
use tokio::io::DuplexStream;

/// The engine's end of a session in memory.
struct Script {
    reader: MessageReader<ReadHalf<DuplexStream>>,
    writer: WriteHalf<DuplexStream>,
}

impl Script {
    async fn send(&mut self, message: impl Into<Message>) {
        messages::write(&mut self.writer, &message.into())
            .await
            .unwrap();
    }

    /// The next message that is not a heartbeat.
    async fn next(&mut self) -> Payload {
        loop {
            match self.reader.next().await.unwrap().unwrap().payload.unwrap() {
                Payload::Heartbeat(_) => {}
                other => return other,
            }
        }
    }

    async fn tunnel_request(&mut self) -> OpenTunnelReq {
        match self.next().await {
            Payload::OpenTunnelReq(request) => request,
            other => panic!("{other:?}"),
        }
    }

    async fn answer(&mut self, request: OpenTunnelReq, result: open_tunnel_rsp::Result) {
        self.send(OpenTunnelRsp {
            request_id: request.request_id,
            result: Some(result),
        })
        .await;
    }
}

fn dialer(port: u16) -> Dialer {
    let ca = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    ClientBuilder::default()
        .engine(format!("localhost:{port}"))
        .trust(Trust::system().without_system().and_pem(ca.cert.pem()))
        .dialer()
        .unwrap()
}

async fn open(registry: &Arc<Registry>, timeout_ms: Option<u32>) -> (Session, Script) {
    open_with(dialer(1), registry, timeout_ms).await
}

async fn open_with(
    dialer: Dialer,
    registry: &Arc<Registry>,
    timeout_ms: Option<u32>,
) -> (Session, Script) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (read, writer) = tokio::io::split(far);
    let mut script = Script {
        reader: MessageReader::new(read),
        writer,
    };
    let answer = async {
        let request = script.next().await;
        let Payload::OpenControlChannelReq(request) = request else {
            panic!("{request:?}");
        };
        script
            .send(OpenControlChannelRsp {
                result: Some(open_control_channel_rsp::Result::Ok(
                    open_control_channel_rsp::Ok {
                        client_id: "c1".to_owned(),
                        server_details: None,
                        liveness: timeout_ms.map(|timeout| ControlChannelLiveness {
                            heartbeat_interval_ms: request.liveness.unwrap().heartbeat_interval_ms,
                            heartbeat_timeout_ms: timeout,
                        }),
                    },
                )),
            })
            .await;
    };
    let (session, ()) = tokio::join!(
        Session::open(
            near,
            dialer,
            Arc::clone(registry),
            Interval::DEFAULT,
            Retry::BackOff
        ),
        answer
    );
    (session.unwrap(), script)
}

fn opened(id: &str) -> open_tunnel_rsp::Result {
    open_tunnel_rsp::Result::TunnelProperties(Box::new(TunnelProperties {
        id: Some(id.to_owned()),
        hostname: Some("chosen.t.example.com".to_owned()),
        ..TunnelProperties::default()
    }))
}

fn refused(code: ErrorCode) -> open_tunnel_rsp::Result {
    open_tunnel_rsp::Result::Error(ProtocolError::new(code, "no").into())
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_falls_silent_is_lost_after_the_agreed_time() {
    // agent-protocol §16 case 8
    let registry = Arc::new(Registry::new());
    let (session, mut script) = open(&registry, Some(12_000)).await;
    assert!(registry.status.borrow().is_online());
    let start = Instant::now();
    let engine = tokio::spawn(async move {
        let mut beats = 0;
        while let Ok(Some(_)) = script.reader.next().await {
            beats += 1;
        }
        beats
    });
    let end = session.run().await;
    assert_eq!(start.elapsed(), Duration::from_secs(12));
    assert!(matches!(end, End::Lost(Error::Channel(_))));
    // At 0, 5 and 10 s.
    assert_eq!(engine.await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn answered_heartbeats_keep_the_channel() {
    // agent-protocol §16 case 6: every second one
    let registry = Arc::new(Registry::new());
    let (session, mut script) = open(&registry, Some(12_500)).await;
    let session = tokio::spawn(session.run());
    let start = Instant::now();
    for _ in 0..20 {
        let Some(message) = script.reader.next().await.unwrap() else {
            panic!("the session ended");
        };
        let Some(Payload::Heartbeat(beat)) = message.payload else {
            panic!("{message:?}");
        };
        if beat.sequence % 2 == 0 {
            script
                .send(Heartbeat {
                    sequence: 0,
                    acknowledgement: beat.sequence,
                })
                .await;
        }
    }
    assert_eq!(start.elapsed(), Duration::from_secs(95));
    assert!(!session.is_finished());
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_does_not_answer_the_opening_is_given_up() {
    let (near, _far) = tokio::io::duplex(1024);
    let registry = Arc::new(Registry::new());
    let result = Session::open(near, dialer(1), registry, Interval::DEFAULT, Retry::BackOff).await;
    assert!(matches!(result, Err(Error::Timeout(OPEN_TIMEOUT))));
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_request_without_answer_is_repeated_on_the_same_channel() {
    // agent-protocol §16 case 14
    let registry = Arc::new(Registry::new());
    let (session, mut script) = open(&registry, None).await;
    let session = tokio::spawn(session.run());
    let (queue, _streams) = mpsc::channel(1);
    let entry = registry.add(TunnelOptions::http(), queue);
    let first = script.tunnel_request().await;
    let start = Instant::now();
    let second = script.tunnel_request().await;
    assert!(start.elapsed() >= OPEN_TUNNEL_TIMEOUT);
    assert_ne!(first.request_id, second.request_id);
    // The late answer opens nothing.
    script.answer(first, opened("t0")).await;
    script.answer(second, opened("t1")).await;
    let mut status = entry.status.subscribe();
    let status = status
        .wait_for(|status| matches!(status, TunnelStatus::Online(_)))
        .await
        .unwrap();
    assert!(matches!(&*status, TunnelStatus::Online(info) if info.id() == "t1"));
    assert!(!session.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_hostname_still_held_is_asked_for_again_and_a_bad_request_is_not() {
    // agent-protocol §16 cases 12 and 43
    let registry = Arc::new(Registry::new());
    let (session, mut script) = open(&registry, None).await;
    let _session = tokio::spawn(session.run());
    let (queue, _streams) = mpsc::channel(1);
    let entry = registry.add(TunnelOptions::http().hostname("a.t.example.com"), queue);
    let request = script.tunnel_request().await;
    script
        .answer(request, refused(ErrorCode::RESOURCE_CONFLICT))
        .await;
    let mut status = entry.status.subscribe();
    status
        .wait_for(|status| matches!(status, TunnelStatus::Rejected { .. }))
        .await
        .unwrap();
    let request = script.tunnel_request().await;
    script
        .answer(request, refused(ErrorCode::FEATURE_NOT_AVAILABLE))
        .await;
    let status = status
        .wait_for(|status| matches!(status, TunnelStatus::Failed(_)))
        .await
        .unwrap();
    let TunnelStatus::Failed(error) = &*status else {
        panic!("{status:?}");
    };
    assert_eq!(error.to_string(), "engine error 5000: no");
    assert!(registry.entries().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_suggested_hostname_that_is_refused_is_let_go() {
    let registry = Arc::new(Registry::new());
    let (queue, _streams) = mpsc::channel(1);
    let options = TunnelOptions::http().suggest_hostname("chosen.t.example.com");
    registry.add(options, queue);
    let (session, mut script) = open(&registry, None).await;
    let _session = tokio::spawn(session.run());
    let request = script.tunnel_request().await;
    assert_eq!(
        request
            .tunnel_properties
            .as_ref()
            .unwrap()
            .hostname
            .as_deref(),
        Some("chosen.t.example.com")
    );
    script
        .answer(request, refused(ErrorCode::INVALID_REQUEST))
        .await;
    let request = script.tunnel_request().await;
    assert_eq!(request.tunnel_properties.as_ref().unwrap().hostname, None);
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_the_engine_closes_is_over() {
    let registry = Arc::new(Registry::new());
    let (session, mut script) = open(&registry, None).await;
    let _session = tokio::spawn(session.run());
    let (queue, mut streams) = mpsc::channel(1);
    let entry = registry.add(TunnelOptions::http(), queue);
    let request = script.tunnel_request().await;
    script.answer(request, opened("t1")).await;
    script
        .send(CloseTunnelRsp {
            tunnel_id: "t1".to_owned(),
        })
        .await;
    assert!(streams.recv().await.is_none());
    assert!(matches!(&*entry.status.borrow(), TunnelStatus::Closed));
}

#[tokio::test(start_paused = true)]
async fn stream_requests_above_the_limit_are_answered_with_an_error() {
    // agent-protocol §11.1: 64 at once, 256 waiting. Where they are to be brought nobody answers the
    // handshake, so that none is done before all have been read.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let registry = Arc::new(Registry::new());
    let (session, mut script) = open_with(dialer(port), &registry, None).await;
    let (queue, _streams) = mpsc::channel(adit_protocol::agent::STREAM_REQUESTS_MAX);
    registry.add(TunnelOptions::http(), queue);
    let _session = tokio::spawn(session.run());
    let request = script.tunnel_request().await;
    script.answer(request, opened("t1")).await;
    let above = adit_protocol::agent::STREAM_REQUESTS_MAX + 1;
    let mut burst = bytes::BytesMut::new();
    for number in 0..above {
        Message::new(ProxyConnReq {
            tunnel_id: "t1".to_owned(),
            stream_id: format!("s{number}"),
            secret: Some("s".to_owned()),
            ..ProxyConnReq::default()
        })
        .put_frame(&mut burst)
        .unwrap();
    }
    script.writer.write_all(&burst).await.unwrap();
    let mut codes = Vec::new();
    for _ in 0..above {
        let answer = script.next().await;
        let Payload::ProxyConnRsp(answer) = answer else {
            panic!("{answer:?}");
        };
        codes.push(ErrorCode(answer.error.unwrap().code));
    }
    assert_eq!(codes[0], ErrorCode::CAPACITY_EXHAUSTED);
    // agent-protocol §16 case 22: the others waited their time.
    assert!(
        codes[1..]
            .iter()
            .all(|code| *code == ErrorCode::SERVICE_UNAVAILABLE)
    );
}

#[tokio::test(start_paused = true)]
async fn closing_takes_no_longer_than_it_may_with_an_engine_that_reads_nothing() {
    let registry = Arc::new(Registry::new());
    let (session, script) = open(&registry, None).await;
    // More than the link holds.
    let queues: Vec<_> = (0..200)
        .map(|_| {
            let (queue, streams) = mpsc::channel(1);
            registry.add(TunnelOptions::http().name("n".repeat(10_000)), queue);
            streams
        })
        .collect();
    let session = tokio::spawn(session.run());
    tokio::task::yield_now().await;
    let start = Instant::now();
    registry.close();
    assert!(matches!(session.await.unwrap(), End::Closed));
    assert_eq!(start.elapsed(), CLOSE_WAIT);
    drop((queues, script));
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_nobody_accepts_from_leaves_the_turns_to_others() {
    // Where streams are to be brought nobody answers the handshake.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let registry = Arc::new(Registry::new());
    let (session, mut script) = open_with(dialer(port), &registry, None).await;
    let (queue, _streams) = mpsc::channel(1);
    registry.add(TunnelOptions::http(), queue);
    let _session = tokio::spawn(session.run());
    let request = script.tunnel_request().await;
    script.answer(request, opened("t1")).await;
    for number in 0..2 {
        script
            .send(ProxyConnReq {
                tunnel_id: "t1".to_owned(),
                stream_id: format!("s{number}"),
                secret: Some("s".to_owned()),
                ..ProxyConnReq::default()
            })
            .await;
    }
    let start = Instant::now();
    let Payload::ProxyConnRsp(answer) = script.next().await else {
        panic!("no answer");
    };
    assert_eq!(answer.stream_id, "s1");
    let code = ErrorCode(answer.error.unwrap().code);
    assert_eq!(code, ErrorCode::CAPACITY_EXHAUSTED);
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_never_reads_ends_the_channel() {
    let registry = Arc::new(Registry::new());
    let (session, script) = open(&registry, Some(900_000)).await;
    let queues: Vec<_> = (0..UNSENT_MESSAGES_MAX * 2)
        .map(|_| {
            let (queue, streams) = mpsc::channel(1);
            let name = "n".repeat(10_000);
            registry.add(TunnelOptions::http().name(name), queue);
            streams
        })
        .collect();
    let end = session.run().await;
    assert!(matches!(end, End::Lost(Error::Stuck)));
    drop((queues, script));
}
