//! Environment variables laid over the text.
//!
//! `ADIT_` and the path in capitals, two underscores between levels and one for each dash:
//! `ADIT_LISTEN__METRICS_TOKEN` is `listen.metrics-token`. A variable without two underscores, such
//! as `ADIT_TOKEN`, belongs to the agent and is none of ours: no setting stands at the top level.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::problem::{Place, Problem};
use crate::tree::{At, Entry, Node, Value};

const PREFIX: &str = "ADIT_";
const LEVEL: &str = "__";

/// Lays every override over `root`; a problem for each that leads through something without keys.
pub(crate) fn apply(root: &mut Node, environment: &BTreeMap<String, String>) -> Vec<Problem> {
    environment
        .iter()
        .filter_map(|(variable, value)| {
            let path = variable.strip_prefix(PREFIX)?;
            path.contains(LEVEL).then_some((variable, path, value))
        })
        .filter_map(|(variable, path, value)| {
            let steps: Vec<String> = path.split(LEVEL).map(key_of).collect();
            let variable = Arc::from(variable.as_str());
            let kind = lay(root, &steps, &variable, value).err()?;
            Some(Problem::new(
                Place::Environment(variable),
                steps.join("."),
                format!("the variable leads into {kind}, which has no keys to override"),
            ))
        })
        .collect()
}

fn key_of(step: &str) -> String {
    step.to_ascii_lowercase().replace('_', "-")
}

/// Puts `value` where `steps` lead, or says what kind of value is in the way.
fn lay(
    node: &mut Node,
    steps: &[String],
    variable: &Arc<str>,
    value: &str,
) -> Result<(), &'static str> {
    let Some((step, rest)) = steps.split_first() else {
        *node = Node {
            at: At::Environment(Arc::clone(variable)),
            value: Value::String(value.to_owned()),
        };
        return Ok(());
    };
    let kind = node.kind();
    let Value::Table(entries) = &mut node.value else {
        return Err(kind);
    };
    let known = entries.iter().position(|entry| key_of(&entry.key) == *step);
    let entry = match known.and_then(|index| entries.get_mut(index)) {
        Some(entry) => entry,
        None => {
            let at = At::Environment(Arc::clone(variable));
            entries.push(Entry {
                key: step.clone(),
                at: at.clone(),
                node: Node {
                    at,
                    value: Value::Table(Vec::new()),
                },
            });
            let Some(entry) = entries.last_mut() else {
                return Ok(());
            };
            entry
        }
    };
    if rest.is_empty() {
        entry.at = At::Environment(Arc::clone(variable));
    }
    lay(&mut entry.node, rest, variable, value)
}
