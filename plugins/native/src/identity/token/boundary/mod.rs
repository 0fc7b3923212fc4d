//! The `resources.tunnels` claim: where a token may be used (engine-api §8.4).
//!
//! It is read strictly and expanded to branches once, when the token is verified. Whatever cannot be understood, or
//! is larger than its bounds, makes the token worthless rather than wider.

mod fields;
mod parse;
mod shape;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use fields::{Fields, PathRule};

pub use parse::BoundaryError;

/// Where a tunnel belongs.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The project.
    pub project: &'a str,
    /// The workspace, where the deployment has one.
    pub workspace: Option<&'a str>,
}

/// What of a tunnel may be seen.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Visible {
    /// It is not there.
    Nothing,
    /// All of it.
    Whole,
    /// These fields, and always `id`, `client_id` and `status`, without which clients reject the object.
    Fields(BTreeSet<String>),
}

impl Visible {
    /// The part of the object that may be seen, if any.
    #[must_use]
    pub fn of(&self, mut object: Map<String, Value>) -> Option<Map<String, Value>> {
        match self {
            Self::Nothing => None,
            Self::Whole => Some(object),
            Self::Fields(fields) => {
                object.retain(|name, _| {
                    fields.contains(name) || ALWAYS_SEEN.contains(&name.as_str())
                });
                Some(object)
            }
        }
    }
}

const ALWAYS_SEEN: [&str; 3] = ["id", "client_id", "status"];

/// A boundary: what is allowed is what any of its branches allows.
#[derive(Clone, Debug)]
pub struct TunnelResource {
    branches: Vec<Branch>,
}

/// Leaves that must all agree.
type Branch = Vec<Arc<Leaf>>;

#[derive(Debug)]
struct Leaf {
    target: Option<Target>,
    scopes: Option<Scopes>,
}

#[derive(Debug)]
enum Target {
    Projects(Vec<String>),
    Workspaces(Vec<String>),
}

#[derive(Debug, Default)]
struct Scopes {
    create: Grant<Fields>,
    connect: Grant<Connect>,
    list: Grant<List>,
}

/// An action of a scope. One that is not named is denied.
#[derive(Debug, Default)]
enum Grant<T> {
    #[default]
    Denied,
    Free,
    Limited(T),
}

#[derive(Debug)]
struct Connect {
    fields: Option<Fields>,
    path: Option<PathRule>,
}

#[derive(Debug)]
struct List {
    fields: Option<Fields>,
    select: Option<BTreeSet<String>>,
}

impl TunnelResource {
    /// Reads the claim's value.
    ///
    /// # Errors
    /// What cannot be understood, or is too large.
    pub fn parse(claim: &Value) -> Result<Self, BoundaryError> {
        parse::tree(claim)
    }

    /// The boundary that allows what both allow.
    ///
    /// # Errors
    /// If the two together are larger than one may be.
    pub fn and(&self, other: &Self) -> Result<Self, BoundaryError> {
        let branches = parse::product(&self.branches, &other.branches)?;
        Ok(Self { branches })
    }

    pub(super) fn reaches(&self, place: Place<'_>) -> bool {
        self.branches_in(place).next().is_some()
    }

    pub(super) fn connects(
        &self,
        place: Place<'_>,
        tunnel: &Map<String, Value>,
        path: Option<&str>,
    ) -> bool {
        self.branches_in(place).any(|branch| {
            scopes(branch).all(|scopes| match &scopes.connect {
                Grant::Denied => false,
                Grant::Free => true,
                Grant::Limited(Connect { fields, path: rule }) => {
                    fields
                        .as_ref()
                        .is_none_or(|fields| fields.match_tunnel(tunnel))
                        && rule
                            .as_ref()
                            .is_none_or(|rule| path.is_some_and(|path| rule.allows(path)))
                }
            })
        })
    }

