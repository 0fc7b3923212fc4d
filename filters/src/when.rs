//! Conditions under which a filter takes part in an exchange, and the reading of paths they share with other rules.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;

/// When a filter takes part. It is decided where the filter stands in the request phase, for the whole exchange.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct When {
    /// Only requests for these paths.
    #[serde(default)]
    pub path: Option<PathPattern>,
}

impl When {
    /// Whether a request for `path` (as received, without the query) is meant.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.path
            .as_ref()
            .is_none_or(|pattern| pattern.matches(path))
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(pattern) => write!(f, "path {pattern}"),
            None => f.write_str("always"),
        }
    }
}

/// `/admin/*` (that path and everything beneath), `/users/*/keys` (one segment), `/healthz` (that path alone).
///
/// Percent-encoding is undone once before comparing, and repeated slashes count as one, because many servers read
/// them so: a guarded path must not have a second spelling.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct PathPattern {
    segments: Vec<Option<String>>,
    /// The pattern ended in `/*`.
    open: bool,
    text: String,
}

/// The longest pattern, in bytes.
const PATTERN_MAX: usize = 1024;

/// What is wrong with a path pattern.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PatternError {
    /// It does not begin with a slash.
    #[error("path pattern `{0}` must begin with `/`")]
    NotRooted(String),
    /// A star inside a segment.
    #[error("in path pattern `{0}`, `*` must stand for a whole segment, as in `/admin/*`")]
    PartialStar(String),
    /// A path that could be read in two ways, or one that is written encoded.
    #[error("path pattern `{0}` must be written plainly, without `%`, `\\`, `.` and `..` segments")]
    NotPlain(String),
    /// Too long.
    #[error("path pattern is longer than {PATTERN_MAX} bytes")]
    TooLong,
}

impl PathPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.len() > PATTERN_MAX {
            return Err(PatternError::TooLong);
        }
        let rest = text
            .strip_prefix('/')
            .ok_or_else(|| PatternError::NotRooted(text.to_owned()))?;
        if text.contains('%') || text.contains('\0') || is_ambiguous_path(text) {
            return Err(PatternError::NotPlain(text.to_owned()));
        }
        let (rest, open) = match rest.strip_suffix("/*") {
            Some(rest) => (rest, true),
            None if rest == "*" => ("", true),
            None => (rest, false),
        };
        let mut segments = Vec::new();
        // `/*` alone has no segments: it means everything.
        if !(open && rest.is_empty()) {
            for segment in rest.split('/') {
                match segment {
                    "*" => segments.push(None),
                    plain if plain.contains('*') => {
                        return Err(PatternError::PartialStar(text.to_owned()));
                    }
                    plain => segments.push(Some(plain.to_owned())),
                }
            }
        }
        Ok(Self {
            segments,
            open,
            text: text.to_owned(),
        })
    }

    /// Whether `path` (as received, without the query) is meant.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        let decoded = percent_decode(path);
        let path = String::from_utf8_lossy(&decoded);
        self.matches_segments(path.strip_prefix('/').unwrap_or(&path).split('/'))
            || (path.contains("//") && self.matches_segments(collapse(&path).into_iter()))
    }

    fn matches_segments<'a>(&self, mut path: impl Iterator<Item = &'a str>) -> bool {
        for wanted in &self.segments {
            match (wanted, path.next()) {
                (_, None) => return false,
                (Some(wanted), Some(found)) if wanted != found => return false,
                _ => {}
            }
        }
        self.open || path.next().is_none()
    }
}

impl TryFrom<String> for PathPattern {
    type Error = PatternError;
    fn try_from(text: String) -> Result<Self, PatternError> {
        Self::parse(&text)
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whether two readers could take `path` (as received, without the query) for different ones: dot segments plain or
/// encoded, `%2f`, `%5c`, `%00`, a backslash, a control character, or `%` without two hex digits.
#[must_use]
pub fn is_ambiguous_path(path: &str) -> bool {
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let byte = match (first, tail) {
            (b'%', [high, low, after @ ..]) => {
                let Some(byte) = hex_pair(*high, *low) else {
                    return true;
                };
                rest = after;
                if byte == b'/' {
                    return true;
                }
                byte
            }
            (b'%', _) => return true,
            _ => *first,
        };
        if byte == b'\\' || byte < 0x20 || byte == 0x7f {
            return true;
        }
    }
    let decoded = percent_decode(path);
    // A segment's parameters (`..;x`) are cut by some servers before they resolve dots.
    decoded.split(|byte| *byte == b'/').any(|segment| {
        let bare = segment
            .split(|byte| *byte == b';')
            .next()
            .unwrap_or(segment);
        bare == b"." || bare == b".."
    })
}

/// Undoes percent-encoding once; what is not an escape stays.
fn percent_decode(path: &str) -> Cow<'_, [u8]> {
    percent_encoding::percent_decode_str(path).into()
}

fn hex_pair(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    Some(digit(high)? << 4 | digit(low)?)
}

fn collapse(path: &str) -> Vec<&str> {
    let mut segments: Vec<&str> = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .collect();
    if path.ends_with('/') {
        segments.push("");
    }
    segments
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_pattern_means_these_paths_and_no_others() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            (
                "/admin/*",
                &[
                    "/admin/",
                    "/admin/x",
                    "/admin/x/y",
                    "/admin",
                    "/%61dmin/x",
                    "//admin/x",
                    "/admin//x",
                ],
                &["/", "/admins", "/admi", "/x/admin/y", "/Admin/x"],
            ),
            (
                "/healthz",
                &["/healthz", "//healthz", "/health%7a"],
                &["/healthz/", "/healthz/x", "/health"],
            ),
            (
                "/users/*/keys",
                &["/users/7/keys"],
                &["/users/keys", "/users/7/8/keys", "/users/7/keys/1"],
            ),
            ("/*", &["/", "/x", "/x/y"], &[]),
            ("/", &["/"], &["/x"]),
        ];
        for (pattern, inside, outside) in cases {
            let pattern = PathPattern::parse(pattern).unwrap();
            for path in *inside {
                assert!(pattern.matches(path), "{pattern} should match {path}");
            }
            for path in *outside {
                assert!(!pattern.matches(path), "{pattern} should not match {path}");
            }
        }
    }

    #[test]
    fn a_pattern_that_could_surprise_is_refused() {
        for text in [
            "admin/*",
            "/adm*",
            "/*.php",
            "/a/../b",
            "/a%2fb",
            "/a\\b",
            &format!("/{}", "a".repeat(PATTERN_MAX)),
        ] {
            assert!(PathPattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths_with_two_readings_are_told_from_plain_ones() {
        for path in [
            "/a/../b",
            "/a/./b",
            "/..",
            "/a/%2e%2e/b",
            "/a/.%2E",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/a%0a",
            "/a%zz",
            "/a%4",
            "/a/..;x/b",
        ] {
            assert!(is_ambiguous_path(path), "{path}");
        }
        for path in [
            "/",
            "/a/b",
            "/a//b",
            "/a%20b",
            "/caf%C3%A9",
            "/.well-known/x",
            "/a..b",
            "/...",
            "/a%25b",
            "/x;y=1",
            "/a%252fb",
        ] {
            assert!(!is_ambiguous_path(path), "{path}");
        }
    }
}
