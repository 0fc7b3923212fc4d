//! Filters switched while the engine runs: tried, written down, then in effect.

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use super::inner::{Inner, assemble};
use crate::assemble::{
    FilterState, IdleSwitch, Operator, Policies, Position, Switch, SwitchKey, Switches,
};
use crate::edge::Changes;
use crate::store::{Embedded, Records, StoreError};

/// The store's space of switches.
const SPACE: &str = "policy-switch";

/// Longest reason given for a switch, in bytes.
const REASON_BYTES_MAX: usize = 500;

/// The operator's switches, and where they are kept.
pub(super) struct Switchboard {
    records: Option<Records<Switch>>,
    current: Arc<ArcSwap<Switches>>,
}

impl Switchboard {
    /// Opens the store in `state_dir` and reads what was switched. Without one nothing can be.
    pub(super) fn open(state_dir: Option<&Path>) -> Result<Self, StoreError> {
        let Some(folder) = state_dir else {
            return Ok(Self {
                records: None,
                current: Arc::default(),
            });
        };
        let records = records(folder)?;
        let all = records.all()?.into_iter();
        let switches: Switches = all
            .filter_map(|(key, switch)| Some((SwitchKey::from_stored(&key)?, switch)))
            .collect();
        Ok(Self {
            records: Some(records),
            current: Arc::new(ArcSwap::from_pointee(switches)),
        })
    }

    /// What is switched, now and from now on.
    pub(super) fn current(&self) -> Arc<ArcSwap<Switches>> {
        Arc::clone(&self.current)
    }
}

fn records(folder: &Path) -> Result<Records<Switch>, StoreError> {
    Ok(Records::new(Arc::new(Embedded::open(folder)?), SPACE))
}

/// Forgets a switch in the state folder of an engine that does not run.
///
/// # Errors
/// If the store cannot be opened, which it cannot while an engine runs, or written.
pub fn forget_switch(state_dir: &Path, key: &SwitchKey) -> Result<bool, StoreError> {
    let records = records(state_dir)?;
    let stored = key.stored();
    let was_there = records.all()?.iter().any(|(key, _)| *key == stored);
    records.set(&stored, None)?;
    Ok(was_there)
}

/// What the operator wants of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// To switch it, and why.
    Switch(Position, Option<String>),
    /// To forget how it was switched.
    Forget,
}

/// What came of a wish.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Switched {
    /// The filter as it is now, once for each place it stands in.
    pub filters: Vec<FilterState>,
    /// Live tunnels whose new requests it counts for.
    pub tunnels: usize,
}

/// Why nothing was switched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SwitchError {
    /// Filters would not work together.
    #[error("with `{filter}` {to}, the chain of {whose} cannot be made: {why}")]
    Chain {
        /// The filter.
        filter: String,
        /// Where it would be.
        to: String,
        /// Whose chain.
        whose: String,
        /// Why.
        why: String,
    },
    /// The engine keeps nothing.
    #[error(
        "this engine keeps no state, and a switch that a restart forgets is refused: set `engine.state-dir` and restart it"
    )]
    NoState,
    /// It is not to be switched.
    #[error(
        "`{filter}` cannot be switched: mark it `optional = true` at {origin} and reload first"
    )]
    NotOptional {
        /// The filter.
        filter: String,
        /// Its line.
        origin: String,
    },
    /// What was asked for is not written as a filter is.
    #[error("`{filter}` does not name a filter, use `policy/filter`")]
    NotAFilter {
        /// What was asked for.
        filter: String,
    },
    /// There is nothing to forget.
    #[error("`{filter}` of project `{project}` is not switched")]
    NotSwitched {
        /// The project.
        project: String,
        /// The filter.
        filter: String,
    },
    /// A reason that does not fit on a line.
    #[error("the reason must be one line of at most {REASON_BYTES_MAX} bytes")]
    Reason,
    /// The switch cannot be written down.
    #[error("nothing is switched, it could not be written down: {0}")]
    Store(#[from] StoreError),
    /// No such filter.
    #[error("project `{project}` has no filter `{filter}`, {}", listed(.known))]
    UnknownFilter {
        /// The project.
        project: String,
        /// What was asked for.
        filter: String,
        /// Those it has.
        known: Vec<String>,
    },
    /// No such project.
    #[error("there is no project `{project}`, {}", listed(.known))]
    UnknownProject {
        /// What was asked for.
        project: String,
        /// Those there are.
        known: Vec<String>,
    },
}

fn listed(known: &[String]) -> String {
    match known {
        [] => "there is none".to_owned(),
        known => format!("use one of {}", known.join(", ")),
    }
}

impl Inner {
    /// The filters of a project or of all, and the switches that have no effect.
    pub(crate) fn filters(
        &self,
        project: Option<&str>,
    ) -> Result<(Vec<FilterState>, Vec<IdleSwitch>), SwitchError> {
        let policies = self.policies.load();
        if let Some(project) = project {
            known_project(&policies, project)?;
        }
        let mut idle = policies.idle_switches();
        idle.retain(|one| project.is_none_or(|project| one.project == project));
        Ok((policies.filters(project), idle))
    }

