//! Upstreams that speak HTTP/1.1.

use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, Request, Response, StatusCode, response};
use hyper::client::conn::http1 as conn;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::body::UpstreamBody;
use crate::edge::body::RequestBody;
use crate::edge::dial::BoxStream;
use crate::edge::duplex::Duplex;
use crate::edge::limits::Limits;
use crate::edge::pool::Returning;

/// One connection to an upstream. It carries one exchange at a time.
pub(crate) struct Client {
    sender: conn::SendRequest<RequestBody>,
    connection: AbortHandle,
}

/// A request that got no answer.
pub(crate) struct Unanswered {
    pub(crate) error: hyper::Error,
    /// The request, where none of it was sent.
    pub(crate) unsent: Option<Request<RequestBody>>,
}

impl Unanswered {
    /// Whether an answer came that cannot be read: the upstream has worked on the request.
    pub(crate) fn is_half_answered(&self) -> bool {
        self.error.is_parse()
    }
}

/// Begins HTTP/1.1 on a fresh stream.
///
/// # Errors
/// Where the stream broke already.
pub(crate) async fn connect(stream: BoxStream, limits: &Limits) -> Result<Client, hyper::Error> {
    let (sender, connection) = conn::Builder::new()
        .max_buf_size(limits.header_bytes.max(MIN_BUFFER))
        .max_headers(limits.header_fields)
        .handshake(TokioIo::new(stream))
        .await?;
    let connection = tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
    Ok(Client {
        sender,
        connection: connection.abort_handle(),
    })
}

/// hyper's read buffer also bounds how much of a body is read at once; below this, bulk suffers.
const MIN_BUFFER: usize = 64 << 10;

/// An upstream that left HTTP when asked to.
pub(crate) struct Switched {
    pub(crate) head: response::Parts,
    pub(crate) leg: Duplex,
}

/// What came of a request.
pub(crate) enum Sent {
    Response(response::Parts, UpstreamBody),
    Switched(Switched),
}

/// Calls back with each interim answer (RFC 9110 §15.2).
pub(crate) struct Interim {
    pub(crate) proceed: Option<oneshot::Sender<()>>,
}

impl Client {
    /// Waits until the connection can take a request; `false` where it is closed.
    pub(crate) async fn ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Ends the connection, whatever it is still doing.
    pub(crate) fn abandon(self) {
        self.connection.abort();
    }

    /// Whether a request could be sent right now.
    pub(crate) fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends one request.
    ///
    /// # Errors
    /// Where the connection broke before the head of the answer was whole.
    pub(crate) async fn send(
        self,
        request: Request<RequestBody>,
        interim: Interim,
        back: impl FnOnce(Self) -> Returning<Self>,
    ) -> Result<Sent, Unanswered> {
        self.exchange(request, interim, false, |client| Some(back(client)))
            .await
    }

    /// Sends the only request of a connection; `101` is an answer it asked for.
    ///
    /// # Errors
    /// Where the connection broke before the head of the answer was whole.
    pub(crate) async fn send_once(
        self,
        request: Request<RequestBody>,
    ) -> Result<Sent, hyper::Error> {
        self.exchange(request, Interim { proceed: None }, true, |_| None)
            .await
            .map_err(|unanswered| unanswered.error)
    }

    async fn exchange(
        mut self,
        mut request: Request<RequestBody>,
        interim: Interim,
        switching: bool,
        back: impl FnOnce(Self) -> Option<Returning<Self>>,
    ) -> Result<Sent, Unanswered> {
        if let Some(proceed) = interim.proceed {
            let proceed = Arc::new(Mutex::new(Some(proceed)));
            hyper::ext::on_informational(&mut request, move |answer| {
                if answer.status() == StatusCode::CONTINUE {
                    let mut proceed = proceed.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(proceed) = proceed.take() {
                        // Nobody waits any more where the time was over first.
                        let _gone = proceed.send(());
                    }
                }
            });
        }
        let sent = request.body().sent();
        let answer = self.sender.try_send_request(request).await;
        let mut response = answer.map_err(|mut failed| Unanswered {
            unsent: failed.take_message(),
            error: failed.into_error(),
        })?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            if !switching {
                // Not asked for: there is no way to go on from here.
                return Ok(Sent::Response(bad_switch(response), UpstreamBody::none()));
            }
            let upgraded = hyper::upgrade::on(&mut response).await;
            let upgraded = upgraded.map_err(|error| Unanswered {
                error,
                unsent: None,
            })?;
            let (head, _) = response.into_parts();
            return Ok(Sent::Switched(Switched {
                head,
                leg: Duplex::io(TokioIo::new(upgraded)),
            }));
        }
        let (head, body) = response.into_parts();
        Ok(Sent::Response(
            head,
            UpstreamBody::new(body, back(self), sent),
        ))
    }
}

fn bad_switch(response: Response<hyper::body::Incoming>) -> response::Parts {
    let (mut head, _) = response.into_parts();
    head.status = StatusCode::BAD_GATEWAY;
    head.headers = HeaderMap::new();
    head
}
