//! How fast bytes may pass.

use std::num::NonZeroU64;
use std::time::Duration;

use serde::Deserialize;

/// The slowest rate there is, in bits in a second: below, the smallest piece would wait for more than a second.
pub const RATE_MIN: u64 = 8_000;

/// How long the pieces are that a paced flow is cut into.
const PIECE: Duration = Duration::from_millis(50);

/// The smallest and the largest piece, in bytes: smaller ones cost more than they smooth, larger ones hold much memory.
const PIECE_BYTES: (u64, u64) = (1 << 10, 64 << 10);

/// Bits in a second, written with their unit: `8Mbit/s`, `500kbit/s`, or in bytes, `1MiB/s`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct Rate(NonZeroU64);

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
        let unit = text.get(digits.len()..).map(str::trim).and_then(unit);
        let bits = digits
            .parse::<u64>()
            .ok()
            .zip(unit)
            .and_then(|(number, unit)| number.checked_mul(unit))
            .filter(|bits| *bits >= RATE_MIN)
            .and_then(NonZeroU64::new);
        bits.map(Self).ok_or_else(|| {
            format!("`{text}` is not a rate, use one with its unit such as `8Mbit/s` or `1MiB/s`, from {RATE_MIN}bit/s up")
        })
    }
}

fn unit(text: &str) -> Option<u64> {
    Some(match text {
        "bit/s" => 1,
        "kbit/s" => 1_000,
        "Mbit/s" => 1_000_000,
        "Gbit/s" => 1_000_000_000,
        "B/s" => 8,
        "KiB/s" => 8 << 10,
        "MiB/s" => 8 << 20,
        "GiB/s" => 8 << 30,
        _ => return None,
    })
}

impl Rate {
    /// How long so many bytes take.
    pub(super) fn time_for(self, bytes: usize) -> Duration {
        let bits = (bytes as u128).saturating_mul(8);
        let nanos = bits.saturating_mul(1_000_000_000) / u128::from(self.0.get());
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The largest piece that still passes smoothly, in bytes.
    pub(super) fn piece(self) -> usize {
        let bytes = u128::from(self.0.get()).saturating_mul(PIECE.as_millis()) / 8_000;
        let (min, max) = PIECE_BYTES;
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).clamp(min, max);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_rate_carries_its_unit_and_is_not_too_slow() {
        let rate = |text: &str| {
            Rate::try_from(text.to_owned())
                .ok()
                .map(|rate| rate.0.get())
        };
        for (text, bits) in [
            ("1Mbit/s", 1_000_000),
            ("8 kbit/s", RATE_MIN),
            ("8000bit/s", RATE_MIN),
            ("2Gbit/s", 2_000_000_000),
            ("1000B/s", RATE_MIN),
            ("125KiB/s", 1_024_000),
            ("1MiB/s", 8 << 20),
            ("1GiB/s", 8 << 30),
        ] {
            assert_eq!(rate(text), Some(bits), "{text}");
        }
        for text in [
            "1000000",
            "1Mbit",
            "1mbit/s",
            "1MB/s",
            "7999bit/s",
            "0bit/s",
            "-1Mbit/s",
            "1.5Mbit/s",
            "Mbit/s",
            "99999999999999999999Gbit/s",
            "18446744073709551615Gbit/s",
            "",
        ] {
            assert_eq!(rate(text), None, "{text}");
        }
    }

    #[test]
    fn bytes_take_their_time_in_pieces_of_some_size() {
        let rate = |text: &str| Rate::try_from(text.to_owned()).unwrap();
        assert_eq!(rate("1Mbit/s").time_for(125_000), Duration::from_secs(1));
        assert_eq!(
            rate("8kbit/s").time_for(usize::MAX),
            Duration::from_nanos(u64::MAX)
        );
        assert_eq!(rate("1Mbit/s").piece(), 6_250);
        assert_eq!(rate("8kbit/s").piece(), 1 << 10);
        assert_eq!(rate("9Gbit/s").piece(), 64 << 10);
    }
}
