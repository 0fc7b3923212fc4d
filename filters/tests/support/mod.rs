//! Probe filters that say what they are told to and write down what they saw.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "shared by several test files, each using a part"
)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use adit_filters::{
    Admission, By, Cause, Chain, ConnectCx, Connected, Connection, ConnectionInfo, Exchange,
    Fields, FilterError, Hooks, LogCx, OnConnect, OnLog, OnRequest, OnResponse, Outcome, Placed,
    RequestCx, RequestId, RequestLine, ResponseCx, Revision, Termination, Transport, TunnelInfo,
    Verdict, When,
};

pub(crate) type Seen = Arc<Mutex<Vec<String>>>;

/// Answers each phase with a closure; the default lets everything pass.
pub(crate) struct Probe {
    name: &'static str,
    seen: Seen,
    pub(crate) request: for<'a, 'b> fn(&'a mut RequestCx<'b>) -> Result<Verdict, FilterError>,
    pub(crate) response: for<'a, 'b> fn(&'a mut ResponseCx<'b>) -> Result<Revision, FilterError>,
    pub(crate) connect: for<'a, 'b> fn(&'a mut ConnectCx<'b>) -> Result<Admission, FilterError>,
}

impl Probe {
    pub(crate) fn new(name: &'static str, seen: &Seen) -> Self {
        Self {
            name,
            seen: seen.clone(),
            request: |_| Ok(Verdict::Continue),
            response: |_| Ok(Revision::Keep),
            connect: |_| Ok(Admission::Admit),
        }
    }

    pub(crate) fn hooks(self) -> Hooks {
        let this = Arc::new(self);
        Hooks::new()
            .connect(this.clone())
            .request(this.clone())
            .response(this.clone())
            .log(this)
    }

    /// Takes part where a condition can limit it.
    pub(crate) fn response_only(self) -> Hooks {
        Hooks::new().response(Arc::new(self))
    }

    fn note(&self, what: &str) {
        self.seen
            .lock()
            .unwrap()
            .push(format!("{what}{}", self.name));
    }
}

impl OnConnect for Probe {
    async fn on_connect(&self, cx: &mut ConnectCx<'_>) -> Result<Admission, FilterError> {
        self.note("+");
        (self.connect)(cx)
    }
}
impl OnRequest for Probe {
    async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        self.note(">");
        (self.request)(cx)
    }
}
impl OnResponse for Probe {
    async fn on_response(&self, cx: &mut ResponseCx<'_>) -> Result<Revision, FilterError> {
        self.note("<");
        (self.response)(cx)
    }
}
impl OnLog for Probe {
    fn on_log(&self, _: &LogCx<'_>) {
        self.note("#");
    }
}

pub(crate) fn placed(name: &'static str, hooks: Hooks) -> Placed {
    Placed {
        origin: format!("engine.toml:{}:3", name.len()),
        ..Placed::new(name, hooks)
    }
}

pub(crate) fn observer(placed: Placed) -> Placed {
    Placed {
        observer: true,
        ..placed
    }
}

pub(crate) fn dry_run(placed: Placed) -> Placed {
    Placed {
        dry_run: true,
        ..placed
    }
}

pub(crate) fn when(path: &str, placed: Placed) -> Placed {
    let path = Some(adit_filters::PathPattern::parse(path).unwrap());
    Placed {
        when: Some(When { path }),
        ..placed
    }
}

pub(crate) fn info() -> Arc<ConnectionInfo> {
    let peer: SocketAddr = "192.0.2.1:4000".parse().unwrap();
    Arc::new(ConnectionInfo {
        id: 1,
        peer,
        transport: Transport::Tls,
        hello: None,
        tls: None,
    })
}

pub(crate) fn tunnel(id: &str) -> Arc<TunnelInfo> {
    Arc::new(TunnelInfo {
        id: id.to_owned(),
        ..TunnelInfo::default()
    })
}

pub(crate) async fn connected(chain: &Chain) -> Arc<Connection> {
    match chain.connect(info(), tunnel("t")).await {
        Connected::Admitted(connection) => connection,
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn exchange(chain: &Chain) -> Exchange {
    chain.exchange(connected(chain).await)
}

pub(crate) fn get(uri: &str) -> http::request::Parts {
    http::Request::get(uri).body(()).unwrap().into_parts().0
}

pub(crate) fn head(status: u16) -> http::response::Parts {
    http::Response::builder()
        .status(status)
        .body(())
        .unwrap()
        .into_parts()
        .0
}

pub(crate) fn seen(seen: &Seen) -> String {
    std::mem::take(&mut *seen.lock().unwrap()).join(" ")
}

pub(crate) fn outcome() -> Arc<Outcome> {
    outcome_of("https://a.example/")
}

/// What came of a request for this.
pub(crate) fn outcome_of(uri: &str) -> Arc<Outcome> {
    Arc::new(Outcome {
        request: RequestLine::of(&get(uri), &[]),
        response: Fields::default(),
        version: http::Version::HTTP_11,
        status: Some(200),
        started: SystemTime::UNIX_EPOCH,
        duration: Duration::ZERO,
        establish: None,
        bytes_up: 0,
        bytes_down: 0,
        refusal: None,
        settled: None,
        failure: None,
        termination: Termination::new(By::Upstream, Cause::Closed),
        upgrade: None,
        request_id: RequestId::default(),
    })
}
