//! Where each value of a configuration stands.

use std::collections::BTreeMap;

use crate::problem::{Place, Problem};

/// The places of values, by dotted key.
#[derive(Debug, Default)]
pub(crate) struct Places(pub(crate) BTreeMap<String, Place>);

impl Places {
    /// A problem at the value of `key`, or at the nearest table above it.
    pub(crate) fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        let mut above = key;
        let place = loop {
            if let Some(place) = self.0.get(above) {
                break place.clone();
            }
            if above.is_empty() {
                break Place::File("the configuration".into());
            }
            // The root's key is empty.
            above = above.rsplit_once('.').map_or("", |(above, _)| above);
        };
        Problem::new(place, key, message)
    }
}
