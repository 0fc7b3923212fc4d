//! HTTP through the edge: versions, bodies, failures.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use adit_proxy::edge::{DialError, Found, Limits, UpstreamMode};
use adit_tests::edge::{Failing, HOST, TestEdge};
use adit_tests::origin;
use adit_tests::visitor::{self, Plain};
use bytes::Bytes;
use http::Request;
use std::sync::Arc;
use std::time::Duration;

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

#[tokio::test]
async fn a_request_reaches_the_origin_and_says_where_it_came_from() {
    let edge = TestEdge::new(Limits::default());
    origin::http1(edge.tunnel(HOST, UpstreamMode::Http1, vec![]));
    let mut visitor = Plain::new(edge.visit("http/1.1"));
    let answer = visitor
        .ask(format!(
            "GET /a/?b=%20 HTTP/1.1\r\nHost: {HOST}\r\nX-Forwarded-For: 10.0.0.1\r\n\
             X-Rstream-User-Id: root\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\r\n"
        ))
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("seen-target"), Some("/a/?b=%20")); // edge behaviour R3
    assert_eq!(answer.field("seen-host"), Some(HOST)); // R6
    assert_eq!(answer.field("seen-x-forwarded-for"), Some("203.0.113.7"));
    assert_eq!(answer.field("seen-x-forwarded-proto"), Some("https"));
    assert_eq!(answer.field("seen-x-hop"), None); // R21
    assert_eq!(answer.field("seen-x-rstream-user-id"), None); // R22
}

#[tokio::test]
async fn connections_to_the_origin_are_used_again() {
    let edge = TestEdge::new(Limits::default());
    let seen = origin::http1(edge.tunnel(HOST, UpstreamMode::Http1, vec![]));
    let mut visitor = Plain::new(edge.visit("http/1.1"));
    for _ in 0..5 {
        assert_eq!(visitor.ask(get("/fixed")).await.text(), "fixed\n");
    }
    let other = visitor::http2(edge.visit("h2")).await;
    let answer = visitor::get(&other, &format!("https://{HOST}/fixed")).await;
    assert_eq!(answer.unwrap().body, b"fixed\n");
    assert_eq!((seen.connections(), seen.requests()), (1, 6));
}

