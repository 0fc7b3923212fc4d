//! Policies as configured → filters, with every problem found.

use std::collections::BTreeMap;

use adit_config::{
    Config, FilterUse, Invalid, OnError, Policy, Problem, Project, Section, UpgradeKind,
};
use adit_filters::{ChainError, Filter, Hooks, PathPattern, Placed, Registry, When};
use adit_plugins::network::trusted_ips::{self, Network, TrustedIps};
use adit_plugins::upgrade::other::OtherUpgrade;
use adit_plugins::upgrade::websocket::WebSocket;

use super::{Policies, ProjectChain, TunnelFilters, compile};
use crate::env::Load;

/// A filter of a policy, built.
struct Built {
    /// Its name in the policy.
    name: String,
    kind: String,
    section: Section,
    placed: Placed,
    allowed: Option<Vec<Network>>,
}

impl Policies {
    /// Builds every filter of every policy, and tries every project's chain.
    ///
    /// # Errors
    /// Every problem found, each with its position.
    pub fn build(config: &Config, registry: &Registry, load: Load) -> Result<Self, Vec<Problem>> {
        Self::of(&config.policies, &config.projects, true, registry, load)
    }

    /// What is wrong with the policies of a configuration that is wrong elsewhere, or in them.
    pub fn problems_of(invalid: &Invalid, registry: &Registry, load: Load) -> Vec<Problem> {
        let whole = invalid.policies_are_whole();
        let built = Self::of(
            invalid.policies(),
            invalid.projects(),
            whole,
            registry,
            load,
        );
        built.err().unwrap_or_default()
    }

    fn of(
        written: &BTreeMap<String, Policy>,
        spaces: &BTreeMap<String, Project>,
        whole: bool,
        registry: &Registry,
        load: Load,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut policies: BTreeMap<&str, Vec<Built>> = BTreeMap::new();
        for (name, policy) in written {
            policies.insert(name, build_policy(policy, registry, &load, &mut problems));
        }
        let mut projects = BTreeMap::new();
        for (name, project) in spaces {
            let filters = in_force(project, &policies);
            let chain = ProjectChain {
                public_access: project.public_access,
                filters: filters.iter().map(|built| built.placed.clone()).collect(),
                upgrades: upgrades(project, &policies),
                allowed: filters
                    .iter()
                    .filter_map(|built| built.allowed.clone())
                    .collect(),
            };
            // With a problem in a policy its project's chain may lack what another filter needs.
            if whole && problems.is_empty() {
                problems.extend(try_chain(&chain, &filters));
            }
            projects.insert(name.clone(), chain);
        }
        if !problems.is_empty() {
            problems.sort_by(|one, other| one.place().cmp(other.place()));
            // Two projects may share the policy that is wrong.
            problems.dedup();
            // A job may hold what would end it when let go.
            load.cancel();
            return Err(problems);
        }
        let own = TunnelFilters::build(registry, &load).inspect_err(|_| load.cancel())?;
        Ok(Self {
            projects,
            own,
            load,
        })
    }
}

fn build_policy(
    policy: &Policy,
    registry: &Registry,
    load: &Load,
    problems: &mut Vec<Problem>,
) -> Vec<Built> {
    let mut filters = Vec::new();
    for filter in &policy.filters {
        match build_filter(&policy.name, filter, registry, load) {
            Ok(built) => filters.push(built),
            Err(found) => problems.extend(found),
        }
    }
    filters
}

