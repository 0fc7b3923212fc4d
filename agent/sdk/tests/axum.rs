//! A router served through a tunnel.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use adit_agent::{Peer, TunnelOptions};
use axum::extract::ConnectInfo;
use axum::{Router, routing::get};
use support::Engine;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_router_answers_visitors_of_a_tunnel_and_knows_where_they_come_from() {
    let engine = Engine::start().await;
    let client = engine.client().start().unwrap();
    let tunnel = client.tunnel(TunnelOptions::http());
    let show = |ConnectInfo(peer): ConnectInfo<Peer>| async move {
        format!("{:?} {}", peer.source, peer.stream_id)
    };
    let router = Router::new().route("/", get(show));
    let service = router.into_make_service_with_connect_info::<Peer>();
    let server = tokio::spawn(async move { axum::serve(tunnel, service).await });

    let mut control = engine.open(60_000).await;
    control.open_tunnel("t1", "shop.t.localhost").await;
    control.ask_for_stream("t1", "s1").await;
    let (mut leg, _) = engine.accept().await;
    leg.write_all(b"GET / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut response = String::new();
    leg.read_to_string(&mut response).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(response.ends_with("Some(192.0.2.10) s1"), "{response}");
    server.abort();
}
