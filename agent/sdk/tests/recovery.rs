//! Losing the engine, noticing it, and getting it back.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod support;

use std::time::Duration;

use adit_agent::{Client, Error, Retry, Status, TunnelOptions, TunnelStatus};
use adit_protocol::message::{OpenControlChannelRsp, open_control_channel_rsp};
use adit_protocol::{ErrorCode, ProtocolError};
use support::{Engine, PATIENCE};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

async fn until<T: Clone>(status: &mut watch::Receiver<T>, wanted: impl FnMut(&T) -> bool) -> T {
    let wait = status.wait_for(wanted);
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap()
        .unwrap()
        .clone()
}

fn is_disconnected(status: &Status) -> bool {
    matches!(status, Status::Disconnected { .. })
}

#[tokio::test]
async fn an_engine_that_restarts_gets_the_same_tunnels_back_within_three_seconds() {
    // agent-protocol §13; agent-cli §10 C7
    let mut engine = Engine::start().await;
    let client = engine.client().start().unwrap();
    let chosen = client.tunnel(TunnelOptions::http().name("shop"));
    let mut control = engine.open(60_000).await;
    let asked = control.open_tunnel("t1", "chosen.t.localhost").await;
    assert_eq!(
        (asked.name.as_deref(), asked.hostname),
        (Some("shop"), None)
    );
    chosen.online().await.unwrap();

    let mut status = client.status();
    engine.stop();
    drop(control);
    until(&mut status, is_disconnected).await;
    let mut tunnel_status = chosen.status();
    until(&mut tunnel_status, |s| matches!(s, TunnelStatus::Waiting)).await;
    assert!(chosen.info().is_none());

    engine.restart().await;
    let listening = Instant::now();
    let mut control = engine.open(60_000).await;
    assert!(listening.elapsed() < Duration::from_secs(3));
    let asked = control.open_tunnel("t2", "another.t.localhost").await;
    assert_eq!(asked.name.as_deref(), Some("shop"));
    assert_eq!(asked.hostname.as_deref(), Some("chosen.t.localhost"));
    let info = chosen.online().await.unwrap();
    assert_eq!(
        (info.id(), info.hostname()),
        ("t2", Some("chosen.t.localhost"))
    );
    assert!(client.status().borrow().is_online());
}

