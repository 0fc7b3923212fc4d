//! Filters written for [proxy-wasm](https://github.com/proxy-wasm/spec), ABI 0.2.1: what was built for Envoy with one
//! of its SDKs runs unchanged, as a kind of filter like any other.
//!
//! # Virtual machines
//!
//! proxy-wasm has one root context for each virtual machine, and in it a context for each exchange. A configured
//! filter has a few machines, at most [`VMS_MAX`]: the first is started when the filter is built and told its
//! configuration, more when those there are busy or crowded. Each is worked on by one callback at a time. An exchange
//! stays with its machine to its end.
//!
//! A callback that traps, runs out of fuel or exits costs its machine: it is dropped at once, with every context in
//! it, and a new one is made when the filter is next used (the one with a timer by itself, after a while). Each
//! exchange that had a context there ends as by a failure of the filter, that is as its `on-error` says. No callback
//! waits while it has the machine: a paused exchange leaves it to others, and goes on when it is resumed, within
//! `limits.wait`. A filter that is replaced takes its machines with it as soon as its last exchange has ended.
//!
//! # What is asked of whom
//!
//! - The filter's table is its configuration, as JSON text; an empty one is no bytes. A table with one of the keys
//!   `configuration`, `vm-configuration` or `clusters` has no others: the first two are given as they are if they are
//!   strings, else as JSON.
//! - An HTTP call goes to the URL that `clusters` has for its upstream, else to its `:authority`, by its `:scheme` or
//!   `https`; only to hosts of `allow-hosts` or `allow-private-hosts`, as for components.
//! - Fields that are the edge's (framing, forwarding) stay as they are, whatever a filter does to them: its log says
//!   so. A change of what has gone on already, or of the method, scheme or authority, is a bad argument.
//! - A field's value that is not UTF-8 is shown with U+FFFD for what is not, and goes on as it came unless it is
//!   replaced: the SDK for Rust panics on anything else, which would cost all exchanges of the machine.
//! - `limits.fields` is how many fields a filter may add to those that have come.
//! - What the host copies for a filter costs fuel, one for four bytes. At most 16 calls of a context are under way, with
//!   bodies of up to 1 MiB; names of metrics, queues and shared data have up to 256 bytes.
//! - A body's callback sees what it has paused, whole, up to [`BODY_HOLD_MAX`](adit_filters::BODY_HOLD_MAX). Its last
//!   piece cannot be paused, and a request's head has gone on before its body comes: who pauses a head must have a
//!   call, a timer or a queue under way that wakes it.
//! - Because a callback for bodies may change them, a filter that exports one unsets the length that was announced.
//! - Shared data, queues and metrics are the filter's own. Shared data outlives a reload.
//! - gRPC calls and foreign functions are not there, nor are TCP streams.

mod abi;
mod bodies;
mod calls;
mod code;
mod common;
mod context;
mod driver;
mod filter;
mod host;
mod plugin;
mod under_way;
mod visit;
mod vm;

pub use code::{AbiError, is_proxy_wasm};
pub use plugin::Plugin;
pub use vm::VMS_MAX;
