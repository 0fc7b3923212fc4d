//! Reading a boundary strictly: every object has only the keys it may have, and everything is counted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::fields::{Fields, PathRule, Test, Text};
use super::shape::{ASSIGNED, FIELDS, keys, list, object, only, texts};
use super::{Branch, Connect, Grant, Leaf, List, Scopes, Target, TunnelResource};

/// How many branches a boundary may expand to.
pub(super) const BRANCHES_MAX: usize = 256;

/// How deep a boundary and its filters may nest.
pub(super) const DEPTH_MAX: usize = 16;

/// How many nodes and conditions a boundary may have.
pub(super) const NODES_MAX: usize = 1024;

/// How many regular expressions it may have.
pub(super) const REGEXES_MAX: usize = 32;

/// How long one may be, in bytes.
pub(super) const REGEX_BYTES_MAX: usize = 1024;

/// How much memory one may compile to, in bytes; matching is linear in any case.
const REGEX_COMPILED_MAX: usize = 64 * 1024;

/// Leaves in all branches together: an AND of wide ORs multiplies them.
const EXPANDED_MAX: usize = 4096;

/// Why a boundary cannot be understood.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BoundaryError {
    /// Something else than an object, list or text stands where one must.
    #[error("`{at}` must be {expected}")]
    Expected {
        /// The key.
        at: &'static str,
        /// What must stand there.
        expected: &'static str,
    },
    /// A key that has no meaning there.
    #[error("`{key}` has no meaning in `{at}`")]
    UnknownKey {
        /// The object.
        at: &'static str,
        /// The key.
        key: String,
    },
    /// More of something than there may be.
    #[error("more than {limit} {what}")]
    OverLimit {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        limit: usize,
    },
    /// A regular expression that does not compile within its bounds.
    #[error("`{pattern}` is not a regular expression that can be used")]
    Regex {
        /// The expression.
        pattern: String,
    },
}

/// What is counted while reading.
#[derive(Default)]
struct Counts {
    nodes: usize,
    regexes: usize,
}

pub(super) fn tree(claim: &Value) -> Result<TunnelResource, BoundaryError> {
    let branches = Counts::default().node(claim, 0)?;
    Ok(TunnelResource { branches })
}

