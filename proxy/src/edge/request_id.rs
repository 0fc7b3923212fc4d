//! Names for requests, and what of a query may be logged.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// An odd number near 2⁶⁴/φ: steps of it visit every value before one comes twice.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Id of one request, shown to the visitor on errors and found in the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct RequestId(u64);

impl fmt::Display for RequestId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

/// Gives out ids that do not repeat within a run and start anywhere.
#[derive(Debug)]
pub(crate) struct RequestIds(AtomicU64);

impl RequestIds {
    pub(crate) fn new() -> Self {
        // A start that can be foreseen is only less pretty: ids are names, not secrets.
        Self(AtomicU64::new(getrandom::u64().unwrap_or(STEP)))
    }

    pub(crate) fn next(&self) -> RequestId {
        RequestId(self.0.fetch_add(STEP, Ordering::Relaxed))
    }
}

/// A query without the values of credentials.
pub(crate) fn redacted(query: &str) -> String {
    if !query.contains("token") {
        return query.to_owned();
    }
    query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, _)) if name.contains("token") => format!("{name}=REDACTED"),
            _ => pair.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_requests_share_an_id() {
        let ids = RequestIds::new();
        let mut seen: Vec<String> = (0..1000).map(|_| ids.next().to_string()).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 1000);
    }

    #[test]
    fn a_token_in_a_query_is_not_logged() {
        assert_eq!(
            redacted("a=1&rstream.token=s3cret&b=2"),
            "a=1&rstream.token=REDACTED&b=2"
        );
        assert_eq!(redacted("a=1&b"), "a=1&b");
    }
}
