//! Upstreams that speak HTTP/2.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::{
    Arc, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use std::task::Poll;

use bytes::Bytes;
use http::{Request, response};
use http_body::Body as _;

use super::body::{Incoming, Outgoing, Sender, UpstreamBody, abort_of};
use crate::edge::abort::Abort;
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
        .initial_connection_window_size(limits.h2_connection_window)
        .max_send_buffer_size(limits.h2_send_buffer)
        // An upstream that serves many visitors sees many of them leave.
        .max_concurrent_reset_streams(limits.upstream_h2_streams)
        .max_local_error_reset_streams(None)
        .handshake::<_, Bytes>(stream)
        .await?;
    let state = Arc::new(Shared {
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
        poll_fn(|cx| self.client.sender.poll_ready(cx))
            .await
            .is_ok()
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
        let stream = Outgoing::new(stream);
        if empty {
            drop(body);
            keep(&sender, stream);
        } else {
            tokio::spawn(pump(body, stream, Arc::clone(&sender)));
        }
        let response = answer.await.map_err(|error| abort_of(&error))?;
        let (head, body) = response.into_parts();
        let body = UpstreamBody::new(Incoming::new(body), sender, self.slot);
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
        let (body, stream) = (Incoming::new(body), Outgoing::new(stream));
        if head.status.is_success() {
            return Ok(Ok((head, body.holding(self.slot), stream)));
        }
        let sender = Sender::default();
        keep(&sender, stream);
        let body = UpstreamBody::new(body, sender, self.slot);
        Ok(Err(Sent { head, body }))
    }
}

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
                stream.reset(abort.code());
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
