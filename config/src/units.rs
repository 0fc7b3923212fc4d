//! Numbers with their units, for the tables of filters.

use std::time::Duration;

use serde::Deserialize;

use crate::values::parse_size;

/// A duration with its unit, such as `30s` or `2m`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
pub struct Span(pub Duration);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        humantime::parse_duration(&text).map(Self).map_err(|_| {
            format!("`{text}` is not a duration, use one with its unit such as `30s` or `2m`")
        })
    }
}

/// A number of bytes with its unit, such as `32KiB` or `1MiB`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
pub struct Size(pub usize);

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse_size(&text).map(Self).ok_or_else(|| {
            format!("`{text}` is not a size, use one with its unit such as `32KiB` or `1MiB`")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_need_their_units() {
        let span = |text: &str| Span::try_from(text.to_owned()).ok();
        assert_eq!(span("1m 30s"), Some(Span(Duration::from_secs(90))));
        assert_eq!(span("90"), None);
        let size = |text: &str| Size::try_from(text.to_owned()).ok();
        assert_eq!(size("2KiB"), Some(Size(2048)));
        assert_eq!(size("2048"), None);
    }
}
