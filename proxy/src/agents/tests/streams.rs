use super::*;
use adit_protocol::message::{Error, ProxyConnRsp, ProxyRsp, StreamRsp, stream_rsp};

use crate::agents::BoxLeg;
use crate::edge::DialError;

/// Opens a stream the way the edge does.
fn open(engine: &Engine, tunnel: &str) -> tokio::task::JoinHandle<Result<BoxLeg, DialError>> {
    let tunnel = engine.routes.id(tunnel).unwrap();
    tokio::spawn(async move {
        let source = Some([203, 0, 113, 9].into());
        tunnel.session.open(&tunnel.info.id, source).await
    })
}

async fn answered(link: &mut Link, error: Option<(i32, &str)>, request: &ProxyConnReq) {
    link.send(ProxyConnRsp {
        stream_id: request.stream_id.clone(),
        error: error.map(|(code, text)| Error {
            code,
            message: Some(text.to_owned()),
        }),
    })
    .await;
}

#[tokio::test]
async fn a_stream_is_brought_with_its_secret_and_passes_bytes() {
    // agent-protocol §16 cases 17, 18 and 19
    let engine = Engine::new();
    let (mut control, tunnel) = engine.agent_with(published("shop")).await;
    for zero_rtt in [None, Some(false), Some(true)] {
        let opening = open(&engine, &tunnel);
        let request = control.stream_request().await;
        assert_eq!(request.tunnel_id, tunnel);
        assert_eq!(request.stream_id.len(), 24);
        assert!(request.secret.as_ref().unwrap().len() >= 32);
        assert_eq!(
            request.source_ip.as_ref().unwrap().to_ip(),
            Some([203, 0, 113, 9].into())
        );
        assert_eq!(request.proxy_endpoint, None);
        let mut leg = engine.bring(&request, zero_rtt).await;
        if zero_rtt != Some(true) {
            let accepted = ProxyRsp { error: None };
            assert_eq!(leg.next().await, Some(Payload::ProxyRsp(accepted)));
        }
        answered(&mut control, None, &request).await;
        let (near_read, near_write) = tokio::io::split(opening.await.unwrap().unwrap());
        let (far_read, far_write) = leg.payload();
        // The end of one direction leaves the other open.
        passes(near_write, far_read, b"up").await;
        passes(far_write, near_read, b"down").await;
    }
    assert_eq!(engine.agents.pending.len(), 0);
}