impl Counts {
    fn count(&mut self, depth: usize) -> Result<(), BoundaryError> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(BoundaryError::OverLimit {
                what: "nodes",
                limit: NODES_MAX,
            });
        }
        if depth > DEPTH_MAX {
            return Err(BoundaryError::OverLimit {
                what: "levels",
                limit: DEPTH_MAX,
            });
        }
        Ok(())
    }

    fn node(&mut self, value: &Value, depth: usize) -> Result<Vec<Branch>, BoundaryError> {
        self.count(depth)?;
        let node = object(value, "tunnels")?;
        if let Some(children) = only(node, "AND", "tunnels")? {
            // Nothing agrees with everything: the product starts from one empty branch.
            let mut product: Vec<Branch> = vec![vec![]];
            for child in list(children, "AND")? {
                product = self::product(&product, &self.node(child, depth + 1)?)?;
            }
            return Ok(product);
        }
        if let Some(children) = only(node, "OR", "tunnels")? {
            let mut sum = vec![];
            for child in list(children, "OR")? {
                sum.extend(self.node(child, depth + 1)?);
                check_size(&sum)?;
            }
            return Ok(sum);
        }
        Ok(vec![vec![Arc::new(self.leaf(node)?)]])
    }

    fn leaf(&mut self, node: &Map<String, Value>) -> Result<Leaf, BoundaryError> {
        keys(node, "tunnels", &["workspaces", "projects", "scopes"])?;
        let target = match (node.get("projects"), node.get("workspaces")) {
            (Some(_), Some(_)) => {
                return Err(BoundaryError::Expected {
                    at: "tunnels",
                    expected: "limited to projects or to workspaces",
                });
            }
            (Some(ids), None) => Some(Target::Projects(texts(ids, "projects")?)),
            (None, Some(ids)) => Some(Target::Workspaces(texts(ids, "workspaces")?)),
            (None, None) => None,
        };
        let scopes = node
            .get("scopes")
            .map(|scopes| self.scopes(scopes))
            .transpose()?;
        if target.is_none() && scopes.is_none() {
            return Err(BoundaryError::Expected {
                at: "tunnels",
                expected: "a limit of some kind",
            });
        }
        Ok(Leaf { target, scopes })
    }

    fn scopes(&mut self, value: &Value) -> Result<Scopes, BoundaryError> {
        let outer = object(value, "scopes")?;
        keys(outer, "scopes", &["tunnels"])?;
        let actions = object(
            outer.get("tunnels").unwrap_or(&Value::Null),
            "scopes.tunnels",
        )?;
        keys(actions, "scopes.tunnels", &["create", "connect", "list"])?;
        if actions.is_empty() {
            return Err(BoundaryError::Expected {
                at: "scopes.tunnels",
                expected: "at least one action",
            });
        }
        let mut scopes = Scopes::default();
        for (action, value) in actions {
            match action.as_str() {
                "create" => scopes.create = grant(value, "create", |limits| self.create(limits))?,
                "connect" => {
                    scopes.connect = grant(value, "connect", |limits| self.connect(limits))?
                }
                _ => scopes.list = grant(value, "list", |limits| self.list(limits))?,
            }
        }
        Ok(scopes)
    }

    fn create(&mut self, limits: &Map<String, Value>) -> Result<Fields, BoundaryError> {
        keys(limits, "create", &["filters"])?;
        match limits.get("filters") {
            None => Ok(Fields::All(vec![])),
            Some(filters) => self.filters(filters, Writable::Only, 0),
        }
    }

    fn connect(&mut self, limits: &Map<String, Value>) -> Result<Connect, BoundaryError> {
        keys(limits, "connect", &["filters", "params"])?;
        let fields = limits
            .get("filters")
            .map(|filters| self.filters(filters, Writable::Any, 0))
            .transpose()?;
        let path = match limits.get("params") {
            None => None,
            Some(params) => {
                let params = object(params, "connect.params")?;
                keys(params, "connect.params", &["path"])?;
                params
                    .get("path")
                    .map(|rule| self.path(rule, 0))
                    .transpose()?
            }
        };
        Ok(Connect { fields, path })
    }

    fn list(&mut self, limits: &Map<String, Value>) -> Result<List, BoundaryError> {
        keys(limits, "list", &["filters", "select"])?;
        let fields = limits
            .get("filters")
            .map(|filters| self.filters(filters, Writable::Any, 0))
            .transpose()?;
        let select = limits.get("select").map(select).transpose()?;
        Ok(List { fields, select })
    }

    fn filters(
        &mut self,
        value: &Value,
        writable: Writable,
        depth: usize,
    ) -> Result<Fields, BoundaryError> {
        self.count(depth)?;
        let filters = object(value, "filters")?;
        for (key, join) in [
            ("AND", Fields::All as fn(Vec<Fields>) -> Fields),
            ("OR", Fields::Any),
        ] {
            if let Some(children) = only(filters, key, "filters")? {
                let children = list(children, key)?;
                let children = children
                    .iter()
                    .map(|child| self.filters(child, writable, depth + 1));
                return children.collect::<Result<_, _>>().map(join);
            }
        }
        let mut each = BTreeMap::new();
        for (name, value) in filters {
            if !FIELDS.contains(&name.as_str())
                || (writable == Writable::Only && ASSIGNED.contains(&name.as_str()))
            {
                return Err(BoundaryError::UnknownKey {
                    at: "filters",
                    key: name.clone(),
                });
            }
            self.count(depth)?;
            let test = match value {
                Value::Object(labels) if name == "labels" => Test::Labels(self.labels(labels)?),
                Value::String(_) | Value::Object(_) => Test::Text(self.text(value)?),
                Value::Bool(_) | Value::Number(_) | Value::Array(_) => Test::Equals(value.clone()),
                Value::Null => {
                    return Err(BoundaryError::Expected {
                        at: "filters",
                        expected: "made of values",
                    });
                }
            };
            each.insert(name.clone(), test);
        }
        Ok(Fields::Each(each))
    }

    fn labels(
        &mut self,
        labels: &Map<String, Value>,
    ) -> Result<BTreeMap<String, Text>, BoundaryError> {
        labels
            .iter()
            .map(|(key, value)| {
                self.count(0)?;
                Ok((key.clone(), self.text(value)?))
            })
            .collect()
    }

    fn path(&mut self, value: &Value, depth: usize) -> Result<PathRule, BoundaryError> {
        self.count(depth)?;
        if let Value::Object(rule) = value {
            for (key, join) in [
                ("AND", PathRule::All as fn(Vec<PathRule>) -> PathRule),
                ("OR", PathRule::Any),
            ] {
                if let Some(children) = only(rule, key, "connect.params.path")? {
                    let children = list(children, key)?;
                    let children = children.iter().map(|child| self.path(child, depth + 1));
                    return children.collect::<Result<_, _>>().map(join);
                }
            }
        }
        self.text(value).map(PathRule::Text)
    }

    /// A bare text, or exactly one of `exact`, `oneof` and `regex`.
    fn text(&mut self, value: &Value) -> Result<Text, BoundaryError> {
        let wrong = || BoundaryError::Expected {
            at: "filters",
            expected: "a text, or one of `exact`, `oneof` and `regex`",
        };
        let operator = match value {
            Value::String(exact) => return Ok(Text::Exact(exact.clone())),
            Value::Object(operator) if operator.len() == 1 => operator,
            _ => return Err(wrong()),
        };
        match operator.iter().next() {
            Some((key, Value::String(text))) if key == "exact" => Ok(Text::Exact(text.clone())),
            Some((key, value)) if key == "oneof" => Ok(Text::OneOf(texts(value, "oneof")?)),
            Some((key, Value::String(pattern))) if key == "regex" => {
                Ok(Text::Regex(self.regex(pattern)?))
            }
            _ => Err(wrong()),
        }
    }

    fn regex(&mut self, pattern: &str) -> Result<Regex, BoundaryError> {
        self.regexes += 1;
        if self.regexes > REGEXES_MAX {
            return Err(BoundaryError::OverLimit {
                what: "regular expressions",
                limit: REGEXES_MAX,
            });
        }
        if pattern.len() > REGEX_BYTES_MAX {
            return Err(BoundaryError::OverLimit {
                what: "bytes of regular expression",
                limit: REGEX_BYTES_MAX,
            });
        }
        RegexBuilder::new(pattern)
            .size_limit(REGEX_COMPILED_MAX)
            .dfa_size_limit(REGEX_COMPILED_MAX)
            .build()
            .map_err(|_| BoundaryError::Regex {
                pattern: pattern.to_owned(),
            })
    }
}

