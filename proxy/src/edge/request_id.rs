//! Names for requests.

use std::sync::atomic::{AtomicU64, Ordering};

use adit_filters::RequestId;

/// An odd number near 2⁶⁴/φ: steps of it visit every value before one comes twice.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Gives out ids that do not repeat within a run and start anywhere.
#[derive(Debug)]
pub(crate) struct RequestIds(AtomicU64);

impl RequestIds {
    pub(crate) fn new() -> Self {
        // A start that can be foreseen is only less pretty: ids are names, not secrets.
        Self(AtomicU64::new(getrandom::u64().unwrap_or(STEP)))
    }

    pub(crate) fn next(&self) -> RequestId {
        RequestId::new(self.0.fetch_add(STEP, Ordering::Relaxed))
    }
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
}
