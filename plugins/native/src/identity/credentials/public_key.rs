//! The key an application's tokens are verified with: ECDSA on P-521 with SHA-512 (ES512, RFC 7518 §3.4).

use std::fmt;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::signature::{
    ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    ParsedPublicKey,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

/// Octets of a point on the curve (SEC 1 §2.3.3, uncompressed).
const POINT_OCTETS: usize = 133;

/// An application's public key.
pub struct PublicKey {
    key: ParsedPublicKey,
    /// `SubjectPublicKeyInfo` (RFC 5280 §4.1), however the key was written.
    der: Vec<u8>,
}

/// Why a text is not an application's public key.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PublicKeyError {
    /// The secret half.
    #[error(
        "a private key, which the engine must not have: `adit engine credential FILE` prints its public key"
    )]
    Private,
    /// Something else.
    #[error("not a public key on P-521, use one in PEM or its DER form in hexadecimal digits")]
    Unreadable,
}

impl PublicKey {
    /// Reads a key in PEM (`BEGIN PUBLIC KEY`) or its DER form in hexadecimal digits.
    ///
    /// # Errors
    /// If it is something else.
    pub fn read(text: &str) -> Result<Self, PublicKeyError> {
        let text = text.trim();
        if Self::of_secret(text).is_some() || text.contains("PRIVATE KEY-----") {
            return Err(PublicKeyError::Private);
        }
        let der = if text.starts_with("-----") {
            SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes())
                .map(|der| der.as_ref().to_vec())
                .map_err(|_| PublicKeyError::Unreadable)?
        } else {
            hex::decode(text).map_err(|_| PublicKeyError::Unreadable)?
        };
        Self::of_octets(&der).ok_or(PublicKeyError::Unreadable)
    }

    /// The key that belongs to an application's secret: a PKCS #8 private key on P-521, its DER form in hexadecimal
    /// digits as clients take it, or in PEM (engine-api §8.3). None if the text is something else.
    #[must_use]
    pub fn of_secret(text: &str) -> Option<Self> {
        let text = text.trim();
        let der = if text.starts_with("-----") {
            let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).ok()?;
            der.secret_pkcs8_der().to_vec()
        } else {
            hex::decode(text).ok()?
        };
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P521_SHA512_FIXED_SIGNING, &der).ok()?;
        Self::of_octets(pair.public_key().as_ref())
    }

    fn of_octets(octets: &[u8]) -> Option<Self> {
        let key = ParsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, octets).ok()?;
        let der = key.as_der().ok()?.as_ref().to_vec();
        // Nothing may follow it: a key is written in two ways, with its algorithm and as the bare point.
        let whole = octets == der || (octets.len() == POINT_OCTETS && der.ends_with(octets));
        whole.then_some(Self { key, der })
    }

    /// The DER form (`SubjectPublicKeyInfo`, RFC 5280 §4.1).
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Whether `signature` (`r` and `s`, 66 octets each) is one of `message` by the secret half of this key.
    #[must_use]
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        #[cfg(test)]
        VERIFICATIONS.with(|count| count.set(count.get() + 1));
        self.key.verify_sig(message, signature).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PublicKey")
            .field(&hex::encode(&self.der))
            .finish()
    }
}

#[cfg(test)]
thread_local! {
    /// How many signatures this thread has verified.
    pub(crate) static VERIFICATIONS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING;

    use super::*;

    fn pem(label: &str, der: &[u8]) -> String {
        use base64::Engine as _;
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    }

    #[test]
    fn a_key_is_read_in_each_form_and_verifies_what_its_secret_signed() {
        let pair = EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap();
        let secret = pair.to_pkcs8v1().unwrap();
        let key = PublicKey::of_secret(&hex::encode(secret.as_ref())).unwrap();
        let signature = pair.sign(&SystemRandom::new(), b"words").unwrap();
        assert_eq!(signature.as_ref().len(), 132);
        for text in [
            hex::encode(key.der()),
            hex::encode_upper(key.der()),
            hex::encode(pair.public_key().as_ref()),
            pem("PUBLIC KEY", key.der()),
            format!("\n  {}\n", pem("PUBLIC KEY", key.der())),
        ] {
            let read = PublicKey::read(&text).unwrap();
            assert_eq!(read.der(), key.der());
            assert!(read.verifies(b"words", signature.as_ref()));
            assert!(!read.verifies(b"other words", signature.as_ref()));
            assert!(!read.verifies(b"words", &signature.as_ref()[1..]));
            assert!(!read.verifies(b"words", &[0; 132]));
        }
        let again = PublicKey::of_secret(&pem("PRIVATE KEY", secret.as_ref())).unwrap();
        assert_eq!(again.der(), key.der());
    }

    #[test]
    fn what_is_no_public_key_on_the_curve_is_refused() {
        let secret = |pair: &EcdsaKeyPair| pair.to_pkcs8v1().unwrap().as_ref().to_vec();
        let pair = EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING).unwrap();
        let smaller = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let point = hex::encode(pair.public_key().as_ref());
        for (text, expected) in [
            (hex::encode(secret(&pair)), PublicKeyError::Private),
            (pem("PRIVATE KEY", &secret(&pair)), PublicKeyError::Private),
            (pem("EC PRIVATE KEY", b"x"), PublicKeyError::Private),
            (String::new(), PublicKeyError::Unreadable),
            ("key.pem".to_owned(), PublicKeyError::Unreadable),
            (pem("PUBLIC KEY", b"x"), PublicKeyError::Unreadable),
            (pem("CERTIFICATE", b"x"), PublicKeyError::Unreadable),
            (
                hex::encode(smaller.public_key().as_ref()),
                PublicKeyError::Unreadable,
            ),
            // Not on the curve, and the point at infinity.
            (
                point.replace(&point[10..20], "0123456789"),
                PublicKeyError::Unreadable,
            ),
            ("00".to_owned(), PublicKeyError::Unreadable),
        ] {
            assert_eq!(PublicKey::read(&text).unwrap_err(), expected, "{text}");
        }
    }
}
