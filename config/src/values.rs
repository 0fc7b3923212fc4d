//! How single values are read: addresses, durations, sizes, names, secrets.

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::problem;
use crate::reader::{Field, FromField, Reader};
use crate::secret::Secret;
use crate::tree::{Node, Value};

impl FromField for bool {
    fn from_field(field: &Field<'_>) -> Option<Self> {
        match &field.node.value {
            Value::Boolean(yes) => Some(*yes),
            Value::String(text) if field.node.is_from_environment() => match text.as_str() {
                "true" => Some(true),
                "false" => Some(false),
                _ => {
                    field.wrong(format!("`{text}` is not a boolean, use `true` or `false`"));
                    None
                }
            },
            _ => {
                let kind = field.node.kind();
                field.wrong(format!("{kind} is not right here, use `true` or `false`"));
                None
            }
        }
    }
}

impl FromField for String {
    fn from_field(field: &Field<'_>) -> Option<Self> {
        field.text("a string").map(str::to_owned)
    }
}

impl FromField for PathBuf {
    fn from_field(field: &Field<'_>) -> Option<Self> {
        let text = field.text("a path as a string")?;
        if text.is_empty() {
            field.wrong("an empty path names nothing, write one or leave the key out");
            return None;
        }
        Some(field.path_from_base(text))
    }
}

impl FromField for SocketAddr {
    fn from_field(field: &Field<'_>) -> Option<Self> {
        let what = "an address and port such as `[::]:443` or `127.0.0.1:9090`";
        let text = field.text(what)?;
        let address = text.parse().ok();
        if address.is_none() {
            field.wrong(format!("`{text}` is not an address, use {what}"));
        }
        address
    }
}

impl FromField for IpNet {
    fn from_field(field: &Field<'_>) -> Option<Self> {
        let what = "an address or range such as `203.0.113.7` or `2001:db8::/32`";
        let text = field.text(what)?;
        let range = text
            .parse::<Self>()
            .or_else(|_| text.parse::<IpAddr>().map(Self::from))
            .ok();
        if range.is_none() {
            field.wrong(format!("`{text}` is not an address range, use {what}"));
        }
        range.map(|range| range.trunc())
    }
}

impl FromField for Duration {
    fn from_field(field: &Field<'_>) -> Option<Self> {
        let what = "a duration with its unit such as `30s` or `2m`";
        let text = field.text(what)?;
        let duration = humantime::parse_duration(text).ok();
        if duration.is_none() {
            field.wrong(format!("`{text}` is not a duration, use {what}"));
        }
        duration
    }
}

/// A number of bytes, written with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ByteSize(pub(crate) usize);

impl FromField for ByteSize {
    fn from_field(field: &Field<'_>) -> Option<Self> {
        let what = "a size with its unit such as `32KiB` or `1MiB`";
        let text = field.text(what)?;
        let size = parse_size(text);
        if size.is_none() {
            field.wrong(format!("`{text}` is not a size, use {what}"));
        }
        size.map(Self)
    }
}

pub(crate) fn parse_size(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let unit = match text.get(digits.len()..)?.trim() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<usize>().ok()?.checked_mul(unit)
}

/// A whole number that is not negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Count(pub(crate) u64);

impl FromField for Count {
    fn from_field(field: &Field<'_>) -> Option<Self> {
        let number = match &field.node.value {
            Value::Integer(Some(number)) => u64::try_from(*number).ok(),
            Value::String(text) if field.node.is_from_environment() => text.parse().ok(),
            _ => None,
        };
        if number.is_none() {
            field.wrong("not a whole number from 0 up, use one such as `100`");
        }
        number.map(Self)
    }
}

impl<T: FromField> FromField for Vec<T> {
    fn from_field(field: &Field<'_>) -> Option<Self> {
        // In a variable a list is its items with commas between.
        if let (true, Value::String(text)) = (field.node.is_from_environment(), &field.node.value) {
            let items = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            return items
                .map(|item| {
                    let node = Node {
                        at: field.node.at.clone(),
                        value: Value::String(item.to_owned()),
                    };
                    T::from_field(&Field {
                        reading: field.reading,
                        node: &node,
                        path: field.path.clone(),
                    })
                })
                .collect();
        }
        let items = field.items()?;
        // Every item is read before any is missed, so that each wrong one is reported.
        let read: Vec<Option<T>> = items.iter().map(T::from_field).collect();
        read.into_iter().collect()
    }
}

/// A name of a policy or project: what a path of names can be made of.
pub(crate) struct Name(pub(crate) String);

impl FromField for Name {
    fn from_field(field: &Field<'_>) -> Option<Self> {
        let text = field.text("a name as a string")?;
        if is_label(text) {
            return Some(Self(text.to_owned()));
        }
        field.wrong(not_a_name(text));
        None
    }
}

pub(crate) fn not_a_name(text: &str) -> String {
    format!(
        "`{text}` is not a name, use 1 to 63 of `a-z`, `0-9` and `-`, a letter or digit at both ends"
    )
}

/// Whether `text` is one DNS label in lower case (RFC 1123 §2.1).
pub(crate) fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// A host name in lower case, without a trailing dot.
pub(crate) struct HostName(pub(crate) String);

