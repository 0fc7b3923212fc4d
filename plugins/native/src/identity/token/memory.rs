//! Tokens verified before: a visitor sends the same one with each request.

use std::collections::HashMap;
use std::sync::Arc;

use super::principal::Principal;

/// How many verified tokens are remembered, at most twice over.
pub(super) const REMEMBERED_MAX: usize = 512;

/// Longer tokens are verified each time: what is remembered stays below 2 × 512 × 2 KiB.
const REMEMBERED_TOKEN_MAX: usize = 2 * 1024;

/// Verified tokens, the latest ones: when the young generation is full it becomes the old one, and the old goes.
#[derive(Default)]
pub(super) struct Memory {
    young: HashMap<Box<str>, Arc<Principal>>,
    old: HashMap<Box<str>, Arc<Principal>>,
}

impl Memory {
    pub(super) fn get(&mut self, token: &str) -> Option<Arc<Principal>> {
        if let Some(known) = self.young.get(token) {
            return Some(known.clone());
        }
        let (token, known) = self.old.remove_entry(token)?;
        self.insert(token, known.clone());
        Some(known)
    }

    pub(super) fn put(&mut self, token: &str, principal: &Arc<Principal>) {
        if token.len() <= REMEMBERED_TOKEN_MAX {
            self.insert(token.into(), principal.clone());
        }
    }

    fn insert(&mut self, token: Box<str>, principal: Arc<Principal>) {
        if self.young.len() >= REMEMBERED_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(token, principal);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
