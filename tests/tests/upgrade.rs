//! Leaving HTTP: WebSocket on every pair of versions, other tokens, refusals.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::sync::Arc;

use adit_filters::{FilterError, Hooks, OnRequest, Placed, RequestCx, Stage, Verdict};
use adit_proxy::edge::{Limits, UpstreamMode};
use adit_tests::edge::{HOST, TestEdge};
use adit_tests::origin;
use adit_tests::visitor::{self, Plain, accept_of};
use bytes::Bytes;
use http::Request;

/// Grants whatever upgrade is asked for.
struct Grant;

impl OnRequest for Grant {
    async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        Ok(cx.upgrade.map_or(Verdict::Continue, Verdict::Upgrade))
    }
}

fn grant() -> Vec<Placed> {
    let hooks = Hooks::new().at(Stage::Upgrade).request(Arc::new(Grant));
    vec![Placed::new("grant", hooks)]
}

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn ask(path: &str, token: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: {token}\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Protocol: chat\r\n\r\n"
    )
}

/// An HTTP/1.1 origin that answers one handshake and then echoes.
async fn echo_http1(io: tokio::io::DuplexStream) {
    let mut origin = Plain::new(io);
    let head = String::from_utf8(origin.until(b"\r\n\r\n").await).unwrap();
    assert!(head.to_ascii_lowercase().contains("connection: upgrade"));
    let lower = head.to_ascii_lowercase();
    let token = field(&lower, "upgrade");
    let key = head
        .lines()
        .find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("sec-websocket-key")
                .then_some(value)
        })
        .unwrap();
    let accept = if key == KEY {
        ACCEPT.to_owned()
    } else {
        accept_of(key)
    };
    origin
        .write(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {token}\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
        ))
        .await;
    let (mut read, mut write) = tokio::io::split(origin.io);
    tokio::io::copy(&mut read, &mut write).await.unwrap();
    use tokio::io::AsyncWriteExt as _;
    write.shutdown().await.unwrap();
}

fn field<'a>(head: &'a str, name: &str) -> &'a str {
    head.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .unwrap()
}

/// An HTTP/2 origin that takes extended CONNECT and echoes.
async fn echo_connect(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
) {
    assert_eq!(request.method(), http::Method::CONNECT);
    let protocol = request.extensions().get::<h2::ext::Protocol>().unwrap();
    assert_eq!(protocol.as_str(), "websocket");
    assert!(!request.headers().contains_key("sec-websocket-key"));
    let response = http::Response::builder()
        .header("sec-websocket-protocol", "chat")
        .body(())
        .unwrap();
    let mut stream = respond.send_response(response, false).unwrap();
    let mut body = request.into_body();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        origin::send_all(&mut stream, data).await;
    }
    let _gone = stream.send_data(Bytes::new(), true);
}

fn with_origin(mode: UpstreamMode) -> TestEdge {
    let edge = TestEdge::new(Limits::default());
    let mut streams = edge.tunnel(HOST, mode, grant());
    if mode == UpstreamMode::H2c {
        origin::http2(streams, echo_connect);
    } else {
        tokio::spawn(async move {
            while let Some(opened) = streams.recv().await {
                // A stream that serves one visitor carries its address.
                assert_eq!(opened.source, Some("203.0.113.7".parse().unwrap()));
                tokio::spawn(echo_http1(opened.io));
            }
        });
    }
    edge
}

