//! One request in the clear, one answer, and the connection ends: all that the redirect and the
//! metrics need of HTTP (RFC 9112).

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What a connection is held to.
#[derive(Clone, Debug)]
pub(crate) struct PlainLimits {
    pub(crate) header_bytes: usize,
    pub(crate) header_fields: usize,
    /// For the whole request head.
    pub(crate) header_wait: Duration,
    /// For the rest of what the peer sends, once it was answered.
    pub(crate) lingering: Duration,
    pub(crate) lingering_bytes: usize,
}

/// A request's head, as much of it as is of use here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) host: Option<String>,
    pub(crate) authorization: Option<String>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: &'static str,
    pub(crate) fields: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// A short text.
    pub(crate) fn text(status: &'static str, text: &str) -> Self {
        Self {
            status,
            fields: vec![("content-type", "text/plain; charset=utf-8".to_owned())],
            body: format!("{text}\n").into_bytes(),
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    pub(crate) fn bytes(&self, head_only: bool) -> Vec<u8> {
        let mut bytes = format!("HTTP/1.1 {}\r\n", self.status).into_bytes();
        for (name, value) in &self.fields {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        let length = self.body.len();
        let end = format!("content-length: {length}\r\nconnection: close\r\n\r\n");
        bytes.extend_from_slice(end.as_bytes());
        if !head_only {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }
}

/// Serves one request from `io`, of which `buffer` was read already, with what `answer` says.
pub(crate) async fn serve<Io>(
    mut io: Io,
    mut buffer: Vec<u8>,
    limits: &PlainLimits,
    answer: impl FnOnce(&Request) -> Answer,
) where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let head = tokio::time::timeout(limits.header_wait, read(&mut io, &mut buffer, limits)).await;
    let reply = match head {
        Ok(Ok(Head::Request(request))) => {
            let head_only = request.method == "HEAD";
            answer(&request).bytes(head_only)
        }
        Ok(Ok(Head::TooLarge)) => Answer::text(
            "431 Request Header Fields Too Large",
            "the request head is too large",
        )
        .bytes(false),
        Ok(Ok(Head::Malformed)) => {
            Answer::text("400 Bad Request", "this is no HTTP/1.1 request").bytes(false)
        }
        Ok(Err(_)) => return,
        Err(_) => Answer::text(
            "408 Request Timeout",
            "the request head did not come in time",
        )
        .bytes(false),
    };
    close_with(io, &reply, limits.lingering, limits.lingering_bytes).await;
}

/// Writes `reply` and ends the connection so that the peer can read it: what it still sends is
/// read for a while, because closing over unread bytes would reset the connection (RFC 9112 §9.6).
pub(crate) async fn close_with<Io>(mut io: Io, reply: &[u8], lingering: Duration, bytes: usize)
where
    Io: AsyncRead + AsyncWrite + Unpin,
{
    let farewell = async {
        io.write_all(reply).await?;
        io.shutdown().await?;
        let mut rest = io.take(bytes as u64);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
        io::Result::Ok(())
    };
    // Whatever fails here, the connection is over.
    let _ = tokio::time::timeout(lingering, farewell).await;
}

enum Head {
    Malformed,
    Request(Request),
    TooLarge,
}

async fn read<Io>(io: &mut Io, buffer: &mut Vec<u8>, limits: &PlainLimits) -> io::Result<Head>
where
    Io: AsyncRead + Unpin,
{
    let mut searched = 0;
    loop {
        if let Some(end) = head_end(buffer, searched) {
            return Ok(parse(
                buffer.get(..end).unwrap_or_default(),
                limits.header_fields,
            ));
        }
        searched = buffer.len();
        if buffer.len() >= limits.header_bytes {
            return Ok(Head::TooLarge);
        }
        let room = (limits.header_bytes - buffer.len()).min(4096);
        if (&mut *io).take(room as u64).read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Where the head ends, looking at nothing twice but the few bytes an end may straddle.
fn head_end(bytes: &[u8], searched: usize) -> Option<usize> {
    let from = searched.saturating_sub(3);
    let position = bytes
        .get(from..)?
        .windows(4)
        .position(|four| four == b"\r\n\r\n")?;
    Some(from + position + 4)
}

fn parse(bytes: &[u8], fields_max: usize) -> Head {
    let mut fields = vec![httparse::EMPTY_HEADER; fields_max];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Head::TooLarge,
        Ok(httparse::Status::Partial) | Err(_) => return Head::Malformed,
    }
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Head::Malformed;
    };
    let mut found: [Option<String>; 2] = [None, None];
    for field in request.headers.iter() {
        for (slot, name) in found.iter_mut().zip(["host", "authorization"]) {
            if field.name.eq_ignore_ascii_case(name) {
                let Ok(value) = std::str::from_utf8(field.value) else {
                    return Head::Malformed;
                };
                // Two hosts or two credentials: which is meant cannot be known (RFC 9112 §3.2).
                if slot.replace(value.trim().to_owned()).is_some() {
                    return Head::Malformed;
                }
            }
        }
    }
    let [host, authorization] = found;
    Head::Request(Request {
        method: method.to_owned(),
        target: target.to_owned(),
        host,
        authorization,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn limits() -> PlainLimits {
        PlainLimits {
            header_bytes: 512,
            header_fields: 4,
            header_wait: Duration::from_secs(30),
            lingering: Duration::from_secs(5),
            lingering_bytes: 1024,
        }
    }

    async fn ask(request: &[u8]) -> String {
        let (mut peer, io) = tokio::io::duplex(1 << 16);
        peer.write_all(request).await.unwrap();
        let serving = tokio::spawn(async move {
            serve(io, Vec::new(), &limits(), |request| {
                Answer::text("200 OK", &request.target)
            })
            .await;
        });
        let mut reply = String::new();
        peer.read_to_string(&mut reply).await.unwrap();
        drop(peer);
        serving.await.unwrap();
        reply
    }

    #[tokio::test]
    async fn one_request_gets_one_answer() {
        let reply = ask(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
        assert!(
            reply.ends_with("content-length: 3\r\nconnection: close\r\n\r\n/a\n"),
            "{reply}"
        );
        let reply = ask(b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(
            reply.ends_with("content-length: 3\r\nconnection: close\r\n\r\n"),
            "{reply}"
        );
    }

    #[tokio::test]
    async fn heads_over_the_limits_are_refused() {
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(600));
        assert!(ask(long.as_bytes()).await.starts_with("HTTP/1.1 431 "));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(5));
        assert!(ask(many.as_bytes()).await.starts_with("HTTP/1.1 431 "));
        for wrong in [
            &b"nonsense\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            b"GET / HTTP/1.1\r\nbad name: b\r\n\r\n",
        ] {
            assert!(ask(wrong).await.starts_with("HTTP/1.1 400 "));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_come_is_not_waited_for() {
        let begun = tokio::time::Instant::now();
        assert!(ask(b"GET / HT").await.starts_with("HTTP/1.1 408 "));
        assert!(begun.elapsed() >= Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_ends_is_left_after_the_lingering_time() {
        let (mut peer, io) = tokio::io::duplex(1 << 16);
        peer.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let begun = tokio::time::Instant::now();
        serve(io, Vec::new(), &limits(), |_| Answer::text("200 OK", "x")).await;
        assert_eq!(begun.elapsed().as_secs(), 5);
        drop(peer);
    }
}
