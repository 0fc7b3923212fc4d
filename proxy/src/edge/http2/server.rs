//! Visitors that speak HTTP/2.

use std::future::poll_fn;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use http::{Request, Response, header};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::body::{Incoming, Outgoing};
use super::guard::Guard;
use super::lingering::Lingering;
use super::malformed::is_malformed;
use crate::edge::abort::{Abort, code};
use crate::edge::backlog::Backlog;
use crate::edge::body::{Inbound, ResponseBody, Unread};
use crate::edge::drive::{Answer, drive};
use crate::edge::duplex::Duplex;
use crate::edge::limits::Limits;
use crate::edge::upgrade::Asked;
use crate::edge::visit::Visit;

/// Over which time a visitor's resets are counted.
const RESET_WINDOW: Duration = Duration::from_secs(60);
/// Streams a visitor may reset before the edge has looked at them; beyond, h2 ends the connection.
const PENDING_RESETS_MAX: usize = 32;
/// How often, within the time it may take, a visitor that does not read is looked at.
const LOOKS_PER_STALL: u32 = 4;
/// Streams remembered after the edge reset them, so that late frames are not taken for errors.
const REMEMBERED_RESETS_MAX: usize = 64;
/// Stream errors by the visitor's own fault that a connection survives.
const LOCAL_ERRORS_MAX: usize = 256;

/// Serves one connection until it ends, goes idle for too long or the engine drains.
pub(crate) async fn serve<I>(visit: Arc<Visit>, io: I)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = visit.limits();
    let backlog = Arc::new(Backlog::default());
    let handshake = h2::server::Builder::new()
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.h2_streams)
        .initial_window_size(limits.h2_stream_window)
        .initial_connection_window_size(limits.h2_connection_window)
        .max_send_buffer_size(limits.h2_send_buffer)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_concurrent_reset_streams(REMEMBERED_RESETS_MAX)
        .max_local_error_reset_streams(Some(LOCAL_ERRORS_MAX))
        .enable_connect_protocol()
        .handshake::<_, Bytes>(Guard::new(io, Arc::clone(&backlog)));
    let connection = match tokio::time::timeout(limits.header_wait, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%error, "visitor connection ended"),
        Err(_) => return tracing::debug!("visitor connection closed: no preface in time"),
    };
    Serving {
        visit,
        limits,
        backlog,
        streams: Arc::default(),
        resets: 0,
        resets_since: Instant::now(),
    }
    .run(connection)
    .await;
}

/// The `:protocol` of an extended CONNECT (RFC 8441 §4).
pub(crate) fn protocol(head: &http::request::Parts) -> Option<String> {
    head.extensions
        .get::<h2::ext::Protocol>()
        .map(|protocol| protocol.as_str().to_owned())
}

/// What the connection's task shares with its streams'.
#[derive(Default)]
struct Streams {
    open: AtomicUsize,
    reset: AtomicUsize,
    changed: Notify,
}

struct Serving {
    visit: Arc<Visit>,
    backlog: Arc<Backlog>,
    limits: Arc<Limits>,
    streams: Arc<Streams>,
    resets: usize,
    resets_since: Instant,
}

impl Serving {
    async fn run<I>(mut self, mut connection: Connection<I, Bytes>)
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let mut drain = self.visit.draining();
        let mut closing = false;
        let look = tokio::time::sleep(self.limits.idle);
        tokio::pin!(look);
        loop {
            let mut begins_to_close = false;
            tokio::select! {
                biased;
                accepted = poll_fn(|cx| connection.poll_accept(cx)) => match accepted {
                    Some(Ok((request, respond))) => self.stream(request, respond),
                    Some(Err(error)) => {
                        return tracing::debug!(%error, "visitor connection ended");
                    }
                    None => return,
                },
                () = self.streams.changed.notified() => {
                    let wait = if closing { self.limits.lingering } else { self.limits.idle };
                    look.as_mut().reset(Instant::now() + wait);
                }
                () = &mut look => {
                    let open = self.streams.open.load(Ordering::Relaxed);
                    if self.backlog.is_older_than(self.limits.write_idle) || closing && open == 0 {
                        // The visitor does not read, or has not said goodbye in its time.
                        return tracing::debug!("visitor connection cut");
                    }
                    begins_to_close = open == 0;
                    let wait = match closing {
                        true => self.limits.lingering,
                        false => self.limits.idle.min(self.limits.write_idle / LOOKS_PER_STALL),
                    };
                    look.as_mut().reset(Instant::now() + wait);
                }
                () = drain.begun(), if !closing => begins_to_close = true,
            }
            if self.too_many_resets() {
                tracing::debug!("visitor connection closed: too many resets");
                connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
                let farewell = poll_fn(|cx| connection.poll_closed(cx));
                let _said_or_not = tokio::time::timeout(self.limits.lingering, farewell).await;
                return;
            }
            if begins_to_close && !closing {
                closing = true;
                connection.graceful_shutdown();
                look.as_mut().reset(Instant::now() + self.limits.lingering);
            }
        }
    }

    fn stream(&self, request: Request<h2::RecvStream>, respond: SendResponse<Bytes>) {
        let streams = Arc::clone(&self.streams);
        streams.open.fetch_add(1, Ordering::Relaxed);
        let visit = Arc::clone(&self.visit);
        tokio::spawn(async move {
            if let End::ResetByVisitor = exchange(&visit, request, respond).await {
                streams.reset.fetch_add(1, Ordering::Relaxed);
                streams.changed.notify_one();
            }
            if streams.open.fetch_sub(1, Ordering::Relaxed) == 1 {
                streams.changed.notify_one();
            }
        });
    }

    fn too_many_resets(&mut self) -> bool {
        let seen = self.streams.reset.load(Ordering::Relaxed);
        if self.resets_since.elapsed() > RESET_WINDOW {
            self.resets_since = Instant::now();
            self.resets = seen;
        }
        seen.saturating_sub(self.resets) > self.limits.h2_resets_per_minute as usize
    }
}

