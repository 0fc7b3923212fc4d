//! Policies for some of a project's tunnels: those that a name, host or label tells apart.
//!
//! Names and labels are what an agent asks for. Whatever it asks for, a scope only adds to what the
//! project demands: it cannot take anything away, or a label would be a way out.

use std::collections::BTreeMap;
use std::fmt;

use crate::policy::{self, FilterRef, Policy};
use crate::problem::Place;
use crate::reader::{Field, FromField, Reader};

/// Most entries of one project's `tunnels`: each is tried whenever a tunnel is opened.
const SCOPES_MAX: usize = 100;

/// Longest pattern, in bytes: that of a host name (RFC 1035 §2.3.4).
const PATTERN_BYTES_MAX: usize = 253;

/// One entry of a project's `tunnels`: further policies for the tunnels it matches, between the
/// project's and what the tunnel asks for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Which tunnels.
    pub tunnels: TunnelMatch,
    /// Names of the policies these tunnels are under too, in order.
    pub policies: Vec<String>,
    /// Filters of these policies that the operator has switched off here.
    pub off: Vec<FilterRef>,
    /// Where it is written.
    pub place: Place,
}

/// `match`: which tunnels a scope is for. Every criterion given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TunnelMatch {
    /// The tunnel's name.
    pub name: Option<Pattern>,
    /// The host name it is published under.
    pub host: Option<Pattern>,
    /// Labels it carries, with their values.
    pub labels: BTreeMap<String, Pattern>,
}

impl TunnelMatch {
    /// Whether a tunnel of this name, host (lower case) and these labels is meant. What a tunnel
    /// does not have matches nothing.
    pub fn matches(
        &self,
        name: Option<&str>,
        host: Option<&str>,
        labels: &BTreeMap<String, String>,
    ) -> bool {
        let holds = |wanted: &Option<Pattern>, found: Option<&str>| match wanted {
            None => true,
            Some(pattern) => found.is_some_and(|found| pattern.matches(found)),
        };
        holds(&self.name, name)
            && holds(&self.host, host)
            && self.labels.iter().all(|(label, pattern)| {
                let value = labels.get(label);
                value.is_some_and(|value| pattern.matches(value))
            })
    }
}

impl fmt::Display for TunnelMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.iter().map(|pattern| format!("name {pattern}"));
        let host = self.host.iter().map(|pattern| format!("host {pattern}"));
        let labels = self.labels.iter();
        let labels = labels.map(|(label, pattern)| format!("label {label}={pattern}"));
        let all: Vec<String> = name.chain(host).chain(labels).collect();
        f.write_str(&all.join(", "))
    }
}

/// A text in which each `*` stands for any characters, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
}

