//! One trait for each phase.

use crate::bindings::adit::filter::context::{
    Exchange, Fields, RequestHead as Request, ResponseHead as Response,
};
use crate::bindings::adit::filter::types::{
    Admission, Direction, Failure, Passage, Revision, Stay, Verdict,
};
use crate::plugin::Plugin;

/// Decides whether a connection may reach a tunnel.
pub trait OnConnect: Plugin {
    /// Asked once for each connection and tunnel, and again when the rules have changed.
    ///
    /// # Errors
    /// When the filter could not decide.
    fn on_connect(&self, exchange: &Exchange) -> Result<Admission, Failure>;
}

/// Decides about a request.
pub trait OnRequest: Plugin {
    /// Asked once for each request.
    ///
    /// # Errors
    /// When the filter could not decide.
    fn on_request(&self, request: &Request, exchange: &Exchange) -> Result<Verdict, Failure>;
}

/// Sees and changes a response's head.
pub trait OnResponse: Plugin {
    /// Asked once for each response.
    ///
    /// # Errors
    /// When the filter could not do its work.
    fn on_response(&self, response: &Response, exchange: &Exchange) -> Result<Revision, Failure>;
}

/// A piece of a body, stream or datagram on its way.
pub struct Piece<'a> {
    /// The bytes; what is left of them goes on.
    pub bytes: Vec<u8>,
    /// Nothing follows.
    pub last: bool,
    /// Trailers, with the last piece of a body.
    pub trailers: Option<&'a Fields>,
}

impl<'a> Piece<'a> {
    #[doc(hidden)]
    #[must_use]
    pub fn new(bytes: Vec<u8>, last: bool, trailers: Option<&'a Fields>) -> Self {
        Self {
            bytes,
            last,
            trailers,
        }
    }

    #[doc(hidden)]
    pub fn passed(
        mut self,
        hook: impl FnOnce(&mut Self) -> Result<Passage, Failure>,
    ) -> Result<(Passage, Option<Vec<u8>>), Failure> {
        let passage = hook(&mut self)?;
        Ok((passage, Some(self.bytes)))
    }
}

/// Sees the request's body pass. It may not wait.
pub trait OnRequestBody: Plugin {
    /// What it remembers from one piece to the next of one body.
    type State: Default + 'static;

    /// Called for each piece.
    ///
    /// # Errors
    /// When the filter could not do its work.
    fn on_request_body(
        &self,
        state: &mut Self::State,
        piece: &mut Piece<'_>,
        exchange: &Exchange,
    ) -> Result<Passage, Failure>;
}

/// Sees the response's body pass. It may not wait.
pub trait OnResponseBody: Plugin {
    /// What it remembers from one piece to the next of one body.
    type State: Default + 'static;

    /// Called for each piece.
    ///
    /// # Errors
    /// When the filter could not do its work.
    fn on_response_body(
        &self,
        state: &mut Self::State,
        piece: &mut Piece<'_>,
        exchange: &Exchange,
    ) -> Result<Passage, Failure>;
}

/// Sees the bytes of a stream pass. It may not wait.
pub trait OnStream: Plugin {
    /// What it remembers from one piece to the next of one direction.
    type State: Default + 'static;

    /// Called for each piece of either direction; an instance sees one of them.
    ///
    /// # Errors
    /// When the filter could not do its work.
    fn on_stream(
        &self,
        state: &mut Self::State,
        direction: Direction,
        piece: &mut Piece<'_>,
        exchange: &Exchange,
    ) -> Result<Passage, Failure>;
}

/// Sees datagrams pass. It may not wait.
pub trait OnDatagram: Plugin {
    /// What it remembers from one datagram to the next of one direction.
    type State: Default + 'static;

    /// Called for each datagram of either direction; an instance sees one of them.
    ///
    /// # Errors
    /// When the filter could not do its work.
    fn on_datagram(
        &self,
        state: &mut Self::State,
        direction: Direction,
        datagram: &mut Piece<'_>,
        exchange: &Exchange,
    ) -> Result<Passage, Failure>;
}

/// Says whether an open exchange may go on.
pub trait OnRejudge: Plugin {
    /// Asked when the rules or credentials have changed.
    ///
    /// # Errors
    /// When the filter could not decide.
    fn on_rejudge(&self, exchange: &Exchange) -> Result<Stay, Failure>;
}

/// Writes down what happened.
pub trait OnLog: Plugin {
    /// Called once for each exchange, whatever came of it.
    fn on_log(&self, exchange: &Exchange, outcome: &Outcome);
}

/// What came of an exchange.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The request's name.
    pub request_id: String,
    /// Its method.
    pub method: String,
    /// Its path, as received.
    pub path: String,
    /// When its head was complete, in milliseconds since 1970.
    pub started_ms: u64,
    /// From there to the end, in microseconds.
    pub duration_us: u64,
    /// The status the visitor was sent.
    pub status: Option<u16>,
    /// Bytes from the visitor.
    pub bytes_up: u64,
    /// Bytes to the visitor.
    pub bytes_down: u64,
    /// The filter that refused or answered.
    pub decided_by: Option<String>,
    /// The reason it refused for.
    pub refused_for: Option<String>,
}
