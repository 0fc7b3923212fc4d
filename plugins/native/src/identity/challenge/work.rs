//! The work: numbers whose hashes begin with zeros.
//!
//! It comes in pieces, so that the time it takes varies little: with one piece, the slowest of a hundred browsers would
//! work five times as long as the average one, with eight twice as long.

use aws_lc_rs::digest::{SHA256, digest};

/// How many numbers a proof has. A power of two: the work is this many times that of a piece.
pub const PIECES: u8 = 8;

/// Longest proof read, in bytes: eight numbers of 64 bits, with dots between.
pub const PROOF_BYTES_MAX: usize = 8 * 20 + 7;

/// Zero bits that the hash of each piece begins with, for work of `bits` in all.
pub(super) fn bits_of_piece(bits: u8) -> u8 {
    bits.saturating_sub(PIECES.ilog2().try_into().unwrap_or(u8::MAX))
}

/// Whether `proof` is the work of `bits` for `id`: numbers in decimal with dots between.
pub(super) fn is_done(id: &str, bits: u8, proof: &str) -> bool {
    if proof.len() > PROOF_BYTES_MAX {
        return false;
    }
    let numbers: Vec<&str> = proof.split('.').collect();
    let zeros = u32::from(bits_of_piece(bits));
    numbers.len() == usize::from(PIECES)
        && (0..PIECES).zip(numbers).all(|(piece, number)| {
            // One spelling for each number, so that there is one proof for each work.
            let plain = number
                .parse::<u64>()
                .is_ok_and(|value| value.to_string() == number);
            plain && leading_zeros(&format!("{id}:{piece}:{number}")) >= zeros
        })
}

fn leading_zeros(text: &str) -> u32 {
    let hash = digest(&SHA256, text.as_bytes());
    let mut zeros = 0;
    for byte in hash.as_ref() {
        zeros += byte.leading_zeros();
        if *byte != 0 {
            break;
        }
    }
    zeros
}

/// Does the work, as a browser does.
#[cfg(test)]
pub(super) fn solve(id: &str, bits: u8) -> String {
    let zeros = u32::from(bits_of_piece(bits));
    let piece = |piece: u8| {
        (0u64..)
            .find(|number| leading_zeros(&format!("{id}:{piece}:{number}")) >= zeros)
            .unwrap_or_default()
            .to_string()
    };
    (0..PIECES).map(piece).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_counts_for_its_request_alone() {
        let proof = solve("abc", 10);
        assert!(is_done("abc", 10, &proof));
        assert!(!is_done("abd", 10, &proof));
        assert!(!is_done("abc", 20, &proof), "easier than asked");
        let mut parts: Vec<&str> = proof.split('.').collect();
        parts.swap(0, 1);
        let others = [
            String::new(),
            proof.replace('.', ","),
            format!("0{proof}"),
            format!("{proof}.1"),
            proof
                .split_once('.')
                .map(|(_, rest)| rest.to_owned())
                .unwrap_or_default(),
            "9".repeat(PROOF_BYTES_MAX + 1),
            "+1.2.3.4.5.6.7.8".to_owned(),
        ];
        for other in others {
            assert!(!is_done("abc", 10, &other), "{other}");
        }
    }

    #[test]
    fn leading_zeros_are_counted_over_bytes() {
        // The hash of the empty text begins with e3.
        assert_eq!(leading_zeros(""), 0);
        assert!(
            leading_zeros(&format!(
                "abc:0:{}",
                solve("abc", 15).split('.').next().unwrap_or_default()
            )) >= 12
        );
    }
}