#[tokio::test]
async fn a_stream_goes_to_the_first_valid_claim_only() {
    // agent-protocol §16 case 26: a claim that came to nothing may be repeated
    let engine = Engine::new();
    let (mut control, tunnel) = engine.agent_with(published("shop")).await;
    let opening = open(&engine, &tunnel);
    let request = control.stream_request().await;
    let wrong = ProxyConnReq {
        secret: Some("0".repeat(64)),
        ..request.clone()
    };
    let missing = ProxyConnReq {
        secret: None,
        ..request.clone()
    };
    let unknown = ProxyConnReq {
        stream_id: "0".repeat(24),
        ..request.clone()
    };
    for (claim, zero_rtt) in [
        (&wrong, false),
        (&wrong, true),
        (&missing, false),
        (&unknown, false),
    ] {
        let mut leg = engine.bring(claim, Some(zero_rtt)).await;
        if !zero_rtt {
            let Some(Payload::ProxyRsp(ProxyRsp { error: Some(error) })) = leg.next().await else {
                panic!("accepted");
            };
            assert_eq!(error.code, ErrorCode::INVALID_STREAM.0);
        }
        leg.ended().await;
    }
    // The first attempt's connection is dead before it is answered.
    {
        let (ours, theirs) = tokio::io::duplex(64);
        drop(ours);
        let claim = adit_protocol::handshake::ProxyClaim {
            stream_id: request.stream_id.clone(),
            secret: request.secret.clone().map(Secret::new),
            zero_rtt: false,
        };
        super::super::join::serve(&engine.agents, theirs, &claim).await;
    }
    let mut leg = engine.bring(&request, Some(false)).await;
    assert!(matches!(
        leg.next().await,
        Some(Payload::ProxyRsp(ProxyRsp { error: None }))
    ));
    let mut second = engine.bring(&request, Some(true)).await;
    second.ended().await;
    opening.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_is_not_waited_for_again_when_its_agent_has_gone() {
    let engine = Engine::new();
    let secret = || Secret::new("s".to_owned());
    let pending = &engine.agents.pending;
    let (_entry, opened) = pending.add("id".to_owned(), secret(), "gone".to_owned());
    let waiting = pending.claim("id", Some(&secret())).unwrap();
    pending.put_back("id", waiting, |session| {
        engine.agents.sessions().contains_key(session)
    });
    assert_eq!(opened.await.unwrap().err(), Some(DialError::Offline));
    assert_eq!(pending.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_not_brought_times_out_quietly() {
    // agent-protocol §9.5
    let engine = Engine::new();
    let (mut control, tunnel) = engine.agent_with(published("shop")).await;
    let begun = tokio::time::Instant::now();
    let opening = open(&engine, &tunnel);
    control.stream_request().await;
    assert!(matches!(
        opening.await.unwrap().err(),
        Some(DialError::Timeout(_))
    ));
    assert_eq!(begun.elapsed(), settings().stream_request);
    assert_eq!(engine.agents.pending.len(), 0);
    control.is_quiet().await;
}

#[tokio::test]
async fn a_refusal_reaches_the_opener_and_nobody_elses() {
    // agent-protocol §16 case 22: the text is the agent's
    let engine = Engine::new();
    let (mut control, tunnel) = engine.agent_with(published("shop")).await;
    let mut stranger = engine.agent().await;
    let opening = open(&engine, &tunnel);
    let request = control.stream_request().await;
    answered(&mut stranger, Some((6000, "spoiled")), &request).await;
    stranger.is_quiet().await;
    assert_eq!(engine.agents.pending.len(), 1);
    answered(&mut control, Some((6000, "dial timeout")), &request).await;
    let refused = DialError::Refused("dial timeout".to_owned());
    assert_eq!(opening.await.unwrap().err(), Some(refused));
}

#[tokio::test]
async fn the_end_of_a_channel_fails_what_waits_and_spares_what_flows() {
    // agent-protocol §16 case 29, §15 rule 6
    let engine = Engine::new();
    let (mut control, tunnel) = engine.agent_with(published("shop")).await;
    let joined = open(&engine, &tunnel);
    let request = control.stream_request().await;
    let leg = engine.bring(&request, Some(true)).await;
    let stream = joined.await.unwrap().unwrap();
    let waiting = open(&engine, &tunnel);
    control.stream_request().await;
    drop(control);
    assert_eq!(waiting.await.unwrap().err(), Some(DialError::Offline));
    assert!(engine.routes.is_empty());
    let (near_read, near_write) = tokio::io::split(stream);
    let (far_read, far_write) = leg.payload();
    passes(near_write, far_read, b"still").await;
    passes(far_write, near_read, b"here").await;
}

#[tokio::test]
async fn a_private_dial_by_id_or_name_echoes() {
    // agent-protocol §16 cases 27 and 28
    let engine = Engine::new();
    let (mut control, id) = engine.agent_with(private("api")).await;
    for (target, zero_rtt) in [
        (id.as_str(), false),
        (id.as_str(), true),
        ("api", false),
        ("api", true),
    ] {
        let mut dialer = engine.dial(target, zero_rtt).await;
        let request = control.stream_request().await;
        assert_eq!(
            request.source_ip.as_ref().unwrap().to_ip(),
            Some([192, 0, 2, 10].into())
        );
        let leg = engine.bring(&request, Some(true)).await;
        if !zero_rtt {
            let Some(Payload::StreamRsp(StreamRsp {
                result: Some(stream_rsp::Result::StreamId(stream_id)),
            })) = dialer.next().await
            else {
                panic!("no stream");
            };
            assert_ne!(stream_id, request.stream_id);
            assert_eq!(stream_id.len(), 24);
        }
        let (near_read, near_write) = dialer.payload();
        let (far_read, far_write) = leg.payload();
        passes(near_write, far_read, b"hello").await;
        passes(far_write, near_read, b"world").await;
    }
    engine.agents.relays_ended().await;
}

#[tokio::test]
async fn a_published_tunnel_can_be_dialled_and_an_id_goes_before_a_name() {
    // agent-protocol §11.3, §19 #8
    let engine = Engine::new();
    let (mut control, id) = engine.agent_with(published("shop")).await;
    control.open_tunnel(private(&id)).await.unwrap();
    let _dialer = engine.dial(&id, true).await;
    assert_eq!(control.stream_request().await.tunnel_id, id);
}

#[tokio::test]
async fn sixteen_dials_at_once_all_echo() {
    // agent-protocol §16 cases 21 and 27
    const DIALS: usize = 16;
    let engine = Engine::new();
    let (mut control, id) = engine.agent_with(private("api")).await;
    let mut dialers = Vec::new();
    for number in 0..DIALS {
        let mut dialer = engine.dial("api", number % 2 == 0).await;
        dialer.writer.write_all(&[number as u8; 8]).await.unwrap();
        dialers.push(dialer);
    }
    let mut requests = Vec::new();
    for _ in 0..DIALS {
        requests.push(control.stream_request().await);
    }
    // All are asked for while none is answered, and the channel still works.
    let second = control.open_tunnel(private("other")).await.unwrap();
    assert_ne!(second.id, Some(id));
    for request in &requests {
        let (mut read, mut write) = engine.bring(request, Some(true)).await.payload();
        tokio::spawn(async move { tokio::io::copy(&mut read, &mut write).await });
        answered(&mut control, None, request).await;
    }
    for (number, mut dialer) in dialers.into_iter().enumerate() {
        if number % 2 == 1 {
            assert!(matches!(dialer.next().await, Some(Payload::StreamRsp(_))));
        }
        let (mut read, _write) = dialer.payload();
        let mut echo = [0; 8];
        read.read_exact(&mut echo).await.unwrap();
        assert_eq!(echo, [number as u8; 8]);
    }
}

#[tokio::test]
async fn a_dialer_ahead_of_the_agent_is_held_back_and_loses_nothing() {
    // agent-protocol §11.3
    let engine = Engine::new();
    let (mut control, _) = engine.agent_with(private("api")).await;
    let dialer = engine.dial("api", true).await;
    let (_near_read, mut near_write) = dialer.payload();
    let ahead = vec![7; 2 * LINK_BYTES];
    let mut sent = 0;
    {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        for _ in 0..1000 {
            let write = std::pin::Pin::new(&mut near_write);
            match tokio::io::AsyncWrite::poll_write(write, &mut cx, &ahead[sent..]) {
                std::task::Poll::Ready(written) => sent += written.unwrap(),
                std::task::Poll::Pending => tokio::task::yield_now().await,
            }
        }
    }
    assert!(
        sent <= LINK_BYTES,
        "{sent} bytes were taken without an agent"
    );
    let request = control.stream_request().await;
    let (mut far_read, _far_write) = engine.bring(&request, Some(true)).await.payload();
    let rest = ahead.len() - sent;
    let writing = tokio::spawn(async move {
        near_write.write_all(&vec![7; rest]).await.unwrap();
        near_write.shutdown().await.unwrap();
    });
    let mut read = Vec::new();
    far_read.read_to_end(&mut read).await.unwrap();
    writing.await.unwrap();
    assert_eq!(read.len(), ahead.len());
}

#[tokio::test]
async fn a_dial_that_fails_says_why_unless_it_said_zero_rtt() {
    // agent-protocol §16 case 28
    let engine = Engine::new();
    let (mut control, id) = engine.agent_with(private("api")).await;
    let refuse = |token: &str, target: &str, datagrams| StreamReq {
        client_details: details(Some(token)),
        tunnel_id_name: target.to_owned(),
        zero_rtt: Some(false),
        datagram_channel: datagrams,
    };
    for (request, code) in [
        (refuse(TOKEN, "nowhere", None), 3000),
        (refuse("wrong", &id, None), 1000),
        (refuse(CONFINED, &id, None), 1000),
        (refuse(TOKEN, &id, Some(true)), 2000),
    ] {
        let mut dialer = engine.connect();
        dialer.send(request).await;
        let Some(Payload::StreamRsp(StreamRsp {
            result: Some(stream_rsp::Result::Error(error)),
        })) = dialer.next().await
        else {
            panic!("no error");
        };
        assert_eq!(error.code, code);
        dialer.ended().await;
    }
    let mut silent = engine.dial("nowhere", true).await;
    silent.ended().await;
    let mut refused = engine.dial("api", false).await;
    let request = control.stream_request().await;
    answered(&mut control, Some((6000, "connection refused")), &request).await;
    let Some(Payload::StreamRsp(StreamRsp {
        result: Some(stream_rsp::Result::Error(error)),
    })) = refused.next().await
    else {
        panic!("no error");
    };
    assert_eq!(error.code, 6000);
    assert!(error.message.unwrap().contains("connection refused"));
}

#[tokio::test]
async fn tunnels_of_another_project_are_not_there() {
    let engine = Engine::new();
    let (_control, id) = engine.agent_with(private("api")).await;
    for target in [id.as_str(), "api"] {
        let mut dialer = engine.connect_to(Some("0a1b.engine.example.com"));
        dialer
            .send(StreamReq {
                client_details: details(Some(TOKEN)),
                tunnel_id_name: target.to_owned(),
                ..StreamReq::default()
            })
            .await;
        let Some(Payload::StreamRsp(StreamRsp {
            result: Some(stream_rsp::Result::Error(error)),
        })) = dialer.next().await
        else {
            panic!("no error");
        };
        assert_eq!(error.code, 3000);
    }
}

#[tokio::test]
async fn no_stream_is_asked_for_a_tunnel_that_is_closed() {
    // agent-protocol §9.5, §16 case 42
    let engine = Engine::new();
    let (mut control, id) = engine.agent_with(published("shop")).await;
    let tunnel = engine.routes.id(&id).unwrap();
    control
        .send(adit_protocol::message::CloseTunnelReq {
            tunnel_id: id.clone(),
        })
        .await;
    assert!(matches!(
        control.next().await,
        Some(Payload::CloseTunnelRsp(_))
    ));
    let opened = tunnel.session.open(&id, None).await;
    assert_eq!(opened.err(), Some(DialError::Offline));
    control.is_quiet().await;
}

/// A connection over the loopback interface, the engine's end of it being served.
async fn over_tcp(engine: &Engine) -> tokio::net::TcpStream {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
    let info = ConnInfo {
        certificate: None,
        peer: ([192, 0, 2, 10], 4711).into(),
        server_name: None,
    };
    let theirs = adit_transport::Guarded::new(theirs.unwrap().0);
    tokio::spawn(serve(Arc::clone(&engine.agents), theirs, info));
    ours.unwrap()
}

#[tokio::test]
async fn a_reset_of_one_side_resets_the_other() {
    let engine = Engine::new();
    let (mut control, _) = engine.agent_with(private("api")).await;
    for dialer_breaks in [true, false] {
        let mut dialer = over_tcp(&engine).await;
        let request = Message::from(StreamReq {
            client_details: details(Some(TOKEN)),
            tunnel_id_name: "api".to_owned(),
            zero_rtt: Some(true),
            datagram_channel: None,
        });
        messages::write(&mut dialer, &request).await.unwrap();
        dialer.write_all(b"ping").await.unwrap();
        let asked = control.stream_request().await;
        let mut leg = over_tcp(&engine).await;
        let claim = Message::from(ProxyReq {
            client_details: details(asked.secret.as_deref()),
            stream_id: asked.stream_id,
            zero_rtt: Some(true),
        });
        messages::write(&mut leg, &claim).await.unwrap();
        let mut ping = [0; 4];
        leg.read_exact(&mut ping).await.unwrap();
        let (broken, mut other) = if dialer_breaks {
            (dialer, leg)
        } else {
            (leg, dialer)
        };
        broken.set_zero_linger().unwrap();
        drop(broken);
        let error = other.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}
