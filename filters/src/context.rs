//! What each hook is given.

use std::sync::Arc;

use http::HeaderMap;

use crate::connection::{ConnectionInfo, TunnelInfo};
use crate::exchange::{Exchange, Left};
use crate::facts::Facts;
use crate::outcome::Outcome;
use crate::verdict::Upgrade;

/// Which way bytes travel.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Direction {
    /// From the visitor to the agent.
    ToAgent,
    /// From the agent to the visitor.
    ToClient,
}

/// A connection about to reach a tunnel.
#[derive(Debug)]
pub struct ConnectCx<'a> {
    /// What is fixed for the connection.
    pub connection: &'a Arc<ConnectionInfo>,
    /// The tunnel it wants.
    pub tunnel: &'a Arc<TunnelInfo>,
    /// Facts of this (connection, tunnel); frozen after the last connect hook.
    pub facts: &'a mut Facts,
}

/// A request going down the chain.
#[derive(Debug)]
pub struct RequestCx<'a> {
    /// The head. `uri` always has scheme, authority and path; on HTTP/1.1 the hop-by-hop fields are still there to
    /// be read and are removed afterwards.
    pub head: &'a mut http::request::Parts,
    /// The exchange, to establish facts and fill slots.
    pub exchange: &'a mut Exchange,
    /// The protocol the request asked to leave HTTP for.
    pub upgrade: Option<Upgrade>,
}

/// A response going back up.
#[derive(Debug)]
pub struct ResponseCx<'a> {
    /// The head.
    pub head: &'a mut http::response::Parts,
    /// The exchange, read-only by now.
    pub exchange: &'a Exchange,
}

/// A piece of a body passing.
#[derive(Debug)]
pub struct BodyCx<'a> {
    /// Which way.
    pub direction: Direction,
    /// Nothing follows this piece.
    pub last: bool,
    /// Trailers, together with the last piece.
    pub trailers: Option<&'a mut HeaderMap>,
    /// The exchange.
    pub exchange: &'a Exchange,
}

/// A piece of a byte stream passing.
#[derive(Debug)]
pub struct StreamCx<'a> {
    /// Which way.
    pub direction: Direction,
    /// Nothing follows this piece in this direction.
    pub last: bool,
    /// The exchange.
    pub exchange: &'a Exchange,
}

/// A datagram passing.
#[derive(Debug)]
pub struct DatagramCx<'a> {
    /// Which way.
    pub direction: Direction,
    /// The exchange.
    pub exchange: &'a Exchange,
}

/// The end of an exchange.
pub struct LogCx<'a> {
    /// The exchange.
    pub exchange: &'a Exchange,
    /// What came of it.
    pub outcome: &'a Arc<Outcome>,
    pub(crate) at: u8,
    pub(crate) left: &'a [Left],
}

impl LogCx<'_> {
    /// The state this filter's own byte hook left behind in `direction`, if the hook ran and keeps an `S`.
    #[must_use]
    pub fn left<S: Send + 'static>(&self, direction: Direction) -> Option<&S> {
        self.left
            .iter()
            .filter(|left| left.at == self.at && left.direction == direction)
            .find_map(|left| left.state.downcast_ref())
    }
}
