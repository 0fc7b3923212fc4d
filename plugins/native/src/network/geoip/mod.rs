//! `geoip`: only visitors from these countries, continents or networks, or none from those.
//!
//! It decides when a connection reaches a tunnel, behind `trusted-ips` however the two are written, and again before a
//! request when the database has changed since: no connection is dropped for that, and none outlives what the database
//! said. It tells the log where the visitor is.
//!
//! Whoever is in no known place is in none that is allowed (edge-behaviour §5.1). Without its database it cannot decide
//! and says so, which refuses with 503 rather than 403: nothing is known of the visitor, and it passes again by itself
//! (edge-behaviour §4, X18).

mod database;
mod databases;
mod location;
mod rules;
#[cfg(test)]
mod tests;
#[cfg(test)]
#[path = "../../../../../tests/support/mmdb.rs"]
#[allow(unreachable_pub, reason = "the tests of the whole engine share it")]
mod writer;

use std::sync::Arc;

use adit_config::{NearPath, Problem, Section};
use adit_filters::{
    Admission, ConnectCx, ConnectionInfo, Env, Fact, Factory, Facts, FilterError, Hooks, Location,
    OnConnect, OnRejudge, OnRequest, Reason, RejudgeCx, RequestCx, Stage, Stay, Verdict,
};
use serde::Deserialize;

use database::Edition;
pub use database::{DATABASE_BYTES_MAX, Database, DatabaseError};
pub use databases::{Databases, OpenError, Unusable};
pub use rules::{NotAPlace, PLACES_MAX, Place, Rules};

/// Behind the filters over addresses alone (edge-behaviour §4, F1 before F2).
const RANK: u8 = 1;

/// The filter's table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    /// Only these; without it, all.
    allow: Option<Vec<Place>>,
    /// Never these, even if allowed.
    #[serde(default)]
    deny: Vec<Place>,
    /// A database of its own, such as one of autonomous systems.
    database: Option<NearPath>,
}

/// Makes `geoip` filters that share the engine's databases.
#[derive(Debug, Default)]
pub struct GeoIpFactory {
    databases: Databases,
}

impl GeoIpFactory {
    /// What `use = "…"` calls the filter.
    pub const NAME: &'static str = "geoip";

    /// Filters find their databases here.
    #[must_use]
    pub fn new(databases: Databases) -> Self {
        Self { databases }
    }

    /// The countries a filter's table allows, where it allows nothing but countries.
    #[must_use]
    pub fn countries(section: &Section) -> Option<Vec<String>> {
        let config: Config = section.deserialize().ok()?;
        Rules::new(config.allow, config.deny).ok()?.countries()
    }
}

impl Factory for GeoIpFactory {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn stage(&self) -> Stage {
        Stage::Network
    }

    fn build(&self, section: &Section, env: &mut Env) -> Result<Hooks, Vec<Problem>> {
        let config: Config = section.deserialize()?;
        let wrong = |key: Option<&str>, message: String| vec![section.problem(key, message)];
        let rules = Rules::new(config.allow, config.deny)
            .map_err(|error| wrong(error.key.as_deref(), error.message))?;
        let database = match (&config.database, self.databases.shared()) {
            (Some(path), _) => self
                .databases
                .open(path.as_ref(), env)
                .map_err(|error| wrong(Some("database"), error.to_string()))?,
            (None, Some(shared)) => Arc::clone(shared),
            (None, None) => {
                let message =
                    "there is no database: set `geoip.database` for the engine, or `database` here";
                return Err(wrong(None, message.to_owned()));
            }
        };
        Ok(GeoIp::new(rules, database).hooks())
    }
}

/// The filter.
#[derive(Debug)]
pub struct GeoIp {
    rules: Rules,
    database: Arc<Database>,
}

/// Which edition of a database has said where the visitor is.
struct Located(Edition);

impl Fact for Located {
    const NAME: &'static str = "located";
}

impl GeoIp {
    /// A filter over a database that somebody else keeps up to date.
    #[must_use]
    pub fn new(rules: Rules, database: Arc<Database>) -> Self {
        Self { rules, database }
    }

    /// The phases it takes part in.
    #[must_use]
    pub fn hooks(self) -> Hooks {
        let filter = Arc::new(self);
        Hooks::new()
            .at(Stage::Network)
            .rank(RANK)
            .connect(Arc::clone(&filter))
            .request(Arc::clone(&filter))
            .rejudge(filter)
    }

    fn find(&self, connection: &ConnectionInfo) -> Result<(Location, Edition), FilterError> {
        let found = self.database.found(connection.peer.ip());
        found.map_err(|error| FilterError::Unavailable {
            service: "GeoIP database",
            source: Some(Box::new(error)),
        })
    }

    /// Whether this edition is the one the facts were taken from.
    fn is_current(&self, facts: &Facts) -> bool {
        facts
            .get()
            .is_some_and(|Located(edition)| *edition == self.database.edition())
    }
}

impl OnConnect for GeoIp {
    async fn on_connect(&self, cx: &mut ConnectCx<'_>) -> Result<Admission, FilterError> {
        let known = match cx.facts.get::<Location>() {
            Some(location) if self.is_current(cx.facts) => Some(self.rules.admit(location)),
            _ => None,
        };
        let admitted = match known {
            Some(admitted) => admitted,
            None => {
                let (location, edition) = self.find(cx.connection)?;
                let admitted = self.rules.admit(&location);
                // Where another filter has said so from another database, the log has that.
                if cx.facts.establish(location).is_ok() {
                    let _first = cx.facts.establish(Located(edition));
                }
                admitted
            }
        };
        Ok(match admitted {
            true => Admission::Admit,
            false => Admission::Refuse(Reason::Country),
        })
    }
}

impl OnRequest for GeoIp {
    async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        let connection = cx.exchange.connection();
        if self.is_current(connection.facts()) {
            return Ok(Verdict::Continue);
        }
        let (location, _) = self.find(connection.info())?;
        Ok(match self.rules.admit(&location) {
            true => Verdict::Continue,
            false => Verdict::Refuse(Reason::Country),
        })
    }
}

impl OnRejudge for GeoIp {
    fn on_rejudge(&self, cx: &mut RejudgeCx<'_>) -> Result<Stay, FilterError> {
        let (location, _) = self.find(cx.connection())?;
        Ok(match self.rules.admit(&location) {
            true => Stay::Yes,
            false => Stay::No(Reason::Country),
        })
    }
}
