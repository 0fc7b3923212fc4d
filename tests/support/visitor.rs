//! Visitors: HTTP/1.1 as bytes, HTTP/2 through a client of its own.

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};

/// A visitor that writes its HTTP/1.1 by hand.
pub struct Plain<S = DuplexStream> {
    pub io: S,
    read: Vec<u8>,
}

/// One answer as it was on the wire.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Status line and fields, lower case.
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Plain<S> {
    pub fn new(io: S) -> Self {
        Self {
            io,
            read: Vec::new(),
        }
    }

    pub async fn write(&mut self, text: impl AsRef<[u8]>) {
        self.io.write_all(text.as_ref()).await.unwrap();
    }

    /// Sends a request and reads its answer.
    pub async fn ask(&mut self, text: impl AsRef<[u8]>) -> Answer {
        self.write(text).await;
        self.answer().await
    }

    /// Sends a request and reads the head of its answer.
    pub async fn ask_head(&mut self, text: impl AsRef<[u8]>) -> Answer {
        self.write(text).await;
        self.head().await
    }

    /// Reads until the bytes so far hold `end`; returns everything up to and with it.
    pub async fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = find(&self.read, end) {
                let rest = self.read.split_off(at + end.len());
                return std::mem::replace(&mut self.read, rest);
            }
            let mut chunk = [0; 8192];
            let count = self.io.read(&mut chunk).await.unwrap_or(0);
            assert!(
                count > 0,
                "closed after {:?}",
                String::from_utf8_lossy(&self.read)
            );
            self.read.extend_from_slice(&chunk[..count]);
        }
    }

    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            let mut chunk = [0; 8192];
            let got = self.io.read(&mut chunk).await.unwrap_or(0);
            assert!(got > 0, "closed after {} bytes", self.read.len());
            self.read.extend_from_slice(&chunk[..got]);
        }
        let rest = self.read.split_off(count);
        std::mem::replace(&mut self.read, rest)
    }

    /// Everything until the peer closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.read);
        let _reset_is_an_end_too = self.io.read_to_end(&mut rest).await;
        rest
    }

    pub async fn head(&mut self) -> Answer {
        let head = String::from_utf8(self.until(b"\r\n\r\n").await)
            .unwrap()
            .to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer {
            status,
            head,
            body: Vec::new(),
        }
    }

    pub async fn answer(&mut self) -> Answer {
        let mut answer = self.head().await;
        if let Some(length) = answer.field("content-length") {
            let length = length.parse().unwrap();
            answer.body = self.exactly(length).await;
        } else if answer.field("transfer-encoding") == Some("chunked") {
            loop {
                let size = self.until(b"\r\n").await;
                let size = std::str::from_utf8(&size).unwrap().trim();
                let size = usize::from_str_radix(size, 16).unwrap();
                if size == 0 {
                    let trailers = self.trailers().await;
                    answer.head.push_str(&trailers);
                    break;
                }
                answer.body.extend(self.exactly(size).await);
                self.exactly(2).await;
            }
        }
        answer
    }

    async fn trailers(&mut self) -> String {
        let mut all = String::new();
        loop {
            let line = String::from_utf8(self.until(b"\r\n").await).unwrap();
            if line == "\r\n" {
                return all;
            }
            all.push_str(&line.to_ascii_lowercase());
        }
    }
}

fn find(all: &[u8], part: &[u8]) -> Option<usize> {
    all.windows(part.len()).position(|window| window == part)
}

/// Begins HTTP/2.
pub async fn http2(io: DuplexStream) -> SendRequest<Bytes> {
    let (sender, connection) = h2::client::handshake(io).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A whole answer over HTTP/2.
#[derive(Debug)]
pub struct Whole {
    pub head: http::response::Parts,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

/// Reads an answer to its end.
///
/// # Errors
/// The stream's error.
pub async fn whole(response: Response<h2::RecvStream>) -> Result<Whole, h2::Error> {
    let (head, mut stream) = response.into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await?;
    Ok(Whole {
        head,
        body,
        trailers,
    })
}

/// Sends a request without a body and reads the answer.
///
/// # Errors
/// The stream's error.
pub async fn get(sender: &SendRequest<Bytes>, uri: &str) -> Result<Whole, h2::Error> {
    let mut sender = sender.clone().ready().await?;
    let request = Request::get(uri).body(()).unwrap();
    let (response, _) = sender.send_request(request, true)?;
    whole(response.await?).await
}

/// A key for a WebSocket, as good as any (RFC 6455 §1.3).
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// What a server answers to a WebSocket's key (RFC 6455 §4.2.2).
pub fn accept_of(key: &str) -> String {
    use base64::Engine as _;
    use sha1::Digest as _;
    let digest = sha1::Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    base64::engine::general_purpose::STANDARD.encode(digest)
}

/// Asks for a WebSocket over HTTP/1.1.
pub fn websocket(host: &str, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    )
}

/// Opens a WebSocket over HTTP/2 (RFC 8441); the connection has been answered something before, with the settings that
/// allow it.
///
/// # Errors
/// The stream's error.
pub async fn websocket_http2(
    sender: &SendRequest<Bytes>,
    host: &str,
    path: &str,
) -> Result<(Response<h2::RecvStream>, h2::SendStream<Bytes>), h2::Error> {
    let mut ready = sender.clone().ready().await?;
    let request = Request::connect(format!("https://{host}{path}"))
        .extension(h2::ext::Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(())
        .unwrap();
    let (response, stream) = ready.send_request(request, false)?;
    Ok((response.await?, stream))
}
