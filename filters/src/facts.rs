//! Facts: what one filter establishes and later ones rely on, keyed by type.

use std::any::{Any, TypeId};
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::slots::{Slot, Slots};

/// A value one filter establishes and others read. Its type is its key.
pub trait Fact: Any + Send + Sync {
    /// The fact's name in configuration errors and `explain`, and for plugins.
    const NAME: &'static str;

    /// What plugins may know of it; nothing unless it says so.
    fn to_json(&self) -> Option<Value> {
        None
    }
}

/// A typed map of facts. The first to establish a fact wins; facts are never changed or taken back. Beside them lie the
/// cells that are each filter's own.
#[derive(Default)]
pub struct Facts {
    // A handful at most: a linear search beats a hash map here.
    entries: Vec<Entry>,
    slots: Slots,
}

#[derive(Clone)]
struct Entry {
    key: TypeId,
    name: &'static str,
    value: Arc<dyn Any + Send + Sync>,
    to_json: fn(&(dyn Any + Send + Sync)) -> Option<Value>,
}

impl Facts {
    /// The fact, if somebody established it.
    #[must_use]
    pub fn get<F: Fact>(&self) -> Option<&F> {
        let key = TypeId::of::<F>();
        self.entries
            .iter()
            .find(|entry| entry.key == key)
            .and_then(|entry| entry.value.downcast_ref())
    }

    /// Establishes a fact.
    ///
    /// # Errors
    /// [`Established`] if it already is; the first value stays.
    pub fn establish<F: Fact>(&mut self, fact: F) -> Result<(), Established> {
        if self.get::<F>().is_some() {
            return Err(Established { fact: F::NAME });
        }
        self.entries.push(Entry {
            key: TypeId::of::<F>(),
            name: F::NAME,
            value: Arc::new(fact),
            to_json: |fact| fact.downcast_ref::<F>()?.to_json(),
        });
        Ok(())
    }

    /// The facts established so far, without anybody's cells.
    #[must_use]
    pub fn so_far(&self) -> Self {
        Self {
            entries: self.entries.clone(),
            slots: Slots::default(),
        }
    }

    /// What plugins may know of the fact of this name.
    #[must_use]
    pub fn json(&self, name: &str) -> Option<Value> {
        let entry = self.entries.iter().find(|entry| entry.name == name)?;
        (entry.to_json)(&*entry.value)
    }

    /// What this filter put into its slot.
    #[must_use]
    pub fn slot<T: Send + Sync + 'static>(&self, slot: Slot<T>) -> Option<&T> {
        self.slots.get(slot)
    }

    /// Puts a value into this filter's slot, replacing an earlier one.
    pub fn fill<T: Send + Sync + 'static>(&mut self, slot: Slot<T>, value: T) {
        self.slots.fill(slot, value);
    }

    /// Names of the facts established so far, in order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.entries.iter().map(|entry| entry.name)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Forgets what was established after `len`: an observer that failed leaves nothing behind.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.entries.truncate(len);
    }
}

impl fmt::Debug for Facts {
    // Values may hold what must not be logged: names only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

/// A fact was established a second time.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("fact `{fact}` is already established")]
pub struct Established {
    /// The fact's name.
    pub fact: &'static str,
}

/// Who the visitor is, established by any filter that authenticates.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Identity {
    /// The principal's id.
    pub subject: String,
    /// How it was proved: `token`, `mtls`, …
    pub method: &'static str,
    /// The principal's name, for people.
    pub name: Option<String>,
    /// The principal's mail address.
    pub email: Option<String>,
    /// The id of the token that proved it, if the token has one.
    pub token_id: Option<String>,
    /// The certificate that proved it.
    pub certificate_sha256: Option<[u8; 32]>,
}

impl Fact for Identity {
    const NAME: &'static str = "identity";
}

/// Where a visitor is, as far as a filter has found out.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Location {
    /// ISO 3166-1 alpha-2, upper case.
    pub country: Option<String>,
    /// `AF`, `AN`, `AS`, `EU`, `NA`, `OC` or `SA`.
    pub continent: Option<String>,
    /// ISO 3166-2 without the country.
    pub region: Option<String>,
    /// The autonomous system's number.
    pub asn: Option<u32>,
}

impl Fact for Location {
    const NAME: &'static str = "location";
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_first_to_establish_a_fact_wins() {
        let mut facts = Facts::default();
        assert!(facts.get::<Identity>().is_none());
        facts
            .establish(Identity {
                subject: "u-1".into(),
                method: "token",
                ..Identity::default()
            })
            .unwrap();
        let again = facts.establish(Identity {
            subject: "u-2".into(),
            method: "mtls",
            ..Identity::default()
        });
        assert_eq!(again, Err(Established { fact: "identity" }));
        assert_eq!(facts.get::<Identity>().unwrap().subject, "u-1");
    }

    #[test]
    fn debug_shows_names_and_no_values() {
        let mut facts = Facts::default();
        facts
            .establish(Identity {
                subject: "u-1".into(),
                method: "token",
                ..Identity::default()
            })
            .unwrap();
        assert_eq!(format!("{facts:?}"), r#"{"identity"}"#);
    }
}
