//! Conditions on a tunnel's fields and on a request's path.

use std::collections::BTreeMap;

use adit_filters::is_ambiguous_path;
use percent_encoding::percent_decode_str;
use regex::Regex;
use serde_json::{Map, Value};

/// A condition on a tunnel, in the shape of the Engine API.
#[derive(Debug)]
pub(super) enum Fields {
    All(Vec<Self>),
    Any(Vec<Self>),
    /// Every one of these.
    Each(BTreeMap<String, Test>),
}

/// A condition on one field.
#[derive(Debug)]
pub(super) enum Test {
    Text(Text),
    /// Booleans, numbers and lists compare whole.
    Equals(Value),
    /// The `labels` field, by key.
    Labels(BTreeMap<String, Text>),
}

/// A condition on a text.
#[derive(Debug)]
pub(super) enum Text {
    Exact(String),
    OneOf(Vec<String>),
    /// Found anywhere in the text, in time linear in its length.
    Regex(Regex),
}

/// A condition on a request's path.
#[derive(Debug)]
pub(super) enum PathRule {
    All(Vec<Self>),
    Any(Vec<Self>),
    Text(Text),
}

impl Fields {
    /// Whether the tunnel meets the condition. A field it does not have meets none.
    pub(super) fn match_tunnel(&self, tunnel: &Map<String, Value>) -> bool {
        match self {
            Self::All(all) => all.iter().all(|fields| fields.match_tunnel(tunnel)),
            Self::Any(any) => any.iter().any(|fields| fields.match_tunnel(tunnel)),
            Self::Each(each) => each
                .iter()
                .all(|(name, test)| tunnel.get(name).is_some_and(|value| test.matches(value))),
        }
    }

    /// Adds every field for which the condition leaves one value only.
    pub(super) fn pin(&self, pinned: &mut Map<String, Value>) {
        match self {
            Self::All(all) => all.iter().for_each(|fields| fields.pin(pinned)),
            Self::Any(any) => {
                if let [only] = any.as_slice() {
                    only.pin(pinned);
                }
            }
            Self::Each(each) => {
                for (name, test) in each {
                    if let Some(value) = test.only_value() {
                        pin_field(pinned, name, value);
                    }
                }
            }
        }
    }
}

/// The first condition to pin a field wins; labels are pinned one by one.
fn pin_field(pinned: &mut Map<String, Value>, name: &str, value: Value) {
    match (pinned.get_mut(name), value) {
        (None, value) => {
            pinned.insert(name.to_owned(), value);
        }
        (Some(Value::Object(labels)), Value::Object(more)) => {
            for (key, value) in more {
                labels.entry(key).or_insert(value);
            }
        }
        (Some(_), _) => {}
    }
}

impl Test {
    fn matches(&self, value: &Value) -> bool {
        match self {
            Self::Text(text) => value.as_str().is_some_and(|value| text.matches(value)),
            Self::Equals(wanted) => value == wanted,
            Self::Labels(labels) => labels.iter().all(|(key, text)| {
                value
                    .get(key)
                    .and_then(Value::as_str)
                    .is_some_and(|value| text.matches(value))
            }),
        }
    }

    fn only_value(&self) -> Option<Value> {
        match self {
            Self::Text(text) => text.only_value().map(Value::from),
            Self::Equals(value) => Some(value.clone()),
            Self::Labels(labels) => {
                let pinned: Map<String, Value> = labels
                    .iter()
                    .filter_map(|(key, text)| Some((key.clone(), Value::from(text.only_value()?))))
                    .collect();
                (!pinned.is_empty()).then_some(Value::Object(pinned))
            }
        }
    }
}

impl Text {
    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => value == exact,
            Self::OneOf(list) => list.iter().any(|text| text == value),
            Self::Regex(regex) => regex.is_match(value),
        }
    }

    fn only_value(&self) -> Option<&str> {
        match self {
            Self::Exact(exact) => Some(exact),
            Self::OneOf(list) => match list.as_slice() {
                [only] => Some(only),
                _ => None,
            },
            Self::Regex(_) => None,
        }
    }
}

impl PathRule {
    /// Whether a path as received, without the query, is allowed. One that can be read in two ways never is.
    pub(super) fn allows(&self, path: &str) -> bool {
        if is_ambiguous_path(path) {
            return false;
        }
        let Ok(decoded) = percent_decode_str(path).decode_utf8() else {
            return false;
        };
        self.matches(&decoded)
    }

    fn matches(&self, path: &str) -> bool {
        match self {
            Self::All(all) => all.iter().all(|rule| rule.matches(path)),
            Self::Any(any) => any.iter().any(|rule| rule.matches(path)),
            Self::Text(text) => text.matches(path),
        }
    }
}
