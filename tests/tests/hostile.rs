//! Visitors that mean harm: every bound of the HTTP edge is reached, and others are not disturbed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::time::Duration;

use adit_proxy::edge::{Limits, UpstreamMode};
use adit_tests::edge::{HOST, TestEdge};
use adit_tests::origin;
use adit_tests::visitor::{self, Plain};
use http::Request;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;

fn served() -> TestEdge {
    let edge = TestEdge::new(Limits::default());
    origin::http1(edge.tunnel(HOST, UpstreamMode::Http1, vec![]));
    edge
}

#[tokio::test]
async fn a_head_over_the_limits_is_refused() {
    let edge = served();
    let cases = [
        (format!("X-Long: {}\r\n", "a".repeat(30 << 10)), 200),
        (format!("X-Long: {}\r\n", "a".repeat(33 << 10)), 431),
        ("X-Many: 1\r\n".repeat(80), 200),
        ("X-Many: 1\r\n".repeat(128), 431),
    ];
    for (fields, status) in cases {
        let mut visitor = Plain::new(edge.visit("http/1.1"));
        let request = format!("GET /fixed HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n");
        assert_eq!(
            visitor.ask(request).await.status,
            status,
            "{} bytes",
            fields.len()
        );
    }
    let sender = visitor::http2(edge.visit("h2")).await;
    for (count, size, status) in [(80, 8, 200), (129, 8, 431), (40, 1024, 431)] {
        let mut request = Request::get(format!("https://{HOST}/fixed"));
        for at in 0..count {
            request = request.header(format!("x-{at}"), "a".repeat(size));
        }
        let mut ready = sender.clone().ready().await.unwrap();
        let (response, _) = ready.send_request(request.body(()).unwrap(), true).unwrap();
        assert_eq!(response.await.unwrap().status(), status, "{count} × {size}");
    }
}

