//! The revision a client announces, and whether it is served.

use std::fmt;
use std::str::FromStr;

use crate::{ErrorCode, ProtocolError};

/// A protocol revision, `major.minor.patch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Another number here is another protocol.
    pub major: u32,
    /// Counts additions.
    pub minor: u32,
    /// Counts small additions.
    pub patch: u32,
}

impl Version {
    /// The revision this crate speaks.
    pub const CURRENT: Self = Self {
        major: 1,
        minor: 4,
        patch: 5,
    };

    /// Reads what a client announced and says whether an engine serves it: any revision of the
    /// same major version, since additions so far leave older messages alone.
    ///
    /// # Errors
    ///
    /// The answer to give: 2010 for none, 2020 for something else than three numbers, 2030 for
    /// another major version.
    pub fn accept(announced: Option<&str>) -> Result<Self, ProtocolError> {
        let Some(text) = announced.filter(|text| !text.is_empty()) else {
            return Err(ProtocolError::new(
                ErrorCode::PROTOCOL_VERSION_MISSING,
                "the client did not announce a protocol version",
            ));
        };
        let version: Self = text.parse().map_err(|error: InvalidVersion| {
            ProtocolError::new(ErrorCode::PROTOCOL_VERSION_INVALID, error.to_string())
        })?;
        if version.major != Self::CURRENT.major {
            return Err(ProtocolError::new(
                ErrorCode::PROTOCOL_VERSION_INCOMPATIBLE,
                format!(
                    "protocol version {version} is not served, this engine speaks {}",
                    Self::CURRENT
                ),
            ));
        }
        Ok(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let mut numbers = text.split('.').map(number);
        match (
            numbers.next(),
            numbers.next(),
            numbers.next(),
            numbers.next(),
        ) {
            (Some(Some(major)), Some(Some(minor)), Some(Some(patch)), None) => Ok(Self {
                major,
                minor,
                patch,
            }),
            _ => Err(InvalidVersion),
        }
    }
}

/// The text is not three numbers with dots between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the protocol version is not of the form major.minor.patch")]
pub struct InvalidVersion;

/// Digits only: `u32::from_str` would also take a plus sign.
fn number(text: &str) -> Option<u32> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_served_by_major_alone() {
        for (announced, expected) in [
            (None, Err(2010)),
            (Some(""), Err(2010)),
            (Some("1.4"), Err(2020)),
            (Some("1.4.5.6"), Err(2020)),
            (Some("1.+4.5"), Err(2020)),
            (Some("1..5"), Err(2020)),
            (Some("v1.4.5"), Err(2020)),
            (Some("1.4.99999999999"), Err(2020)),
            (Some("2.0.0"), Err(2030)),
            (Some("0.9.0"), Err(2030)),
            (Some("1.3.0"), Ok("1.3.0")),
            (Some("1.4.5"), Ok("1.4.5")),
            (Some("1.99.0"), Ok("1.99.0")),
        ] {
            let got = Version::accept(announced)
                .map(|version| version.to_string())
                .map_err(|error| error.code.0);
            assert_eq!(got, expected.map(str::to_owned), "{announced:?}");
        }
    }
}
