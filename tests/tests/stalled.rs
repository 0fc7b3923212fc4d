//! Peers that stop: who does not read, does not answer or does not finish holds up nobody else, and
//! not for ever.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::sync::Arc;
use std::time::Duration;

use adit_filters::{FilterError, Hooks, OnRequest, Placed, RequestCx, Verdict};
use adit_proxy::edge::{Limits, UpstreamMode};
use adit_tests::edge::{HOST, TestEdge};
use adit_tests::origin;
use adit_tests::visitor::{self, Plain};
use bytes::Bytes;
use http::Request;
use tokio::time::Instant;

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

/// Answers one request with a body that never ends.
fn endless(edge: &TestEdge) {
    let mut streams = edge.tunnel(HOST, UpstreamMode::Http1, vec![]);
    tokio::spawn(async move {
        while let Some(opened) = streams.recv().await {
            tokio::spawn(async move {
                let mut origin = Plain::new(opened.io);
                origin.until(b"\r\n\r\n").await;
                origin.write("HTTP/1.1 200 OK\r\n\r\n").await;
                use tokio::io::AsyncWriteExt as _;
                while origin.io.write_all(&[b'x'; 4096]).await.is_ok() {}
            });
        }
    });
}

#[tokio::test(start_paused = true)]
async fn an_answer_nobody_reads_is_given_up() {
    let edge = TestEdge::new(Limits::default());
    endless(&edge);
    let limit = Limits::default().write_idle;

    let mut plain = Plain::new(edge.visit("http/1.1"));
    let began = Instant::now();
    plain.write(get("/")).await;
    tokio::time::sleep(limit * 2).await;
    let read = plain.rest().await;
    assert!(read.len() < 1 << 20, "{} bytes were kept", read.len());
    assert!(began.elapsed() < limit * 3);

    // The same with an HTTP/2 window that never opens.
    let io = edge.visit("h2");
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(0)
        .handshake::<_, Bytes>(io)
        .await
        .unwrap();
    tokio::spawn(connection);
    let began = Instant::now();
    let answer = visitor::get(&sender, &format!("https://{HOST}/")).await;
    assert_eq!(answer.unwrap_err().reason(), Some(h2::Reason::CANCEL));
    assert!(began.elapsed() >= limit);
}

