//! Policies as configured → filters, with every problem found.

use std::collections::BTreeMap;
use std::sync::Arc;

use adit_config::{
    Config, FilterRef, FilterUse, Invalid, OnError, Policy, Problem, Project, Section,
};
use adit_filters::{Filter, PathPattern, Placed, Registry, When};
use adit_plugins::identity::rstream_auth;
use adit_plugins::network::trusted_ips::{self, TrustedIps};

use super::local::Local;
use super::project::{Built, Listed, ProjectRules};
use super::{Policies, TunnelFilters, compile};
use crate::env::Load;

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
        let mut policies: BTreeMap<&str, Arc<[Built]>> = BTreeMap::new();
        for (name, policy) in written {
            let filters = build_policy(policy, registry, &load, &mut problems);
            policies.insert(name, filters.into());
        }
        let local = Local::build(registry, &load).inspect_err(|_| load.cancel())?;
        let mut projects = BTreeMap::new();
        for (name, project) in spaces {
            let rules = ProjectRules::new(project, |policy| policies.get(policy).cloned());
            // With a problem in a policy its project's chain may lack what another filter needs.
            if whole && problems.is_empty() {
                problems.extend(
                    rules
                        .cases()
                        .iter()
                        .filter_map(|case| try_chain(&rules, case, &local)),
                );
            }
            projects.insert(name.clone(), rules);
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
            local,
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
        at: FilterRef {
            policy: policy.to_owned(),
            filter: name.clone(),
        },
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

/// Whether the operator's own filters work together, on an HTTP tunnel that adds none.
fn try_chain(rules: &ProjectRules, listed: &[Listed<'_>], local: &Local) -> Option<Problem> {
    let chain = rules.chain(listed);
    let local = local.of(&chain, &[]);
    let mut filters = chain.filters;
    filters.extend(local);
    filters.extend(chain.upgrades);
    let error = compile(filters).err()?;
    let blamed = error.filter();
    let at = listed
        .iter()
        .find(|listed| blamed.is_some_and(|(name, _)| *listed.built.placed.name == **name))
        .or(listed.last())?;
    let text = error.to_string();
    let message = blamed
        .and_then(|(_, origin)| text.strip_prefix(origin)?.strip_prefix(": "))
        .unwrap_or(&text);
    Some(at.built.section.problem(None, message))
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
            client_cert: one("client-cert", "")?,
            client_cert_or_next: one("client-cert", "missing = 'next'")?,
            token: one("token", "")?,
            token_or_next: one("token", "missing = 'next'")?,
            // Without settings it can lack nothing but a desk.
            rstream_auth: one(rstream_auth::NAME, "").unwrap_or_default(),
        })
    }
}