enum End {
    Done,
    ResetByVisitor,
}

async fn exchange(
    visit: &Arc<Visit>,
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> End {
    let patience = visit.limits().write_idle;
    let (mut head, stream) = request.into_parts();
    if is_malformed(&head) {
        let mut response = Response::new(());
        *response.status_mut() = http::StatusCode::BAD_REQUEST;
        if let Ok(mut stream) = respond.send_response(response, false) {
            stream.send_reset(h2::Reason::PROTOCOL_ERROR);
        }
        return End::Done;
    }
    if head.headers.len() > visit.limits().header_fields {
        let mut response = Response::new(());
        *response.status_mut() = http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let _gone = respond.send_response(response, true);
        return End::Done;
    }
    // HTTP/2 has no such wait of its own on the wire; who asks for it gets it at once.
    if head.headers.remove(header::EXPECT).is_some() && !stream.is_end_stream() {
        let mut proceed = Response::new(());
        *proceed.status_mut() = http::StatusCode::CONTINUE;
        let _gone = respond.send_informational(proceed);
    }
    let asked = Asked::of_http2(&head);
    let body = Incoming::new(stream);
    // An extended CONNECT has no message; its stream is kept for the relay.
    let (inbound, kept) = match asked {
        Some(_) => (Inbound::Empty, Some(body)),
        None => {
            let body = Lingering::new(body, &visit.limits());
            (Inbound::Http2(body), None)
        }
    };
    let unread = Unread::default();
    let driven = drive(visit, head, inbound, asked, unread);
    tokio::pin!(driven);
    let answer = tokio::select! {
        biased;
        answer = &mut driven => answer,
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return End::ResetByVisitor,
    };
    match answer {
        Answer::Close => {
            respond.send_reset(h2::Reason::CANCEL);
            End::Done
        }
        Answer::Response { head, body } => answer_with(respond, head, body, patience).await,
        Answer::Switch { head, relay } => {
            let Some(reader) = kept else {
                respond.send_reset(h2::Reason::INTERNAL_ERROR);
                return End::Done;
            };
            if let Ok(stream) = respond.send_response(Response::from_parts(head, ()), false) {
                relay
                    .run(Duplex::http2(reader, Outgoing::new(stream, patience)))
                    .await;
            }
            End::Done
        }
    }
}

async fn answer_with(
    mut respond: SendResponse<Bytes>,
    mut head: http::response::Parts,
    mut body: ResponseBody,
    patience: Duration,
) -> End {
    head.headers.remove(header::CONNECTION);
    let end = body.is_end_stream();
    let Ok(stream) = respond.send_response(Response::from_parts(head, ()), end) else {
        body.reset(code::CANCEL);
        return End::ResetByVisitor;
    };
    if end {
        return End::Done;
    }
    let mut stream = Outgoing::new(stream, patience);
    let stopped = body.stopped();
    let pumped = tokio::select! {
        biased;
        pumped = pump(&mut body, &mut stream) => pumped,
        () = stopped => {
            stream.reset(code::CANCEL);
            Err(Abort::Closed)
        }
    };
    match pumped {
        Ok(()) => End::Done,
        Err(Abort::Reset(code)) => {
            body.reset(code);
            End::ResetByVisitor
        }
        Err(_) => {
            body.reset(code::CANCEL);
            End::Done
        }
    }
}

/// Moves a response body to the visitor. The error is the visitor's own end; an upstream's is
/// passed on as a reset.
async fn pump(body: &mut ResponseBody, stream: &mut Outgoing) -> Result<(), Abort> {
    loop {
        let next = poll_fn(|cx| {
            if let Poll::Ready(abort) = stream.poll_reset(cx) {
                return Poll::Ready(Err(abort));
            }
            body.poll_next(cx).map(Ok)
        })
        .await?;
        match next {
            None => return stream.send(Bytes::new(), true).await,
            Some(Err(abort)) => {
                stream.reset(abort.code());
                return Ok(());
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(bytes) => {
                    let end = body.is_end_stream();
                    stream.send(bytes, end).await?;
                    if end {
                        return Ok(());
                    }
                }
                Err(frame) => {
                    return match frame.into_trailers() {
                        Ok(trailers) => stream.trailers(trailers),
                        Err(_) => Ok(()),
                    };
                }
            },
        }
    }
}