#[tokio::test]
async fn websocket_passes_on_every_pair_of_versions() {
    // edge behaviour R7, the pairs without HTTP/3
    for mode in [UpstreamMode::Http1, UpstreamMode::H2c] {
        let edge = with_origin(mode);
        let mut plain = Plain::new(edge.visit("http/1.1"));
        let answer = plain.ask(ask("/ws", "websocket")).await;
        assert_eq!(answer.status, 101, "{mode:?}");
        let accept = answer.field("sec-websocket-accept").unwrap();
        assert!(accept.eq_ignore_ascii_case(ACCEPT));
        assert_eq!(answer.field("sec-websocket-protocol"), Some("chat"));
        plain.write("ping").await;
        assert_eq!(plain.exactly(4).await, b"ping");
        // A half-close comes round as one.
        use tokio::io::AsyncWriteExt as _;
        plain.io.shutdown().await.unwrap();
        assert_eq!(plain.rest().await, b"");

        let sender = visitor::http2(edge.visit("h2")).await;
        // The settings that allow extended CONNECT come with the first answer.
        let _any = visitor::get(&sender, "https://edge.test/api/ping")
            .await
            .unwrap();
        let mut ready = sender.ready().await.unwrap();
        let request = Request::connect(format!("https://{HOST}/ws"))
            .extension(h2::ext::Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13")
            .header("sec-websocket-protocol", "chat")
            .body(())
            .unwrap();
        let (response, mut stream) = ready.send_request(request, false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200, "{mode:?}");
        assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
        stream.send_data(Bytes::from_static(b"ping"), true).unwrap();
        let answer = visitor::whole(response).await.unwrap();
        assert_eq!(answer.body, b"ping");
    }
}

#[tokio::test]
async fn any_other_token_is_relayed_as_it_is() {
    // edge behaviour §8.7
    let edge = with_origin(UpstreamMode::Http1);
    let mut plain = Plain::new(edge.visit("http/1.1"));
    let answer = plain.ask(ask("/", "x-custom/1")).await;
    assert_eq!(
        (answer.status, answer.field("upgrade")),
        (101, Some("x-custom/1"))
    );
    plain.write("bytes").await;
    assert_eq!(plain.exactly(5).await, b"bytes");
}

#[tokio::test]
async fn without_a_filter_that_grants_it_there_is_no_upgrade() {
    let edge = TestEdge::new(Limits::default());
    let seen = origin::http1(edge.tunnel(HOST, UpstreamMode::Http1, vec![]));
    let mut plain = Plain::new(edge.visit("http/1.1"));
    // What was sent in the hope of the switch is not taken for a request.
    let smuggled = format!("GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let answer = plain.ask(ask("/ws", "websocket") + &smuggled).await;
    assert_eq!(
        (answer.status, answer.field("connection")),
        (501, Some("close"))
    );
    assert_eq!(plain.rest().await, b"");
    assert_eq!(seen.requests(), 0);
}

#[tokio::test]
async fn an_upstream_may_answer_an_upgrade_in_http() {
    let edge = TestEdge::new(Limits::default());
    let mut streams = edge.tunnel(HOST, UpstreamMode::Http1, grant());
    let mut plain = Plain::new(edge.visit("http/1.1"));
    let smuggled = format!("GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    plain.write(ask("/ws", "websocket") + &smuggled).await;
    let mut origin = Plain::new(streams.recv().await.unwrap().io);
    origin.until(b"\r\n\r\n").await;
    origin
        .write("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        .await;
    let answer = plain.answer().await;
    assert_eq!(
        (answer.status, answer.field("connection")),
        (403, Some("close"))
    );
    assert_eq!(plain.rest().await, b"");
    assert_eq!(origin.rest().await, b"");
    assert!(streams.try_recv().is_err());
}

#[tokio::test]
async fn a_wrong_accept_and_an_unknown_protocol_are_refused() {
    let edge = TestEdge::new(Limits::default());
    let mut streams = edge.tunnel(HOST, UpstreamMode::Http1, grant());
    let mut plain = Plain::new(edge.visit("http/1.1"));
    plain.write(ask("/ws", "websocket")).await;
    let mut origin = Plain::new(streams.recv().await.unwrap().io);
    origin.until(b"\r\n\r\n").await;
    origin
        .write(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: bm9uc2Vuc2U=\r\n\r\n",
        )
        .await;
    assert_eq!(plain.answer().await.status, 502);

    let sender = visitor::http2(edge.visit("h2")).await;
    let _any = visitor::get(&sender, "https://edge.test/api/ping")
        .await
        .unwrap();
    let mut ready = sender.ready().await.unwrap();
    let request = Request::connect(format!("https://{HOST}/"))
        .extension(h2::ext::Protocol::from_static("x-unknown"))
        .body(())
        .unwrap();
    let (response, _stream) = ready.send_request(request, false).unwrap();
    assert_eq!(response.await.unwrap().status(), 501);
}

#[tokio::test]
async fn a_leg_that_breaks_breaks_the_other() {
    let edge = TestEdge::new(Limits::default());
    let mut streams = edge.tunnel(HOST, UpstreamMode::Http1, grant());
    let sender = visitor::http2(edge.visit("h2")).await;
    let _any = visitor::get(&sender, "https://edge.test/api/ping")
        .await
        .unwrap();
    let mut ready = sender.ready().await.unwrap();
    let request = Request::connect(format!("https://{HOST}/ws"))
        .extension(h2::ext::Protocol::from_static("websocket"))
        .body(())
        .unwrap();
    let (response, mut stream) = ready.send_request(request, false).unwrap();
    let mut origin = Plain::new(streams.recv().await.unwrap().io);
    let head = String::from_utf8(origin.until(b"\r\n\r\n").await).unwrap();
    let key = head
        .lines()
        .find_map(|line| line.strip_prefix("sec-websocket-key: "));
    let accept = accept_of(key.unwrap());
    origin
        .write(format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        ))
        .await;
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    stream.send_reset(h2::Reason::CANCEL);
    assert_eq!(origin.rest().await, b"");
}