    pub(super) fn creates(&self, place: Place<'_>, properties: &Map<String, Value>) -> bool {
        self.branches_in(place).any(|branch| {
            scopes(branch).all(|scopes| match &scopes.create {
                Grant::Denied => false,
                Grant::Free => true,
                Grant::Limited(fields) => fields.match_tunnel(properties),
            })
        })
    }

    pub(super) fn pins(&self, place: Place<'_>) -> Vec<Map<String, Value>> {
        self.branches_in(place)
            .filter(|branch| scopes(branch).all(|scopes| !matches!(scopes.create, Grant::Denied)))
            .map(|branch| {
                let mut pinned = Map::new();
                for scopes in scopes(branch) {
                    if let Grant::Limited(fields) = &scopes.create {
                        fields.pin(&mut pinned);
                    }
                }
                pinned
            })
            .collect()
    }

    /// Whether `list` is granted anywhere, whatever there is to be seen.
    pub(super) fn lists(&self) -> bool {
        self.branches.iter().any(|branch| {
            scopes(branch).all(|scopes| !matches!(scopes.list, Grant::Denied))
                && has_common_project(branch)
        })
    }

    pub(super) fn sees(&self, place: Place<'_>, tunnel: &Map<String, Value>) -> Visible {
        let mut visible = Visible::Nothing;
        for branch in self.branches_in(place) {
            visible = match (visible, branch_sees(branch, tunnel)) {
                (Visible::Whole, _) | (_, Visible::Whole) => return Visible::Whole,
                (Visible::Nothing, other) | (other, Visible::Nothing) => other,
                // Each branch alone would show its fields.
                (Visible::Fields(mut fields), Visible::Fields(more)) => {
                    fields.extend(more);
                    Visible::Fields(fields)
                }
            };
        }
        visible
    }

    fn branches_in<'a>(&'a self, place: Place<'a>) -> impl Iterator<Item = &'a Branch> {
        self.branches
            .iter()
            .filter(move |branch| branch.iter().all(|leaf| leaf.covers(place)))
    }
}

impl Leaf {
    fn covers(&self, place: Place<'_>) -> bool {
        match &self.target {
            None => true,
            Some(Target::Projects(ids)) => ids.iter().any(|id| id == place.project),
            Some(Target::Workspaces(ids)) => place
                .workspace
                .is_some_and(|workspace| ids.iter().any(|id| id == workspace)),
        }
    }
}

/// Whether some project is in all lists of projects of a branch; one without any is not confined.
fn has_common_project(branch: &Branch) -> bool {
    let mut lists = branch.iter().filter_map(|leaf| match &leaf.target {
        Some(Target::Projects(ids)) => Some(ids),
        Some(Target::Workspaces(_)) | None => None,
    });
    let Some(first) = lists.next() else {
        return true;
    };
    let others: Vec<&Vec<String>> = lists.collect();
    first
        .iter()
        .any(|id| others.iter().all(|ids| ids.contains(id)))
}

/// The scopes of a branch; a leaf without any restricts nothing.
fn scopes(branch: &Branch) -> impl Iterator<Item = &Scopes> {
    branch.iter().filter_map(|leaf| leaf.scopes.as_ref())
}

fn branch_sees(branch: &Branch, tunnel: &Map<String, Value>) -> Visible {
    let mut shown: Option<BTreeSet<String>> = None;
    for scopes in scopes(branch) {
        match &scopes.list {
            Grant::Denied => return Visible::Nothing,
            Grant::Free => {}
            Grant::Limited(List { fields, select }) => {
                if !fields
                    .as_ref()
                    .is_none_or(|fields| fields.match_tunnel(tunnel))
                {
                    return Visible::Nothing;
                }
                if let Some(select) = select {
                    // All leaves of a branch must allow a field.
                    shown = Some(match shown {
                        None => select.clone(),
                        Some(shown) => shown.intersection(select).cloned().collect(),
                    });
                }
            }
        }
    }
    shown.map_or(Visible::Whole, Visible::Fields)
}
