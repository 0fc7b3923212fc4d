//! The `limits` filter at the edge, over every HTTP version: how long bytes take, and what ends when a limit is reached.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::sync::Arc;
use std::time::Duration;

use adit_config::Section;
use adit_filters::{By, Cause, Filter, Placed, Reason};
use adit_plugins::capacity::limits;
use adit_proxy::edge::{Limits, UpstreamMode};
use adit_tests::edge::{HOST, TestEdge};
use adit_tests::origin;
use adit_tests::service::{self, Outcomes};
use adit_tests::visitor::{self, Plain};
use bytes::Bytes;
use http::Request;
use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;

/// A `limits` filter with this table.
fn limits(table: &str) -> Placed {
    let section = Section::parse("engine.toml", table).unwrap();
    let config = section.deserialize().unwrap();
    let filter = limits::Limits::new(config, &mut service::env()).unwrap();
    Placed::new("edge/limits", Arc::new(filter).hooks())
}

/// An edge with one tunnel, before which stands this filter.
fn edge(table: &str) -> (TestEdge, Outcomes) {
    let edge = TestEdge::new(Limits::default());
    let outcomes = Outcomes::default();
    let filters = vec![service::grant(), limits(table), outcomes.filter()];
    service::serve(edge.tunnel(HOST, UpstreamMode::Http1, filters));
    (edge, outcomes)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

fn post(path: &str, bytes: usize) -> Vec<u8> {
    let mut request =
        format!("POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {bytes}\r\n\r\n")
            .into_bytes();
    request.resize(request.len() + bytes, b'x');
    request
}

/// A connection over HTTP/2 that knows it may open WebSockets.
async fn http2(edge: &TestEdge) -> h2::client::SendRequest<Bytes> {
    let sender = visitor::http2(edge.visit("h2")).await;
    let _any = visitor::get(&sender, "https://edge.test/api/ping")
        .await
        .unwrap();
    sender
}

async fn post_http2(
    sender: &h2::client::SendRequest<Bytes>,
    path: &str,
    bytes: usize,
) -> Result<visitor::Whole, h2::Error> {
    let mut ready = sender.clone().ready().await?;
    let request = Request::post(format!("https://{HOST}{path}"))
        .body(())
        .unwrap();
    let (response, mut stream) = ready.send_request(request, false)?;
    let sending = tokio::spawn(async move {
        origin::send_all(&mut stream, Bytes::from(vec![b'x'; bytes])).await;
        let _gone = stream.send_data(Bytes::new(), true);
    });
    let whole = visitor::whole(response.await?).await;
    sending.abort();
    whole
}

/// Moves so many bytes in one way and says how long that took.
async fn took(edge: &TestEdge, way: &str, bytes: usize) -> Duration {
    let began = Instant::now();
    match way {
        "h1 down" => {
            let mut plain = Plain::new(edge.visit("http/1.1"));
            let answer = plain.ask(get(&format!("/down/{bytes}"))).await;
            assert_eq!(answer.body.len(), bytes);
            // Nobody changes them, so their number stays known.
            assert_eq!(answer.field("content-length"), Some(&*bytes.to_string()));
        }
        "h1 up" => {
            let mut plain = Plain::new(edge.visit("http/1.1"));
            let answer = plain.ask(post("/up", bytes)).await;
            assert_eq!(answer.text(), format!("{bytes} of Some({bytes})"));
        }
        "h2 down" => {
            let sender = http2(edge).await;
            let uri = format!("https://{HOST}/down/{bytes}");
            let answer = visitor::get(&sender, &uri).await.unwrap();
            assert_eq!(answer.body.len(), bytes);
            assert_eq!(answer.head.headers["content-length"], bytes.to_string());
        }
        "h2 up" => {
            let answer = post_http2(&http2(edge).await, "/up", bytes).await.unwrap();
            assert_eq!(answer.body, format!("{bytes} of None").into_bytes());
        }
        "websocket down" => {
            let mut plain = Plain::new(edge.visit("http/1.1"));
            let asked = visitor::websocket(HOST, &format!("/down/{bytes}"));
            assert_eq!(plain.ask(asked).await.status, 101);
            plain.exactly(bytes).await;
        }
        "websocket up" => {
            let mut plain = Plain::new(edge.visit("http/1.1"));
            let asked = visitor::websocket(HOST, &format!("/up/{bytes}"));
            assert_eq!(plain.ask(asked).await.status, 101);
            plain.write(vec![b'x'; bytes]).await;
            assert_eq!(plain.exactly(4).await, b"done");
        }
        "websocket over h2 down" => {
            let sender = http2(edge).await;
            let path = format!("/down/{bytes}");
            let (response, _stream) = visitor::websocket_http2(&sender, HOST, &path)
                .await
                .unwrap();
            let mut body = response.into_body();
            let mut read = 0;
            while read < bytes {
                let data = body.data().await.unwrap().unwrap();
                body.flow_control().release_capacity(data.len()).unwrap();
                read += data.len();
            }
        }
        "websocket over h2 up" => {
            let sender = http2(edge).await;
            let path = format!("/up/{bytes}");
            let (response, mut stream) = visitor::websocket_http2(&sender, HOST, &path)
                .await
                .unwrap();
            origin::send_all(&mut stream, Bytes::from(vec![b'x'; bytes])).await;
            let word = response.into_body().data().await.unwrap().unwrap();
            assert_eq!(&word[..], b"done");
        }
        other => panic!("{other}"),
    }
    began.elapsed()
}

const WAYS: [&str; 8] = [
    "h1 down",
    "h1 up",
    "h2 down",
    "h2 up",
    "websocket down",
    "websocket up",
    "websocket over h2 down",
    "websocket over h2 up",
];

#[tokio::test(start_paused = true)]
async fn bytes_take_as_long_as_the_rate_says() {
    // edge behaviour X15
    for of in ["request", "connection"] {
        let each_way = "bandwidth = { up = '1Mbit/s', down = '1Mbit/s' }";
        let (edge, _) = edge(&format!("[{of}]\n{each_way}"));
        for way in WAYS {
            for (bytes, seconds) in [(256_000, 2.048), (4_000_000, 32.0)] {
                let took = took(&edge, way, bytes).await.as_secs_f64();
                let off = (took - seconds).abs() / seconds;
                assert!(off < 0.1, "{way} of a {of}: {bytes} took {took}");
            }
        }
    }
    // Without a limit no time passes at all.
    let (edge, _) = edge("request.duration = '1h'");
    for way in WAYS {
        let took = took(&edge, way, 4_000_000).await;
        assert!(took < Duration::from_millis(100), "{way}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_way_is_smooth_and_nobodys_stall() {
    // Slower than what a body, or a visitor, may take between two bytes: a minute, and two.
    let (edge, outcomes) = edge("request.bandwidth = { up = '8kbit/s', down = '8kbit/s' }");
    for way in WAYS {
        let took = took(&edge, way, 300_000).await.as_secs_f64();
        assert!((270.0..330.0).contains(&took), "{way}: {took}");
    }
    drop(outcomes);
    // The bytes come evenly, however large the pieces are that the service writes.
    let mut plain = Plain::new(edge.visit("http/1.1"));
    plain.write(get("/down/100000")).await;
    plain.head().await;
    for second in 1..20u32 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut got = vec![0; 100_000];
        let count = plain.io.read(&mut got).await.unwrap();
        assert!(count <= 2100, "second {second}: {count}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_shares_its_rate_among_its_requests() {
    let (edge, _) = edge("connection.bandwidth.down = '1Mbit/s'");
    let sender = http2(&edge).await;
    let began = Instant::now();
    let uri = format!("https://{HOST}/down/125000");
    let all = (0..4).map(|_| {
        let (sender, uri) = (sender.clone(), uri.clone());
        tokio::spawn(async move { visitor::get(&sender, &uri).await.unwrap().body.len() })
    });
    let all: Vec<_> = all.collect();
    for one in all {
        assert_eq!(one.await.unwrap(), 125_000);
    }
    let took = began.elapsed().as_secs_f64();
    assert!((3.6..4.4).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn a_body_over_its_limit_is_answered_413() {
    let (edge, outcomes) = edge("request.body = '100KiB'");
    let chunked = |count: usize| {
        let mut request = format!(
            "POST /up HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n{count:x}\r\n"
        )
        .into_bytes();
        request.resize(request.len() + count, b'x');
        request.extend(b"\r\n0\r\n\r\n");
        request
    };
    let max = 100 << 10;
    for (bytes, status) in [(max, 200), (max + 1, 413)] {
        let mut plain = Plain::new(edge.visit("http/1.1"));
        assert_eq!(plain.ask(post("/up", bytes)).await.status, status);
        let mut plain = Plain::new(edge.visit("http/1.1"));
        assert_eq!(plain.ask(chunked(bytes)).await.status, status);
        let answer = post_http2(&http2(&edge).await, "/up", bytes).await.unwrap();
        assert_eq!(answer.head.status, status);
    }
    let refusal = outcomes.of("/up").await.refusal.clone();
    assert_eq!(refusal, None);
    assert_eq!(outcomes.count(), 6);
}

#[tokio::test(start_paused = true)]
async fn who_is_one_too_many_is_answered_503_until_another_leaves() {
    // edge behaviour F13
    let (edge, outcomes) = edge("request.concurrent.ip = 2");
    let mut events = Plain::new(edge.visit("http/1.1"));
    assert_eq!(events.ask_head(get("/events")).await.status, 200);
    let sender = http2(&edge).await;
    let (response, stream) = visitor::websocket_http2(&sender, HOST, "/echo")
        .await
        .unwrap();
    let mut third = Plain::new(edge.visit("http/1.1"));
    assert_eq!(third.ask(get("/down/5")).await.status, 503);
    let mut elsewhere = Plain::new(edge.visit_from("http/1.1", "203.0.113.8"));
    assert_eq!(elsewhere.ask(get("/down/5")).await.status, 200);
    let refused = outcomes.of("/down/5").await.refusal.clone().unwrap();
    assert_eq!(
        (refused.reason, refused.by.as_deref()),
        (Reason::Capacity, Some("edge/limits"))
    );
    drop((response, stream));
    outcomes.of("/echo").await;
    assert_eq!(third.ask(get("/down/6")).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn one_connection_too_many_is_refused() {
    let (edge, _) = edge("connection.concurrent.tunnel = 1");
    let mut first = Plain::new(edge.visit("http/1.1"));
    assert_eq!(first.ask(get("/down/1")).await.status, 200);
    let sender = http2(&edge).await;
    let uri = format!("https://{HOST}/down/1");
    let refused = visitor::get(&sender, &uri).await.unwrap();
    assert_eq!(refused.head.status, 503);
    assert_eq!(first.ask(get("/down/1")).await.status, 200);
    drop(first);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // A decision belongs to the connection: one that was refused asks again on another.
    let mut second = Plain::new(edge.visit("http/1.1"));
    assert_eq!(second.ask(get("/down/1")).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn what_is_idle_ends_in_its_time_too() {
    let (edge, outcomes) = edge("request.duration = '1h'");
    let began = Instant::now();
    let mut events = Plain::new(edge.visit("http/1.1"));
    assert_eq!(events.ask_head(get("/events")).await.status, 200);
    let sender = http2(&edge).await;
    let mut ready = sender.clone().ready().await.unwrap();
    let request = Request::get(format!("https://{HOST}/events?h2"))
        .body(())
        .unwrap();
    let (response, _) = ready.send_request(request, true).unwrap();
    let mut events_h2 = response.await.unwrap().into_body();
    events_h2.data().await.unwrap().unwrap();
    let mut socket = Plain::new(edge.visit("http/1.1"));
    assert_eq!(
        socket.ask(visitor::websocket(HOST, "/echo")).await.status,
        101
    );
    let (response, _stream) = visitor::websocket_http2(&sender, HOST, "/echo/h2")
        .await
        .unwrap();
    let mut socket_h2 = response.into_body();
    // An upload that never ends, not answered yet.
    let mut upload = Plain::new(edge.visit("http/1.1"));
    upload
        .write(format!(
            "POST /up HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000\r\n\r\n"
        ))
        .await;
    let feeding = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        while began.elapsed() < Duration::from_secs(3590) {
            tokio::time::sleep(Duration::from_secs(30)).await;
            upload.io.write_all(b"x").await.unwrap();
        }
        upload.answer().await
    });

    events.rest().await;
    let reset = events_h2.data().await.unwrap().unwrap_err();
    assert_eq!(reset.reason(), Some(h2::Reason::CANCEL));
    assert_eq!(socket.rest().await, b"");
    let reset = socket_h2.data().await.unwrap().unwrap_err();
    assert_eq!(reset.reason(), Some(h2::Reason::CANCEL));
    let hour = Duration::from_secs(3600);
    assert!((hour..hour + Duration::from_secs(2)).contains(&began.elapsed()));
    assert_eq!(feeding.await.unwrap().status, 503);
    for path in ["/events", "/echo", "/echo/h2", "/up"] {
        let outcome = outcomes.of(path).await;
        let refusal = outcome.refusal.clone().unwrap();
        assert_eq!(refusal.reason, Reason::TimeLimit, "{path}");
        assert_eq!(refusal.by.as_deref(), Some("edge/limits"));
        assert_eq!(
            (outcome.termination.by, outcome.termination.cause),
            (By::Server, Cause::Timeout),
            "{path}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_nobody_reads_ends_in_its_time_too() {
    let (edge, outcomes) = edge("request.duration = '10s'");
    let mut plain = Plain::new(edge.visit("http/1.1"));
    plain.write(get("/down/10000000")).await;
    let io = edge.visit("h2");
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(0)
        .handshake::<_, Bytes>(io)
        .await
        .unwrap();
    tokio::spawn(connection);
    let uri = format!("https://{HOST}/down/10000001");
    let reset = visitor::get(&sender, &uri).await.unwrap_err();
    assert_eq!(reset.reason(), Some(h2::Reason::CANCEL));
    for path in ["/down/10000000", "/down/10000001"] {
        let outcome = outcomes.of(path).await;
        assert_eq!(outcome.refusal.as_ref().unwrap().reason, Reason::TimeLimit);
    }
    assert!(plain.rest().await.len() < 1 << 20);
}

#[tokio::test(start_paused = true)]
async fn what_uses_up_its_bytes_ends() {
    let (edge, outcomes) = edge(
        "request.bytes = { up = '100KiB', down = '100KiB' }\nconnection.bytes.down = '150KiB'",
    );
    let max = 100 << 10;
    let mut plain = Plain::new(edge.visit("http/1.1"));
    assert_eq!(
        plain.ask(get(&format!("/down/{max}"))).await.body.len(),
        max
    );
    // The connection has less left than that, and comes to its end inside the answer.
    plain.write(get("/down/60000")).await;
    assert!(plain.rest().await.len() < 60_000);
    let outcome = outcomes.of("/down/60000").await;
    assert_eq!(outcome.refusal.as_ref().unwrap().reason, Reason::TooLarge);

    let sender = http2(&edge).await;
    let uri = |path: &str| format!("https://{HOST}{path}");
    let reset = visitor::get(&sender, &uri(&format!("/down/{}", max + 1)))
        .await
        .unwrap_err();
    assert_eq!(reset.reason(), Some(h2::Reason::CANCEL));
    let reset = visitor::get(&sender, &uri("/down/60001"))
        .await
        .unwrap_err();
    assert_eq!(reset.reason(), Some(h2::Reason::CANCEL));
    // What is used up is no use any more: the visitor comes again on another connection.
    let misdirected = visitor::get(&sender, &uri("/down/1")).await.unwrap();
    assert_eq!(misdirected.head.status, 421);

    let mut socket = Plain::new(edge.visit("http/1.1"));
    socket.ask(visitor::websocket(HOST, "/up/200000")).await;
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        let _broken = socket.io.write_all(&[b'x'; 200_000]).await;
        assert_eq!(socket.rest().await, b"");
    })
    .await
    .unwrap();
    let outcome = outcomes.of("/up/200000").await;
    assert_eq!(outcome.refusal.as_ref().unwrap().reason, Reason::TooLarge);
    assert_eq!(outcome.termination.by, By::Server);
}

#[tokio::test(start_paused = true)]
async fn what_a_proxy_keeps_open_holds_no_place_of_a_visitor_who_has_left() {
    let edge = TestEdge::behind(Limits::default());
    let filters = vec![
        service::grant(),
        limits("connection = { concurrent = { tunnel = 1 } }"),
    ];
    service::serve(edge.tunnel(HOST, UpstreamMode::Http1, filters));
    let from = |path: &str, address: &str| {
        get(path).replacen("\r\n", &format!("\r\nX-Forwarded-For: {address}\r\n"), 1)
    };
    let elsewhere = || Plain::new(edge.visit("http/1.1"));
    // A connection that the proxy keeps open.
    let mut one = Plain::new(edge.visit("http/1.1"));
    assert_eq!(one.ask(from("/down/1", "192.0.2.1")).await.status, 200);
    let refused = elsewhere().ask(from("/down/1", "192.0.2.2")).await;
    assert_eq!(refused.status, 503);
    tokio::time::advance(Duration::from_secs(15)).await;
    // Another is on it now, and the first has left.
    assert_eq!(one.ask(from("/down/1", "192.0.2.3")).await.status, 200);
    let refused = elsewhere().ask(from("/down/1", "192.0.2.2")).await;
    assert_eq!(refused.status, 503);
    assert_eq!(one.ask(from("/down/1", "192.0.2.3")).await.status, 200);
}
