//! Policies (named, ordered lists of filters) and the projects they hang on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::problem::{self, Place};
use crate::reader::{Field, FromField, Reader};
use crate::scope::{self, Scope};
use crate::section::Section;
use crate::tree::{Node, Value};
use crate::values::{Name, Of, Word, is_label, not_a_name};

/// Name of the project that exists without being configured.
pub const DEFAULT_PROJECT: &str = "default";

/// Most filters in one policy: chains hold no more in all.
const FILTERS_MAX: usize = 200;

/// `[policy.NAME]`: filters in the order they are written.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The name projects refer to it by.
    pub name: String,
    /// Its filters.
    pub filters: Vec<FilterUse>,
}

/// One filter of a policy.
#[derive(Clone, Debug)]
pub struct FilterUse {
    /// Kind of filter: the value of `use`.
    pub kind: String,
    /// What it is called in `off` and in logs: the value of `name`, or the kind.
    pub name: String,
    /// To which requests it applies; all of them without it.
    pub when: Option<When>,
    /// Whether the operator may switch it off for a project.
    pub optional: bool,
    /// What becomes of an exchange that it failed to decide about.
    pub on_error: OnError,
    /// Whether it is only on trial: what it refuses is noted and passes.
    pub dry_run: bool,
    /// The filter's own settings, with the position of the whole table.
    pub section: Section,
}

/// `on-error`: what becomes of an exchange that a filter failed to decide about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// It is refused.
    #[default]
    Refuse,
    /// It passes, and the failure is noted.
    Pass,
}

impl Word for OnError {
    const WORDS: &'static [(&'static str, Self)] =
        &[("refuse", Self::Refuse), ("pass", Self::Pass)];
}

/// `when`: to which requests a filter applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct When {
    /// Pattern of request paths, such as `/admin/*`.
    pub path: String,
}

pub(crate) fn read_policies(table: &Reader<'_>) -> BTreeMap<String, Policy> {
    let mut policies = BTreeMap::new();
    for (entry, field) in table.named() {
        if !is_label(&entry.key) {
            field.wrong(not_a_name(&entry.key));
        }
        let Some(mut policy) = field.table() else {
            continue;
        };
        let filters = policy.field("filters").and_then(|filters| filters.items());
        if filters.is_none() && policy.field("filters").is_none() {
            policy.missing("filters", "write `filters = [{ use = \"…\" }]`");
        }
        let filters = filters.unwrap_or_default();
        if filters.len() > FILTERS_MAX {
            policy.wrong(
                "filters",
                format!("more than {FILTERS_MAX} filters, use fewer"),
            );
        }
        let mut read: Vec<FilterUse> = Vec::new();
        for item in filters {
            let Some(filter) = FilterUse::read(&item) else {
                continue;
            };
            if read.iter().any(|earlier| earlier.name == filter.name) {
                item.wrong(format!(
                    "a second filter called `{}` in this policy, give it a `name` of its own",
                    filter.name
                ));
            }
            read.push(filter);
        }
        policy.finish();
        let name = entry.key.clone();
        policies.insert(
            name.clone(),
            Policy {
                name,
                filters: read,
            },
        );
    }
    policies
}

impl FilterUse {
    fn read(field: &Field<'_>) -> Option<Self> {
        let mut table = field.table()?;
        let kind: Option<String> = table.required("use", "write the kind of filter");
        let name: Option<Name> = table.value("name");
        let when = table.field("when").and_then(|when| {
            let mut when = when.table()?;
            let path: Option<String> = when.required("path", "write a pattern such as `/admin/*`");
            if let Some(path) = &path
                && !path.starts_with('/')
            {
                when.wrong(
                    "path",
                    format!("`{path}` matches no path, begin it with `/`"),
                );
            }
            when.finish();
            Some(When { path: path? })
        });
        let optional = table.or("optional", false);
        let Of(on_error) = table.or("on-error", Of(OnError::default()));
        let dry_run = table.or("dry-run", false);
        let own = Node {
            at: field.node.at.clone(),
            value: Value::Table(table.rest()),
        };
        let kind = kind?;
        Some(Self {
            name: name.map_or_else(|| kind.clone(), |Name(name)| name),
            section: Section::new(
                Arc::clone(&field.reading.source),
                Arc::clone(&field.reading.around),
                field.path.clone(),
                own,
                field.node.clone(),
            ),
            kind,
            when,
            optional,
            on_error,
            dry_run,
        })
    }
}

