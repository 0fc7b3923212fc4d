//! Sockets and what is decided before a protocol is spoken: who the peer is, what its ClientHello
//! asks for, and who serves it.

pub(crate) mod front;
pub mod hello;
pub(crate) mod names;
pub(crate) mod old_alert;
pub(crate) mod plain;
pub(crate) mod redirect;
pub(crate) mod rewind;
pub(crate) mod slots;
pub(crate) mod tcp;

pub use names::OwnNames;
pub use rewind::Rewind;