#[tokio::test(start_paused = true)]
async fn a_visitor_that_does_not_say_goodbye_is_cut() {
    let edge = TestEdge::new(Limits::default());
    let mut visitor = Plain::new(edge.visit("h2"));
    visitor.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    visitor.write([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
    let began = Instant::now();
    // Neither the farewell's ping nor anything else is answered.
    visitor.rest().await;
    let took = began.elapsed();
    let limits = Limits::default();
    assert!(
        took >= limits.idle && took < limits.idle + limits.lingering * 3,
        "{took:?}"
    );
}

#[tokio::test]
async fn events_nobody_reads_do_not_stop_others_on_the_same_upstream_connection() {
    let edge = TestEdge::new(Limits::default());
    origin::http2(
        edge.tunnel(HOST, UpstreamMode::H2c, vec![]),
        |request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>| async move {
            if request.uri().path() != "/events" {
                return origin::echo_http2(request, respond).await;
            }
            let mut stream = respond
                .send_response(http::Response::new(()), false)
                .unwrap();
            for _ in 0..5000 {
                origin::send_all(&mut stream, Bytes::from_static(b"data: an event ....\n")).await;
            }
            std::future::poll_fn(|cx| stream.poll_reset(cx))
                .await
                .unwrap();
        },
    );
    let mut unread = Vec::new();
    let (idle, connection) = h2::client::Builder::new()
        .initial_window_size(0)
        .handshake::<_, Bytes>(edge.visit("h2"))
        .await
        .unwrap();
    tokio::spawn(connection);
    for _ in 0..5 {
        let mut ready = idle.clone().ready().await.unwrap();
        let request = Request::get(format!("https://{HOST}/events"))
            .body(())
            .unwrap();
        let (response, _) = ready.send_request(request, true).unwrap();
        unread.push(response.await.unwrap());
    }
    let other = visitor::http2(edge.visit("h2")).await;
    for _ in 0..20 {
        let answer = visitor::get(&other, &format!("https://{HOST}/x"))
            .await
            .unwrap();
        assert_eq!(answer.head.status, 200);
    }
}

#[tokio::test]
async fn a_connection_whose_request_is_still_being_sent_is_not_used_again() {
    let edge = TestEdge::new(Limits::default());
    let mut streams = edge.tunnel(HOST, UpstreamMode::Http1, vec![]);
    let mut visitor = Plain::new(edge.visit("http/1.1"));
    visitor
        .write(format!(
            "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100\r\n\r\nfirst part"
        ))
        .await;
    let mut origin = Plain::new(streams.recv().await.unwrap().io);
    origin.until(b"first part").await;
    origin
        .write("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(visitor.answer().await.status, 413);
    // Nothing of the rest arrives: the connection is over.
    assert_eq!(origin.rest().await, b"");
    let mut other = Plain::new(edge.visit("http/1.1"));
    other.write(get("/next")).await;
    let mut origin = Plain::new(streams.recv().await.unwrap().io);
    assert!(origin.until(b"\r\n\r\n").await.starts_with(b"GET /next "));
}

#[tokio::test]
async fn an_upload_its_visitor_broke_off_is_reset_at_an_upstream_that_does_not_read() {
    let edge = TestEdge::new(Limits::default());
    let (told, mut hears) = tokio::sync::mpsc::unbounded_channel();
    origin::http2(
        edge.tunnel(HOST, UpstreamMode::H2c, vec![]),
        move |request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>| {
            let told = told.clone();
            async move {
                // The body is never read, so its window closes; only a reset ends this.
                let _unread = request.into_body();
                let reset = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
                told.send(reset.is_ok()).unwrap();
            }
        },
    );
    let sender = visitor::http2(edge.visit("h2")).await;
    let mut ready = sender.ready().await.unwrap();
    let request = Request::post(format!("https://{HOST}/")).body(()).unwrap();
    let (response, mut stream) = ready.send_request(request, false).unwrap();
    let body = Bytes::from(vec![b'x'; 1 << 20]);
    let sending = tokio::spawn(async move {
        let sent = tokio::time::timeout(
            Duration::from_millis(200),
            origin::send_all(&mut stream, body),
        );
        assert!(
            sent.await.is_err(),
            "the upstream's window was meant to close"
        );
        stream.send_reset(h2::Reason::CANCEL);
    });
    sending.await.unwrap();
    drop(response);
    assert_eq!(hears.recv().await, Some(true));
}

/// Says to the service who the visitor is.
struct Role;

impl OnRequest for Role {
    async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        cx.head
            .headers
            .insert("x-role", http::HeaderValue::from_static("guest"));
        Ok(Verdict::Continue)
    }
}

#[tokio::test]
async fn a_visitor_cannot_take_off_what_a_filter_put_on() {
    let edge = TestEdge::new(Limits::default());
    let filter = Placed::new("role", Hooks::new().request(Arc::new(Role)));
    origin::http1(edge.tunnel(HOST, UpstreamMode::Http1, vec![filter]));
    let mut visitor = Plain::new(edge.visit("http/1.1"));
    let answer = visitor
        .ask(format!(
            "GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: x-role\r\nX-Role: admin\r\n\r\n"
        ))
        .await;
    assert_eq!(answer.field("seen-x-role"), Some("guest"));
}

#[tokio::test]
async fn an_answer_before_the_upload_is_over_arrives_whole_and_unreset() {
    let edge = TestEdge::new(Limits::default());
    let mut streams = edge.tunnel(HOST, UpstreamMode::Http1, vec![]);
    let sender = visitor::http2(edge.visit("h2")).await;
    let mut ready = sender.ready().await.unwrap();
    let request = Request::post(format!("https://{HOST}/")).body(()).unwrap();
    let (response, mut stream) = ready.send_request(request, false).unwrap();
    stream
        .send_data(Bytes::from_static(b"first part"), false)
        .unwrap();
    let mut origin = Plain::new(streams.recv().await.unwrap().io);
    origin.until(b"first part").await;
    origin
        .write("HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nless")
        .await;
    drop(origin);
    let answer = visitor::whole(response.await.unwrap()).await.unwrap();
    assert_eq!(
        (answer.head.status.as_u16(), &answer.body[..]),
        (413, &b"less"[..])
    );
    // The rest is taken as if it were wanted: the stream ends without a reset.
    origin::send_all(&mut stream, Bytes::from(vec![b'x'; 300_000])).await;
    stream.send_data(Bytes::new(), true).unwrap();
}