/// `[project.NAME]`: a space of tunnels under one set of policies.
#[derive(Clone, Debug)]
pub struct Project {
    /// Its name, which is also its id.
    pub name: String,
    /// Names of the policies every tunnel of it is under, in order.
    pub policies: Vec<String>,
    /// Filters the operator has switched off.
    pub off: Vec<FilterRef>,
    /// Further policies for some of its tunnels.
    pub tunnels: Vec<Scope>,
    /// Upgrades granted where no filter speaks about them.
    pub upgrades: Vec<UpgradeKind>,
    /// Whether its tunnels may be open to anybody.
    pub public_access: PublicAccess,
    /// What it has a right to.
    pub plan: Plan,
    /// Which of those who can sign in may enter its tunnels; none lets them all.
    pub users: Option<Section>,
    /// Short ids under which clients reach it, at `<endpoint>.<engine host>`.
    pub endpoints: Vec<String>,
}

impl Default for Project {
    fn default() -> Self {
        Self {
            name: DEFAULT_PROJECT.to_owned(),
            policies: Vec::new(),
            off: Vec::new(),
            tunnels: Vec::new(),
            upgrades: vec![UpgradeKind::Websocket, UpgradeKind::Other],
            public_access: PublicAccess::Allowed,
            plan: Plan::default(),
            users: None,
            endpoints: Vec::new(),
        }
    }
}

/// A filter of a policy, written `policy/filter`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FilterRef {
    /// The policy's name.
    pub policy: String,
    /// The filter's name in it.
    pub filter: String,
}

impl fmt::Display for FilterRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.policy, self.filter)
    }
}

/// A kind of protocol upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeKind {
    /// WebSocket (RFC 6455, RFC 8441).
    Websocket,
    /// Any other HTTP/1.1 `Upgrade`.
    Other,
}

impl Word for UpgradeKind {
    const WORDS: &'static [(&'static str, Self)] =
        &[("websocket", Self::Websocket), ("other", Self::Other)];
}

/// Whether tunnels may be published without authentication, or at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PublicAccess {
    /// Anybody may be let in.
    #[default]
    Allowed,
    /// A published tunnel must ask for a proof.
    AuthRequired,
    /// No tunnel may be published.
    Forbidden,
}

impl Word for PublicAccess {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("allowed", Self::Allowed),
        ("auth-required", Self::AuthRequired),
        ("forbidden", Self::Forbidden),
    ];
}

/// What a project has a right to. Each plan includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plan {
    /// Tokens and challenges.
    Basic,
    /// Trusted addresses, countries, client certificates and signing in too.
    Pro,
    /// Everything.
    #[default]
    Enterprise,
}

impl Word for Plan {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("basic", Self::Basic),
        ("pro", Self::Pro),
        ("enterprise", Self::Enterprise),
    ];
}

pub(crate) fn read_projects(
    table: &Reader<'_>,
    policies: &BTreeMap<String, Policy>,
) -> BTreeMap<String, Project> {
    let mut projects = BTreeMap::new();
    let mut endpoints: BTreeMap<String, Place> = BTreeMap::new();
    for (entry, field) in table.named() {
        if !is_label(&entry.key) {
            field.wrong(not_a_name(&entry.key));
        }
        if let Some(project) = field.table() {
            let name = entry.key.clone();
            let project = Project::read(name.clone(), project, policies, &mut endpoints);
            projects.insert(name, project);
        }
    }
    projects.entry(DEFAULT_PROJECT.to_owned()).or_default();
    projects
}

