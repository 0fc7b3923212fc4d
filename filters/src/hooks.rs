//! One trait per phase. A filter implements the phases it lives in and lists each in [`Hooks`].

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderName;

use crate::context::{
    BodyCx, ConnectCx, DatagramCx, Direction, LogCx, RequestCx, ResponseCx, StreamCx,
};
use crate::exchange::Exchange;
use crate::facts::Fact;
use crate::handshake::Handshake;
use crate::rejudge::{Again, OnRejudge};
use crate::stage::Stage;
use crate::verdict::{Admission, FilterError, Passage, Revision, Verdict};

/// Decides whether a connection may reach a tunnel. May wait.
pub trait OnConnect: Send + Sync + 'static {
    /// Called once per (connection, tunnel); also in a trial of which nothing comes, and about exchanges that are
    /// open, see [`Rehearsal`](crate::Rehearsal).
    ///
    /// # Errors
    /// When the filter could not decide; the connection is then refused, unless the filter is an observer.
    fn on_connect(
        &self,
        cx: &mut ConnectCx<'_>,
    ) -> impl Future<Output = Result<Admission, FilterError>> + Send;
}

/// Decides about a request. May wait.
pub trait OnRequest: Send + Sync + 'static {
    /// Called once per request, in the order of the chain; also in a trial of which nothing comes, see
    /// [`Rehearsal`](crate::Rehearsal).
    ///
    /// # Errors
    /// When the filter could not decide; the request is then refused, unless the filter is an observer.
    fn on_request(
        &self,
        cx: &mut RequestCx<'_>,
    ) -> impl Future<Output = Result<Verdict, FilterError>> + Send;
}

/// Sees and changes a response's head. May wait.
pub trait OnResponse: Send + Sync + 'static {
    /// Called once per response, in reverse order, for filters that let the request in.
    ///
    /// # Errors
    /// When the filter could not do its work; the response is then withheld, unless the filter is an observer.
    fn on_response(
        &self,
        cx: &mut ResponseCx<'_>,
    ) -> impl Future<Output = Result<Revision, FilterError>> + Send;
}

/// Sees the request's body pass. Never waits.
pub trait OnRequestBody: Send + Sync + 'static {
    /// What the filter remembers between two pieces; one per exchange.
    type State: Send + 'static;

    /// The state before the first piece.
    fn begin(&self, exchange: &Exchange) -> Self::State;

    /// Called for each piece, which it may replace in place, and once more with `last` (perhaps with no bytes).
    ///
    /// # Errors
    /// When the filter could not do its work; the exchange is then refused, unless the filter is an observer.
    fn on_request_body(
        &self,
        state: &mut Self::State,
        cx: &mut BodyCx<'_>,
        chunk: &mut Bytes,
    ) -> Result<Passage, FilterError>;

    /// Bytes the upstream leg must wait for before it may start, at most [`BODY_HOLD_MAX`](crate::BODY_HOLD_MAX).
    fn holds(&self) -> usize {
        0
    }

    /// The largest piece it is shown, in bytes; larger ones are cut. Who paces wants small ones.
    fn piece_max(&self) -> usize {
        usize::MAX
    }

    /// Whether it leaves the bytes as they are, so that a length announced before stays true: it counts, paces, holds
    /// or refuses.
    fn keeps_bytes(&self) -> bool {
        false
    }
}

/// Sees the response's body pass. Never waits.
pub trait OnResponseBody: Send + Sync + 'static {
    /// What the filter remembers between two pieces; one per exchange.
    type State: Send + 'static;

    /// The state before the first piece.
    fn begin(&self, exchange: &Exchange) -> Self::State;

    /// Called for each piece, which it may replace in place, and once more with `last` (perhaps with no bytes).
    ///
    /// # Errors
    /// When the filter could not do its work; the exchange is then refused, unless the filter is an observer.
    fn on_response_body(
        &self,
        state: &mut Self::State,
        cx: &mut BodyCx<'_>,
        chunk: &mut Bytes,
    ) -> Result<Passage, FilterError>;

    /// The largest piece it is shown, in bytes; larger ones are cut. Who paces wants small ones.
    fn piece_max(&self) -> usize {
        usize::MAX
    }

    /// Whether it leaves the bytes as they are, so that a length announced before stays true: it counts, paces, holds
    /// or refuses.
    fn keeps_bytes(&self) -> bool {
        false
    }
}

