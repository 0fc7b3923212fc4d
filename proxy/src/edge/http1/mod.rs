//! HTTP/1.1 on both sides of the edge, over hyper.

mod body;
mod client;
mod io;
mod server;

pub(crate) use body::{Incoming, UpstreamBody};
pub(crate) use client::{Client, Interim, Sent, Unanswered, connect};
pub(crate) use hyper::Error;
pub(crate) use io::Busy;
pub(crate) use server::serve;
