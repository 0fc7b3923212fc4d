//! SHA-256 hashes, by which tokens and certificates are stored.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};

/// A SHA-256 hash.
pub type Sha256 = [u8; 32];

/// The SHA-256 hash of `octets`.
#[must_use]
pub fn sha256(octets: &[u8]) -> Sha256 {
    let mut hash = [0; 32];
    // The digest is as long as the array.
    for (to, from) in hash.iter_mut().zip(digest(&SHA256, octets).as_ref()) {
        *to = *from;
    }
    hash
}

/// Not a SHA-256 hash.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct NotAHash;

impl fmt::Display for NotAHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "not a SHA-256 hash, use 64 hexadecimal digits as `adit engine credential` prints them",
        )
    }
}

/// Reads 64 hexadecimal digits, with colons between octets or without, as tools print them.
pub(super) fn read(text: &str) -> Result<Sha256, NotAHash> {
    let mut hash = [0; 32];
    let decoded = match text.contains(':') {
        true if text.split(':').all(|octet| octet.len() == 2) => {
            hex::decode_to_slice(text.replace(':', ""), &mut hash)
        }
        true => return Err(NotAHash),
        false => hex::decode_to_slice(text, &mut hash),
    };
    decoded.map_err(|_| NotAHash)?;
    Ok(hash)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn hashes_are_read_as_tools_print_them() {
        let hash = sha256(b"abc");
        let digits = hex::encode(hash);
        assert!(digits.starts_with("ba7816bf"), "{digits}");
        let octets: Vec<String> = hash.iter().map(|octet| format!("{octet:02X}")).collect();
        for text in [&digits, &digits.to_uppercase(), &octets.join(":")] {
            assert_eq!(read(text), Ok(hash), "{text}");
        }
        for text in [
            "",
            &digits[1..],
            &format!("{digits}00"),
            &format!(":{digits}"),
            &digits.replace('b', "g"),
        ] {
            assert_eq!(read(text), Err(NotAHash), "{text}");
        }
    }
}
