//! HTTP/2 on both sides of the edge, over the h2 crate: a proxy must see and pass reset codes.

mod body;
mod client;
mod frames;
mod guard;
mod lingering;
mod malformed;
mod server;

pub(crate) use body::{Incoming, Outgoing, UpstreamBody};
pub(crate) use client::{Client, Reserved, connect};
pub(crate) use h2::Error;
pub(crate) use lingering::Lingering;
pub(crate) use server::{protocol, serve};
