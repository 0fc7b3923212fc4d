//! Bodies, piece by piece.

use std::convert::Infallible;

use adit_agent::{Client, TunnelOptions};
use adit_tests::engine::TestEngine;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::{answer_one, rules};

/// A service that sends back the body it was sent.
async fn publish_echo(client: &Client) -> String {
    let mut tunnel = client.create_tunnel(TunnelOptions::http()).await.unwrap();
    let host = tunnel.info().unwrap().hostname().unwrap().to_owned();
    tokio::spawn(async move {
        while let Ok(stream) = tunnel.accept().await {
            let echo = service_fn(async |request: Request<Incoming>| {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                Ok::<_, Infallible>(Response::new(Full::new(body)))
            });
            tokio::spawn(async move {
                let _ended = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), echo)
                    .await;
            });
        }
    });
    host
}

/// One `POST` in chunks.
async fn post(engine: &TestEngine, host: &str, path: &str, chunks: &[&str]) -> String {
    let mut stream = engine.visit(host, "http/1.1").await;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}:{}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
        engine.port()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    for chunk in chunks.iter().chain(&[""]) {
        let text = format!("{:x}\r\n{chunk}\r\n", chunk.len());
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
    }
    let mut answer = Vec::new();
    let _close_notify_or_not = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn bodies_are_changed_piece_by_piece_and_whole() {
    let engine = TestEngine::start(&rules("door", "", "")).await;
    let client = engine.client().await;
    let host = publish_echo(&client).await;
    let as_it_was = post(&engine, &host, "/x", &["ab", "cd"]).await;
    assert!(
        as_it_was.contains("ab") && as_it_was.contains("cd"),
        "{as_it_was}"
    );
    let (status, answer) = (200, post(&engine, &host, "/up", &["ab", "cd"]).await);
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status}")),
        "{answer}"
    );
    assert!(answer.contains("ABCD"), "{answer}");
    let answer = post(&engine, &host, "/body", &["ab", "cd", "ef"]).await;
    assert!(answer.contains("ABCDEF of 6"), "{answer}");
    assert!(!answer.contains("abcdef"), "{answer}");
    // More than may be held is refused, and what fails never looks whole.
    let large = "x".repeat(600 << 10);
    let answer = post(&engine, &host, "/body", &[&large, &large]).await;
    assert!(!answer.contains("of 1228800"), "{}", answer.len());
    let answer = post(&engine, &host, "/body-panic", &["ab"]).await;
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
    let answer = post(&engine, &host, "/body", &["again"]).await;
    assert!(answer.contains("AGAIN of 5"), "{answer}");
}

#[tokio::test]
async fn an_end_is_told_however_a_body_is_framed() {
    let engine = TestEngine::start(&rules("door", "", "")).await;
    let client = engine.client().await;
    let host = publish_echo(&client).await;
    for (chunks, bytes) in [(&["ab", "cd"][..], 4), (&[], 0)] {
        let answer = post(&engine, &host, "/pieces", chunks).await;
        let (_, told) = answer.split_once("head false, ").unwrap();
        let told = told.lines().next().unwrap();
        let pieces = told.split(", ").map(|piece| piece.split_once(' ').unwrap());
        let seen: usize = pieces
            .clone()
            .map(|(bytes, _)| bytes.parse::<usize>().unwrap())
            .sum();
        assert_eq!(seen, bytes, "{answer}");
        let ends: Vec<_> = pieces.map(|(_, end)| end).collect();
        let (last, before) = ends.split_last().unwrap();
        assert_eq!(*last, "true", "{answer}");
        assert!(before.iter().all(|end| *end == "false"), "{answer}");
    }
    // In HTTP/2 no field says that there is a body.
    let visitor = engine.h2(&host).await;
    for with_body in [true, false] {
        let uri = format!("https://{host}:{}/pieces", engine.port());
        let request = Request::post(uri).body(()).unwrap();
        let mut sender = visitor.clone().ready().await.unwrap();
        let (answer, mut body) = sender.send_request(request, !with_body).unwrap();
        if with_body {
            body.send_data(Bytes::from_static(b"abcd"), true).unwrap();
        }
        let mut answer = answer.await.unwrap().into_body();
        let mut text = Vec::new();
        while let Some(piece) = answer.data().await {
            text.extend_from_slice(&piece.unwrap());
        }
        let text = String::from_utf8(text).unwrap();
        match with_body {
            true => {
                assert!(text.starts_with("head false, 4 "), "{text}");
                assert!(text.ends_with(" true"), "{text}");
            }
            // What was announced is not told twice.
            false => assert_eq!(text, ""),
        }
    }
}

#[tokio::test]
async fn calls_that_no_exchange_waits_for_are_made_and_outlive_a_reload() {
    let authz = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://127.0.0.1:{}", authz.local_addr().unwrap().port());
    let filter = format!(", configuration = \"\", clusters = {{ authz = \"{url}\" }}");
    let granted = "allow-private-hosts = [\"127.0.0.1\"]";
    let first = rules("door", granted, &filter);
    let engine = TestEngine::start(&first).await;
    let client = engine.client().await;
    let host = publish_echo(&client).await;
    let mut stream = engine.visit(&host, "http/1.1").await;
    let begun = format!(
        "POST /body-ask HTTP/1.1\r\nHost: {host}:{}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        engine.port()
    );
    stream.write_all(begun.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    // A callback for a body has made the first call, and the answer to it the second: after a reload too.
    let (socket, _) = authz.accept().await.unwrap();
    engine.rewrite(&first.replace("configuration = \"\"", "configuration = \"new\""));
    engine.engine.reload().unwrap();
    let (_, new) = engine.get(&host, "/", "").await;
    assert!(new.contains("x-configuration: new"), "{new}");
    answer_one(socket, ok).await;
    let (socket, _) = authz.accept().await.unwrap();
    answer_one(socket, ok).await;
    stream.write_all(b"2\r\ncd\r\n0\r\n\r\n").await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    let _close_notify_or_not = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("abcd"), "{answer}");
}