/// Which fields a condition may name.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Writable {
    Any,
    Only,
}

/// Every branch of one with every branch of the other.
pub(super) fn product(left: &[Branch], right: &[Branch]) -> Result<Vec<Branch>, BoundaryError> {
    let product: Vec<Branch> = left
        .iter()
        .flat_map(|one| {
            let both = move |other: &Branch| one.iter().chain(other).cloned().collect();
            right.iter().map(both)
        })
        .take(BRANCHES_MAX + 1)
        .collect();
    check_size(&product)?;
    Ok(product)
}

fn check_size(branches: &[Branch]) -> Result<(), BoundaryError> {
    if branches.len() > BRANCHES_MAX {
        return Err(BoundaryError::OverLimit {
            what: "branches",
            limit: BRANCHES_MAX,
        });
    }
    if branches.iter().map(Vec::len).sum::<usize>() > EXPANDED_MAX {
        return Err(BoundaryError::OverLimit {
            what: "leaves in all branches",
            limit: EXPANDED_MAX,
        });
    }
    Ok(())
}

fn grant<T>(
    value: &Value,
    at: &'static str,
    read: impl FnOnce(&Map<String, Value>) -> Result<T, BoundaryError>,
) -> Result<Grant<T>, BoundaryError> {
    match value {
        Value::Bool(false) => Ok(Grant::Denied),
        Value::Bool(true) => Ok(Grant::Free),
        Value::Object(limits) => read(limits).map(Grant::Limited),
        _ => Err(BoundaryError::Expected {
            at,
            expected: "true, false or an object",
        }),
    }
}

fn select(value: &Value) -> Result<BTreeSet<String>, BoundaryError> {
    let mut selected = BTreeSet::new();
    for (name, value) in object(value, "list.select")? {
        if !FIELDS.contains(&name.as_str()) {
            return Err(BoundaryError::UnknownKey {
                at: "list.select",
                key: name.clone(),
            });
        }
        match value {
            Value::Bool(true) => {
                selected.insert(name.clone());
            }
            Value::Bool(false) => {}
            _ => {
                return Err(BoundaryError::Expected {
                    at: "list.select",
                    expected: "made of true and false",
                });
            }
        }
    }
    Ok(selected)
}