impl Pattern {
    /// Whether all of `found` is meant.
    pub fn matches(&self, found: &str) -> bool {
        let Some((head, rest)) = self.text.split_once('*') else {
            return self.text == found;
        };
        let Some(mut found) = found.strip_prefix(head) else {
            return false;
        };
        let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
        // The earliest place of each part leaves the most for those behind it.
        for part in middle.split('*') {
            let Some(at) = found.find(part) else {
                return false;
            };
            found = found.get(at + part.len()..).unwrap_or_default();
        }
        found.ends_with(tail)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromField for Pattern {
    fn from_field(field: &Field<'_>) -> Option<Self> {
        let text = field.text("a text such as `shop-*`")?;
        if text.is_empty() || text.len() > PATTERN_BYTES_MAX {
            field.wrong(format!(
                "not a pattern, use 1 to {PATTERN_BYTES_MAX} bytes such as `shop-*`"
            ));
            return None;
        }
        Some(Self {
            text: text.to_owned(),
        })
    }
}

/// A pattern of host names, in lower case as they are.
struct HostPattern(Pattern);

impl FromField for HostPattern {
    fn from_field(field: &Field<'_>) -> Option<Self> {
        let mut pattern = Pattern::from_field(field)?;
        pattern.text.make_ascii_lowercase();
        let of_hosts = |letter: char| letter.is_ascii_alphanumeric() || "-.*".contains(letter);
        if !pattern.text.chars().all(of_hosts) {
            field.wrong(format!(
                "`{pattern}` matches no host name, use one such as `*.t.edge.example.com`"
            ));
            return None;
        }
        Some(Self(pattern))
    }
}

/// Reads `tunnels` of a project that is under the policies `above` already.
pub(crate) fn read(
    project: &mut Reader<'_>,
    above: &[String],
    policies: &BTreeMap<String, Policy>,
) -> Vec<Scope> {
    let Some(items) = project.field("tunnels").and_then(|field| field.items()) else {
        return Vec::new();
    };
    if items.len() > SCOPES_MAX {
        project.wrong("tunnels", format!("more than {SCOPES_MAX}, use fewer"));
    }
    items
        .iter()
        .filter_map(|item| Scope::read(item.table()?, item.place(), above, policies))
        .collect()
}

impl Scope {
    fn read(
        mut table: Reader<'_>,
        place: Place,
        above: &[String],
        policies: &BTreeMap<String, Policy>,
    ) -> Option<Self> {
        let tunnels = match table.field("match") {
            Some(field) => TunnelMatch::read(&field),
            None => {
                table.missing(
                    "match",
                    "write which tunnels: `match = { name = \"shop-*\" }`",
                );
                None
            }
        };
        if table.field("policies").is_none() {
            table.missing("policies", "write the policies these tunnels are under");
        }
        let chosen = policy::policy_list(&mut table, above, policies);
        let mut off = Vec::new();
        for (field, filter) in policy::off_list(&mut table, policies) {
            if chosen.contains(&filter.policy) {
                off.push(filter);
            } else {
                field.wrong(format!(
                    "`{filter}` is not of this entry's policies, and an entry takes nothing away from what stands elsewhere"
                ));
            }
        }
        table.finish();
        Some(Self {
            tunnels: tunnels?,
            policies: chosen,
            off,
            place,
        })
    }
}

impl TunnelMatch {
    fn read(field: &Field<'_>) -> Option<Self> {
        let mut table = field.table()?;
        let name = table.value("name");
        let host = table.value("host").map(|HostPattern(pattern)| pattern);
        let mut labels = BTreeMap::new();
        for (entry, value) in table.table("label").named() {
            if let Some(pattern) = Pattern::from_field(&value) {
                labels.insert(entry.key.clone(), pattern);
            }
        }
        let said = ["name", "host", "label"];
        if said.into_iter().all(|key| table.field(key).is_none()) {
            field.wrong(
                "matches every tunnel: give `name`, `host` or `label`, or list the policies in the project's own `policies`",
            );
        }
        table.finish();
        Some(Self { name, host, labels })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern {
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_star_stands_for_any_characters_or_none() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("shop", &["shop"], &["shop1", "ashop", ""]),
            (
                "shop-*",
                &["shop-", "shop-a", "shop-a-b"],
                &["shop", "xshop-a"],
            ),
            ("*.t.e", &["a.t.e", "a.b.t.e", ".t.e"], &["t.e", "a.t.e.x"]),
            ("a*c", &["ac", "abc", "abcc"], &["a", "c", "abcd"]),
            ("aa*aa", &["aaaa", "aaxaa"], &["aa", "aaa"]),
            ("*a*b*", &["ab", "xaxbx"], &["ba", "a"]),
            ("a**b", &["ab", "axb"], &["a"]),
            ("*", &["", "x"], &[]),
        ];
        for (text, inside, outside) in cases {
            for found in *inside {
                assert!(pattern(text).matches(found), "{text} should match {found}");
            }
            for found in *outside {
                assert!(
                    !pattern(text).matches(found),
                    "{text} should not match {found}"
                );
            }
        }
    }

    #[test]
    fn every_criterion_must_hold() {
        let both = TunnelMatch {
            name: Some(pattern("shop-*")),
            host: None,
            labels: [("tier".to_owned(), pattern("public"))].into(),
        };
        let labels = |value: &str| [("tier".to_owned(), value.to_owned())].into();
        for (name, label, matches) in [
            (Some("shop-1"), labels("public"), true),
            (Some("shop-1"), labels("private"), false),
            (Some("shop-1"), BTreeMap::new(), false),
            (Some("blog"), labels("public"), false),
            (None, labels("public"), false),
        ] {
            assert_eq!(
                both.matches(name, Some("h"), &label),
                matches,
                "{name:?} {label:?}"
            );
        }
        let host = TunnelMatch {
            host: Some(pattern("*.t.e")),
            ..TunnelMatch::default()
        };
        assert!(host.matches(None, Some("a.t.e"), &BTreeMap::new()));
        assert!(!host.matches(None, Some("a.u.e"), &BTreeMap::new()));
        assert!(!host.matches(None, None, &BTreeMap::new()));
        assert_eq!(both.to_string(), "name shop-*, label tier=public");
    }
}
