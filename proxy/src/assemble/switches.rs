//! Filters that the operator switched while the engine ran.

use std::collections::BTreeMap;
use std::fmt;

use adit_config::FilterRef;
use serde::{Deserialize, Serialize};

/// Whether a filter stands before its tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Position {
    /// It does.
    On,
    /// It does not.
    Off,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

/// One filter of one project: what a switch is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SwitchKey {
    /// The project.
    pub project: String,
    /// The filter.
    pub filter: FilterRef,
}

impl SwitchKey {
    /// The key of `filter`, written `policy/filter`, in `project`; `None` if that names no filter.
    #[must_use]
    pub fn parse(project: &str, filter: &str) -> Option<Self> {
        let (policy, filter) = filter.split_once('/')?;
        let are_names = |text: &str| !text.is_empty() && !text.contains('/');
        [project, policy, filter]
            .into_iter()
            .all(are_names)
            .then(|| Self {
                project: project.to_owned(),
                filter: FilterRef {
                    policy: policy.to_owned(),
                    filter: filter.to_owned(),
                },
            })
    }

    /// The key as the store has it.
    #[must_use]
    pub fn stored(&self) -> String {
        format!("{}/{}", self.project, self.filter)
    }

    /// The key that the store has as `text`.
    #[must_use]
    pub fn from_stored(text: &str) -> Option<Self> {
        let (project, filter) = text.split_once('/')?;
        Self::parse(project, filter)
    }
}

/// Somebody who may use the engine's own socket.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Operator {
    /// Number of the Unix user.
    pub uid: u32,
    /// Its name, where the system has one.
    pub name: Option<String>,
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} (uid {})", self.uid),
            None => write!(f, "uid {}", self.uid),
        }
    }
}

/// A filter was switched, whatever the file says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Switch {
    /// Which way.
    pub to: Position,
    /// By whom.
    pub by: Operator,
    /// When, in seconds since 1970.
    pub at: u64,
    /// Why, in the operator's words.
    pub reason: Option<String>,
}

/// All switches there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Switches(BTreeMap<String, BTreeMap<FilterRef, Switch>>);

impl Switches {
    /// The switch of a project's filter.
    #[must_use]
    pub fn get(&self, project: &str, filter: &FilterRef) -> Option<&Switch> {
        self.0.get(project)?.get(filter)
    }

    /// These, with `switch` for `key`, or none.
    #[must_use]
    pub fn with(&self, key: &SwitchKey, switch: Option<Switch>) -> Self {
        let mut all = self.0.clone();
        let project = all.entry(key.project.clone()).or_default();
        match switch {
            Some(switch) => project.insert(key.filter.clone(), switch),
            None => project.remove(&key.filter),
        };
        Self(all)
    }

    /// Each with its project and filter, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &FilterRef, &Switch)> {
        self.0.iter().flat_map(|(project, filters)| {
            let filters = filters.iter();
            filters.map(|(filter, switch)| (project.as_str(), filter, switch))
        })
    }
}

impl FromIterator<(SwitchKey, Switch)> for Switches {
    fn from_iter<I: IntoIterator<Item = (SwitchKey, Switch)>>(switches: I) -> Self {
        let mut all = Self::default();
        for (SwitchKey { project, filter }, switch) in switches {
            all.0.entry(project).or_default().insert(filter, switch);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_key_is_written_as_people_write_it() {
        let key = SwitchKey::parse("default", "edge/geoip").unwrap();
        assert_eq!(key.stored(), "default/edge/geoip");
        assert_eq!(SwitchKey::from_stored("default/edge/geoip"), Some(key));
        for wrong in ["", "geoip", "edge/", "/geoip", "a/b/c"] {
            assert!(SwitchKey::parse("default", wrong).is_none(), "{wrong}");
        }
        for wrong in ["default", "default/edge", "//", "a/b/c/d"] {
            assert!(SwitchKey::from_stored(wrong).is_none(), "{wrong}");
        }
    }
}