fn build_filter(
    policy: &str,
    filter: &FilterUse,
    registry: &Registry,
    load: &Load,
) -> Result<Built, Vec<Problem>> {
    let FilterUse {
        kind,
        name,
        section,
        ..
    } = filter;
    let factory = registry.find(kind).ok_or_else(|| {
        let known: Vec<String> = registry.names().map(|name| format!("`{name}`")).collect();
        vec![section.problem(
            Some("use"),
            format!("unknown filter `{kind}`, use one of {}", known.join(", ")),
        )]
    })?;
    let mut problems = Vec::new();
    let when = filter
        .when
        .as_ref()
        .and_then(|when| match PathPattern::parse(&when.path) {
            Ok(path) => Some(When { path: Some(path) }),
            Err(error) => {
                problems.push(section.problem(Some("when.path"), error.to_string()));
                None
            }
        });
    let full_name = format!("{policy}/{name}");
    let mut env = load.env(&full_name);
    let hooks = match factory.build(section, &mut env) {
        Ok(hooks) => hooks,
        Err(found) => {
            problems.extend(found);
            return Err(problems);
        }
    };
    if !problems.is_empty() {
        return Err(problems);
    }
    let allowed = (kind == TrustedIps::NAME)
        .then(|| section.deserialize::<trusted_ips::Config>().ok()?.allow)
        .flatten();
    Ok(Built {
        name: name.clone(),
        kind: kind.clone(),
        section: section.clone(),
        allowed,
        placed: Placed {
            observer: filter.on_error == OnError::Pass,
            dry_run: filter.dry_run,
            when,
            origin: section.origin(),
            optional: filter.optional,
            ..Placed::new(full_name, hooks)
        },
    })
}

/// The filters of a project's policies that are not switched off.
fn in_force<'a>(project: &Project, policies: &'a BTreeMap<&str, Vec<Built>>) -> Vec<&'a Built> {
    let mut filters = Vec::new();
    for policy in &project.policies {
        for built in policies.get(policy.as_str()).into_iter().flatten() {
            let off = project
                .off
                .iter()
                .any(|off| off.policy == *policy && off.filter == built.name);
            // Configuration refuses to switch off what is not optional; nothing rests on that here.
            if !(off && built.placed.optional) {
                filters.push(built);
            }
        }
    }
    filters
}

/// What grants upgrades where no policy of the project speaks about them. A filter that is switched off has spoken:
/// the default in its place would grant more than it did.
fn upgrades(project: &Project, policies: &BTreeMap<&str, Vec<Built>>) -> Vec<Placed> {
    let names = |kind: &str| {
        let mut filters = project
            .policies
            .iter()
            .filter_map(|policy| policies.get(policy.as_str()))
            .flatten();
        filters.any(|built| built.kind == kind)
    };
    let mut granted = Vec::new();
    for kind in &project.upgrades {
        let (name, hooks): (&str, Hooks) = match kind {
            UpgradeKind::Websocket => (
                WebSocket::NAME,
                std::sync::Arc::new(WebSocket::any()).hooks(),
            ),
            UpgradeKind::Other => (
                OtherUpgrade::NAME,
                std::sync::Arc::new(OtherUpgrade::any()).hooks(),
            ),
        };
        if !names(name) {
            let origin = format!("`upgrades` of project `{}`", project.name);
            granted.push(Placed {
                origin,
                ..Placed::new(format!("project/{name}"), hooks)
            });
        }
    }
    granted
}

/// Whether the project's own filters work together, on an HTTP tunnel that adds none.
fn try_chain(chain: &ProjectChain, filters: &[&Built]) -> Option<Problem> {
    let all = chain
        .filters
        .iter()
        .chain(&chain.upgrades)
        .cloned()
        .collect();
    let error = compile(all).err()?;
    let origin = match &error {
        ChainError::Conditional { origin, .. }
        | ChainError::Deferred { origin, .. }
        | ChainError::HoldsTooMuch { origin, .. }
        | ChainError::Misplaced { origin, .. }
        | ChainError::TooManySlots { origin, .. }
        | ChainError::Unmet { origin, .. } => Some(origin.as_str()),
        _ => None,
    };
    let at = filters
        .iter()
        .find(|built| origin == Some(built.placed.origin.as_str()))
        .or(filters.last())?;
    let text = error.to_string();
    let message = origin
        .and_then(|origin| text.strip_prefix(origin)?.strip_prefix(": "))
        .unwrap_or(&text);
    Some(at.section.problem(None, message))
}

impl TunnelFilters {
    /// Builds those of them that the binary has.
    fn build(registry: &Registry, load: &Load) -> Result<Self, Vec<Problem>> {
        let one = |kind: &str, settings: &str| {
            let Some(factory) = registry.find(kind) else {
                return Ok(None);
            };
            let section = Section::parse(kind, settings)?;
            let mut env = load.env(&format!("tunnel/{kind}"));
            factory.build(&section, &mut env).map(Some)
        };
        Ok(Self {
            token: one("token", "")?,
            token_or_next: one("token", "missing = 'next'")?,
        })
    }
}
