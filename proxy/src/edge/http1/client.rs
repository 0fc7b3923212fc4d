//! Upstreams that speak HTTP/1.1.

use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, Request, Response, StatusCode, response};
use hyper::client::conn::http1 as conn;
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

use super::body::UpstreamBody;
use crate::edge::body::RequestBody;
use crate::edge::dial::BoxStream;
use crate::edge::duplex::Duplex;
use crate::edge::limits::Limits;
use crate::edge::pool::Returning;

/// One connection to an upstream. It carries one exchange at a time.
pub(crate) struct Client(conn::SendRequest<RequestBody>);

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
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "upstream connection ended");
        }
    });
    Ok(Client(sender))
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
        self.0.ready().await.is_ok()
    }

    /// Whether a request could be sent right now.
    pub(crate) fn is_ready(&self) -> bool {
        self.0.is_ready()
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.0.is_closed()
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
    ) -> Result<Sent, hyper::Error> {
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
    }

    async fn exchange(
        mut self,
        mut request: Request<RequestBody>,
        interim: Interim,
        switching: bool,
        back: impl FnOnce(Self) -> Option<Returning<Self>>,
    ) -> Result<Sent, hyper::Error> {
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
        let mut response = self.0.send_request(request).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            if !switching {
                // Not asked for: there is no way to go on from here.
                return Ok(Sent::Response(bad_switch(response), UpstreamBody::none()));
            }
            let upgraded = hyper::upgrade::on(&mut response).await?;
            let (head, _) = response.into_parts();
            return Ok(Sent::Switched(Switched {
                head,
                leg: Duplex::io(TokioIo::new(upgraded)),
            }));
        }
        let (head, body) = response.into_parts();
        Ok(Sent::Response(head, UpstreamBody::new(body, back(self))))
    }
}

fn bad_switch(response: Response<hyper::body::Incoming>) -> response::Parts {
    let (mut head, _) = response.into_parts();
    head.status = StatusCode::BAD_GATEWAY;
    head.headers = HeaderMap::new();
    head
}
