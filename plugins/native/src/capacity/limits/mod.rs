//! `limits`: how fast, how much, how long and how many at once, for each request and for each connection.
//!
//! A connection is one visitor's to one tunnel. What is over a limit from the start is refused: 413 for a body, 503 where
//! too many are there already, 421 on a connection that has used up what it may, for the visitor to come again on
//! another. What goes over a limit on its way is ended there. Those who are under way are counted by the filter that let
//! them in, over all tunnels whose chains it is in; a reload begins anew.

mod config;
mod meter;
mod places;
mod rate;
#[cfg(test)]
mod tests;

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_filters::env::Clock;
use adit_filters::{
    Admission, BodyCx, ConfigError, ConnectCx, Direction, Env, Exchange, Filter, FilterError,
    Hooks, Identity, OnConnect, OnRequest, OnRequestBody, OnResponseBody, OnStream, Passage,
    Reason, Rehearsal, RequestCx, Slot, Stage, StreamCx, TunnelInfo, Verdict,
};
use bytes::Bytes;
use http::header::CONTENT_LENGTH;

pub use config::{Concurrent, Config, Connection, EachWay, Request};
pub use rate::{RATE_MIN, Rate};

use config::{Allowance, Limits as Settings};
use meter::Meter;
use places::{Place, Places};

use crate::whose::Whose;

/// How many principals may use one connection where connections are counted by them.
pub const PRINCIPALS_MAX: usize = 64;

/// The filter.
pub struct Limits {
    settings: Settings,
    clock: Arc<dyn Clock>,
    requests: Arc<Places>,
    connections: Arc<Places>,
    taken: Slot<Vec<Place>>,
    used: Slot<Arc<Used>>,
}

/// What a connection has used of what it may.
struct Used {
    since: Duration,
    meters: Meters,
    places: Mutex<Vec<Place>>,
}

#[derive(Default)]
struct Meters {
    up: Meter,
    down: Meter,
}

impl Meters {
    fn of(&self, direction: Direction) -> &Meter {
        match direction {
            Direction::ToAgent => &self.up,
            Direction::ToClient => &self.down,
        }
    }
}

/// What one direction of a request has used, and its connection.
pub struct Passing {
    own: Meter,
    used: Option<Arc<Used>>,
}

impl Limits {
    /// Takes the places that somebody needs under all their keys, or none of them.
    fn enter(
        of: &Arc<Places>,
        max: &Concurrent,
        peer: std::net::IpAddr,
        tunnel: &TunnelInfo,
        identity: Option<&Identity>,
    ) -> Option<Vec<Place>> {
        let wanted = [
            max.ip.map(|max| (Whose::from(peer), max)),
            max.tunnel.map(|max| (Whose::tunnel(&tunnel.id), max)),
            // Without a principal nothing has let the request in as somebody; its address answers for it.
            max.token.map(|max| {
                let principal = identity.map(|who| Whose::principal(&tunnel.project, who));
                (principal.unwrap_or(Whose::from(peer)), max)
            }),
        ];
        wanted
            .into_iter()
            .flatten()
            .map(|(key, max)| of.take(key.into_owned(), max))
            .collect()
    }

    /// What is left of the connection for a request on it.
    fn on_used(&self, cx: &mut RequestCx<'_>) -> Result<Option<Reason>, FilterError> {
        if !self.settings.on_connections {
            return Ok(None);
        }
        let connection = Arc::clone(cx.exchange.connection());
        let used = connection.slot(self.used).ok_or(FilterError::Trapped {
            reason: "the connection was never counted",
        })?;
        let Allowance {
            bytes, duration, ..
        } = &self.settings.connection;
        let is_used_up = [Direction::ToAgent, Direction::ToClient]
            .into_iter()
            .any(|way| {
                bytes
                    .of(way)
                    .is_some_and(|max| used.meters.of(way).passed() >= config::bytes(max))
            });
        if is_used_up {
            return Ok(Some(Reason::Misdirected));
        }
        if let Some(max) = *duration {
            let age = self.clock.monotonic().saturating_sub(used.since);
            match max.checked_sub(age).filter(|left| !left.is_zero()) {
                Some(left) => cx.exchange.end_after(left, Reason::TimeLimit),
                None => return Ok(Some(Reason::Misdirected)),
            }
        }
        let identity = cx.exchange.fact::<Identity>();
        let is_full = match (self.settings.connections.token, identity) {
            (Some(max), Some(identity)) => {
                let whose = Whose::principal(&connection.tunnel().project, identity);
                !used.belongs_to(whose, &self.connections, max)
            }
            _ => false,
        };
        Ok(is_full.then_some(Reason::Capacity))
    }