#[tokio::test]
async fn a_small_head_that_unpacks_to_a_large_one_is_refused() {
    // The HTTP/2 bomb: one large field, indexed over and over (RFC 7541 §6.1).
    let edge = TestEdge::new(Limits::default());
    let seen = origin::http1(edge.tunnel(HOST, UpstreamMode::Http1, vec![]));
    let mut block = vec![0x82, 0x87, 0x84, 0x41];
    block.push(u8::try_from(HOST.len()).unwrap());
    block.extend_from_slice(HOST.as_bytes());
    // A literal of 3,000 bytes that enters the dynamic table, then its index 2,000 times: 6 MB.
    block.extend_from_slice(&[0x40, 6]);
    block.extend_from_slice(b"x-bomb");
    block.extend_from_slice(&[0x7f, 0xb9, 0x16]);
    block.extend(std::iter::repeat_n(b'a', 3000));
    block.extend(std::iter::repeat_n(0xbe, 2000));
    let length = u32::try_from(block.len()).unwrap().to_be_bytes();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[length[1], length[2], length[3], 1, 0x5, 0, 0, 0, 1]);
    bytes.extend_from_slice(&block);
    let mut visitor = Plain::new(edge.visit("h2"));
    visitor.write(&bytes).await;
    let answer = loop {
        let head = visitor.exactly(9).await;
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        let payload = visitor.exactly(length).await;
        if head[3] == 7 {
            break payload;
        }
    };
    // GOAWAY with ENHANCE_YOUR_CALM (RFC 9113 §7).
    assert_eq!(answer[4..8], [0, 0, 0, 0xb], "{answer:02x?}");
    assert_eq!(seen.requests(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_costs_a_connection_thirty_seconds() {
    let edge = served();
    let mut visitor = Plain::new(edge.visit("http/1.1"));
    let began = Instant::now();
    visitor.write("GET / HT").await;
    assert_eq!(visitor.rest().await, b"");
    let took = began.elapsed();
    assert!(
        took >= Duration::from_secs(30) && took < Duration::from_secs(61),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    let edge = served();
    let mut visitor = Plain::new(edge.visit("http/1.1"));
    let answer = visitor
        .ask(format!("GET /fixed HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
        .await;
    assert_eq!(answer.status, 200);
    let began = Instant::now();
    assert_eq!(visitor.rest().await, b"");
    assert!(began.elapsed() >= Duration::from_secs(90));

    let sender = visitor::http2(edge.visit("h2")).await;
    let answer = visitor::get(&sender, &format!("https://{HOST}/fixed")).await;
    assert_eq!(answer.unwrap().head.status, 200);
    let began = Instant::now();
    let mut closed = sender.clone();
    while std::future::poll_fn(|cx| closed.poll_ready(cx))
        .await
        .is_ok()
    {
        tokio::time::advance(Duration::from_secs(10)).await;
        tokio::task::yield_now().await;
        assert!(began.elapsed() < Duration::from_secs(200), "still open");
    }
    assert!(began.elapsed() >= Duration::from_secs(90));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_is_given_up() {
    for mode in [UpstreamMode::Http1, UpstreamMode::H2c] {
        let edge = TestEdge::new(Limits::default());
        let mut streams = edge.tunnel(HOST, mode, vec![]);
        if mode == UpstreamMode::Http1 {
            tokio::spawn(async move {
                let mut origin = Plain::new(streams.recv().await.unwrap().io);
                origin.rest().await
            });
        } else {
            // Reads the body and answers only when it is whole.
            origin::http2(streams, |mut request, mut respond| async move {
                while let Some(Ok(_)) = request.body_mut().data().await {}
                let _gone = respond.send_response(http::Response::new(()), true);
            });
        }
        let mut visitor = Plain::new(edge.visit("http/1.1"));
        let began = Instant::now();
        visitor
            .write(format!(
                "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\nabc"
            ))
            .await;
        assert_eq!(visitor.answer().await.status, 408, "{mode:?}");
        let took = began.elapsed();
        assert!(
            took >= Duration::from_secs(60) && took < Duration::from_secs(70),
            "{took:?}"
        );
    }
}

#[tokio::test]
async fn streams_that_are_opened_and_reset_end_the_connection() {
    let edge = served();
    let other = visitor::http2(edge.visit("h2")).await;
    let sender = visitor::http2(edge.visit("h2")).await;
    let mut sent = 0;
    let error = loop {
        let mut ready = match sender.clone().ready().await {
            Ok(ready) => ready,
            Err(error) => break error,
        };
        let request = Request::post(format!("https://{HOST}/echo"))
            .body(())
            .unwrap();
        let (response, mut stream) = match ready.send_request(request, false) {
            Ok(sent) => sent,
            Err(error) => break error,
        };
        // Wait until the edge has taken the stream up, so that it is work that is thrown away.
        if sent % 2 == 0 {
            let _head = response.await;
        }
        stream.send_reset(h2::Reason::CANCEL);
        sent += 1;
        assert!(sent < 5000, "the edge never had enough");
    };
    assert_eq!(error.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
    let answer = visitor::get(&other, &format!("https://{HOST}/fixed")).await;
    assert_eq!(answer.unwrap().body, b"fixed\n");
}

#[tokio::test]
async fn a_visitor_is_told_how_many_streams_it_may_open() {
    let edge = served();
    let sender = visitor::http2(edge.visit("h2")).await;
    let _any = visitor::get(&sender, &format!("https://{HOST}/fixed"))
        .await
        .unwrap();
    assert_eq!(sender.current_max_send_streams(), 200);
}

#[tokio::test]
async fn continuations_without_end_end_the_connection() {
    let edge = served();
    let mut io = edge.visit("h2");
    io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    io.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    // HEADERS on stream 1 without END_HEADERS: one literal field, never indexed.
    io.write_all(&[0, 0, 0, 1, 1, 0, 0, 0, 1]).await.unwrap();
    let field = [&[0x10, 1, b'x', 100][..], &[b'a'; 100]].concat();
    let length = u8::try_from(field.len()).unwrap();
    let frame = [&[0, 0, length, 9, 0, 0, 0, 0, 1][..], &field].concat();
    let (mut read, mut write) = tokio::io::split(io);
    let flood = tokio::spawn(async move {
        let mut frames = 0_u32;
        while frames < 100_000 && write.write_all(&frame).await.is_ok() {
            frames += 1;
        }
        frames
    });
    let mut all = Vec::new();
    let _reset = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut all).await;
    drop(read);
    assert!(flood.await.unwrap() < 100_000, "the edge read it all");
}

#[tokio::test(start_paused = true)]
async fn an_unwanted_body_is_read_for_a_while_and_no_longer() {
    let limits = Limits::default();
    for flood in [true, false] {
        let edge = TestEdge::new(limits.clone());
        // No tunnel: the answer comes before any of the body is read.
        let visitor = Plain::new(edge.visit("http/1.1"));
        let (mut read, mut write) = tokio::io::split(visitor.io);
        write
            .write_all(b"POST / HTTP/1.1\r\nHost: none.test\r\nContent-Length: 100000000\r\n\r\n")
            .await
            .unwrap();
        let began = Instant::now();
        let written = tokio::spawn(async move {
            let mut written = 0;
            while flood && write.write_all(&[b'x'; 4096]).await.is_ok() {
                written += 4096;
            }
            (written, write)
        });
        let mut all = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut read, &mut all)
            .await
            .unwrap();
        assert!(all.starts_with(b"HTTP/1.1 404"));
        let (written, write) = written.await.unwrap();
        if flood {
            assert!(written >= limits.lingering_bytes, "{written}");
            assert!(written < limits.lingering_bytes + (256 << 10), "{written}");
        } else {
            // The edge has closed its side; it lets go of the whole connection in time.
            let mut write = write;
            while write.write_all(b"x").await.is_ok() {
                tokio::time::advance(Duration::from_millis(500)).await;
                tokio::task::yield_now().await;
                assert!(began.elapsed() < limits.lingering * 2, "still lingering");
            }
        }
    }
}