/// Sees the bytes of a stream pass: of an upgraded request, of TLS, of TCP. Never waits.
pub trait OnStream: Send + Sync + 'static {
    /// What the filter remembers between two pieces; one per exchange and direction.
    type State: Send + 'static;

    /// The state before the first piece.
    fn begin(&self, exchange: &Exchange) -> Self::State;

    /// Called for each piece of either direction, which it may replace in place.
    ///
    /// # Errors
    /// When the filter could not do its work; the stream is then ended, unless the filter is an observer.
    fn on_stream(
        &self,
        state: &mut Self::State,
        cx: &mut StreamCx<'_>,
        chunk: &mut Bytes,
    ) -> Result<Passage, FilterError>;

    /// The largest piece it is shown in this direction, in bytes; larger ones are cut. Who paces wants small ones.
    fn piece_max(&self, _: Direction) -> usize {
        usize::MAX
    }
}

/// Sees datagrams pass. Never waits; may forward, change or discard, but not hold.
pub trait OnDatagram: Send + Sync + 'static {
    /// What the filter remembers between two datagrams; one per exchange and direction.
    type State: Send + 'static;

    /// The state before the first datagram.
    fn begin(&self, exchange: &Exchange) -> Self::State;

    /// Called for each datagram of either direction, which it may replace in place.
    ///
    /// # Errors
    /// When the filter could not do its work; the flow is then ended, unless the filter is an observer.
    fn on_datagram(
        &self,
        state: &mut Self::State,
        cx: &mut DatagramCx<'_>,
        datagram: &mut Bytes,
    ) -> Result<Passage, FilterError>;
}

/// Writes down what happened. Never waits, cannot fail.
pub trait OnLog: Send + Sync + 'static {
    /// Called once per exchange, whatever came of it.
    fn on_log(&self, cx: &LogCx<'_>);
}

/// The phases one configured filter takes part in, where it stands, and the facts it needs and gives.
#[derive(Clone, Default)]
pub struct Hooks {
    pub(crate) handshake: Option<Arc<Handshake>>,
    pub(crate) connect: Option<Arc<dyn DynOnConnect>>,
    pub(crate) request: Option<Arc<dyn DynOnRequest>>,
    pub(crate) response: Option<Arc<dyn DynOnResponse>>,
    pub(crate) request_body: Option<Arc<dyn DynRequestBody>>,
    pub(crate) response_body: Option<Arc<dyn DynResponseBody>>,
    pub(crate) stream: Option<Arc<dyn DynStream>>,
    pub(crate) datagram: Option<Arc<dyn DynDatagram>>,
    pub(crate) log: Option<Arc<dyn OnLog>>,
    pub(crate) rejudge: Again,
    pub(crate) stage: Stage,
    pub(crate) rank: u8,
    pub(crate) needs: Vec<&'static str>,
    pub(crate) gives: Vec<&'static str>,
    pub(crate) defers: Vec<&'static str>,
    pub(crate) slots: usize,
    pub(crate) logged: [Vec<HeaderName>; 2],
}

impl Hooks {
    /// Takes part in nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts the filter at a stage. Factories do this from [`Filter::STAGE`](crate::Filter::STAGE).
    #[must_use]
    pub fn at(self, stage: Stage) -> Self {
        Self { stage, ..self }
    }

    /// Its place among the filters of its stage, however they are written: behind those of a lower rank. It is 0
    /// unless the order matters.
    #[must_use]
    pub fn rank(self, rank: u8) -> Self {
        Self { rank, ..self }
    }

    /// Demands something of the handshake of connections that the tunnel's name brings.
    ///
    /// A reused connection may have been made for another tunnel: a filter that demands judges it in [`OnConnect`] too.
    #[must_use]
    pub fn handshake(self, demand: Handshake) -> Self {
        Self {
            handshake: Some(Arc::new(demand)),
            ..self
        }
    }