    /// One filter, once for each place it stands in.
    pub(crate) fn filter(&self, key: &SwitchKey) -> Result<Vec<FilterState>, SwitchError> {
        let policies = self.policies.load();
        known_project(&policies, &key.project)?;
        let all = policies.filters(Some(&key.project));
        let filter = key.filter.to_string();
        let (found, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|one| one.filter == filter);
        if !found.is_empty() {
            return Ok(found);
        }
        let mut known: Vec<String> = others.into_iter().map(|one| one.filter).collect();
        known.dedup();
        Err(SwitchError::UnknownFilter {
            project: key.project.clone(),
            filter,
            known,
        })
    }

    /// Switches a filter as `by` wishes: for new requests at once, and until it is switched again. Waits for the disk.
    pub(crate) fn switch(
        &self,
        key: &SwitchKey,
        wish: Wish,
        by: Operator,
    ) -> Result<Switched, SwitchError> {
        let _one = self
            .reloading
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let records = self.switchboard.records.as_ref();
        let records = records.ok_or(SwitchError::NoState)?;
        let switch = self.wished(key, wish, by.clone())?;
        let before = self.switchboard.current.load_full();
        let after = before.with(key, switch.clone());
        let policies = self.policies.load_full();
        self.try_switches(&policies, key, &after)?;
        records.set(&key.stored(), switch.as_ref())?;
        // Nothing below can fail: what is written down is in effect.
        self.switchboard.current.store(Arc::new(after));
        let exchanges = policies.key_exchanges();
        self.dispatch.exchanges.store(Arc::new(exchanges));
        let of_project = |project: &str| project == key.project;
        let swapped = self
            .agents
            .set_assemble_of(assemble(Arc::clone(&policies)), of_project);
        self.edge.open.change(Changes::of_project(&key.project));
        for (tunnel, error) in swapped.closed {
            tracing::warn!(tunnel = %tunnel.info.id, error = %error.message, "tunnel closed, it does not fit the filter that was switched");
        }
        let (project, filter) = (&key.project, &key.filter);
        let to = match &switch {
            Some(switch) => switch.to.to_string(),
            None => "as in the file".to_owned(),
        };
        let reason = switch.as_ref().and_then(|switch| switch.reason.as_deref());
        // Whatever is logged, this is: who reads the log must find who opened a door.
        tracing::warn!(%project, %filter, %to, %by, reason, tunnels = swapped.count, "a filter was switched");
        Ok(Switched {
            filters: self.filter(key).unwrap_or_default(),
            tunnels: swapped.count,
        })
    }

    /// The switch that is wished for, if it may be.
    fn wished(
        &self,
        key: &SwitchKey,
        wish: Wish,
        by: Operator,
    ) -> Result<Option<Switch>, SwitchError> {
        let (to, reason) = match wish {
            Wish::Switch(to, reason) => (to, reason),
            Wish::Forget => {
                // Whatever became of the filter.
                let switches = self.switchboard.current.load();
                return match switches.get(&key.project, &key.filter) {
                    Some(_) => Ok(None),
                    None => Err(SwitchError::NotSwitched {
                        project: key.project.clone(),
                        filter: key.filter.to_string(),
                    }),
                };
            }
        };
        let found = self.filter(key)?;
        if let Some(fixed) = found.iter().find(|one| !one.optional) {
            return Err(SwitchError::NotOptional {
                filter: fixed.filter.clone(),
                origin: fixed.origin.clone(),
            });
        }
        let fits = |reason: &String| {
            reason.len() <= REASON_BYTES_MAX && !reason.chars().any(char::is_control)
        };
        if !reason.as_ref().is_none_or(fits) {
            return Err(SwitchError::Reason);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(Some(Switch {
            to,
            by,
            at: now.unwrap_or(Duration::ZERO).as_secs(),
            reason: reason.filter(|reason| !reason.is_empty()),
        }))
    }

    /// Whether every chain of the project can be made with these switches, those of its live tunnels among them.
    fn try_switches(
        &self,
        policies: &Policies,
        key: &SwitchKey,
        switches: &Switches,
    ) -> Result<(), SwitchError> {
        let failed = |whose: String, why: String| SwitchError::Chain {
            filter: key.filter.to_string(),
            to: match switches.get(&key.project, &key.filter) {
                Some(switch) => switch.to.to_string(),
                None => "as in the file".to_owned(),
            },
            whose,
            why,
        };
        policies
            .try_switches(&key.project, switches)
            .map_err(|why| failed(format!("project `{}`", key.project), why))?;
        for tunnel in self.routes.tunnels() {
            if tunnel.site.is_none() || tunnel.info.project != key.project {
                continue;
            }
            let chain = policies.chain_with(switches, &tunnel.info, &tunnel.properties);
            chain.map_err(|why| {
                let host = tunnel.info.hostname.as_deref().unwrap_or(&tunnel.info.id);
                failed(format!("tunnel {host}"), why.to_string())
            })?;
        }
        Ok(())
    }
}

fn known_project(policies: &Policies, project: &str) -> Result<(), SwitchError> {
    match policies.project_names().any(|known| known == project) {
        true => Ok(()),
        false => Err(SwitchError::UnknownProject {
            project: project.to_owned(),
            known: policies.project_names().map(str::to_owned).collect(),
        }),
    }
}
