//! `rate-limit`: so many requests, or connections, in so much time, for each address, principal or tunnel.
//!
//! One filter is one limit; several can stand in a chain. By address and by tunnel it stands at the network stage, before
//! anything that costs more; by token at the capacity stage, where the principal is known. What it counts it counts over
//! all tunnels whose chains it is in. A reload begins anew.
//!
//! Requests on one connection count as requests, and the connection, however long it is used, as one: again only when
//! its tunnel's chain was replaced, and not while it is refused.

mod store;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use adit_config::{Problem, Section, Span};
use adit_filters::env::Clock;
use adit_filters::{
    Admission, ConnectCx, ConnectionInfo, Env, Factory, FilterError, Hooks, Identity, OnConnect,
    OnRequest, Reason, Rehearsal, RequestCx, Stage, TunnelInfo, Verdict,
};
use governor::middleware::NoOpMiddleware;
use governor::{Quota, RateLimiter, clock};
use serde::Deserialize;

pub use store::KEYS_MAX;
use store::Store;

use crate::whose::Whose;

/// Behind the filters that know an address is not welcome at all.
const RANK: u8 = 2;

/// The longest window.
const WINDOW_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a burst may take to come back: beyond, it is not a rate that is limited.
const BURST_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The filter's table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    /// How many requests in a window.
    requests: Option<NonZeroU32>,
    /// How many connections in a window.
    connections: Option<NonZeroU32>,
    /// The window.
    #[serde(default = "minute")]
    window: Span,
    /// How many may come at once; all of a window's, if it is not said.
    burst: Option<NonZeroU32>,
    /// Whose they are.
    #[serde(default)]
    per: Per,
}

fn minute() -> Span {
    Span(Duration::from_secs(60))
}

/// Whose visits are counted together.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Per {
    /// An address; of IPv6, its /64.
    #[default]
    Ip,
    /// Whoever proved to be somebody; tokens of nobody in particular by their ids.
    Token,
    /// The tunnel.
    Tunnel,
}

/// Makes `rate-limit` filters: where one stands depends on its table.
#[derive(Debug)]
pub struct RateLimitFactory;

impl RateLimitFactory {
    /// What `use = "…"` calls the filter.
    pub const NAME: &'static str = "rate-limit";
}

impl Factory for RateLimitFactory {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn stage(&self) -> Stage {
        Stage::Network
    }

    fn build(&self, section: &Section, env: &mut Env) -> Result<Hooks, Vec<Problem>> {
        let config: Config = section.deserialize()?;
        let wrong = |key: Option<&str>, message: &str| vec![section.problem(key, message)];
        let ((Some(max), None) | (None, Some(max))) = (config.requests, config.connections) else {
            let message = "give either `requests` or `connections`; for both, use the filter twice";
            return Err(wrong(None, message));
        };
        if config.connections.is_some() && config.per == Per::Token {
            let message = "a connection proves nothing yet, use `requests` or another `per`";
            return Err(wrong(Some("per"), message));
        }
        let Span(window) = config.window;
        let period = window.checked_div(max.get()).filter(|each| !each.is_zero());
        let Some((period, quota)) = period
            .filter(|_| window <= WINDOW_MAX)
            .and_then(|period| Some((period, Quota::with_period(period)?)))
        else {
            let message = "use a window of at most a day in which each is a nanosecond apart";
            return Err(wrong(Some("window"), message));
        };
        let burst = config.burst.unwrap_or(max);
        if period.saturating_mul(burst.get()) > BURST_MAX {
            let message = "at this rate such a burst would take more than 30 days to come back, use a smaller one";
            return Err(wrong(Some("burst"), message));
        }
        let quota = quota.allow_burst(burst);
        let filter = RateLimit::new(quota, config.per, Arc::clone(&env.clock));
        Ok(Arc::new(filter).hooks(config.connections.is_some()))
    }
}

/// The filter.
pub struct RateLimit {
    limiter: RateLimiter<u64, Store, Watch, NoOpMiddleware<Duration>>,
    per: Per,
    /// Keyed with a secret of this process: nobody can choose two keys that are one here, or that crowd each other out.
    hasher: RandomState,
}

/// The clock filters are given, as `governor` reads one.
#[derive(Clone)]
struct Watch(Arc<dyn Clock>);

impl clock::Clock for Watch {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.monotonic()
    }
}

impl RateLimit {
    /// A filter with this quota for each of `per`.
    #[must_use]
    pub fn new(quota: Quota, per: Per, clock: Arc<dyn Clock>) -> Self {
        let cost = quota.replenish_interval().as_nanos();
        let store = Store::new(u64::try_from(cost).unwrap_or(u64::MAX));
        Self {
            limiter: RateLimiter::new(quota, store, Watch(clock)),
            per,
            hasher: RandomState::new(),
        }
    }

    /// The phases it takes part in: one, since it counts one thing.
    fn hooks(self: Arc<Self>, connections: bool) -> Hooks {
        let hooks = match self.per {
            Per::Token => Hooks::new().at(Stage::Capacity).needs::<Identity>(),
            Per::Ip | Per::Tunnel => Hooks::new().at(Stage::Network).rank(RANK),
        };
        let hooks = hooks.judges_once();
        match connections {
            true => hooks.connect(self),
            false => hooks.request(self),
        }
    }

    /// Counts one more visit.
    ///
    /// # Errors
    /// How long its like must wait, if it is one too many.
    fn count(&self, key: Whose<'_>) -> Result<(), Duration> {
        let key = self.hasher.hash_one(key);
        let clock = self.limiter.clock();
        self.limiter
            .check_key(&key)
            .map_err(|until| until.wait_time_from(clock::Clock::now(clock)))
    }

    fn key<'a>(
        &self,
        connection: &ConnectionInfo,
        tunnel: &'a TunnelInfo,
        identity: Option<&'a Identity>,
    ) -> Whose<'a> {
        match (self.per, identity) {
            (Per::Tunnel, _) => Whose::tunnel(&tunnel.id),
            (Per::Token, Some(identity)) => Whose::principal(&tunnel.project, identity),
            // No chain has a limit by token without a filter before it that says whose it is.
            (Per::Ip, _) | (Per::Token, None) => Whose::from(connection.peer.ip()),
        }
    }
}

impl OnConnect for RateLimit {
    async fn on_connect(&self, cx: &mut ConnectCx<'_>) -> Result<Admission, FilterError> {
        if cx.facts.get::<Rehearsal>().is_some() {
            return Ok(Admission::Admit);
        }
        let key = self.key(cx.connection, cx.tunnel, None);
        Ok(match self.count(key) {
            Ok(()) => Admission::Admit,
            Err(wait) => Admission::RefuseFor(Reason::RateLimited, wait),
        })
    }
}

impl OnRequest for RateLimit {
    async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        if cx.exchange.fact::<Rehearsal>().is_some() {
            return Ok(Verdict::Continue);
        }
        let connection = cx.exchange.connection();
        let identity = cx.exchange.fact::<Identity>();
        let key = self.key(connection.info(), connection.tunnel(), identity);
        Ok(match self.count(key) {
            Ok(()) => Verdict::Continue,
            Err(wait) => Verdict::RefuseFor(Reason::RateLimited, wait),
        })
    }
}