    /// What it demands of the handshake, if anything.
    #[must_use]
    pub fn demands(&self) -> Option<&Handshake> {
        self.handshake.as_deref()
    }

    /// Takes part in [`OnConnect`].
    #[must_use]
    pub fn connect(self, hook: Arc<impl OnConnect>) -> Self {
        Self {
            connect: Some(hook),
            ..self
        }
    }

    /// Takes part in [`OnRequest`].
    #[must_use]
    pub fn request(self, hook: Arc<impl OnRequest>) -> Self {
        Self {
            request: Some(hook),
            ..self
        }
    }

    /// Takes part in [`OnResponse`].
    #[must_use]
    pub fn response(self, hook: Arc<impl OnResponse>) -> Self {
        Self {
            response: Some(hook),
            ..self
        }
    }

    /// Takes part in [`OnRequestBody`].
    #[must_use]
    pub fn request_body(self, hook: Arc<impl OnRequestBody>) -> Self {
        Self {
            request_body: Some(hook),
            ..self
        }
    }

    /// Takes part in [`OnResponseBody`].
    #[must_use]
    pub fn response_body(self, hook: Arc<impl OnResponseBody>) -> Self {
        Self {
            response_body: Some(hook),
            ..self
        }
    }

    /// Takes part in [`OnStream`].
    #[must_use]
    pub fn stream(self, hook: Arc<impl OnStream>) -> Self {
        Self {
            stream: Some(hook),
            ..self
        }
    }

    /// Takes part in [`OnDatagram`].
    #[must_use]
    pub fn datagram(self, hook: Arc<impl OnDatagram>) -> Self {
        Self {
            datagram: Some(hook),
            ..self
        }
    }

    /// Takes part in [`OnLog`].
    #[must_use]
    pub fn log(self, hook: Arc<impl OnLog>) -> Self {
        Self {
            log: Some(hook),
            ..self
        }
    }

    /// Is asked about open exchanges by [`OnRejudge`].
    #[must_use]
    pub fn rejudge(self, hook: Arc<impl OnRejudge>) -> Self {
        Self {
            rejudge: Again::Hook(hook),
            ..self
        }
    }

    /// Is never asked about open exchanges: it decides how something may begin, not whether it may go on.
    #[must_use]
    pub fn judges_once(self) -> Self {
        Self {
            rejudge: Again::Never,
            ..self
        }
    }

    /// Cannot work unless an earlier filter gives this fact.
    #[must_use]
    pub fn needs<F: Fact>(mut self) -> Self {
        self.needs.push(F::NAME);
        self
    }

    /// Establishes this fact whenever it lets something pass.
    #[must_use]
    pub fn gives<F: Fact>(mut self) -> Self {
        self.gives.push(F::NAME);
        self
    }

    /// Whether it establishes this fact whenever it lets something pass.
    #[must_use]
    pub fn gives_always<F: Fact>(&self) -> bool {
        self.gives.contains(&F::NAME)
    }

    /// Lets some pass without this fact, for a later filter to give: there must be one that always does.
    #[must_use]
    pub fn defers<F: Fact>(mut self) -> Self {
        self.defers.push(F::NAME);
        self
    }

    /// Wants these fields of requests and of answers in what it logs. What is not asked for is not kept.
    #[must_use]
    pub fn logs_fields(self, request: Vec<HeaderName>, response: Vec<HeaderName>) -> Self {
        Self {
            logged: [request, response],
            ..self
        }
    }

    /// Records how many slots the filter took. Factories do this from [`Env::slots_taken`](crate::Env::slots_taken).
    #[must_use]
    pub fn with_slots(self, slots: usize) -> Self {
        Self { slots, ..self }
    }

    /// Where the filter stands.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// What chains are sorted by.
    #[must_use]
    pub fn place(&self) -> (Stage, u8) {
        (self.stage, self.rank)
    }