    fn announces_too_much(&self, cx: &RequestCx<'_>) -> bool {
        let announced = cx.head.headers.get(CONTENT_LENGTH);
        let announced = announced.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let over = |max: Option<u64>| max.zip(announced).is_some_and(|(max, bytes)| bytes > max);
        let volume = self.settings.request.bytes.of(Direction::ToAgent);
        over(self.settings.body) || over(volume.map(config::bytes))
    }

    fn begin(&self, exchange: &Exchange) -> Passing {
        Passing {
            own: Meter::default(),
            used: exchange.connection().slot(self.used).cloned(),
        }
    }

    /// Lets bytes pass, now or later, for as long as there are not too many of them.
    fn pass(&self, passing: &Passing, way: Direction, bytes: usize) -> Passage {
        if bytes == 0 {
            return Passage::Forward;
        }
        let over = |meter: &Meter, of: &Allowance| {
            let passed = meter.count(bytes);
            let max = of.bytes.of(way).map(config::bytes);
            max.is_some_and(|max| passed > max)
        };
        let (request, connection) = (&self.settings.request, &self.settings.connection);
        let shared = passing.used.as_ref().map(|used| used.meters.of(way));
        // Each counts, whatever the other says.
        let (over_own, over_shared) = (
            over(&passing.own, request),
            shared.is_some_and(|meter| over(meter, connection)),
        );
        if over_own || over_shared {
            return Passage::Refuse(Reason::TooLarge);
        }
        let own = request.bandwidth.of(way).map(|rate| (&passing.own, rate));
        let shared = shared.zip(connection.bandwidth.of(way));
        let now = self.clock.monotonic();
        let waits = [own, shared].into_iter().flatten();
        match waits
            .map(|(meter, rate)| meter.wait(rate, bytes, now))
            .max()
        {
            Some(wait) if !wait.is_zero() => Passage::Pace(wait),
            _ => Passage::Forward,
        }
    }

    fn piece_max_of(&self, way: Direction) -> usize {
        [&self.settings.request, &self.settings.connection]
            .into_iter()
            .filter_map(|allowance| allowance.bandwidth.of(way))
            .map(Rate::piece)
            .min()
            .unwrap_or(usize::MAX)
    }

    fn counts(&self, way: Direction) -> bool {
        self.settings.request.counts(way) || self.settings.connection.counts(way)
    }
}

impl Used {
    /// Whether this principal may use the connection: the first time, it takes a place for as long as that lasts.
    fn belongs_to(&self, whose: Whose<'_>, of: &Arc<Places>, max: NonZeroU32) -> bool {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.iter().any(|place| *place.key() == whose) {
            return true;
        }
        let taken = (places.len() < PRINCIPALS_MAX)
            .then(|| of.take(whose.into_owned(), max))
            .flatten();
        let fits = taken.is_some();
        places.extend(taken);
        fits
    }
}

impl OnConnect for Limits {
    async fn on_connect(&self, cx: &mut ConnectCx<'_>) -> Result<Admission, FilterError> {
        if cx.facts.get::<Rehearsal>().is_some() {
            return Ok(Admission::Admit);
        }
        let max = Concurrent {
            // A connection proves nothing yet; its requests do.
            token: None,
            ..self.settings.connections
        };
        let peer = cx.connection.peer.ip();
        let Some(places) = Self::enter(&self.connections, &max, peer, cx.tunnel, None) else {
            return Ok(Admission::Refuse(Reason::Capacity));
        };
        let used = Used {
            since: self.clock.monotonic(),
            meters: Meters::default(),
            places: Mutex::new(places),
        };
        cx.facts.fill(self.used, Arc::new(used));
        Ok(Admission::Admit)
    }
}

