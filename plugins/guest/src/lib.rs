//! Write filters for Adit in Rust.
//!
//! A filter is a type with its configuration and a method for each phase it takes part in:
//!
//! ```ignore
//! use adit_guest::prelude::*;
//!
//! /// Only requests with this key.
//! #[config]
//! struct Config {
//!     key: String,
//! }
//!
//! struct Key(Config);
//!
//! impl Plugin for Key {
//!     type Config = Config;
//!
//!     fn new(config: Config) -> Result<Self, ConfigError> {
//!         match config.key.len() {
//!             16.. => Ok(Self(config)),
//!             _ => Err(ConfigError::at("key", "use 16 letters or more")),
//!         }
//!     }
//! }
//!
//! impl OnRequest for Key {
//!     fn on_request(&self, request: &Request, _: &Exchange) -> Result<Verdict, Failure> {
//!         let shown = request.field("x-key").unwrap_or_default();
//!         Ok(match same(shown.as_bytes(), self.0.key.as_bytes()) {
//!             true => Verdict::Continue,
//!             false => Refusal::new(Reason::MissingToken).because("no such key").into(),
//!         })
//!     }
//! }
//!
//! adit_guest::export!(Key: on_request);
//! ```
//!
//! Build it with `cargo build --release --target wasm32-wasip2`, or `adit plugin build`.

mod answer;
#[doc(hidden)]
pub mod bindings;
mod head;
mod phase;
mod plugin;
mod services;

pub use adit_guest_macros::{config, export};
pub use schemars;
pub use serde;
#[doc(hidden)]
pub use wit_bindgen;

pub use bindings::adit::filter::context::{
    Exchange, FieldError, Fields, NotEstablished, RequestHead as Request, ResponseHead as Response,
};
pub use bindings::adit::filter::types::{
    Admission, ClientHello, Direction, Failure, Field, Identity, Location, Passage, Reason,
    Redirect, RedirectKind, Refusal, Reply, Revision, Stay, TlsInfo, Transport, Upgrade, Verdict,
};
pub use head::same;
pub use phase::{
    OnConnect, OnDatagram, OnLog, OnRejudge, OnRequest, OnRequestBody, OnResponse, OnResponseBody,
    OnStream, Outcome, Piece,
};
pub use plugin::{ConfigError, Plugin};
#[doc(hidden)]
pub use plugin::{configured, schema};
pub use services::{clock, http, log, metrics, random, store};

/// What nearly every filter uses.
pub mod prelude {
    pub use crate::{
        Admission, ConfigError, Direction, Exchange, Failure, Fields, Identity, OnConnect,
        OnDatagram, OnLog, OnRejudge, OnRequest, OnRequestBody, OnResponse, OnResponseBody,
        OnStream, Outcome, Passage, Piece, Plugin, Reason, Redirect, RedirectKind, Refusal, Reply,
        Request, Response, Revision, Stay, Upgrade, Verdict, clock, config, http, log, metrics,
        random, same, store,
    };
}
