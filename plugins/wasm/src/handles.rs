//! What handles of the WIT stand for. There is one exchange and one head in a call: which one needs no more than a type.
#![allow(unreachable_pub, reason = "the generated bindings hand these on")]

/// `exchange`.
#[derive(Debug)]
pub struct ExchangeHandle;

/// `request-head` or `response-head`.
#[derive(Debug)]
pub struct HeadHandle;

/// `fields`; see [`FieldsOf`](crate::state::FieldsOf).
#[derive(Debug)]
pub struct FieldsHandle;
