//! Streams: brought when asked for, dialled, redirected, outliving their control channel.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use adit_agent::{Client, Error, Status, Stream, Tunnel, TunnelOptions};
use adit_protocol::message::message::Payload;
use adit_protocol::message::{
    CloseControlChannelRsp, ProxyConnRsp, ProxyReq, ProxyRsp, StreamRsp, stream_rsp,
};
use adit_protocol::{ErrorCode, ProtocolError};
use adit_transport::messages;
use adit_transport::tls::ServerStream;
use support::{Control, Engine, stream_request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

async fn tunnel(engine: &Engine, zero_rtt: bool) -> (Client, Tunnel, Control) {
    let client = engine.client().zero_rtt(zero_rtt).start().unwrap();
    let tunnel = client.tunnel(TunnelOptions::http());
    let mut control = engine.open(60_000).await;
    control.open_tunnel("t1", "shop.t.localhost").await;
    (client, tunnel, control)
}

fn leg((stream, first): (ServerStream<TcpStream>, Payload)) -> (ServerStream<TcpStream>, ProxyReq) {
    match first {
        Payload::ProxyReq(request) => (stream, request),
        other => panic!("{other:?}"),
    }
}

async fn answer(control: &mut Control) -> ProxyConnRsp {
    match control.next().await {
        Some(Payload::ProxyConnRsp(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

/// Bytes pass both ways and each direction ends by itself.
async fn talk(
    a: &mut (impl AsyncRead + AsyncWrite + Unpin),
    b: &mut (impl AsyncRead + AsyncWrite + Unpin),
) {
    a.write_all(b"question").await.unwrap();
    a.shutdown().await.unwrap();
    let mut text = String::new();
    b.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "question");
    b.write_all(b"answer").await.unwrap();
    b.shutdown().await.unwrap();
    text.clear();
    a.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "answer");
}

#[tokio::test]
async fn a_stream_is_brought_with_its_secret_and_carries_bytes_both_ways() {
    // agent-protocol §16 cases 19 and 20
    let engine = Engine::start().await;
    let (_client, mut tunnel, mut control) = tunnel(&engine, true).await;
    control.ask_for_stream("t1", "s1").await;
    let (mut leg, request) = leg(engine.accept().await);
    let details = request.client_details.unwrap();
    assert_eq!(details.token.as_deref(), Some("secret of s1"));
    assert_eq!(
        (request.stream_id.as_str(), request.zero_rtt),
        ("s1", Some(true))
    );
    let mut stream = tunnel.accept().await.unwrap();
    assert_eq!(stream.source(), Some([192, 0, 2, 10].into()));
    assert_eq!((stream.id(), stream.tunnel()), ("s1", "t1"));
    assert_eq!(answer(&mut control).await.error, None);
    talk(&mut leg, &mut stream).await;
}

#[tokio::test]
async fn without_zero_rtt_the_engine_confirms_first() {
    // agent-protocol §16 case 18
    let engine = Engine::start().await;
    let (_client, mut tunnel, mut control) = tunnel(&engine, false).await;
    control.ask_for_stream("t1", "s1").await;
    let (mut leg, request) = leg(engine.accept().await);
    assert_eq!(request.zero_rtt, Some(false));
    // Response and payload in one write: nothing may be lost.
    let mut wire = adit_protocol::message::Message::from(ProxyRsp::default())
        .to_frame()
        .unwrap()
        .to_vec();
    wire.extend_from_slice(b"early");
    leg.write_all(&wire).await.unwrap();
    let mut stream = tunnel.accept().await.unwrap();
    let mut early = [0; 5];
    stream.read_exact(&mut early).await.unwrap();
    assert_eq!(&early, b"early");
    assert_eq!(answer(&mut control).await.error, None);
}

#[tokio::test]
async fn a_refused_leg_is_reported_and_the_channel_goes_on() {
    let engine = Engine::start().await;
    let (_client, mut tunnel, mut control) = tunnel(&engine, false).await;
    control.ask_for_stream("t1", "s1").await;
    let (mut refused, _) = leg(engine.accept().await);
    let error = ProtocolError::new(ErrorCode::INVALID_STREAM, "taken");
    let refusal = ProxyRsp {
        error: Some(error.into()),
    };
    messages::write(&mut refused, &refusal.into())
        .await
        .unwrap();
    let reported = answer(&mut control).await.error.unwrap();
    assert!(reported.message.unwrap().contains("taken"));

    control.ask_for_stream("t1", "s2").await;
    let (mut leg, _) = leg(engine.accept().await);
    messages::write(&mut leg, &ProxyRsp::default().into())
        .await
        .unwrap();
    assert_eq!(tunnel.accept().await.unwrap().id(), "s2");
}

#[tokio::test]
async fn sixteen_streams_are_brought_at_the_same_time() {
    // agent-protocol §16 case 21
    let engine = Engine::start().await;
    let (_client, mut tunnel, mut control) = tunnel(&engine, false).await;
    for number in 0..16 {
        control.ask_for_stream("t1", &format!("s{number}")).await;
    }
    let mut legs = Vec::new();
    for _ in 0..16 {
        legs.push(leg(engine.accept().await).0);
    }
    for leg in &mut legs {
        messages::write(leg, &ProxyRsp::default().into())
            .await
            .unwrap();
    }
    for _ in 0..16 {
        assert_eq!(answer(&mut control).await.error, None);
        tunnel.accept().await.unwrap();
    }
}

#[tokio::test]
async fn a_redirect_takes_the_secret_to_the_other_engine_and_nothing_else() {
    // agent-protocol §16 cases 23 and 24
    let (engine, other) = (Engine::start().await, Engine::start().await);
    let (_client, _tunnel, mut control) = tunnel(&engine, true).await;
    let mut request = stream_request("t1", "s1");
    request.proxy_endpoint = Some(format!("{}:{}", support::NAME, other.port));
    // The other engine's certificate is not believed, so the dial fails there and not here.
    control.send(request).await;
    other.accept_in_vain().await;
    let error = answer(&mut control).await.error.unwrap().message.unwrap();
    assert!(error.contains(&other.port.to_string()), "{error}");

    let mut request = stream_request("t1", "s2");
    request.proxy_endpoint = Some(format!("{}:{}", support::NAME, engine.port));
    control.send(request).await;
    let (_leg, claim) = leg(engine.accept().await);
    let token = claim.client_details.unwrap().token;
    assert_eq!(token.as_deref(), Some("secret of s2"));

    for endpoint in ["", " "] {
        let mut request = stream_request("t1", "s3");
        request.proxy_endpoint = Some(endpoint.to_owned());
        control.send(request).await;
        loop {
            let answer = answer(&mut control).await;
            if answer.stream_id == "s3" {
                assert!(answer.error.is_some());
                break;
            }
        }
    }
}

#[tokio::test]
async fn streams_outlive_their_control_channel() {
    // agent-protocol §16 case 29
    let engine = Engine::start().await;
    let (_client, mut tunnel, mut control) = tunnel(&engine, true).await;
    control.ask_for_stream("t1", "s1").await;
    let (mut leg, _) = leg(engine.accept().await);
    let mut stream = tunnel.accept().await.unwrap();
    drop(control);
    let _again = engine.open(60_000).await;
    talk(&mut leg, &mut stream).await;
}

#[tokio::test]
async fn a_stream_dropped_by_the_application_is_an_error_for_the_engine() {
    let engine = Engine::start().await;
    let (_client, mut tunnel, mut control) = tunnel(&engine, true).await;
    control.ask_for_stream("t1", "s1").await;
    let (mut leg, _) = leg(engine.accept().await);
    drop(tunnel.accept().await.unwrap());
    assert!(leg.read_to_end(&mut Vec::new()).await.is_err());
}

#[tokio::test]
async fn a_stream_asked_for_a_closed_tunnel_is_refused() {
    // agent-protocol §16 case 25
    let engine = Engine::start().await;
    let (_client, tunnel, mut control) = tunnel(&engine, false).await;
    control.ask_for_stream("t1", "s1").await;
    let (mut leg, _) = leg(engine.accept().await);
    drop(tunnel);
    let (mut closed, mut refused) = (false, false);
    while !(closed && refused) {
        match control.next().await {
            Some(Payload::CloseTunnelReq(request)) => closed = request.tunnel_id == "t1",
            Some(Payload::ProxyConnRsp(answer)) => refused = answer.error.is_some(),
            other => panic!("{other:?}"),
        }
    }
    assert!(leg.read_to_end(&mut Vec::new()).await.is_err());
}

#[tokio::test]
async fn a_private_dial_carries_the_token_and_waits_for_the_answer() {
    // agent-protocol §16 cases 27 and 28
    let engine = Engine::start().await;
    let dialer = engine.client().dialer().unwrap();
    let dial = |name: &'static str| {
        let dialer = dialer.clone();
        tokio::spawn(async move { dialer.dial(name).await })
    };
    let answered = |result| StreamRsp {
        result: Some(result),
    };

    let stream = dial("api");
    let (mut leg, first) = engine.accept().await;
    let Payload::StreamReq(request) = first else {
        panic!("{first:?}");
    };
    assert_eq!(request.tunnel_id_name, "api");
    assert_eq!(
        request.client_details.unwrap().token.as_deref(),
        Some("tok")
    );
    let id = stream_rsp::Result::StreamId("x1".to_owned());
    messages::write(&mut leg, &answered(id).into())
        .await
        .unwrap();
    let mut stream: Stream = stream.await.unwrap().unwrap();
    assert_eq!((stream.id(), stream.tunnel()), ("x1", "api"));
    talk(&mut stream, &mut leg).await;

    let refused = dial("none");
    let (mut leg, _) = engine.accept().await;
    let error = ProtocolError::new(ErrorCode::TUNNEL_NOT_FOUND, "no such tunnel");
    let error = stream_rsp::Result::Error(error.into());
    messages::write(&mut leg, &answered(error).into())
        .await
        .unwrap();
    let error = refused.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "engine error 3000: no such tunnel");

    let empty = dial("odd");
    let (mut leg, _) = engine.accept().await;
    messages::write(&mut leg, &StreamRsp { result: None }.into())
        .await
        .unwrap();
    assert!(matches!(empty.await.unwrap(), Err(Error::Handshake(_))));
}

#[tokio::test]
async fn a_dial_without_waiting_sends_payload_at_once() {
    let engine = Engine::start().await;
    let dialer = engine.client().dialer().unwrap();
    let (stream, (mut leg, first)) = tokio::join!(dialer.dial_zero_rtt("api"), engine.accept());
    let mut stream = stream.unwrap();
    assert!(matches!(first, Payload::StreamReq(request) if request.zero_rtt == Some(true)));
    talk(&mut stream, &mut leg).await;
}

#[tokio::test]
async fn closing_asks_the_engine_and_waits_for_its_word() {
    // agent-protocol §16 case 16
    let engine = Engine::start().await;
    let (client, mut tunnel, mut control) = tunnel(&engine, true).await;
    let closing = tokio::spawn({
        let client = client.clone();
        async move { client.close().await }
    });
    assert!(matches!(
        control.next().await,
        Some(Payload::CloseControlChannelReq(_))
    ));
    assert!(!closing.is_finished());
    control.send(CloseControlChannelRsp {}).await;
    closing.await.unwrap();
    assert!(matches!(tunnel.accept().await, Err(Error::Closed)));
    assert!(client.status().borrow().is_final());
}

#[tokio::test]
async fn an_engine_that_hangs_up_while_it_is_asked_to_close_has_closed() {
    let engine = Engine::start().await;
    let client = engine
        .client()
        .retry(adit_agent::Retry::Never)
        .start()
        .unwrap();
    let mut control = engine.open(60_000).await;
    let mut status = client.status();
    status.wait_for(Status::is_online).await.unwrap();
    let closing = tokio::spawn({
        let client = client.clone();
        async move { client.close().await }
    });
    assert!(matches!(
        control.next().await,
        Some(Payload::CloseControlChannelReq(_))
    ));
    drop(control);
    closing.await.unwrap();
    let status = client.status().borrow().clone();
    assert!(matches!(status, Status::Closed), "{status:?}");
}
