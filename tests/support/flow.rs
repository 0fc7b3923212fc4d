//! An exchange that goes on until somebody ends it, in each way there is.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::engine::TestEngine;
use crate::visitor;

/// Open exchanges are judged again within this time.
const JUDGED_WITHIN: Duration = Duration::from_secs(5);

/// Ways in which an exchange goes on.
pub const WAYS: [&str; 4] = ["h1 body", "h1 websocket", "h2 body", "h2 websocket"];

/// One that goes on.
pub struct Flow {
    way: &'static str,
    carrier: Carrier,
}

enum Carrier {
    Http1(Box<TlsStream<TcpStream>>),
    Http2 {
        body: h2::RecvStream,
        socket: Option<h2::SendStream<Bytes>>,
    },
}

/// A visitor's fields, as lines of HTTP/1.1.
type Fields<'a> = &'a str;

impl Flow {
    /// Begins one of these [`WAYS`], with these fields.
    ///
    /// # Errors
    /// The status, if it is not let in.
    pub async fn begin(
        engine: &TestEngine,
        host: &str,
        way: &'static str,
        fields: Fields<'_>,
    ) -> Result<Self, u16> {
        let carrier = match way {
            "h1 body" => {
                let request = format!("GET /events HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
                let stream = engine.visit(host, "http/1.1").await;
                http1(stream, &request, 200, b"data: 0\n\n").await?
            }
            "h1 websocket" => {
                let stream = engine.visit(host, "http/1.1").await;
                return Self::websocket_on(stream, host, fields).await;
            }
            "h2 body" => http2(engine, host, fields, false).await?,
            "h2 websocket" => http2(engine, host, fields, true).await?,
            _ => panic!("{way}"),
        };
        Ok(Self { way, carrier })
    }

    /// Begins a WebSocket on a connection over HTTP/1.1.
    ///
    /// # Errors
    /// The status, if it is not let in.
    pub async fn websocket_on(
        stream: TlsStream<TcpStream>,
        host: &str,
        fields: Fields<'_>,
    ) -> Result<Self, u16> {
        let request = visitor::websocket(host, "/echo");
        let request = request.replacen("\r\n", &format!("\r\n{fields}"), 1);
        Ok(Self {
            way: "h1 websocket",
            carrier: http1(stream, &request, 101, b"").await?,
        })
    }

    /// Waits until it ends, which has to be soon.
    pub async fn ends(&mut self) {
        let way = self.way;
        let end = async {
            match &mut self.carrier {
                Carrier::Http1(stream) => {
                    let read = stream.read(&mut [0; 64]).await;
                    assert!(!matches!(read, Ok(1..)), "{way}");
                }
                Carrier::Http2 { body, .. } => {
                    let read = body.data().await;
                    assert!(!matches!(read, Some(Ok(_))), "{way}: {read:?}");
                }
            }
        };
        let ended = tokio::time::timeout(JUDGED_WITHIN, end).await;
        assert!(ended.is_ok(), "{way} goes on");
    }

    /// Whether it goes on: what can answer does, and what cannot has nothing to say.
    pub async fn goes_on(&mut self) -> bool {
        let is_socket = self.way.ends_with("websocket");
        match &mut self.carrier {
            Carrier::Http1(stream) if is_socket => {
                let mut back = [0; 4];
                stream.write_all(b"ping").await.is_ok()
                    && stream.read_exact(&mut back).await.is_ok()
                    && back == *b"ping"
            }
            Carrier::Http1(stream) => {
                let mut one = [0; 1];
                tokio::select! {
                    biased;
                    _ = stream.read(&mut one) => false,
                    () = std::future::ready(()) => true,
                }
            }
            Carrier::Http2 {
                body,
                socket: Some(socket),
            } => {
                let sent = socket.send_data(Bytes::from_static(b"ping"), false);
                sent.is_ok() && matches!(body.data().await, Some(Ok(back)) if back == "ping")
            }
            Carrier::Http2 { body, .. } => tokio::select! {
                biased;
                _ = body.data() => false,
                () = std::future::ready(()) => true,
            },
        }
    }
}

async fn http1(
    mut stream: TlsStream<TcpStream>,
    request: &str,
    status: u16,
    begins: &[u8],
) -> Result<Carrier, u16> {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(read).unwrap();
    let got = head.split(' ').nth(1).unwrap().parse().unwrap();
    if got != status {
        return Err(got);
    }
    let mut read = Vec::new();
    while !begins.is_empty() && !read.windows(begins.len()).any(|window| window == begins) {
        read.push(stream.read_u8().await.unwrap());
    }
    // The end of the chunk.
    if !begins.is_empty() {
        stream.read_exact(&mut [0; 2]).await.unwrap();
    }
    Ok(Carrier::Http1(Box::new(stream)))
}

async fn http2(
    engine: &TestEngine,
    host: &str,
    fields: Fields<'_>,
    socket: bool,
) -> Result<Carrier, u16> {
    let sender = engine.h2(host).await;
    // The settings that allow extended CONNECT come with the first answer.
    let first = Request::get(format!("https://{host}/up")).body(()).unwrap();
    let mut ready = sender.clone().ready().await.unwrap();
    let (answer, _) = ready.send_request(first, true).unwrap();
    let _any = answer.await.unwrap();

    let mut request = match socket {
        true => Request::connect(format!("https://{host}/echo"))
            .extension(h2::ext::Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13"),
        false => Request::get(format!("https://{host}/events")),
    };
    for line in fields.lines() {
        let (name, value) = line.split_once(": ").unwrap();
        request = request.header(name, value);
    }
    let mut ready = sender.ready().await.unwrap();
    let request = request.body(()).unwrap();
    let (answer, send) = ready.send_request(request, !socket).unwrap();
    let answer = answer.await.unwrap();
    if answer.status() != 200 {
        return Err(answer.status().as_u16());
    }
    let mut body = answer.into_body();
    if !socket {
        assert_eq!(body.data().await.unwrap().unwrap(), "data: 0\n\n");
    }
    Ok(Carrier::Http2 {
        body,
        socket: socket.then_some(send),
    })
}
