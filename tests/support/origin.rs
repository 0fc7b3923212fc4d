//! Services behind a tunnel.

use std::convert::Infallible;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;

use crate::edge::Opened;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Counts what an HTTP/1.1 origin saw.
#[derive(Clone, Default)]
pub struct Seen {
    pub connections: Arc<AtomicUsize>,
    pub requests: Arc<AtomicUsize>,
}

impl Seen {
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// Serves HTTP/1.1: answers with the request it saw, its body as the answer's.
pub fn http1(mut streams: mpsc::UnboundedReceiver<Opened>) -> Seen {
    let seen = Seen::default();
    let counts = seen.clone();
    tokio::spawn(async move {
        while let Some(opened) = streams.recv().await {
            counts.connections.fetch_add(1, Ordering::SeqCst);
            let counts = counts.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| {
                    counts.requests.fetch_add(1, Ordering::SeqCst);
                    async move { Ok::<_, Infallible>(echo(request)) }
                });
                let _ended = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(opened.io), service)
                    .await;
            });
        }
    });
    seen
}

/// The request's body comes back; its head comes back in `seen-…` fields.
fn echo(request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let mut response = Response::builder()
        .header("seen-method", head.method.as_str())
        .header("seen-target", head.uri.to_string());
    for (name, value) in &head.headers {
        response = response.header(format!("seen-{name}"), value);
    }
    if head.uri.path() == "/fixed" {
        return response
            .body(Full::new(Bytes::from_static(b"fixed\n")).boxed_unsync())
            .unwrap();
    }
    if head.uri.path() == "/trailers" {
        let (send, receive) = tokio::sync::mpsc::channel(2);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        send.try_send(Ok(Frame::data(Bytes::from_static(b"data"))))
            .unwrap();
        send.try_send(Ok(Frame::trailers(trailers))).unwrap();
        return response
            .header(header::TRAILER, "grpc-status")
            .body(Receiver(receive).boxed_unsync())
            .unwrap();
    }
    let body = body.map_err(|error| panic!("the request body broke: {error}"));
    response.body(body.boxed_unsync()).unwrap()
}

struct Receiver(tokio::sync::mpsc::Receiver<Result<Frame<Bytes>, Infallible>>);

impl hyper::body::Body for Receiver {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx)
    }
}

/// Serves HTTP/2 with prior knowledge; `handle` gets each stream.
pub fn http2<F, R>(mut streams: mpsc::UnboundedReceiver<Opened>, handle: F)
where
    F: Fn(Request<h2::RecvStream>, h2::server::SendResponse<Bytes>) -> R + Clone + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        while let Some(opened) = streams.recv().await {
            let handle = handle.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::Builder::new()
                    .enable_connect_protocol()
                    .handshake::<_, Bytes>(opened.io)
                    .await
                    .unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(handle(request, respond));
                }
            });
        }
    });
}

/// Echoes a stream's data, and ends it with a trailer.
pub async fn echo_http2(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
) {
    let (head, mut body) = request.into_parts();
    let mut response = Response::builder()
        .header("seen-method", head.method.as_str())
        .header("seen-target", head.uri.to_string());
    for (name, value) in &head.headers {
        response = response.header(format!("seen-{name}"), value);
    }
    let mut stream = respond
        .send_response(response.body(()).unwrap(), false)
        .unwrap();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        send_all(&mut stream, data).await;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let _gone = stream.send_trailers(trailers);
}

/// Sends as the window allows.
pub async fn send_all(stream: &mut h2::SendStream<Bytes>, mut data: Bytes) {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let granted = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(Ok(granted)) = granted else { return };
        let part = data.split_to(granted.min(data.len()));
        if stream.send_data(part, false).is_err() {
            return;
        }
    }
}
