//! Visitors that speak HTTP/1.1.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{HeaderValue, Request, Response, Version, header};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

use super::body::Incoming;
use super::io::{Clock, VisitorIo};
use crate::edge::body::{Inbound, ResponseBody};
use crate::edge::drive::{Answer, drive};
use crate::edge::duplex::Duplex;
use crate::edge::upgrade::Asked;
use crate::edge::visit::Visit;

/// Serves one connection until it ends, goes idle for too long or the engine drains.
pub(crate) async fn serve<I>(visit: Arc<Visit>, io: I)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = visit.limits();
    let clock = Clock::new();
    let io = TokioIo::new(VisitorIo::new(io, Arc::clone(&clock), &limits));
    let service = service_fn({
        let (visit, clock) = (Arc::clone(&visit), Arc::clone(&clock));
        // hyper keeps the room of a service's future for as long as the connection lives: a box of
        // its own for each request makes an idle connection a third smaller.
        move |request| Box::pin(answer(Arc::clone(&visit), Arc::clone(&clock), request))
    });
    let connection = hyper::server::conn::http1::Builder::new()
        // hyper answers 431 to a head over either of these.
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes.max(MIN_BUFFER_BYTES))
        .max_headers(limits.header_fields)
        .serve_connection(io, service)
        .with_upgrades();
    tokio::pin!(connection);
    let mut drain = visit.draining();
    let mut draining = false;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "visitor connection ended");
                }
                break;
            }
            () = clock.expired(&limits) => {
                tracing::debug!("visitor connection closed: idle, or one side took too long");
                return;
            }
            () = clock.cut().notified() => {
                tracing::debug!("visitor connection cut: its exchange had to end");
                return;
            }
            () = drain.begun(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
    // A connection that left HTTP keeps its place among the visitors until it really ends.
    if let Some(relay) = clock.relay() {
        let mut relay = AbortOnDrop(relay);
        let _panicked_or_aborted = (&mut relay.0).await;
    }
}

/// Ends a task together with who waits for it.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Least read buffer hyper works with, in bytes; it panics below 8 KiB.
const MIN_BUFFER_BYTES: usize = 16 << 10;

/// Tells hyper to close the connection without an answer.
#[derive(Debug)]
struct Unanswered;

impl fmt::Display for Unanswered {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("closed by a filter")
    }
}

impl std::error::Error for Unanswered {}

impl From<Infallible> for Unanswered {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

async fn answer(
    visit: Arc<Visit>,
    clock: Arc<Clock>,
    mut request: Request<hyper::body::Incoming>,
) -> Result<Response<ResponseBody>, Unanswered> {
    let busy = clock.begin();
    let asked = Asked::of_http1(request.method(), request.version(), request.headers());
    let switch = asked.is_some().then(|| hyper::upgrade::on(&mut request));
    // hyper reads a head with both framings as chunked and drops the length unseen. Whoever framed
    // it otherwise must not find a next request behind it (RFC 9112 §6.1).
    let ambiguous = request.headers().contains_key(header::TRANSFER_ENCODING);
    let version = request.version();
    let (head, body) = request.into_parts();
    let inbound = Inbound::Http1(Incoming::new(body));
    let answer = drive(&visit, head, inbound, asked, clock.unread()).await;
    let mut response = match answer {
        Answer::Close => return Err(Unanswered),
        Answer::Switch { head, relay } => {
            let Some(switch) = switch else {
                return Err(Unanswered);
            };
            let relay = tokio::spawn(async move {
                match switch.await {
                    Ok(upgraded) => relay.run(Duplex::io(TokioIo::new(upgraded))).await,
                    Err(error) => tracing::debug!(%error, "visitor left before the upgrade"),
                }
            });
            clock.leave_http(relay);
            let mut body = ResponseBody::empty();
            body.keep_busy(busy);
            return Ok(Response::from_parts(head, body));
        }
        Answer::Response { head, mut body } => {
            body.keep_busy(busy);
            body.cuts(clock.cut());
            Response::from_parts(head, body)
        }
    };
    // A client that sent on without waiting for the switch it was refused must not have those
    // bytes taken for its next request.
    let optimistic = switch.is_some();
    let unread = clock.unread().load(Ordering::Relaxed);
    if ambiguous || optimistic || unread || visit.is_draining() {
        let fields = response.headers_mut();
        fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if version == Version::HTTP_10 {
        // HTTP/1.0 has no trailers and no chunks; hyper frames by closing.
        response.headers_mut().remove(header::TRAILER);
    }
    Ok(response)
}
