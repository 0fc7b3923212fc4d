//! Values that only this engine can read and write, each sealed for one purpose and place: what was sealed for one
//! tunnel cannot be opened for another.

use std::sync::Arc;

use adit_config::Secret;
use adit_filters::env::Random;
use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{digest, hkdf, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest sealed text that is opened, in bytes; longer ones are refused unread.
pub(crate) const SEALED_BYTES_MAX: usize = 6 * 1024;

/// Sets these keys apart from all others that are derived from the engine's secret.
const LABEL: &[u8] = b"adit rstream-auth v1";

/// Octets of a random id: nobody guesses 2^128.
const ID_BYTES: usize = 16;

/// Seals and opens. Both keys are derived from the engine's secret
/// ([RFC 5869](https://www.rfc-editor.org/rfc/rfc5869)).
pub(crate) struct Seal {
    // Two values under one nonce would betray only that they are equal (RFC 8452), so random nonces do for as many
    // values as an engine ever seals.
    sealing: LessSafeKey,
    deriving: hmac::Key,
    random: Arc<dyn Random>,
}

impl Seal {
    pub(crate) fn new(secret: &Secret<String>, random: Arc<dyn Random>) -> Self {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, LABEL);
        let secret = salt.extract(secret.expose().as_bytes());
        let sealing: UnboundKey = secret
            .expand(&[b"sealing"], &AES_256_GCM_SIV)
            .expect("a key is shorter than the most that HKDF gives")
            .into();
        let deriving: hmac::Key = secret
            .expand(&[b"deriving"], hmac::HMAC_SHA256)
            .expect("a key is shorter than the most that HKDF gives")
            .into();
        Self {
            sealing: LessSafeKey::new(sealing),
            deriving,
            random,
        }
    }

    /// Seals a value for one purpose.
    pub(crate) fn seal(&self, purpose: &[&str], value: &impl Serialize) -> String {
        let mut text = serde_json::to_vec(value).expect("texts and numbers can be written");
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce);
        let aad = Aad::from(framed(purpose));
        self.sealing
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut text)
            .expect("a few kilobytes are less than the cipher's limit");
        URL_SAFE_NO_PAD.encode([&nonce, &*text].concat())
    }

    /// Opens what was sealed for this purpose.
    pub(crate) fn open<T: DeserializeOwned>(&self, purpose: &[&str], sealed: &str) -> Option<T> {
        if sealed.len() > SEALED_BYTES_MAX {
            return None;
        }
        let sealed = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut text = text.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let aad = Aad::from(framed(purpose));
        let text = self.sealing.open_in_place(nonce, aad, &mut text).ok()?;
        serde_json::from_slice(text).ok()
    }

    /// A text that only this engine can make of these parts.
    pub(crate) fn derive(&self, parts: &[&str]) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.deriving, &framed(parts)))
    }

    /// Whether `text` was [derived](Self::derive) of these parts, in a time that does not depend on where it differs.
    pub(crate) fn is_derived(&self, parts: &[&str], text: &str) -> bool {
        URL_SAFE_NO_PAD
            .decode(text)
            .is_ok_and(|tag| hmac::verify(&self.deriving, &framed(parts), &tag).is_ok())
    }

    /// A new id that nobody can guess.
    pub(crate) fn id(&self) -> String {
        let mut id = [0; ID_BYTES];
        self.random.fill(&mut id);
        URL_SAFE_NO_PAD.encode(id)
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seal").finish_non_exhaustive()
    }
}

/// Whether a text has the form of an [id](Seal::id).
pub(crate) fn is_id(text: &str) -> bool {
    URL_SAFE_NO_PAD
        .decode(text)
        .is_ok_and(|octets| octets.len() == ID_BYTES)
}

/// The SHA-256 of a text, for comparing what should not be kept itself.
pub(crate) fn hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, text.as_bytes()))
}

/// Parts with their lengths, so that no two lists of parts are the same octets.
fn framed(parts: &[&str]) -> Vec<u8> {
    let mut octets = Vec::new();
    for part in parts {
        octets.extend_from_slice(&(part.len() as u64).to_be_bytes());
        octets.extend_from_slice(part.as_bytes());
    }
    octets
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use adit_filters::env::fake::FakeRandom;

    use super::*;

    fn seal(secret: &str) -> Seal {
        Seal::new(
            &Secret::new(secret.to_owned()),
            Arc::new(FakeRandom::default()),
        )
    }

    #[test]
    fn what_is_sealed_opens_for_its_purpose_and_key_alone() {
        let ours = seal("a secret that is long enough for tests");
        let sealed = ours.seal(&["session", "a.test", "default"], &"ada");
        let open = |seal: &Seal, purpose: &[&str]| seal.open::<String>(purpose, &sealed);
        assert_eq!(
            open(&ours, &["session", "a.test", "default"]).as_deref(),
            Some("ada")
        );
        for other in [
            &["session", "b.test", "default"][..],
            &["session", "a.test", "other"],
            &["session", "a.testd", "efault"],
            &["session", "a.test"],
            &["login", "a.test", "default"],
        ] {
            assert_eq!(open(&ours, other), None, "{other:?}");
        }
        let theirs = seal("another secret that is long enough");
        assert_eq!(open(&theirs, &["session", "a.test", "default"]), None);
    }

    #[test]
    fn every_changed_octet_is_noticed() {
        let seal = seal("a secret that is long enough for tests");
        let sealed = seal.seal(&["x"], &"ada");
        for at in 0..sealed.len() {
            let mut forged = sealed.clone().into_bytes();
            // The last character carries bits that stand for nothing: the decoder refuses those too.
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(forged).unwrap();
            assert_eq!(seal.open::<String>(&["x"], &forged), None, "octet {at}");
        }
        assert_eq!(seal.open::<String>(&["x"], ""), None);
        assert_eq!(seal.open::<String>(&["x"], "not base64!"), None);
    }

    #[test]
    fn nothing_longer_than_the_bound_is_opened() {
        let seal = seal("a secret that is long enough for tests");
        let fits = seal.seal(&["x"], &"x".repeat(4_000));
        assert!(seal.open::<String>(&["x"], &fits).is_some());
        let long = seal.seal(&["x"], &"x".repeat(SEALED_BYTES_MAX));
        assert_eq!(seal.open::<String>(&["x"], &long), None);
    }

    #[test]
    fn derived_texts_belong_to_their_parts() {
        let seal = seal("a secret that is long enough for tests");
        let text = seal.derive(&["csrf", "abc"]);
        assert!(seal.is_derived(&["csrf", "abc"], &text));
        assert!(!seal.is_derived(&["csrf", "ab", "c"], &text));
        assert!(!seal.is_derived(&["csrf", "abd"], &text));
        assert!(!seal.is_derived(&["csrf", "abc"], "nonsense"));
        assert!(is_id(&seal.id()));
        assert!(!is_id("short"));
        assert_ne!(seal.id(), seal.id());
    }
}
