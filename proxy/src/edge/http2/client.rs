//! Upstreams that speak HTTP/2.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{
    Arc, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use std::task::Poll;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, response};
use http_body::Body as _;
use tokio::task::AbortHandle;

use super::body::{Incoming, Outgoing, Sender, UpstreamBody, abort_of};
use crate::edge::abort::{Abort, code};
use crate::edge::body::RequestBody;
use crate::edge::dial::BoxStream;
use crate::edge::limits::Limits;

/// A connection to an upstream, shared by many exchanges.
#[derive(Clone)]
pub(crate) struct Client {
    sender: h2::client::SendRequest<Bytes>,
    state: Arc<Shared>,
}

struct Shared {
    write_idle: Duration,
    streams: AtomicUsize,
    streams_max: usize,
    closed: AtomicBool,
}

/// One stream's place on its connection.
pub(super) struct Slot(Arc<Shared>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What came of a request.
pub(crate) struct Sent {
    pub(crate) head: response::Parts,
    pub(crate) body: UpstreamBody,
}

/// Begins HTTP/2 on a fresh stream and waits for the upstream's settings.
///
/// # Errors
/// Where the peer does not speak HTTP/2 or the stream broke.
pub(crate) async fn connect(stream: BoxStream, limits: &Limits) -> Result<Client, h2::Error> {
    let (sender, mut connection) = h2::client::Builder::new()
        .enable_push(false)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(0)
        .initial_window_size(limits.h2_stream_window)
        // As much as all its streams together, so that one nobody reads stops no other.
        .initial_connection_window_size(connection_window(limits))
        .data_frame_budget(limits.upstream_h2_frame_budget)
        .max_send_buffer_size(limits.h2_send_buffer)
        // An upstream that serves many visitors sees many of them leave.
        .max_concurrent_reset_streams(limits.upstream_h2_streams)
        .max_local_error_reset_streams(None)
        .handshake::<_, Bytes>(stream)
        .await?;
    let state = Arc::new(Shared {
        write_idle: limits.write_idle,
        streams: AtomicUsize::new(0),
        streams_max: limits.upstream_h2_streams,
        closed: AtomicBool::new(false),
    });
    let ping = connection.ping_pong();
    tokio::spawn({
        let state = Arc::clone(&state);
        async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "upstream connection ended");
            }
            state.closed.store(true, Ordering::Relaxed);
        }
    });
    // A server's settings are the first frame it sends, so they precede its answer to a ping. How
    // many streams it takes, and whether it knows extended CONNECT, is known from then on.
    if let Some(mut ping) = ping {
        ping.ping(h2::Ping::opaque()).await?;
    }
    Ok(Client { sender, state })
}

impl Client {
    pub(crate) fn is_open(&self) -> bool {
        !self.state.closed.load(Ordering::Relaxed)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.state.streams.load(Ordering::Relaxed) == 0
    }

    /// Takes a place for one more stream; `None` where the upstream's limit, or ours, is reached.
    pub(crate) fn reserve(&self) -> Option<Reserved> {
        let max = self
            .state
            .streams_max
            .min(self.sender.current_max_send_streams());
        let taken = self.state.streams.fetch_add(1, Ordering::Relaxed);
        let slot = Slot(Arc::clone(&self.state));
        (taken < max).then(|| Reserved {
            client: self.clone(),
            slot,
        })
    }
}

/// A client with a place for one stream.
pub(crate) struct Reserved {
    client: Client,
    slot: Slot,
}

impl Reserved {
    /// Whether the upstream takes extended CONNECT (RFC 8441 §3).
    pub(crate) fn takes_extended_connect(&self) -> bool {
        self.client.sender.is_extended_connect_protocol_enabled()
    }

    /// Waits until the connection takes a stream; `false` where it is going away.
    pub(crate) async fn ready(&mut self) -> bool {
        let ready = poll_fn(|cx| self.client.sender.poll_ready(cx))
            .await
            .is_ok();
        if !ready {
            // It may live on for its last streams, but takes no more.
            self.client.state.closed.store(true, Ordering::Relaxed);
        }
        ready
    }

