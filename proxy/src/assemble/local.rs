//! What answers on the reserved paths of HTTP tunnels. It tells services what their tunnel asks of visitors, and is
//! shared by all tunnels that ask for the same.

use std::collections::{BTreeMap, BTreeSet};

use adit_config::{Problem, Section};
use adit_filters::{Hooks, Placed, Registry};
use adit_plugins::local::well_known::{self, Policy};

use super::ProjectChain;
use crate::env::Load;
use crate::properties::Effective;

/// One filter for each set of demands.
pub(super) struct Local(BTreeMap<BTreeSet<Policy>, Hooks>);

impl Local {
    /// Builds them; none if the binary has no such filter.
    pub(super) fn build(registry: &Registry, load: &Load) -> Result<Self, Vec<Problem>> {
        let mut filters = BTreeMap::new();
        let Some(factory) = registry.find(well_known::NAME) else {
            return Ok(Self(filters));
        };
        for chosen in 0..1u8 << Policy::ALL.len() {
            let demands: BTreeSet<Policy> = (0..)
                .zip(Policy::ALL)
                .filter_map(|(at, policy)| (chosen >> at & 1 == 1).then_some(policy))
                .collect();
            let names: Vec<String> = demands
                .iter()
                .map(|policy| format!("{:?}", policy.as_str()))
                .collect();
            let settings = format!("policies = [{}]", names.join(", "));
            let section = Section::parse(well_known::NAME, &settings)?;
            let hooks = factory.build(&section, &mut load.env("tunnel/well-known"))?;
            filters.insert(demands, hooks);
        }
        Ok(Self(filters))
    }

    /// That of a tunnel that demands this itself, unless a policy of its project speaks of it.
    pub(super) fn of(&self, project: &ProjectChain, demands: &[Policy]) -> Option<Placed> {
        if project.kinds.contains(well_known::NAME) {
            return None;
        }
        let of_project = project
            .kinds
            .iter()
            .filter_map(|kind| Policy::of_filter(kind));
        let all = demands.iter().copied().chain(of_project).collect();
        let hooks = self.0.get(&all)?.clone();
        Some(Placed {
            origin: "every HTTP tunnel".to_owned(),
            ..Placed::new(format!("engine/{}", well_known::NAME), hooks)
        })
    }
}

/// What a tunnel demands of its visitors by itself.
pub(super) fn demands(asked: &Effective) -> Vec<Policy> {
    let own = [
        (asked.mtls_auth, Policy::MtlsAuth),
        (asked.token_auth, Policy::TokenAuth),
        (asked.challenge_mode, Policy::ChallengeMode),
        (asked.rstream_auth, Policy::RstreamAuth),
    ];
    own.into_iter()
        .filter_map(|(asked, policy)| asked.then_some(policy))
        .collect()
}