/// Longest engine host: a label of 63 and `.t.` must fit before it in a name of 253 (RFC 1035 §2.3.4).
const HOST_CHARACTERS_MAX: usize = 253 - 63 - 3;

impl FromField for HostName {
    fn from_field(field: &Field<'_>) -> Option<Self> {
        let what = "a bare host name such as `edge.example.com`";
        let text = field.text(what)?;
        let host = text.to_ascii_lowercase();
        let wrong = if host.contains("://") {
            "carries a scheme"
        } else if host.parse::<IpAddr>().is_ok() || host.starts_with('[') {
            "is an address, and tunnels need names below it"
        } else if host.contains(':') {
            "carries a port"
        } else if host.len() > HOST_CHARACTERS_MAX || !host.split('.').all(is_label) {
            "is not a host name"
        } else {
            return Some(Self(host));
        };
        field.wrong(format!("`{text}` {wrong}, use {what}"));
        None
    }
}

impl FromField for Secret<String> {
    fn from_field(field: &Field<'_>) -> Option<Self> {
        let what = "`{ env = \"VARIABLE\" }` or `{ file = \"path\" }`";
        if let Value::String(text) = &field.node.value {
            if field.node.is_from_environment() {
                return Some(Self::new(text.clone()));
            }
            field.wrong(format!("a secret does not belong in this file, use {what}"));
            return None;
        }
        let mut table = field.table()?;
        let secret = match (table.field("env"), table.field("file")) {
            (Some(variable), None) => from_variable(&variable),
            (None, Some(file)) => from_file(&file),
            _ => {
                field.wrong(format!("name one place the secret comes from, use {what}"));
                None
            }
        };
        table.finish();
        secret
    }
}

fn from_variable(field: &Field<'_>) -> Option<Secret<String>> {
    let variable = field.text("the name of an environment variable")?;
    let secret = field.reading.around.secret_variable(variable);
    secret.map_err(|wrong| field.wrong(wrong)).ok()
}

fn from_file(field: &Field<'_>) -> Option<Secret<String>> {
    let path = PathBuf::from_field(field)?;
    let found = field.reading.around.secret_file(&path);
    let found = found.map_err(|wrong| field.wrong(wrong)).ok()?;
    if let Some(warning) = found.warning {
        field.warn(warning);
    }
    Some(found.secret)
}

/// One of a few words.
pub(crate) trait Word: Copy + 'static {
    /// Every word with its value.
    const WORDS: &'static [(&'static str, Self)];
}

/// A word read from a field.
pub(crate) struct Of<W>(pub(crate) W);

impl<W: Word> FromField for Of<W> {
    fn from_field(field: &Field<'_>) -> Option<Self> {
        let words: Vec<&str> = W::WORDS.iter().map(|(word, _)| *word).collect();
        let text = field.text(&format!("one of {}", problem::listed(&words)))?;
        let found = W::WORDS.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            field.wrong(problem::unknown("value", text, &words));
        }
        found.map(|(_, value)| Self(*value))
    }
}

impl Reader<'_> {
    /// A duration within bounds.
    pub(crate) fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        bounds: std::ops::RangeInclusive<Duration>,
    ) -> Duration {
        let value = self.or(key, default);
        if !bounds.contains(&value) {
            self.wrong(
                key,
                format!(
                    "out of bounds, use {} to {}",
                    humantime::format_duration(*bounds.start()),
                    humantime::format_duration(*bounds.end())
                ),
            );
        }
        value
    }

    /// A size in bytes within bounds.
    pub(crate) fn size(
        &mut self,
        key: &'static str,
        default: usize,
        bounds: std::ops::RangeInclusive<usize>,
    ) -> usize {
        let ByteSize(value) = self.or(key, ByteSize(default));
        if !bounds.contains(&value) {
            self.wrong(
                key,
                format!(
                    "out of bounds, use {}B to {}B",
                    bounds.start(),
                    bounds.end()
                ),
            );
        }
        value
    }

    /// A number within bounds.
    pub(crate) fn count<N: Copy + Display + PartialOrd + TryFrom<u64>>(
        &mut self,
        key: &'static str,
        default: N,
        bounds: std::ops::RangeInclusive<N>,
    ) -> N {
        let Some(Count(value)) = self.value(key) else {
            return default;
        };
        match N::try_from(value) {
            Ok(number) if bounds.contains(&number) => number,
            _ => {
                let (low, high) = bounds.into_inner();
                self.wrong(key, format!("out of bounds, use {low} to {high}"));
                default
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_carry_a_unit() {
        assert_eq!(parse_size("32KiB"), Some(32 << 10));
        assert_eq!(parse_size("1 MiB"), Some(1 << 20));
        assert_eq!(parse_size("7B"), Some(7));
        for wrong in ["32", "32KB", "KiB", "-1KiB", "99999999999999999GiB", ""] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn labels_are_those_of_host_names() {
        assert!(is_label("a") && is_label("a-1") && is_label(&"x".repeat(63)));
        for wrong in ["", "-a", "a-", "A", "a.b", "a_b", &"x".repeat(64)] {
            assert!(!is_label(wrong), "{wrong}");
        }
    }
}
