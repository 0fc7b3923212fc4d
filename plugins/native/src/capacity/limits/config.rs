//! The table of a `limits` filter.

use std::num::NonZeroU32;
use std::time::Duration;

use adit_config::{Size, Span};
use adit_filters::{ConfigError, Direction};
use serde::Deserialize;

use super::rate::Rate;

/// What visitors are held to. At least one limit must be given.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// What one request may use; one that leaves HTTP, until its stream ends.
    pub request: Option<Request>,
    /// What one connection of a visitor may use of a tunnel, all its requests together.
    pub connection: Option<Connection>,
}

/// What one request may use.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Request {
    /// How fast its bytes may pass.
    pub bandwidth: Option<EachWay<Rate>>,
    /// How many bytes may pass.
    pub bytes: Option<EachWay<Size>>,
    /// How long it may take.
    pub duration: Option<Span>,
    /// How large its body may be; over it the answer is 413.
    pub body: Option<Size>,
    /// How many there may be at once.
    pub concurrent: Option<Concurrent>,
}

/// What one connection may use.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Connection {
    /// How fast its bytes may pass.
    pub bandwidth: Option<EachWay<Rate>>,
    /// How many bytes may pass.
    pub bytes: Option<EachWay<Size>>,
    /// How long it may be used.
    pub duration: Option<Span>,
    /// How many there may be at once.
    pub concurrent: Option<Concurrent>,
}

/// A limit for each direction; without it there is none.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EachWay<T> {
    /// From the visitor.
    pub up: Option<T>,
    /// To the visitor.
    pub down: Option<T>,
}

impl<T> Default for EachWay<T> {
    fn default() -> Self {
        Self {
            up: None,
            down: None,
        }
    }
}

impl<T: Copy> EachWay<T> {
    pub(super) fn of(&self, direction: Direction) -> Option<T> {
        match direction {
            Direction::ToAgent => self.up,
            Direction::ToClient => self.down,
        }
    }

    fn is_given(&self) -> bool {
        self.up.is_some() || self.down.is_some()
    }
}

/// How many at once, by what they have in common.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Concurrent {
    /// For each address; of IPv6, each /64.
    pub ip: Option<NonZeroU32>,
    /// For each principal.
    pub token: Option<NonZeroU32>,
    /// For each tunnel.
    pub tunnel: Option<NonZeroU32>,
}

/// What may pass, and for how long.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allowance {
    pub(super) bandwidth: EachWay<Rate>,
    pub(super) bytes: EachWay<Size>,
    pub(super) duration: Option<Duration>,
}

impl Allowance {
    fn new(
        key: &str,
        bandwidth: Option<EachWay<Rate>>,
        bytes: Option<EachWay<Size>>,
        duration: Option<Span>,
    ) -> Result<Self, ConfigError> {
        let empty = |given: bool, what: &str| match given {
            true => Ok(()),
            false => {
                let message = format!("`{what}` limits nothing: give `up`, `down` or both");
                Err(ConfigError::at(&format!("{key}.{what}"), message))
            }
        };
        empty(bandwidth.is_none_or(|limit| limit.is_given()), "bandwidth")?;
        empty(bytes.is_none_or(|limit| limit.is_given()), "bytes")?;
        if duration.is_some_and(|Span(duration)| duration.is_zero()) {
            let message = "a `duration` of nothing lets nothing pass, use a longer one";
            return Err(ConfigError::at(&format!("{key}.duration"), message));
        }
        Ok(Self {
            bandwidth: bandwidth.unwrap_or_default(),
            bytes: bytes.unwrap_or_default(),
            duration: duration.map(|Span(duration)| duration),
        })
    }

    /// Whether bytes have to be counted in this direction.
    pub(super) fn counts(&self, direction: Direction) -> bool {
        self.bandwidth.of(direction).is_some() || self.bytes.of(direction).is_some()
    }
}

/// A table that has been found to say something.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Limits {
    pub(super) request: Allowance,
    pub(super) body: Option<u64>,
    pub(super) requests: Concurrent,
    pub(super) connection: Allowance,
    pub(super) connections: Concurrent,
    /// Something is said about connections.
    pub(super) on_connections: bool,
}

impl TryFrom<Config> for Limits {
    type Error = ConfigError;

    fn try_from(config: Config) -> Result<Self, ConfigError> {
        if config.request.is_none() && config.connection.is_none() {
            return Err(ConfigError {
                key: None,
                message: "`limits` limits nothing: give `request`, `connection` or both".into(),
            });
        }
        let mut limits = Self::default();
        if let Some(request) = config.request {
            limits.request(request)?;
        }
        if let Some(connection) = config.connection {
            limits.connection(connection)?;
        }
        Ok(limits)
    }
}

impl Limits {
    fn request(&mut self, request: Request) -> Result<(), ConfigError> {
        let Request {
            bandwidth,
            bytes: volume,
            duration,
            body,
            concurrent,
        } = request;
        something(
            "request",
            bandwidth.is_some()
                || volume.is_some()
                || duration.is_some()
                || body.is_some()
                || concurrent.is_some(),
        )?;
        self.request = Allowance::new("request", bandwidth, volume, duration)?;
        self.body = body.map(bytes);
        self.requests = at_once("request", concurrent)?;
        Ok(())
    }

    fn connection(&mut self, connection: Connection) -> Result<(), ConfigError> {
        let Connection {
            bandwidth,
            bytes: volume,
            duration,
            concurrent,
        } = connection;
        something(
            "connection",
            bandwidth.is_some() || volume.is_some() || duration.is_some() || concurrent.is_some(),
        )?;
        self.connection = Allowance::new("connection", bandwidth, volume, duration)?;
        self.connections = at_once("connection", concurrent)?;
        self.on_connections = true;
        Ok(())
    }
}

fn something(key: &str, said: bool) -> Result<(), ConfigError> {
    let message = || format!("`{key}` limits nothing: give a limit, or leave it out");
    match said {
        true => Ok(()),
        false => Err(ConfigError::at(key, message())),
    }
}

fn at_once(key: &str, given: Option<Concurrent>) -> Result<Concurrent, ConfigError> {
    let message = "`concurrent` limits nothing: give `ip`, `token` or `tunnel`";
    match given {
        Some(Concurrent {
            ip: None,
            token: None,
            tunnel: None,
        }) => Err(ConfigError::at(&format!("{key}.concurrent"), message)),
        given => Ok(given.unwrap_or_default()),
    }
}

pub(super) fn bytes(Size(size): Size) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}
