//! Policies as configured → filters, with every problem found.

use std::collections::BTreeMap;
use std::sync::Arc;

use adit_config::{
    Config, FilterRef, FilterUse, Invalid, OnError, Policy, Problem, Project, Section,
};
use adit_filters::{ChainError, PathPattern, Placed, Registry, When};
use adit_plugins::identity::{challenge, rstream_auth};
use arc_swap::ArcSwap;

use super::local::Local;
use super::network::Admits;
use super::project::{Built, Listed, ProjectRules};
use super::{Policies, Switch, Switches, TunnelFilters, compile};
use crate::env::Load;

impl Policies {
    /// Builds every filter of every policy, and tries every project's chain with the `switches` there are now. Later
    /// ones count for chains made after them.
    ///
    /// # Errors
    /// Every problem found, each with its position.
    pub fn build(
        config: &Config,
        registry: &Registry,
        load: Load,
        switches: Arc<ArcSwap<Switches>>,
    ) -> Result<Self, Vec<Problem>> {
        let written = (&config.policies, &config.projects);
        Self::of(written, true, registry, load, switches)
    }

    /// What is wrong with the policies of a configuration that is wrong elsewhere, or in them.
    pub fn problems_of(invalid: &Invalid, registry: &Registry, load: Load) -> Vec<Problem> {
        let whole = invalid.policies_are_whole();
        let written = (invalid.policies(), invalid.projects());
        let built = Self::of(written, whole, registry, load, Arc::default());
        built.err().unwrap_or_default()
    }

    fn of(
        (written, spaces): (&BTreeMap<String, Policy>, &BTreeMap<String, Project>),
        whole: bool,
        registry: &Registry,
        load: Load,
        switches: Arc<ArcSwap<Switches>>,
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
                problems.extend(rules.problems(&switches.load(), &local));
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
            geoip: None,
            load,
            switches,
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
    Ok(Built {
        at: FilterRef {
            policy: policy.to_owned(),
            filter: name.clone(),
        },
        kind: kind.clone(),
        section: section.clone(),
        admits: Admits::read(kind, section),
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

impl ProjectRules {
    /// Whether the operator's own filters work together, on an HTTP tunnel that adds none.
    pub(super) fn try_chain(&self, listed: &[Listed<'_>], local: &Local) -> Result<(), ChainError> {
        compile(self.chain(listed).of_http(local), None).map(|_| ())
    }

    /// What keeps the operator's filters from working together, in every case there is.
    fn problems(&self, switches: &Switches, local: &Local) -> Vec<Problem> {
        let none = Switches::default();
        let cases = self.cases(switches).into_iter().zip(self.cases(&none));
        cases
            .filter_map(|(case, as_written)| {
                let error = self.try_chain(&case, local).err()?;
                let mut message = without_origin(&error);
                if self.try_chain(&as_written, local).is_ok() {
                    message.push_str(&self.switched(&case));
                }
                let blamed = error.filter().map(|(name, _)| name);
                let at = case
                    .iter()
                    .find(|one| blamed == Some(&one.built.placed.name))
                    .or(case.last())?;
                Some(at.built.section.problem(None, message))
            })
            .collect()
    }

    /// The switches among these, for one who wrote the file and may not know of them.
    fn switched(&self, listed: &[Listed<'_>]) -> String {
        let switched = listed.iter().filter_map(|one| Some((one, one.switch?)));
        switched
            .map(|(Listed { built, .. }, Switch { to, by, .. })| {
                let (filter, project) = (&built.at, &self.name);
                format!("; `{filter}` is switched {to} by {by}, `adit policy reset {project} {filter}` forgets that")
            })
            .collect()
    }
}

/// The error without the line it is about, for a problem that has it.
fn without_origin(error: &ChainError) -> String {
    let text = error.to_string();
    let rest = error
        .filter()
        .and_then(|(_, origin)| text.strip_prefix(origin)?.strip_prefix(": "));
    rest.unwrap_or(&text).to_owned()
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
            challenge: one(challenge::NAME, "").unwrap_or_default(),
        })
    }
}
