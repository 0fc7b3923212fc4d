//! Requests with another `Host`, for development servers that refuse names they do not know.
//!
//! HTTP/1.1 is read and written again on both sides of the agent, so that every request of a
//! kept-alive connection is seen and no body taken for one. Bodies, other headers and upgraded
//! connections pass unchanged; informational responses (103) do not pass in this mode.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_transport::{Abort, Guarded};
use anyhow::Context;
use http::header::{HOST, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::Local;

/// Largest request head taken, in bytes; above what an engine lets through by default.
const HEAD_LEN_MAX: usize = 64 * 1024;

/// How long the connection to the service may take to end after the visitor's has.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Passes the requests of `visitor` on to `service`, and to further connections to `local` should
/// the service close that one, under the name `host`.
pub(super) async fn relay<V>(
    visitor: V,
    service: Guarded<TcpStream>,
    local: &Local,
    host: &str,
) -> anyhow::Result<()>
where
    V: AsyncRead + AsyncWrite + Abort + Send + Unpin + 'static,
{
    let host = HeaderValue::try_from(host).context("the host header cannot be sent")?;
    let leg = Arc::new(tokio::sync::Mutex::new(Leg::new(service).await?));
    let upgrade = Arc::new(Mutex::new(None));
    let service = service_fn({
        let (leg, upgrade) = (Arc::clone(&leg), Arc::clone(&upgrade));
        move |request| {
            let (leg, upgrade) = (Arc::clone(&leg), Arc::clone(&upgrade));
            let (local, host) = (local.clone(), host.clone());
            async move {
                // Requests of one connection come one after the other: nobody waits here.
                let mut leg = leg.lock().await;
                let (response, pair) = leg.pass_on(request, &local, host).await?;
                *upgrade.lock().unwrap_or_else(PoisonError::into_inner) = pair;
                anyhow::Ok(response)
            }
        }
    });
    hyper::server::conn::http1::Builder::new()
        .preserve_header_case(true)
        .auto_date_header(false)
        .half_close(true)
        .header_read_timeout(None)
        .max_buf_size(HEAD_LEN_MAX)
        .serve_connection(TokioIo::new(visitor), service)
        .with_upgrades()
        .await?;
    let upgraded = upgrade
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some((visitor, service)) = upgraded {
        let (visitor, service) = tokio::try_join!(visitor, service)?;
        let (mut visitor, from_visitor) = unwrap::<V>(visitor)?;
        let (mut service, from_service) = unwrap::<Guarded<TcpStream>>(service)?;
        service.write_all(&from_visitor).await?;
        visitor.write_all(&from_service).await?;
        visitor.flush().await?;
        adit_transport::relay(&mut visitor, &mut service).await?;
    } else if let Some(leg) = Arc::into_inner(leg) {
        leg.into_inner().end().await;
    }
    Ok(())
}

/// Both ends of a connection that is about to leave HTTP.
type Upgrade = (OnUpgrade, OnUpgrade);

/// A connection to the service.
struct Leg {
    sender: SendRequest<Incoming>,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Leg {
    async fn new(service: Guarded<TcpStream>) -> anyhow::Result<Self> {
        let (sender, connection) = hyper::client::conn::http1::Builder::new()
            .preserve_header_case(true)
            .handshake(TokioIo::new(service))
            .await?;
        Ok(Self {
            sender,
            connection: tokio::spawn(connection.with_upgrades()),
        })
    }

    async fn pass_on(
        &mut self,
        mut request: Request<Incoming>,
        local: &Local,
        host: HeaderValue,
    ) -> anyhow::Result<(Response<Incoming>, Option<Upgrade>)> {
        if self.sender.ready().await.is_err() {
            // The service has closed the connection since the last request.
            *self = Self::new(local.connect().await?).await?;
            self.sender.ready().await?;
        }
        request.headers_mut().insert(HOST, host);
        let visitor = hyper::upgrade::on(&mut request);
        let mut response = self.sender.send_request(request).await?;
        let upgrade = (response.status() == StatusCode::SWITCHING_PROTOCOLS)
            .then(|| (visitor, hyper::upgrade::on(&mut response)));
        Ok((response, upgrade))
    }

    /// Ends the connection in an orderly way.
    async fn end(mut self) {
        let connection = std::mem::replace(&mut self.connection, tokio::spawn(async { Ok(()) }));
        let abort = connection.abort_handle();
        drop(self);
        if tokio::time::timeout(END_TIMEOUT, connection).await.is_err() {
            abort.abort();
        }
    }
}

impl Drop for Leg {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// The stream under an upgraded connection, and what was read from it beyond HTTP.
fn unwrap<S>(upgraded: Upgraded) -> anyhow::Result<(S, bytes::Bytes)>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match upgraded.downcast::<TokioIo<S>>() {
        Ok(parts) => Ok((parts.io.into_inner(), parts.read_buf)),
        Err(_) => anyhow::bail!("the upgraded connection is of another kind"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, DuplexStream};
    use tokio::net::TcpListener;

    /// A relay to a listener of ours: the visitor's end and the listener.
    async fn start() -> (DuplexStream, TcpListener, JoinHandle<anyhow::Result<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let local = Local::parse(Some(&address)).unwrap();
        let (visitor, inner) = tokio::io::duplex(1 << 16);
        let task = tokio::spawn(async move {
            let service = local.connect().await?;
            relay(inner, service, &local, "dev.test").await
        });
        (visitor, listener, task)
    }

    async fn head(stream: &mut BufReader<impl AsyncRead + Unpin>) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(stream.read_line(&mut head).await.unwrap(), 0, "{head}");
        }
        head
    }

    #[tokio::test]
    async fn every_request_of_a_connection_gets_the_host_and_no_body_does() {
        let (visitor, listener, task) = start().await;
        let mut service = BufReader::new(listener.accept().await.unwrap().0);
        let mut visitor = BufReader::new(visitor);
        // A body that looks like a request, once by length and once in chunks.
        let decoy = "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";
        let requests = format!(
            "POST /a HTTP/1.1\r\nHost: shop.example\r\nX-Odd-Case: 1\r\nContent-Length: {}\r\n\r\n{decoy}\
             POST /b HTTP/1.1\r\nhost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{decoy}\r\n0\r\n\r\n",
            decoy.len(),
            decoy.len(),
        );
        visitor.write_all(requests.as_bytes()).await.unwrap();
        for path in ["/a", "/b"] {
            let text = head(&mut service).await;
            assert!(
                text.starts_with(&format!("POST {path} HTTP/1.1\r\n")),
                "{text}"
            );
            assert!(
                text.to_lowercase().contains("\r\nhost: dev.test\r\n"),
                "{text}"
            );
            assert!(!text.contains("shop.example"), "{text}");
            assert_eq!(text.contains("X-Odd-Case: 1"), path == "/a");
            let mut body = vec![0; decoy.len()];
            if path == "/b" {
                let mut size = String::new();
                service.read_line(&mut size).await.unwrap();
            }
            service.read_exact(&mut body).await.unwrap();
            assert_eq!(body, decoy.as_bytes());
            if path == "/b" {
                let mut rest = String::new();
                while !rest.ends_with("0\r\n\r\n") {
                    service.read_line(&mut rest).await.unwrap();
                }
            }
            service
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await
                .unwrap();
            assert!(head(&mut visitor).await.starts_with("HTTP/1.1 200 OK\r\n"));
            let mut body = [0; 2];
            visitor.read_exact(&mut body).await.unwrap();
            assert_eq!(&body, b"ok");
        }
        visitor.shutdown().await.unwrap();
        assert_eq!(service.read(&mut [0]).await.unwrap(), 0);
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_service_that_closes_after_each_answer_is_called_again() {
        let (mut visitor, listener, _task) = start().await;
        for _ in 0..2 {
            visitor
                .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                .await
                .unwrap();
            let mut service = BufReader::new(listener.accept().await.unwrap().0);
            head(&mut service).await;
            service
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await
                .unwrap();
            drop(service);
            let mut answer = [0; 17];
            visitor.read_exact(&mut answer).await.unwrap();
            let mut rest = vec![0; 21];
            visitor.read_exact(&mut rest).await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_upgraded_connection_passes_bytes_both_ways() {
        let (visitor, listener, task) = start().await;
        let mut visitor = BufReader::new(visitor);
        let mut service = BufReader::new(listener.accept().await.unwrap().0);
        // The first bytes of the new protocol come right behind the request.
        visitor
            .write_all(
                b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
            )
            .await
            .unwrap();
        let text = head(&mut service).await.to_lowercase();
        assert!(text.contains("\r\nupgrade: echo\r\n"), "{text}");
        service
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nhello",
            )
            .await
            .unwrap();
        let text = head(&mut visitor).await;
        assert!(text.starts_with("HTTP/1.1 101 "), "{text}");
        let mut bytes = [0; 5];
        visitor.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"hello");
        visitor.write_all(b"bye").await.unwrap();
        visitor.shutdown().await.unwrap();
        let mut text = String::new();
        service.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "bye");
        drop(service);
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_response_cut_short_is_not_passed_on_as_whole() {
        let (mut visitor, listener, task) = start().await;
        visitor
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        let mut service = BufReader::new(listener.accept().await.unwrap().0);
        head(&mut service).await;
        service
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            .await
            .unwrap();
        drop(service);
        let mut text = String::new();
        visitor.read_to_string(&mut text).await.unwrap();
        assert!(text.ends_with("half"), "{text}");
        assert!(task.await.unwrap().is_err());
    }
}
