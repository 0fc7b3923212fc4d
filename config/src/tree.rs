//! The parsed text as a tree of owned values, each knowing where it stands.
//!
//! The tree is what environment overrides are laid over before anything is read from it, so that an
//! override takes the same path to a typed value, or to a problem, as the text does.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use crate::problem::{Place, Problem};

/// Longest configuration text read, in bytes: far above any real one, far below what would hurt.
pub(crate) const TEXT_BYTES_MAX: usize = 4 << 20;

/// Most syntax errors reported for one text; after that they follow from one another.
const SYNTAX_PROBLEMS_MAX: usize = 20;

/// A configuration text and the name its user knows it by.
#[derive(Debug)]
pub(crate) struct Source {
    name: Arc<str>,
    text: String,
}

impl Source {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        Self {
            name: name.into(),
            text: text.to_owned(),
        }
    }

    /// Parses the text, or says every place where its syntax is broken.
    pub(crate) fn tree(&self) -> Result<Node, Vec<Problem>> {
        if self.text.len() > TEXT_BYTES_MAX {
            return Err(vec![Problem::of_file(
                &self.name,
                format!("longer than {TEXT_BYTES_MAX} bytes, which no configuration needs"),
            )]);
        }
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        if errors.is_empty() {
            return Ok(Node {
                at: At::Text(0..self.text.len()),
                value: Value::Table(entries(table.get_ref())),
            });
        }
        Err(errors
            .into_iter()
            .take(SYNTAX_PROBLEMS_MAX)
            .map(|error| {
                let span = error.span().unwrap_or(0..0);
                Problem::new(self.place(&At::Text(span)), "", error.message())
            })
            .collect())
    }

    /// The place of `at` as a reader of the text would say it.
    pub(crate) fn place(&self, at: &At) -> Place {
        let offset = match at {
            At::Environment(variable) => return Place::Environment(Arc::clone(variable)),
            At::Text(span) => span.start,
        };
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place::Text {
            file: Arc::clone(&self.name),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or("").chars().count() + 1,
        }
    }
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// A range of bytes of the text.
    Text(Range<usize>),
    /// An environment variable, by name.
    Environment(Arc<str>),
}

impl From<Range<usize>> for At {
    fn from(span: Range<usize>) -> Self {
        Self::Text(span)
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: At,
    pub(crate) value: Value,
}

/// A TOML value, owned.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Array(Vec<Node>),
    Boolean(bool),
    Datetime(String),
    Float(f64),
    /// `None` for one that does not fit 64 bits.
    Integer(Option<i64>),
    String(String),
    Table(Vec<Entry>),
}

/// A key of a table with its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: At,
    pub(crate) node: Node,
}

impl Node {
    /// What the value is, for messages.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Array(_) => "a list",
            Value::Boolean(_) => "a boolean",
            Value::Datetime(_) => "a date",
            Value::Float(_) => "a fraction",
            Value::Integer(_) => "an integer",
            Value::String(_) => "a string",
            Value::Table(_) => "a table",
        }
    }

    /// Whether the value came from the environment, where everything is written as a string.
    pub(crate) fn is_from_environment(&self) -> bool {
        matches!(self.at, At::Environment(_))
    }

    /// The place of every value below this node, by its dotted key; this node's own key is empty.
    pub(crate) fn places(&self, source: &Source) -> BTreeMap<String, Place> {
        let mut places = BTreeMap::new();
        let mut open = vec![(String::new(), self)];
        while let Some((key, node)) = open.pop() {
            let below = |step: &str| match key.as_str() {
                "" => step.to_owned(),
                key => format!("{key}.{step}"),
            };
            match &node.value {
                Value::Table(entries) => {
                    open.extend(entries.iter().map(|entry| (below(&entry.key), &entry.node)))
                }
                Value::Array(items) => open.extend(
                    items
                        .iter()
                        .enumerate()
                        .map(|(index, item)| (below(&index.to_string()), item)),
                ),
                _ => {}
            }
            places.insert(key, source.place(&node.at));
        }
        places
    }

    /// Takes out the entry or item that stands at `at`, below this node; whether there was one.
    pub(crate) fn remove(&mut self, at: &At) -> bool {
        match &mut self.value {
            Value::Table(entries) => {
                if entries.iter_mut().any(|entry| entry.node.remove(at)) {
                    return true;
                }
                let before = entries.len();
                entries.retain(|entry| entry.at != *at && entry.node.at != *at);
                entries.len() < before
            }
            Value::Array(items) => {
                if items.iter_mut().any(|item| item.remove(at)) {
                    return true;
                }
                let before = items.len();
                items.retain(|item| item.at != *at);
                items.len() < before
            }
            _ => false,
        }
    }

    /// The dotted key of the value or key that stands at `at`, below this node.
    pub(crate) fn path_to(&self, at: &At) -> Option<String> {
        match &self.value {
            Value::Table(entries) => entries.iter().find_map(|entry| {
                if let Some(below) = entry.node.path_to(at) {
                    return Some(format!("{}.{below}", entry.key));
                }
                (entry.at == *at || entry.node.at == *at).then(|| entry.key.clone())
            }),
            Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| {
                if let Some(below) = item.path_to(at) {
                    return Some(format!("{index}.{below}"));
                }
                (item.at == *at).then(|| index.to_string())
            }),
            _ => None,
        }
    }
}

fn entries(table: &DeTable<'_>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            at: key.span().into(),
            node: node(value.get_ref(), value.span()),
        })
        .collect();
    // The parser sorts by name; readers and messages follow the text.
    entries.sort_by_key(|entry| match &entry.at {
        At::Text(span) => span.start,
        At::Environment(_) => usize::MAX,
    });
    entries
}

fn node(value: &DeValue<'_>, span: Range<usize>) -> Node {
    let value = match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => {
            Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok())
        }
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(yes) => Value::Boolean(*yes),
        DeValue::Datetime(date) => Value::Datetime(date.to_string()),
        DeValue::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| node(item.get_ref(), item.span()))
                .collect(),
        ),
        DeValue::Table(table) => Value::Table(entries(table)),
    };
    Node {
        at: span.into(),
        value,
    }
}