    /// Names of the phases it takes part in, in the order they happen.
    #[must_use]
    pub fn phases(&self) -> Vec<&'static str> {
        [
            ("handshake", self.handshake.is_some()),
            ("connect", self.connect.is_some()),
            ("request", self.request.is_some()),
            ("request-body", self.request_body.is_some()),
            ("response", self.response.is_some()),
            ("response-body", self.response_body.is_some()),
            ("stream", self.stream.is_some()),
            ("datagram", self.datagram.is_some()),
            ("log", self.log.is_some()),
        ]
        .into_iter()
        .filter_map(|(phase, taken)| taken.then_some(phase))
        .collect()
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks")
            .field("stage", &self.stage)
            .field("phases", &self.phases())
            .field("needs", &self.needs)
            .field("gives", &self.gives)
            .finish_non_exhaustive()
    }
}

// Object-safe twins of the waiting traits, private to this crate.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

macro_rules! twin {
    ($dyn:ident of $trait:ident: $hook:ident($cx:ident) -> $out:ty) => {
        pub(crate) trait $dyn: Send + Sync {
            fn call<'a>(&'a self, cx: &'a mut $cx<'_>) -> BoxFuture<'a, Result<$out, FilterError>>;
        }
        impl<T: $trait> $dyn for T {
            fn call<'a>(&'a self, cx: &'a mut $cx<'_>) -> BoxFuture<'a, Result<$out, FilterError>> {
                Box::pin(self.$hook(cx))
            }
        }
    };
}
twin!(DynOnConnect of OnConnect: on_connect(ConnectCx) -> Admission);
twin!(DynOnRequest of OnRequest: on_request(RequestCx) -> Verdict);
twin!(DynOnResponse of OnResponse: on_response(ResponseCx) -> Revision);

// Object-safe twins of the carrying traits: `begin` marries a hook and its state, so that no piece needs a downcast.
macro_rules! carrier {
    ($dyn:ident, $running:ident, $run:ident of $trait:ident: $hook:ident($cx:ident)
        $(, $about:ident($($arg:ident: $of:ty)?) -> $out:ty)*) => {
        pub(crate) trait $dyn: Send + Sync {
            fn begin(self: Arc<Self>, exchange: &Exchange) -> Box<dyn $running>;
            $(fn $about(&self, $($arg: $of)?) -> $out;)*
        }
        impl<T: $trait> $dyn for T {
            fn begin(self: Arc<Self>, exchange: &Exchange) -> Box<dyn $running> {
                let state = $trait::begin(&*self, exchange);
                Box::new($run { hook: self, state })
            }
            $(fn $about(&self, $($arg: $of)?) -> $out { $trait::$about(self, $($arg)?) })*
        }
        pub(crate) trait $running: Send {
            fn pass(&mut self, cx: &mut $cx<'_>, chunk: &mut Bytes) -> Result<Passage, FilterError>;
            fn leave(self: Box<Self>) -> Box<dyn Any + Send>;
        }
        struct $run<H: $trait> {
            hook: Arc<H>,
            state: H::State,
        }
        impl<H: $trait> $running for $run<H> {
            fn pass(&mut self, cx: &mut $cx<'_>, chunk: &mut Bytes) -> Result<Passage, FilterError> {
                self.hook.$hook(&mut self.state, cx, chunk)
            }
            fn leave(self: Box<Self>) -> Box<dyn Any + Send> {
                Box::new(self.state)
            }
        }
    };
}
carrier!(DynRequestBody, RunningRequestBody, RunRequestBody of OnRequestBody: on_request_body(BodyCx),
    holds() -> usize, piece_max() -> usize, keeps_bytes() -> bool);
carrier!(DynResponseBody, RunningResponseBody, RunResponseBody of OnResponseBody: on_response_body(BodyCx),
    piece_max() -> usize, keeps_bytes() -> bool);
carrier!(DynStream, RunningStream, RunStream of OnStream: on_stream(StreamCx),
    piece_max(direction: Direction) -> usize);
carrier!(DynDatagram, RunningDatagram, RunDatagram of OnDatagram: on_datagram(DatagramCx));
