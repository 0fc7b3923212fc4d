//! What a filter under test finds around it: the engine's own world, with nobody to reach but those the case names.

use std::sync::{Arc, Mutex, PoisonError};

use adit_filters::env::{BoxFuture, FetchError, HttpClient, HttpRequest, HttpResponse};
use adit_filters::{
    Admission, ConnectCx, FilterError, Hooks, Identity, Location, OnConnect, Stage,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::cases::{Fail, Fields, Stub};

/// Answers as the case says.
pub(super) struct Stubs {
    stubs: Vec<Stub>,
    missing: Mutex<Vec<String>>,
}

impl Stubs {
    pub(super) fn new(stubs: Vec<Stub>) -> Self {
        Self {
            stubs,
            missing: Mutex::default(),
        }
    }

    /// What was asked for without there being an answer.
    pub(super) fn missing(&self) -> Vec<String> {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut missing)
    }

    fn answer(&self, request: &HttpRequest) -> Result<HttpResponse, FetchError> {
        let host = request.uri.host().unwrap_or_default().to_owned();
        let (method, url) = (request.method.as_str(), request.uri.to_string());
        let stub = self.stubs.iter().find(|stub| {
            let known = stub.url.parse::<http::Uri>();
            (stub.url == url || known.is_ok_and(|known| known == request.uri))
                && stub.method.as_deref().is_none_or(|only| only == method)
        });
        let unreachable = |source: &str| FetchError::Unreachable {
            host: host.clone(),
            source: source.into(),
        };
        let Some(stub) = stub else {
            let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
            missing.push(format!("{method} {url}"));
            return Err(unreachable("the case has no stub for it"));
        };
        match stub.fail {
            Some(Fail::Unreachable) => return Err(unreachable("the case says so")),
            Some(Fail::Timeout) => {
                let limit = request.timeout;
                return Err(FetchError::TimedOut { host, limit });
            }
            None => {}
        }
        Ok(HttpResponse {
            status: stub.status.0,
            headers: headers(&stub.headers).map_err(|why| unreachable(&why))?,
            body: Bytes::from(stub.body.clone()),
        })
    }
}

impl HttpClient for Stubs {
    fn fetch(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, FetchError>> {
        Box::pin(std::future::ready(self.answer(&request)))
    }
}

/// Fields as they go over the wire.
pub(super) fn headers(of: &Fields) -> Result<HeaderMap, String> {
    let mut all = HeaderMap::new();
    for (name, values) in of {
        let parsed: HeaderName = name
            .parse()
            .map_err(|_| format!("`{name}` is not a field's name"))?;
        for value in &values.0 {
            let value = HeaderValue::from_str(value)
                .map_err(|_| format!("`{name}` cannot have the value `{value}`"))?;
            all.append(parsed.clone(), value);
        }
    }
    Ok(all)
}

/// Stands before the filter under test, for those who would have found out where and who the visitor is.
pub(super) struct Before {
    pub(super) location: Option<Location>,
    pub(super) identity: Option<Identity>,
}

impl Before {
    pub(super) fn hooks(self) -> Hooks {
        Hooks::new().at(Stage::Network).connect(Arc::new(self))
    }
}

impl OnConnect for Before {
    async fn on_connect(&self, cx: &mut ConnectCx<'_>) -> Result<Admission, FilterError> {
        // It is the first: nobody can have established anything.
        if let Some(location) = self.location.clone() {
            let _is_new = cx.facts.establish(location);
        }
        if let Some(identity) = self.identity.clone() {
            let _is_new = cx.facts.establish(identity);
        }
        Ok(Admission::Admit)
    }
}

/// Keeps what is logged.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    pub(super) fn take(&self) -> Vec<String> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut lines)
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        // What does not name a filter is not said by one.
        if !text.of_filter {
            return;
        }
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(format!("{level}: {}{}", text.message, text.more));
    }
}

#[derive(Default)]
struct Text {
    message: String,
    more: String,
    of_filter: bool,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "filter" => self.of_filter = true,
            "error" => self.more = format!(": {value:?}"),
            _ => {}
        }
    }
}
