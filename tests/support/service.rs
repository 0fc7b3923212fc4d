//! A service that does what the path says, for tests of how bytes flow, and what came of each exchange.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use adit_filters::env::fake::Fake;
use adit_filters::env::{BoxFuture, Clock};
use adit_filters::{
    Env, FilterError, Hooks, LogCx, OnLog, OnRequest, Outcome, Placed, RequestCx, Stage, Verdict,
};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::edge::Opened;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The origin of time of a [`TokioClock`]'s calendar, in seconds since 1970.
const EPOCH_SECONDS: u64 = 1_800_000_000;

/// Time as the runtime has it, which a test can stop.
pub struct TokioClock(Instant);

impl Default for TokioClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for TokioClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH_SECONDS) + self.0.elapsed()
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// A fake environment whose time is the runtime's.
pub fn env() -> Env {
    let mut env = Fake::default().env();
    env.clock = Arc::new(TokioClock::default());
    env
}

/// Grants whatever upgrade is asked for.
struct Grant;

impl OnRequest for Grant {
    async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        Ok(cx.upgrade.map_or(Verdict::Continue, Verdict::Upgrade))
    }
}

/// A filter that grants whatever upgrade is asked for.
pub fn grant() -> Placed {
    let hooks = Hooks::new().at(Stage::Upgrade).request(Arc::new(Grant));
    Placed::new("grant", hooks)
}

/// What came of each exchange, in the order they ended.
#[derive(Clone, Default)]
pub struct Outcomes(Arc<Mutex<Vec<Arc<Outcome>>>>);

impl OnLog for Outcomes {
    fn on_log(&self, cx: &LogCx<'_>) {
        self.0.lock().unwrap().push(Arc::clone(cx.outcome));
    }
}

impl Outcomes {
    /// The filter that writes them down.
    pub fn filter(&self) -> Placed {
        let hooks = Hooks::new().at(Stage::Log).log(Arc::new(self.clone()));
        Placed::new("outcomes", hooks)
    }

    /// Those of exchanges for this path, as soon as there is one.
    pub async fn of(&self, path: &str) -> Arc<Outcome> {
        loop {
            let found =
                self.0.lock().unwrap().iter().find_map(|outcome| {
                    (outcome.request.path() == path).then(|| Arc::clone(outcome))
                });
            match found {
                Some(outcome) => return outcome,
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// Serves HTTP/1.1: `/down/N` is N bytes, `/up` says how many it was sent, `/events` is one event and then nothing. A
/// WebSocket to `/down/N` is sent N bytes, one to `/up/N` a word after N bytes, any other its own bytes.
pub fn serve(mut streams: mpsc::UnboundedReceiver<Opened>) {
    tokio::spawn(async move {
        while let Some(opened) = streams.recv().await {
            tokio::spawn(serve_stream(opened.io, Reached::default()));
        }
    });
}

/// How many requests have reached a service.
#[derive(Clone, Debug, Default)]
pub struct Reached(Arc<AtomicUsize>);

impl Reached {
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// The same on one stream.
pub async fn serve_stream(
    io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    reached: Reached,
) {
    let service = service_fn(move |request| {
        reached.0.fetch_add(1, Ordering::SeqCst);
        async move { Ok::<_, Infallible>(answer(request).await) }
    });
    let _ended = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades()
        .await;
}

fn number(path: &str, prefix: &str) -> Option<usize> {
    path.strip_prefix(prefix)?.parse().ok()
}

fn full(bytes: impl Into<Bytes>) -> Response<Body> {
    Response::new(Full::new(bytes.into()).boxed_unsync())
}

async fn answer(mut request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    if let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) {
        let accept = crate::visitor::accept_of(key.to_str().unwrap());
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            if let Ok(upgraded) = upgrade.await {
                stream(TokioIo::new(upgraded), &path).await;
            }
        });
        let mut response = full("");
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let fields = response.headers_mut();
        fields.insert(header::CONNECTION, "Upgrade".parse().unwrap());
        fields.insert(header::UPGRADE, "websocket".parse().unwrap());
        fields.insert(header::SEC_WEBSOCKET_ACCEPT, accept.parse().unwrap());
        return response;
    }
    if let Some(count) = number(&path, "/down/") {
        return full(vec![b'x'; count]);
    }
    if path == "/events" {
        let (send, events) = mpsc::unbounded_channel();
        send.send(Bytes::from_static(b"data: 0\n\n")).unwrap();
        let events = Events {
            _send: send,
            events,
        };
        return Response::builder()
            .header(header::CONTENT_TYPE, "text/event-stream")
            .body(events.boxed_unsync())
            .unwrap();
    }
    let announced = request.body().size_hint().exact();
    match request.into_body().collect().await {
        Ok(body) => full(format!("{} of {announced:?}", body.to_bytes().len())),
        // Nobody hears it.
        Err(_) => full("broken"),
    }
}

async fn stream(mut io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, path: &str) {
    if let Some(count) = number(path, "/down/") {
        let _gone = io.write_all(&vec![b'x'; count]).await;
    } else if let Some(count) = number(path, "/up/") {
        if io.read_exact(&mut vec![0; count]).await.is_ok() {
            let _gone = io.write_all(b"done").await;
        }
    } else {
        let (mut read, mut write) = tokio::io::split(io);
        let _gone = tokio::io::copy(&mut read, &mut write).await;
        return;
    }
    let _until_closed = io.read(&mut [0; 1]).await;
}

/// A body that never ends.
struct Events {
    _send: mpsc::UnboundedSender<Bytes>,
    events: mpsc::UnboundedReceiver<Bytes>,
}

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.events.poll_recv(cx);
        next.map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}
