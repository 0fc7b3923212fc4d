//! An immutable chain, compiled once per tunnel: one flat list per phase.

mod compile;
mod flows;
mod rejudge;
mod run;
mod trial;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::connection::Connection;
use crate::handshake::Handshake;
use crate::hooks::{
    DynDatagram, DynOnConnect, DynOnRequest, DynOnResponse, DynRequestBody, DynResponseBody,
    DynStream, Hooks, OnLog,
};
use crate::rejudge::Asked;
use crate::stage::Stage;
use crate::verdict::{Reason, Redirect, Reply};
use crate::weight::Weight;
use crate::when::When;

pub use compile::ChainError;
pub use trial::{Heard, Rehearsal, Trial, TrialRow};

/// How many filters a chain may have. Positions are one byte.
pub const CHAIN_FILTERS_MAX: usize = 200;

/// How many slots the filters of a chain may take together: what an exchange keeps stays small.
pub const CHAIN_SLOTS_MAX: usize = 200;

/// A configured filter and its place.
#[derive(Clone, Debug)]
pub struct Placed {
    /// What logs call it: `policy/kind`.
    pub name: Arc<str>,
    /// The filter.
    pub hooks: Hooks,
    /// Its failure to decide is logged and passed over.
    pub observer: bool,
    /// It is on trial: what it does is undone, and what it would have refused is logged and passes.
    pub dry_run: bool,
    /// When it takes part.
    pub when: Option<When>,
    /// The line that put it there.
    pub origin: String,
    /// The operator may switch it off.
    pub optional: bool,
}

impl Placed {
    /// A filter that always takes part and whose failure refuses.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, hooks: Hooks) -> Self {
        Self {
            name: name.into(),
            hooks,
            observer: false,
            dry_run: false,
            when: None,
            origin: String::new(),
            optional: false,
        }
    }
}

/// A tunnel's filters, ready to be called. Immutable: a change makes a new chain, and exchanges keep theirs.
#[derive(Default)]
pub struct Chain {
    handshake: Option<Handshake>,
    connect: Box<[Link<dyn DynOnConnect>]>,
    /// Every filter that judges requests, and every conditional one: its condition is decided at its place.
    request: Box<[Gate]>,
    /// From the innermost filter outwards.
    response: Box<[Link<dyn DynOnResponse>]>,
    request_body: Box<[Link<dyn DynRequestBody>]>,
    /// From the innermost filter outwards.
    response_body: Box<[Link<dyn DynResponseBody>]>,
    stream: Box<[Link<dyn DynStream>]>,
    datagram: Box<[Link<dyn DynDatagram>]>,
    log: Box<[Logger]>,
    /// Who is asked about open exchanges.
    jurors: Box<[Juror]>,
    rows: Box<[ChainRow]>,
    /// Names of the fields that filters of the log ask for, of requests and of answers.
    logged: [Box<[HeaderName]>; 2],
    len: u8,
    conditional: bool,
    hold: usize,
}

struct Link<H: ?Sized> {
    at: u8,
    name: Arc<str>,
    weight: Weight,
    hook: Arc<H>,
}

/// A filter of the log.
struct Logger {
    at: u8,
    when: Option<When>,
    hook: Arc<dyn OnLog>,
}

/// A filter that is asked whether an open exchange may go on.
struct Juror {
    name: Arc<str>,
    weight: Weight,
    when: Option<When>,
    asked: Asked,
}

struct Gate {
    at: u8,
    name: Arc<str>,
    weight: Weight,
    when: Option<When>,
    hook: Option<Arc<dyn DynOnRequest>>,
}

/// One filter of a chain, for `explain`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChainRow {
    /// `policy/kind`.
    pub name: Arc<str>,
    /// Where it stands.
    pub stage: Stage,
    /// The line that put it there.
    pub origin: String,
    /// The phases it takes part in.
    pub phases: Vec<&'static str>,
    /// Its condition, in words.
    pub when: Option<String>,
    /// The operator may switch it off.
    pub optional: bool,
    /// Its failure to decide is passed over.
    pub observer: bool,
    /// It is on trial: it changes and refuses nothing.
    pub dry_run: bool,
}