/// Passes bytes on, and towards the agent only while `open` says so.
async fn one_way_relay(engine_port: u16, open: watch::Receiver<bool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((agent, _)) = listener.accept().await {
            let engine = TcpStream::connect(("127.0.0.1", engine_port))
                .await
                .unwrap();
            let (mut agent_in, mut agent_out) = agent.into_split();
            let (engine_in, mut engine_out) = engine.into_split();
            tokio::spawn(async move {
                tokio::io::copy(&mut agent_in, &mut engine_out).await.ok();
            });
            let mut open = open.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 4096];
                loop {
                    engine_in.readable().await.unwrap();
                    open.wait_for(|open| *open).await.unwrap();
                    match engine_in.try_read(&mut buffer) {
                        Ok(0) => break,
                        Ok(len) => agent_out.write_all(&buffer[..len]).await.unwrap(),
                        Err(_) => {}
                    }
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn a_stall_of_one_direction_is_noticed_within_the_agreed_time() {
    let engine = Engine::start().await;
    let (gate, open) = watch::channel(true);
    let port = one_way_relay(engine.port, open).await;
    let client = engine.client_through(port).start().unwrap();
    let mut control = engine.open(2_000).await;
    let mut status = client.status();
    until(&mut status, Status::is_online).await;
    let engine_reads = tokio::spawn(async move {
        let ended = control.next().await;
        (control, ended)
    });

    gate.send(false).unwrap();
    let start = Instant::now();
    let noticed = until(&mut status, is_disconnected).await;
    // The last answer may have come just before the stall; the rest is scheduling.
    assert!(start.elapsed() < Duration::from_millis(2_000 + 900));
    let Status::Disconnected { reason, .. } = noticed else {
        panic!("{noticed:?}");
    };
    assert!(matches!(reason, Error::Channel(_)), "{reason}");
    // The engine learns of it at once: its end is reset, not left to its own timer.
    assert!(engine_reads.await.unwrap().1.is_none());

    gate.send(true).unwrap();
    let _again = engine.open(60_000).await;
    until(&mut status, Status::is_online).await;
}

#[tokio::test]
async fn a_refusal_for_good_stops_the_client_and_a_passing_one_does_not() {
    // agent-protocol §7, §16 case 2
    for (code, final_) in [
        (ErrorCode::UNAUTHORIZED, true),
        (ErrorCode::INVALID_REQUEST, true),
        (ErrorCode::FEATURE_NOT_AVAILABLE, true),
        (ErrorCode::SERVICE_UNAVAILABLE, false),
        (ErrorCode::CAPACITY_EXHAUSTED, false),
        (ErrorCode::RESOURCE_CONFLICT, false),
        (ErrorCode::INTERNAL, false),
    ] {
        let engine = Engine::start().await;
        let client = engine.client().start().unwrap();
        let tunnel = client.tunnel(TunnelOptions::http());
        let (mut control, _) = engine.control().await;
        let error = ProtocolError::new(code, "the reason");
        control
            .send(OpenControlChannelRsp {
                result: Some(open_control_channel_rsp::Result::Error(error.into())),
            })
            .await;
        let mut status = client.status();
        let shown = until(&mut status, |s| s.is_final() || is_disconnected(s)).await;
        let text = format!("engine error {code}: the reason");
        match shown {
            Status::Failed(error) if final_ => {
                assert_eq!(error.to_string(), text);
                assert_eq!(tunnel.online().await.unwrap_err().to_string(), text);
            }
            Status::Disconnected { reason, .. } if !final_ => {
                assert_eq!(reason.to_string(), text);
                let _again = engine.open(60_000).await;
                until(&mut status, Status::is_online).await;
            }
            other => panic!("{code}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn an_engine_that_is_down_is_waited_for_unless_told_otherwise() {
    let mut engine = Engine::start().await;
    engine.stop();
    let error = engine.client().retry(Retry::Never).connect().await;
    assert!(matches!(error, Err(Error::Connect(_))));
    let client = engine.client().start().unwrap();
    let mut status = client.status();
    until(&mut status, is_disconnected).await;
    engine.restart().await;
    let _control = engine.open(60_000).await;
    until(&mut status, Status::is_online).await;
}

#[tokio::test]
async fn an_engine_with_a_foreign_certificate_is_not_tried_for_ever() {
    let (engine, other) = (Engine::start().await, Engine::start().await);
    let client = engine.client_through(other.port).start().unwrap();
    let mut status = client.status();
    let (failed, ()) = tokio::join!(until(&mut status, Status::is_final), other.accept_in_vain());
    assert!(matches!(failed, Status::Failed(Error::Connect(_))));
}

#[tokio::test]
async fn a_client_without_an_engine_says_what_is_missing() {
    assert!(matches!(Client::builder().start(), Err(Error::NoEngine)));
    assert!(matches!(
        Client::builder().engine("https://a.b").start(),
        Err(Error::Address(_))
    ));
}

#[tokio::test]
async fn a_tunnel_closed_during_an_outage_does_not_come_back() {
    let mut engine = Engine::start().await;
    let client = engine.client().start().unwrap();
    let gone = client.tunnel(TunnelOptions::http().name("gone"));
    let _kept = client.tunnel(TunnelOptions::http().name("kept"));
    let control = engine.open(60_000).await;
    let mut status = client.status();
    engine.stop();
    drop(control);
    until(&mut status, is_disconnected).await;
    tokio::time::timeout(PATIENCE, gone.close()).await.unwrap();
    engine.restart().await;
    let mut control = engine.open(60_000).await;
    let asked = control.open_tunnel("t2", "kept.t.localhost").await;
    assert_eq!(asked.name.as_deref(), Some("kept"));
}