impl Project {
    fn read(
        name: String,
        mut table: Reader<'_>,
        policies: &BTreeMap<String, Policy>,
        endpoints: &mut BTreeMap<String, Place>,
    ) -> Self {
        let chosen = policy_list(&mut table, &[], policies);
        let off = off_list(&mut table, policies)
            .into_iter()
            .map(|(_, filter)| filter)
            .collect();
        let tunnels = scope::read(&mut table, &chosen, policies);
        let upgrades: Option<Vec<Of<UpgradeKind>>> = table.value("upgrades");
        let Of(public_access) = table.or("public-access", Of(PublicAccess::default()));
        let Of(plan) = table.or("plan", Of(Plan::default()));
        let users = table.field("users").and_then(|field| field.section());
        let mut own_endpoints = Vec::new();
        for (field, endpoint) in texts(&mut table, "endpoints") {
            if !is_label(&endpoint) || endpoint == "t" {
                field.wrong(format!("`{endpoint}` is not an endpoint, use one host name label other than `t`, such as `0a1b2c3d`"));
            } else if let Some(earlier) = endpoints.insert(endpoint.clone(), field.place()) {
                field.wrong(format!(
                    "endpoint `{endpoint}` is taken at {earlier}, use another"
                ));
            }
            own_endpoints.push(endpoint);
        }
        table.finish();
        let defaults = Self::default();
        Self {
            name,
            policies: chosen,
            off,
            tunnels,
            upgrades: upgrades.map_or(defaults.upgrades, |kinds| {
                kinds.into_iter().map(|Of(kind)| kind).collect()
            }),
            public_access,
            plan,
            users,
            endpoints: own_endpoints,
        }
    }
}

/// The strings listed under `key`, each with its field; what is no string is reported.
fn texts<'t>(table: &mut Reader<'t>, key: &'static str) -> Vec<(Field<'t>, String)> {
    let Some(field) = table.field(key) else {
        return Vec::new();
    };
    // In a variable the list is one string; its items share its place.
    if field.node.is_from_environment() {
        let items: Vec<String> = FromField::from_field(&field).unwrap_or_default();
        return items
            .into_iter()
            .filter_map(|item| Some((table.field(key)?, item)))
            .collect();
    }
    let items = field.items().unwrap_or_default().into_iter();
    items
        .filter_map(|item| {
            let text = item.text("a string")?.to_owned();
            Some((item, text))
        })
        .collect()
}

/// The policies listed under `policies`, without those that are wrong; `above` are in force already.
pub(crate) fn policy_list(
    table: &mut Reader<'_>,
    above: &[String],
    policies: &BTreeMap<String, Policy>,
) -> Vec<String> {
    let known: Vec<&str> = policies.keys().map(String::as_str).collect();
    let mut chosen: Vec<String> = Vec::new();
    for (field, policy) in texts(table, "policies") {
        if !policies.contains_key(&policy) {
            field.wrong(problem::unknown("policy", &policy, &known));
        } else if chosen.contains(&policy) {
            field.wrong(format!(
                "policy `{policy}` is listed already, remove this one"
            ));
        } else if above.contains(&policy) {
            field.wrong(format!(
                "policy `{policy}` is on every tunnel of the project already, remove this one"
            ));
        } else {
            chosen.push(policy);
        }
    }
    chosen
}

/// The filters listed under `off`, each with its field, without those that are wrong.
pub(crate) fn off_list<'t>(
    table: &mut Reader<'t>,
    policies: &BTreeMap<String, Policy>,
) -> Vec<(Field<'t>, FilterRef)> {
    texts(table, "off")
        .into_iter()
        .filter_map(|(field, text)| {
            let filter = switched_off(&field, &text, policies)?;
            Some((field, filter))
        })
        .collect()
}

fn switched_off(
    field: &Field<'_>,
    text: &str,
    policies: &BTreeMap<String, Policy>,
) -> Option<FilterRef> {
    let Some((policy_name, filter_name)) = text.split_once('/') else {
        field.wrong(format!(
            "`{text}` does not name a filter, use `policy/filter`"
        ));
        return None;
    };
    let Some(policy) = policies.get(policy_name) else {
        let known: Vec<&str> = policies.keys().map(String::as_str).collect();
        field.wrong(problem::unknown("policy", policy_name, &known));
        return None;
    };
    let Some(filter) = policy
        .filters
        .iter()
        .find(|filter| filter.name == filter_name)
    else {
        let known: Vec<&str> = policy
            .filters
            .iter()
            .map(|filter| filter.name.as_str())
            .collect();
        field.wrong(problem::unknown("filter", filter_name, &known));
        return None;
    };
    if !filter.optional {
        field.wrong(format!(
            "`{text}` cannot be switched off, mark it `optional = true` at {} first",
            filter.section.origin()
        ));
        return None;
    }
    Some(FilterRef {
        policy: policy_name.to_owned(),
        filter: filter_name.to_owned(),
    })
}
