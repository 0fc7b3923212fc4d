//! The filter contract: what a filter sees, what it may answer, and the chain filters are compiled into.
//!
//! A filter implements one small trait per phase it lives in ([`OnConnect`], [`OnRequest`], …) and lists them in
//! [`Hooks`]. The engine sorts a tunnel's filters by [`Stage`], compiles them into a [`Chain`] and calls that chain
//! from its drivers. This crate does no I/O, reads no clock and knows no runtime: the world reaches a filter only
//! through [`Env`].

mod carry;
mod chain;
mod connection;
mod context;
pub mod env;
mod exchange;
mod facts;
mod filter;
mod handshake;
mod hooks;
mod meter;
mod outcome;
pub mod redact;
mod registry;
mod rejudge;
mod request_line;
mod slots;
mod stage;
mod verdict;
mod weight;
mod when;

pub use carry::{BODY_HOLD_MAX, BodyFlow, DatagramFlow, Passed, StreamFlow};
pub use chain::{
    CHAIN_FILTERS_MAX, CHAIN_SLOTS_MAX, Chain, ChainError, ChainRow, Connected, Decision, Heard,
    Placed, Refusal, Rehearsal, Revised, Trial, TrialRow,
};
pub use connection::{ClientHello, Connection, ConnectionInfo, TlsInfo, Transport, TunnelInfo};
pub use context::{
    BodyCx, ConnectCx, DatagramCx, Direction, LogCx, RequestCx, ResponseCx, StreamCx,
};
pub use env::Env;
pub use exchange::{Deadline, Exchange};
pub use facts::{Established, Fact, Facts, Identity, Location};
pub use filter::{ConfigError, Filter};
pub use handshake::{
    CertificateVerdict, CipherSuite, ClientAuth, ClientCertificate, Contradiction, Handshake,
    JudgeCertificate, KeyExchange, TlsVersion,
};
pub use hooks::{
    Hooks, OnConnect, OnDatagram, OnLog, OnRequest, OnRequestBody, OnResponse, OnResponseBody,
    OnStream,
};
pub use meter::{Answered, Meter, Phase, Tally};
pub use outcome::{
    By, Cause, Failure, FailureKind, Outcome, RequestId, Settled, Settlement, Termination,
};
pub use registry::{Factory, Registry};
pub use rejudge::{OnRejudge, RejudgeCx, Stay};
pub use request_line::{
    Fields, LOGGED_FIELD_BYTES_MAX, LOGGED_FIELDS_MAX, LOGGED_TARGET_BYTES_MAX, RequestLine,
};
pub use slots::Slot;
pub use stage::{Stage, UnknownStage};
pub use verdict::{
    Admission, FilterError, Passage, Reason, Redirect, Reply, Revision, Upgrade, Verdict,
};
pub use weight::Said;
pub use when::{PathPattern, PatternError, When, is_ambiguous_path};