impl OnRequest for Limits {
    async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        if self.announces_too_much(cx) {
            return Ok(Verdict::Refuse(Reason::TooLarge));
        }
        if cx.exchange.fact::<Rehearsal>().is_some() {
            return Ok(Verdict::Continue);
        }
        if let Some(reason) = self.on_used(cx)? {
            return Ok(Verdict::Refuse(reason));
        }
        let connection = cx.exchange.connection();
        let entered = Self::enter(
            &self.requests,
            &self.settings.requests,
            connection.info().peer.ip(),
            connection.tunnel(),
            cx.exchange.fact::<Identity>(),
        );
        match entered {
            None => return Ok(Verdict::Refuse(Reason::Capacity)),
            Some(places) if places.is_empty() => {}
            Some(places) => cx.exchange.fill(self.taken, places),
        }
        if let Some(max) = self.settings.request.duration {
            cx.exchange.end_after(max, Reason::TimeLimit);
        }
        Ok(Verdict::Continue)
    }
}

impl OnRequestBody for Limits {
    type State = Passing;

    fn begin(&self, exchange: &Exchange) -> Passing {
        self.begin(exchange)
    }

    fn on_request_body(
        &self,
        passing: &mut Passing,
        cx: &mut BodyCx<'_>,
        chunk: &mut Bytes,
    ) -> Result<Passage, FilterError> {
        let passage = self.pass(passing, cx.direction, chunk.len());
        let is_too_large = self
            .settings
            .body
            .is_some_and(|max| passing.own.passed() > max);
        Ok(match is_too_large {
            true => Passage::Refuse(Reason::TooLarge),
            false => passage,
        })
    }

    fn piece_max(&self) -> usize {
        self.piece_max_of(Direction::ToAgent)
    }

    fn keeps_bytes(&self) -> bool {
        true
    }
}

impl OnResponseBody for Limits {
    type State = Passing;

    fn begin(&self, exchange: &Exchange) -> Passing {
        self.begin(exchange)
    }

    fn on_response_body(
        &self,
        passing: &mut Passing,
        cx: &mut BodyCx<'_>,
        chunk: &mut Bytes,
    ) -> Result<Passage, FilterError> {
        Ok(self.pass(passing, cx.direction, chunk.len()))
    }

    fn piece_max(&self) -> usize {
        self.piece_max_of(Direction::ToClient)
    }

    fn keeps_bytes(&self) -> bool {
        true
    }
}

impl OnStream for Limits {
    type State = Passing;

    fn begin(&self, exchange: &Exchange) -> Passing {
        self.begin(exchange)
    }

    fn on_stream(
        &self,
        passing: &mut Passing,
        cx: &mut StreamCx<'_>,
        chunk: &mut Bytes,
    ) -> Result<Passage, FilterError> {
        Ok(self.pass(passing, cx.direction, chunk.len()))
    }

    fn piece_max(&self, way: Direction) -> usize {
        self.piece_max_of(way)
    }
}

impl Filter for Limits {
    const NAME: &'static str = "limits";
    const STAGE: Stage = Stage::Capacity;
    type Config = Config;

    fn new(config: Config, env: &mut Env) -> Result<Self, ConfigError> {
        Ok(Self {
            settings: Settings::try_from(config)?,
            clock: Arc::clone(&env.clock),
            requests: Arc::default(),
            connections: Arc::default(),
            taken: env.slot()?,
            used: env.slot()?,
        })
    }

    fn hooks(self: Arc<Self>) -> Hooks {
        let (up, down) = (
            self.counts(Direction::ToAgent),
            self.counts(Direction::ToClient),
        );
        let Settings {
            body,
            requests,
            connections,
            on_connections,
            ..
        } = self.settings;
        // Who is under way has its place and its meters.
        let mut hooks = Hooks::new()
            .at(Self::STAGE)
            .judges_once()
            .request(Arc::clone(&self));
        if on_connections {
            hooks = hooks.connect(Arc::clone(&self));
        }
        if requests.token.or(connections.token).is_some() {
            hooks = hooks.needs::<Identity>();
        }
        if up || body.is_some() {
            hooks = hooks.request_body(Arc::clone(&self));
        }
        if down {
            hooks = hooks.response_body(Arc::clone(&self));
        }
        if up || down {
            hooks = hooks.stream(self);
        }
        hooks
    }
}