    /// Sends one request and pumps its body until the head of the answer is there, and on.
    ///
    /// # Errors
    /// How the exchange ended before the head of an answer.
    pub(crate) async fn send(mut self, request: Request<RequestBody>) -> Result<Sent, Abort> {
        let (parts, body) = request.into_parts();
        let empty = body.is_empty();
        let (answer, stream) = self
            .client
            .sender
            .send_request(Request::from_parts(parts, ()), empty)
            .map_err(|error| abort_of(&error))?;
        let sender = Sender::default();
        let stream = Outgoing::new(stream, self.client.state.write_idle);
        let slot = Arc::new(self.slot);
        let mut pumping = None;
        if empty {
            drop(body);
            keep(&sender, stream);
        } else {
            let (sender, slot) = (Arc::clone(&sender), Arc::clone(&slot));
            let task = tokio::spawn(async move {
                let _slot = slot;
                pump(body, stream, sender).await;
            });
            pumping = Some(Pumping(Some(task.abort_handle())));
        }
        let response = answer.await.map_err(|error| abort_of(&error))?;
        let (head, body) = response.into_parts();
        let body = UpstreamBody::new(Incoming::new(body), sender, slot, pumping);
        Ok(Sent { head, body })
    }

    /// Asks for an extended CONNECT stream. The head of any answer comes back, with the two
    /// directions where it is a success.
    ///
    /// # Errors
    /// How the stream ended before an answer.
    pub(crate) async fn connect(
        mut self,
        mut head: http::request::Parts,
        protocol: &'static str,
    ) -> Result<Result<(response::Parts, Incoming, Outgoing), Sent>, Abort> {
        head.method = http::Method::CONNECT;
        head.extensions
            .insert(h2::ext::Protocol::from_static(protocol));
        let request = Request::from_parts(head, ());
        let (answer, stream) = self
            .client
            .sender
            .send_request(request, false)
            .map_err(|error| abort_of(&error))?;
        let response = answer.await.map_err(|error| abort_of(&error))?;
        let (head, body) = response.into_parts();
        let stream = Outgoing::new(stream, self.client.state.write_idle);
        let (body, slot) = (Incoming::new(body), Arc::new(self.slot));
        if head.status.is_success() {
            return Ok(Ok((head, body.holding(slot), stream)));
        }
        let sender = Sender::default();
        keep(&sender, stream);
        let body = UpstreamBody::new(body, sender, slot, None);
        Ok(Err(Sent { head, body }))
    }
}

/// The task that sends a request body. Dropped before the exchange is over it ends the task, and
/// with it the stream: a pump that waits for a window nobody opens would stay for ever.
pub(super) struct Pumping(Option<AbortHandle>);

impl Drop for Pumping {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

impl Pumping {
    /// The answer is whole: what is left of the request may be sent to its end.
    pub(super) fn let_go(mut self) {
        self.0 = None;
    }
}

fn connection_window(limits: &Limits) -> u32 {
    let streams = u32::try_from(limits.upstream_h2_streams).unwrap_or(u32::MAX);
    limits
        .h2_stream_window
        .saturating_mul(streams)
        .min(WINDOW_MAX)
}

/// Largest window HTTP/2 knows (RFC 9113 §6.9.1).
const WINDOW_MAX: u32 = (1 << 31) - 1;

fn keep(sender: &Sender, stream: Outgoing) {
    *sender.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
}

/// Moves a request body to the upstream. Ends early when the upstream wants no more of it.
async fn pump(body: RequestBody, mut stream: Outgoing, sender: Sender) {
    let mut body = pin!(body);
    loop {
        let next = poll_fn(|cx| {
            if let Poll::Ready(abort) = stream.poll_reset(cx) {
                return Poll::Ready(Err(abort));
            }
            body.as_mut().poll_frame(cx).map(Ok)
        })
        .await;
        let sent = match next {
            // The upstream answered without the rest, or the exchange is over.
            Err(_) => return,
            Ok(None) => {
                let ended = stream.send(Bytes::new(), true).await;
                keep(&sender, stream);
                drop(ended);
                return;
            }
            Ok(Some(Err(abort))) => {
                // To a server, "no error" would mean that the request was complete.
                stream.reset(match abort.code() {
                    code::NO_ERROR => code::CANCEL,
                    other => other,
                });
                return;
            }
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(bytes) => {
                    let end = body.is_end_stream();
                    match stream.send(bytes, end).await {
                        Ok(()) if end => {
                            keep(&sender, stream);
                            return;
                        }
                        other => other,
                    }
                }
                Err(frame) => {
                    let sent = match frame.into_trailers() {
                        Ok(trailers) => stream.trailers(trailers),
                        Err(_) => Ok(()),
                    };
                    keep(&sender, stream);
                    drop(sent);
                    return;
                }
            },
        };
        if sent.is_err() {
            return;
        }
    }
}
