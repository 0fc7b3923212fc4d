//! The demo site: a page, a stream of events and a WebSocket that echoes.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, Uri};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, Response};
use axum::routing::{get, post};
use axum::{Router, body::Bytes};
use futures_util::Stream;
use futures_util::stream::unfold;

/// Time between two events.
const TICK: Duration = Duration::from_secs(1);

/// The site as an axum router.
pub(super) fn router() -> Router {
    Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route("/hello", get(hello))
        .route("/echo", post(|body: Bytes| async { body }))
        .route("/events", get(events))
        .route("/ws", get(websocket))
}

/// What the service behind the tunnel saw of the request.
async fn hello(uri: Uri, headers: HeaderMap) -> String {
    let mut text = format!("hello from behind the tunnel\n\nGET {uri}\n");
    for (name, value) in &headers {
        text.push_str(name.as_str());
        text.push_str(": ");
        text.push_str(&String::from_utf8_lossy(value.as_bytes()));
        text.push('\n');
    }
    text
}

async fn events() -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let ticks = unfold(0_u64, |count| async move {
        if count > 0 {
            tokio::time::sleep(TICK).await;
        }
        let event = Event::default().data(format!("event {count}"));
        Some((Ok(event), count.wrapping_add(1)))
    });
    Sse::new(ticks).keep_alive(KeepAlive::default())
}

async fn websocket(upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(echo)
}

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        let answered = match message {
            Message::Text(_) | Message::Binary(_) => socket.send(message).await,
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) => Ok(()),
        };
        if answered.is_err() {
            return;
        }
    }
}

const PAGE: &str = r#"<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Adit is running</title>
<style>
  body { font: 16px/1.6 system-ui, sans-serif; max-width: 44rem; margin: 3rem auto; padding: 0 1rem; }
  pre, output { background: #8881; border-radius: 6px; padding: .6rem .8rem; display: block; overflow: auto; }
  h1 { line-height: 1.2 }
</style>
<h1>This page came through a tunnel</h1>
<p>Your browser reached the engine over HTTPS, the engine asked its agent, and the agent runs this
site. Stop <code>adit dev</code> and the page is gone.</p>
<h2>What the service saw</h2>
<pre id="hello">…</pre>
<h2>Server-sent events</h2>
<output id="events">waiting</output>
<h2>WebSocket</h2>
<output id="socket">connecting</output>
<script>
  const show = (id, text) => { document.getElementById(id).textContent = text; };
  fetch("/hello").then(answer => answer.text()).then(text => show("hello", text));
  new EventSource("/events").onmessage = event => show("events", event.data);
  const socket = new WebSocket(`wss://${location.host}/ws`);
  socket.onopen = () => socket.send("echo me");
  socket.onmessage = event => show("socket", `the service echoed: ${event.data}`);
  socket.onclose = () => show("socket", "closed");
</script>
</html>
"#;