#[tokio::test]
async fn bodies_pass_both_ways_on_every_pair_of_versions() {
    let body: Vec<u8> = (0..2_000_000_u32).map(|at| (at % 251) as u8).collect();
    for mode in [UpstreamMode::Http1, UpstreamMode::H2c] {
        let edge = TestEdge::new(Limits::default());
        let streams = edge.tunnel(HOST, mode, vec![]);
        match mode {
            UpstreamMode::Http1 => drop(origin::http1(streams)),
            _ => origin::http2(streams, origin::echo_http2),
        }
        let mut plain = Plain::new(edge.visit("http/1.1"));
        let head = format!(
            "POST /echo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let (mut read, mut write) = tokio::io::split(plain.io);
        let sent = body.clone();
        tokio::spawn(async move {
            use tokio::io::AsyncWriteExt as _;
            write.write_all(head.as_bytes()).await.unwrap();
            write.write_all(&sent).await.unwrap();
            std::future::pending::<()>().await;
        });
        let mut got = Vec::new();
        use tokio::io::AsyncReadExt as _;
        let mut chunk = vec![0; 65536];
        while got.len() < body.len() {
            let count = read.read(&mut chunk).await.unwrap();
            assert!(count > 0);
            got.extend_from_slice(&chunk[..count]);
        }
        plain = Plain::new(edge.visit("http/1.1"));
        assert_eq!(plain.ask(get("/again")).await.status, 200, "{mode:?}");

        let sender = visitor::http2(edge.visit("h2")).await;
        let mut sender = sender.ready().await.unwrap();
        let request = Request::post(format!("https://{HOST}/echo"))
            .body(())
            .unwrap();
        let (response, mut stream) = sender.send_request(request, false).unwrap();
        let sent = Bytes::from(body.clone());
        tokio::spawn(async move {
            origin::send_all(&mut stream, sent).await;
            stream.send_data(Bytes::new(), true).unwrap();
        });
        let answer = visitor::whole(response.await.unwrap()).await.unwrap();
        assert!(answer.body == body, "{mode:?}");
    }
}

#[tokio::test]
async fn trailers_arrive_on_http2_whatever_the_upstream_speaks() {
    let edge = TestEdge::new(Limits::default());
    origin::http1(edge.tunnel(HOST, UpstreamMode::Http1, vec![]));
    origin::http2(
        edge.tunnel("b.t.edge.test", UpstreamMode::H2c, vec![]),
        origin::echo_http2,
    );
    let sender = visitor::http2(edge.visit("h2")).await;
    // edge behaviour R1: one connection reaches both tunnels by authority.
    for host in [HOST, "b.t.edge.test"] {
        let mut ready = sender.clone().ready().await.unwrap();
        let request = Request::get(format!("https://{host}/trailers"))
            .header("te", "trailers")
            .body(())
            .unwrap();
        let (response, _) = ready.send_request(request, true).unwrap();
        let answer = visitor::whole(response.await.unwrap()).await.unwrap();
        assert_eq!(answer.trailers.unwrap()["grpc-status"], "0", "{host}");
    }
}

#[tokio::test]
async fn a_head_request_gets_a_head() {
    let edge = TestEdge::new(Limits::default());
    origin::http1(edge.tunnel(HOST, UpstreamMode::Http1, vec![]));
    let mut visitor = Plain::new(edge.visit("http/1.1"));
    visitor
        .write(format!("HEAD /fixed HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
        .await;
    let head = visitor.head().await;
    assert_eq!(
        (head.status, head.field("content-length")),
        (200, Some("6"))
    );
    assert_eq!(visitor.ask(get("/fixed")).await.text(), "fixed\n");
}

#[tokio::test]
async fn what_cannot_be_served_is_said_with_its_status() {
    let edge = TestEdge::new(Limits::default());
    let host = |name: &str| format!("{name}.t.edge.test");
    edge.found(&host("offline"), Found::Offline);
    edge.found(&host("tls"), Found::OtherProtocol);
    for (name, error) in [
        ("gone", DialError::Offline),
        ("slow", DialError::Timeout(Duration::from_secs(30))),
        ("no", DialError::Refused("connection refused".to_owned())),
        ("full", DialError::Capacity),
    ] {
        edge.site(
            &host(name),
            UpstreamMode::Http1,
            vec![],
            Arc::new(Failing(error)),
        );
    }
    let cases = [
        ("unknown", 404), // edge behaviour R16
        ("offline", 503), // R17
        ("tls", 421),
        ("gone", 503),
        ("slow", 504), // R18
        ("no", 502),   // R19
        ("full", 503),
    ];
    let mut visitor = Plain::new(edge.visit("http/1.1"));
    for (name, status) in cases {
        let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", host(name));
        let answer = visitor.ask(request).await;
        assert_eq!(answer.status, status, "{name}");
        assert_eq!(answer.field("cache-control"), Some("no-store"));
        assert!(answer.field("x-request-id").is_some());
    }
    let answer = visitor
        .ask("GET /api/ping HTTP/1.1\r\nHost: edge.test\r\n\r\n")
        .await;
    assert_eq!(answer.text(), "pong");
}

#[tokio::test]
async fn a_request_that_can_be_read_two_ways_goes_nowhere() {
    let edge = TestEdge::new(Limits::default());
    let seen = origin::http1(edge.tunnel(HOST, UpstreamMode::Http1, vec![]));
    for request in [
        format!("GET /a/../b HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("GET /a%2fb HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nHost: {HOST}\r\n\r\n"),
        format!("GET https://other.test/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        format!(
            "GET / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"
        ),
        format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked, gzip\r\n\r\n"),
        format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: +1\r\n\r\na"),
        format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nBad Name: 1\r\n\r\n"),
    ] {
        let mut visitor = Plain::new(edge.visit("http/1.1"));
        assert_eq!(visitor.ask(&request).await.status, 400, "{request}");
    }
    assert_eq!(seen.requests(), 0);
    // CONNECT has no tunnel of its own yet.
    let mut visitor = Plain::new(edge.visit("http/1.1"));
    let answer = visitor
        .ask(format!("CONNECT db:5432 HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
        .await;
    assert_eq!(answer.status, 501);
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    // edge behaviour R4
    let edge = TestEdge::new(Limits::default());
    let mut streams = edge.tunnel(HOST, UpstreamMode::Http1, vec![]);
    let mut visitor = Plain::new(edge.visit("http/1.1"));
    visitor.write(get("/events")).await;
    let mut origin = Plain::new(streams.recv().await.unwrap().io);
    origin.until(b"\r\n\r\n").await;
    origin
        .write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        .await;
    assert_eq!(visitor.head().await.status, 200);
    for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        origin.write(event).await;
        let got = visitor.until(b"\n\n\r\n").await;
        assert!(String::from_utf8(got).unwrap().contains(event));
    }
}

#[tokio::test]
async fn an_idle_upstream_connection_that_died_is_replaced() {
    let edge = TestEdge::new(Limits::default());
    let mut streams = edge.tunnel(HOST, UpstreamMode::Http1, vec![]);
    let mut visitor = Plain::new(edge.visit("http/1.1"));
    visitor.write(get("/1")).await;
    let mut origin = Plain::new(streams.recv().await.unwrap().io);
    origin.until(b"\r\n\r\n").await;
    origin
        .write("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")
        .await;
    assert_eq!(visitor.answer().await.text(), "1");
    // The second request is read and the connection dropped without an answer.
    visitor.write(get("/2")).await;
    origin.until(b"\r\n\r\n").await;
    drop(origin);
    let mut origin = Plain::new(streams.recv().await.unwrap().io);
    assert!(origin.until(b"\r\n\r\n").await.starts_with(b"GET /2"));
    origin
        .write("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2")
        .await;
    assert_eq!(visitor.answer().await.text(), "2");
    // A request with a body is not sent twice.
    visitor
        .write(format!(
            "POST /3 HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1\r\n\r\nx"
        ))
        .await;
    origin.until(b"\r\n\r\nx").await;
    drop(origin);
    assert_eq!(visitor.answer().await.status, 502);
    assert!(streams.try_recv().is_err());
}

#[tokio::test]
async fn an_upstream_that_breaks_off_cannot_be_taken_for_a_whole_answer() {
    // edge behaviour R20
    let edge = TestEdge::new(Limits::default());
    let mut streams = edge.tunnel(HOST, UpstreamMode::Http1, vec![]);
    let broken = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n";
    let mut visitor = Plain::new(edge.visit("http/1.1"));
    visitor.write(get("/")).await;
    let mut origin = Plain::new(streams.recv().await.unwrap().io);
    origin.until(b"\r\n\r\n").await;
    origin.write(broken).await;
    drop(origin);
    let all = visitor.rest().await;
    assert!(
        !all.ends_with(b"0\r\n\r\n"),
        "{}",
        String::from_utf8_lossy(&all)
    );

    let sender = visitor::http2(edge.visit("h2")).await;
    let asked =
        tokio::spawn(async move { visitor::get(&sender, &format!("https://{HOST}/")).await });
    let mut origin = Plain::new(streams.recv().await.unwrap().io);
    origin.until(b"\r\n\r\n").await;
    origin.write(broken).await;
    drop(origin);
    let error = asked.await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::INTERNAL_ERROR));
}

#[tokio::test]
async fn the_edge_waits_for_the_upstreams_word_before_it_asks_for_a_body() {
    let edge = TestEdge::new(Limits::default());
    let mut streams = edge.tunnel(HOST, UpstreamMode::Http1, vec![]);
    let head = format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
    );
    let mut visitor = Plain::new(edge.visit("http/1.1"));
    visitor.write(&head).await;
    let mut origin = Plain::new(streams.recv().await.unwrap().io);
    origin.until(b"\r\n\r\n").await;
    origin.write("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(visitor.head().await.status, 100);
    visitor.write("body").await;
    assert_eq!(origin.exactly(4).await, b"body");
    origin.write("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(visitor.head().await.status, 204);
    // An upstream that refuses at once never makes the visitor send.
    let mut visitor = Plain::new(edge.visit("http/1.1"));
    visitor.write(&head).await;
    let mut fresh = match streams.try_recv() {
        Ok(opened) => Plain::new(opened.io),
        Err(_) => origin,
    };
    fresh.until(b"\r\n\r\n").await;
    fresh
        .write("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        .await;
    let answer = visitor.head().await;
    assert_eq!(
        (answer.status, answer.field("connection")),
        (403, Some("close"))
    );
}

#[tokio::test]
async fn a_reset_reaches_the_other_side_with_its_code() {
    let edge = TestEdge::new(Limits::default());
    let (told, mut hears) = tokio::sync::mpsc::unbounded_channel();
    origin::http2(
        edge.tunnel(HOST, UpstreamMode::H2c, vec![]),
        move |mut request: Request<h2::RecvStream>,
              mut respond: h2::server::SendResponse<Bytes>| {
            let told = told.clone();
            async move {
                let response = http::Response::new(());
                let mut stream = respond.send_response(response, false).unwrap();
                if request.uri().path() == "/reset" {
                    request.body_mut().data().await.unwrap().unwrap();
                    stream.send_reset(h2::Reason::ENHANCE_YOUR_CALM);
                    return;
                }
                let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
                told.send(reason.unwrap()).unwrap();
            }
        },
    );
    let sender = visitor::http2(edge.visit("h2")).await;
    let mut ready = sender.clone().ready().await.unwrap();
    let request = Request::post(format!("https://{HOST}/reset"))
        .body(())
        .unwrap();
    let (response, mut stream) = ready.send_request(request, false).unwrap();
    let response = response.await.unwrap();
    stream.send_data(Bytes::from_static(b"x"), false).unwrap();
    let error = visitor::whole(response).await.unwrap_err();
    assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
    // The same the other way round.
    let mut ready = sender.clone().ready().await.unwrap();
    let request = Request::get(format!("https://{HOST}/hang"))
        .body(())
        .unwrap();
    let (response, mut stream) = ready.send_request(request, true).unwrap();
    let response = response.await.unwrap();
    stream.send_reset(h2::Reason::CANCEL);
    drop(response);
    assert_eq!(hears.recv().await, Some(h2::Reason::CANCEL));
}
