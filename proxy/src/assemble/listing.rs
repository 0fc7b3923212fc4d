//! The operator's filters as the operator is shown them.

use adit_filters::TunnelInfo;
use serde::{Deserialize, Serialize};

use super::Policies;
use super::project::{Listed, ProjectRules};
use super::switches::{Position, Switch, Switches};

/// One filter of one project, with the file's word and the operator's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct FilterState {
    /// The project.
    pub project: String,
    /// The filter, as `policy/filter`.
    pub filter: String,
    /// Its kind.
    pub kind: String,
    /// Its stage.
    pub stage: String,
    /// The phases it takes part in.
    pub phases: Vec<String>,
    /// To which requests it applies, in words; none is all.
    pub when: Option<String>,
    /// Which tunnels it stands before, in words; none is all of the project.
    pub tunnels: Option<String>,
    /// Where it is written.
    pub origin: String,
    /// It may be switched.
    pub optional: bool,
    /// It is on trial.
    pub dry_run: bool,
    /// What it fails to decide passes.
    pub passes_on_error: bool,
    /// Where the file puts it.
    pub written: Position,
    /// How it was switched.
    pub switch: Option<Switch>,
    /// Where it is.
    pub position: Position,
}

/// A switch that has no effect, because the file has changed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct IdleSwitch {
    /// The project.
    pub project: String,
    /// The filter, as `policy/filter`.
    pub filter: String,
    /// The switch.
    pub switch: Switch,
    /// Why it has no effect.
    pub why: String,
}

impl Policies {
    /// The filters of a project, or of all.
    #[must_use]
    pub fn filters(&self, project: Option<&str>) -> Vec<FilterState> {
        let switches = self.switches.load();
        let rules = self.projects.values();
        rules
            .filter(|rules| project.is_none_or(|project| rules.name == project))
            .flat_map(|rules| {
                let all = rules.everything(&switches);
                all.iter().map(|one| one.state(rules)).collect::<Vec<_>>()
            })
            .collect()
    }

    /// The operator's filters for one tunnel, those that are off too.
    pub(crate) fn filters_before(&self, tunnel: &TunnelInfo) -> Vec<FilterState> {
        let Some(rules) = self.projects.get(&tunnel.project) else {
            return Vec::new();
        };
        let switches = self.switches.load();
        let before = rules.before(tunnel, &switches);
        before.iter().map(|one| one.state(rules)).collect()
    }

    /// The switches that have no effect.
    #[must_use]
    pub fn idle_switches(&self) -> Vec<IdleSwitch> {
        let switches = self.switches.load_full();
        let idle = |(project, filter, switch): (&str, &_, &Switch)| {
            let why = match self.projects.get(project) {
                None => format!("project `{project}` is not configured"),
                Some(rules) => {
                    let all = rules.everything(&switches);
                    let mut same = all.iter().filter(|one| one.built.at == *filter);
                    match same.next() {
                        None => "no policy of the project has it".to_owned(),
                        Some(one) if !one.built.placed.optional => {
                            format!("it is not optional, see {}", one.built.placed.origin)
                        }
                        Some(_) => return None,
                    }
                }
            };
            Some(IdleSwitch {
                project: project.to_owned(),
                filter: filter.to_string(),
                switch: switch.clone(),
                why,
            })
        };
        switches.iter().filter_map(idle).collect()
    }

    /// The names of all projects.
    pub(crate) fn project_names(&self) -> impl Iterator<Item = &str> {
        self.projects.keys().map(String::as_str)
    }

    /// Whether the operator's filters of a project work together with these switches.
    ///
    /// # Errors
    /// Why they do not.
    pub(crate) fn try_switches(&self, project: &str, switches: &Switches) -> Result<(), String> {
        let Some(rules) = self.projects.get(project) else {
            return Ok(());
        };
        let cases = rules.cases(switches);
        let tried = cases.iter().map(|case| rules.try_chain(case, &self.local));
        tried
            .collect::<Result<(), _>>()
            .map_err(|error| error.to_string())
    }
}

impl Listed<'_> {
    fn state(&self, rules: &ProjectRules) -> FilterState {
        let placed = &self.built.placed;
        let phases = placed.hooks.phases().into_iter();
        FilterState {
            project: rules.name.clone(),
            filter: self.built.at.to_string(),
            kind: self.built.kind.clone(),
            stage: placed.hooks.stage().to_string(),
            phases: phases.map(str::to_owned).collect(),
            when: placed.when.as_ref().map(ToString::to_string),
            tunnels: self
                .scope
                .map(|scope| format!("{} ({})", scope.tunnels, scope.origin)),
            origin: placed.origin.clone(),
            optional: placed.optional,
            dry_run: placed.dry_run,
            passes_on_error: placed.observer,
            written: self.written,
            switch: self.switch.cloned(),
            position: self.position(),
        }
    }
}
