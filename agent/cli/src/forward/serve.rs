//! Passes the streams of a tunnel on to the local service.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use adit_agent::{Stream, Tunnel};
use tokio::sync::watch;

use super::{Local, rewrite};

/// What happens while a tunnel is served.
#[derive(Debug)]
pub(crate) enum Event {
    /// A visitor has come.
    Opened {
        index: u64,
        stream_id: String,
        source: Option<IpAddr>,
    },
    /// A visitor has gone.
    Closed { index: u64 },
    /// The local service does not answer; told once until it does.
    ServiceDown { authority: String, reason: String },
    /// It answers again.
    ServiceUp { authority: String },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opened { stream_id, .. } => write!(f, "stream {stream_id} opened"),
            Self::Closed { index } => write!(f, "stream {index} closed"),
            Self::ServiceDown { authority, reason } => write!(
                f,
                "the local service at {authority} does not answer ({reason}): start it, until then \
                 visitors get an error"
            ),
            Self::ServiceUp { authority } => {
                write!(f, "the local service at {authority} answers again")
            }
        }
    }
}

/// Serves tunnels from a local service.
#[derive(Clone)]
pub(crate) struct Server {
    inner: Arc<Inner>,
}

struct Inner {
    local: Local,
    report: Box<dyn Fn(Event) + Send + Sync>,
    opened: AtomicU64,
    active: watch::Sender<usize>,
    down: AtomicBool,
}

impl Server {
    /// A server that tells `report` what happens.
    pub(crate) fn new(local: Local, report: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self {
            inner: Arc::new(Inner {
                local,
                report: Box::new(report),
                opened: AtomicU64::new(0),
                active: watch::Sender::new(0),
                down: AtomicBool::new(false),
            }),
        }
    }

    /// Accepts streams until the tunnel is over.
    pub(crate) async fn serve(&self, tunnel: &mut Tunnel) {
        while let Ok(stream) = tunnel.accept().await {
            let inner = Arc::clone(&self.inner);
            inner.active.send_modify(|active| *active += 1);
            tokio::spawn(async move { inner.pass_on(stream).await });
        }
    }

    /// Streams under way.
    pub(crate) fn active(&self) -> usize {
        *self.inner.active.borrow()
    }

    /// Waits until there are none.
    pub(crate) async fn idle(&self) {
        // Fails only without a sender, and this one is ours.
        let _ = self.inner.active.subscribe().wait_for(|n| *n == 0).await;
    }
}

/// Counts a stream as over even if its task is dropped.
struct Leaving<'a> {
    inner: &'a Inner,
    index: u64,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        (self.inner.report)(Event::Closed { index: self.index });
        self.inner.active.send_modify(|active| *active -= 1);
    }
}

impl Inner {
    async fn pass_on(&self, mut stream: Stream) {
        let index = self.opened.fetch_add(1, Ordering::Relaxed);
        (self.report)(Event::Opened {
            index,
            stream_id: stream.id().to_owned(),
            source: stream.source(),
        });
        let _leaving = Leaving { inner: self, index };
        // Dropping the stream resets it, which tells the engine that nobody is there.
        let mut service = match self.local.connect().await {
            Ok(service) => service,
            Err(error) => return self.is_down(&error),
        };
        self.is_up();
        let outcome = match &self.local.host_header {
            None => adit_transport::relay(&mut stream, &mut service)
                .await
                .map(|_| ())
                .map_err(|error| error.to_string()),
            Some(host) => rewrite::relay(stream, service, &self.local, host)
                .await
                .map_err(|error| error.to_string()),
        };
        if let Err(error) = outcome {
            tracing::debug!(%error, index, "a stream was reset");
        }
    }

    fn is_down(&self, error: &io::Error) {
        if !self.down.swap(true, Ordering::Relaxed) {
            let reason = match error.kind() {
                io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
                io::ErrorKind::TimedOut => "no answer in time".to_owned(),
                _ => error.to_string(),
            };
            (self.report)(Event::ServiceDown {
                authority: self.local.authority().to_owned(),
                reason,
            });
        }
    }

    fn is_up(&self) {
        if self.down.load(Ordering::Relaxed) && self.down.swap(false, Ordering::Relaxed) {
            (self.report)(Event::ServiceUp {
                authority: self.local.authority().to_owned(),
            });
        }
    }
}