/// Why, and by whom.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The filter that refused; none if the edge did.
    pub by: Option<Arc<str>>,
    /// More, for the log alone.
    pub detail: Option<String>,
    /// How long it would be refused again; none if nobody can tell.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, by: &Arc<str>, detail: Option<String>) -> Self {
        Self {
            reason,
            by: Some(by.clone()),
            detail,
            retry_after: None,
        }
    }

    pub(crate) fn retry_after(self, wait: Duration) -> Self {
        Self {
            retry_after: Some(wait),
            ..self
        }
    }

    /// A refusal by the edge itself.
    #[must_use]
    pub fn edge(reason: Reason) -> Self {
        Self {
            reason,
            by: None,
            detail: None,
            retry_after: None,
        }
    }
}

/// What the connect phase came to.
#[derive(Debug)]
pub enum Connected {
    /// Every filter admitted it.
    Admitted(Arc<Connection>),
    /// One did not.
    Refused {
        /// Why.
        refusal: Refusal,
        /// What was found out until then, for the log.
        connection: Arc<Connection>,
    },
    /// One wants it closed without a word.
    Close {
        /// That filter.
        by: Arc<str>,
        /// What was found out until then, for the log.
        connection: Arc<Connection>,
    },
}

/// What the request phase came to.
#[derive(Debug)]
pub enum Decision {
    /// Every filter agreed.
    Pass {
        /// The upgrade that was asked for was granted.
        upgrade: bool,
    },
    /// A filter answers itself.
    Respond {
        /// Its answer.
        reply: Box<Reply>,
        /// That filter.
        by: Arc<str>,
    },
    /// A filter sends the visitor elsewhere.
    Redirect {
        /// Where to.
        redirect: Box<Redirect>,
        /// That filter.
        by: Arc<str>,
    },
    /// A filter refused, or could not decide.
    Refuse(Refusal),
    /// A filter wants it closed without a word.
    Close {
        /// That filter.
        by: Arc<str>,
    },
}

/// What the response phase came to.
#[derive(Debug)]
pub enum Revised {
    /// The head as it now is goes out.
    Keep,
    /// This goes out instead, head and body.
    Replace(Box<Reply>),
    /// A filter could not do its work. Render this and call [`Chain::response`] again with the rendered head: only
    /// the filters further out, which have not seen a response yet, will.
    Refuse(Refusal),
    /// A filter wants it closed without a word.
    Close {
        /// That filter.
        by: Arc<str>,
    },
}

impl Chain {
    /// A chain that lets everything pass and grants no upgrade.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// How many filters it has.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether it has no filter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What its filters together demand of a handshake; none if they leave it to the engine.
    #[must_use]
    pub fn handshake(&self) -> Option<&Handshake> {
        self.handshake.as_ref()
    }

    /// Whether a filter decides about connections.
    #[must_use]
    pub fn takes_connect(&self) -> bool {
        !self.connect.is_empty()
    }

    /// Whether a filter decides about requests.
    #[must_use]
    pub fn takes_request(&self) -> bool {
        !self.request.is_empty()
    }

    /// Whether a filter sees responses.
    #[must_use]
    pub fn takes_response(&self) -> bool {
        !self.response.is_empty()
    }

    /// Whether a filter sees request bodies.
    #[must_use]
    pub fn takes_request_body(&self) -> bool {
        !self.request_body.is_empty()
    }

    /// Whether a filter sees response bodies.
    #[must_use]
    pub fn takes_response_body(&self) -> bool {
        !self.response_body.is_empty()
    }

    /// Whether a filter sees streams.
    #[must_use]
    pub fn takes_stream(&self) -> bool {
        !self.stream.is_empty()
    }

    /// Whether a filter sees datagrams.
    #[must_use]
    pub fn takes_datagram(&self) -> bool {
        !self.datagram.is_empty()
    }

    /// Whether a filter writes down outcomes; if not, nobody needs to gather one.
    #[must_use]
    pub fn takes_log(&self) -> bool {
        !self.log.is_empty()
    }

    /// Names of the request fields that its filters want to log.
    #[must_use]
    pub fn logged_request_fields(&self) -> &[HeaderName] {
        &self.logged[0]
    }

    /// Names of the answer's fields that its filters want to log.
    #[must_use]
    pub fn logged_response_fields(&self) -> &[HeaderName] {
        &self.logged[1]
    }

    /// The most body bytes that any of its filters must see before the upstream leg may start. For one exchange,
    /// [`BodyFlow::hold`](crate::BodyFlow::hold) leaves out filters that take no part in it.
    #[must_use]
    pub fn request_hold(&self) -> usize {
        self.hold
    }

    /// Its filters in order, for `explain`.
    pub fn rows(&self) -> impl Iterator<Item = ChainRow> {
        self.rows.iter().cloned()
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.rows.iter().map(|row| &row.name))
            .finish()
    }
}
