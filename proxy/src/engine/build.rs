//! What a configuration asks for, built before anything that runs is touched.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use adit_config::{
    CertificateFiles, Config, Invalid, JWT_SECRET_BYTES_MIN, Problem, Project, Secret, Section,
};
use adit_filters::Registry;
use adit_filters::env::Random as _;
use adit_plugins::Services;
use adit_plugins::identity::challenge::Gate;
use adit_plugins::identity::credentials::Credentials;
use adit_plugins::identity::rstream_auth::Desk;
use adit_plugins::identity::token::{Authority, AuthorityError, Trust};
use adit_plugins::log::Outlets;
use adit_plugins::network::geoip::{Database, Databases, Unusable};
use adit_wasm::Runtime;
use arc_swap::ArcSwap;

use super::{MoreFilters, ReloadError, login, plugins};
use crate::assemble::{Policies, Switches};
use crate::edge;
use crate::env::{Load, OsRandom, World};
use crate::listen::names::OwnNames;
use crate::listen::plain::PlainLimits;
use crate::listen::tcp::Settings;
use crate::tls::{CertificateError, Tls};

/// Everything that can fail to be built.
pub(super) struct Built {
    pub(super) tls: Arc<Tls>,
    pub(super) services: Services,
    /// What the authority among the services is to believe once this is in effect.
    pub(super) trust: Trust,
    pub(super) policies: Arc<Policies>,
    /// What plugins run in, if there ever were any.
    pub(super) runtime: Option<Runtime>,
}

/// What stays of what runs.
#[derive(Default)]
pub(super) struct Kept {
    /// TLS, where it is to show the same certificates.
    pub(super) tls: Option<Arc<Tls>>,
    /// The one that judges tokens: what was admitted before a reload is judged again by what counts
    /// after it.
    pub(super) authority: Option<Arc<Authority>>,
    /// Where users sign in: what it gave out counts after a reload too.
    pub(super) desk: Option<Arc<Desk>>,
    /// Where browsers work: what was done counts after a reload too.
    pub(super) gate: Option<Arc<Gate>>,
    /// What the operator switched.
    pub(super) switches: Arc<ArcSwap<Switches>>,
    /// The databases of places that are open. Without any the engine is starting: that must not depend on them.
    pub(super) geoip: Option<Databases>,
    /// Where logs are written.
    pub(super) outlets: Outlets,
    /// What plugins run in.
    pub(super) runtime: Option<Runtime>,
}

impl Built {
    /// Builds what `config` asks for, but for what is `kept` from before.
    pub(super) fn new(
        config: &Config,
        world: &World,
        more: Option<&MoreFilters>,
        kept: Kept,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let tls = match kept.tls {
            Some(tls) => Some(tls),
            None => Tls::new(&config.certificates.files)
                .map(Arc::new)
                .map_err(|error| {
                    let key = key_of(&config.certificates.files, &error);
                    problems.push(config.problem(key, error.to_string()));
                })
                .ok(),
        };
        let load = world.load();
        problems.extend(OwnNames::check(config).err());
        let trust = trust(config).map_err(|found| problems.extend(found)).ok();
        let desk = login::desk(config, world, kept.desk.as_deref())
            .map_err(|found| problems.extend(found));
        let geoip = match &kept.geoip {
            Some(open) => open.with(Unusable::Mistake),
            None => Databases::default().with(Unusable::Awaited),
        };
        let geoip = places(config.geoip.database.as_deref(), geoip, &load)
            .map_err(|message| problems.push(config.problem("geoip.database", message)));
        let parts = trust.as_ref().zip(desk.ok()).zip(geoip.ok());
        let services = parts.map(|((trust, desk), geoip)| {
            let new = || Arc::new(Authority::from(trust.clone()));
            Services {
                desk,
                gate: login::gate(config, world, kept.gate.as_deref()),
                geoip,
                outlets: kept.outlets,
                ..Services::new(kept.authority.unwrap_or_else(new))
            }
        });
        let runtime = match kept.runtime {
            Some(runtime) => Some(runtime),
            None if config.plugins.is_empty() => None,
            None => plugins::runtime(&config.wasm, config.engine.state_dir.as_deref())
                .map_err(|error| problems.push(config.problem("wasm", error.to_string())))
                .ok(),
        };
        let policies = services.as_ref().and_then(|services| {
            let registry = registry(services, more);
            let registry = match &runtime {
                Some(runtime) => plugins::add(
                    registry,
                    plugins::Asked {
                        plugins: &config.plugins,
                        runtime,
                        problem: &|key, text| config.problem(key, text),
                    },
                    &load,
                    &mut problems,
                ),
                None => registry,
            };
            Policies::build(config, &registry, load, kept.switches)
                .map(|policies| Arc::new(policies.with_geoip(services.geoip.shared())))
                .map_err(|found| problems.extend(found))
                .ok()
        });
        match (tls, services, trust, policies) {
            (Some(tls), Some(services), Some(trust), Some(policies)) if problems.is_empty() => {
                Ok(Self {
                    tls,
                    services,
                    trust,
                    policies,
                    runtime,
                })
            }
            _ => {
                problems.sort_by(|one, other| one.place().cmp(other.place()));
                Err(problems)
            }
        }
    }
}

/// The databases of places, with the engine's own if one is named.
fn places(own: Option<&Path>, open: Databases, load: &Load) -> Result<Databases, String> {
    let shared = own.map(|path| open.open(path, &load.env("geoip")));
    let shared = shared.transpose().map_err(|error| error.to_string())?;
    Ok(open.with_shared(shared))
}

/// Whom to believe, as `config` wants it.
fn trust(config: &Config) -> Result<Trust, Vec<Problem>> {
    let trust = Trust::new(&config.auth.jwt_secret)
        .map_err(|error| vec![config.problem("auth.jwt-secret", error.to_string())])?;
    let projects = config.projects.iter();
    let endpoints = projects.flat_map(|(name, project)| {
        let endpoints = project.endpoints.iter();
        endpoints.map(|endpoint| (endpoint.clone(), name.clone()))
    });
    let trust = trust
        .with_audience(config.auth.audience.clone())
        .with_endpoints(endpoints.collect());
    Ok(match credentials(config)? {
        Some(credentials) => trust.with_credentials(credentials),
        None => trust,
    })
}

/// The stored credentials, if `config` names a file of them.
pub(super) fn credentials(config: &Config) -> Result<Option<Credentials>, Vec<Problem>> {
    let path = config.auth.credentials.as_deref();
    path.map(|path| credentials_in(path, &config.projects))
        .transpose()
}

fn credentials_in(
    path: &Path,
    projects: &BTreeMap<String, Project>,
) -> Result<Credentials, Vec<Problem>> {
    Credentials::read(&Section::load(path)?, projects.keys().map(String::as_str))
}

/// The kinds of filter there are.
fn registry(services: &Services, more: Option<&MoreFilters>) -> Registry {
    let registry = adit_plugins::registry(services);
    match more {
        Some(more) => more(registry),
        None => registry,
    }
}

/// The setting that is to blame for `error`.
fn key_of(files: &CertificateFiles, error: &CertificateError) -> &'static str {
    match error.path() {
        Some(path) if path == files.key => "certificates.files.key",
        Some(_) => "certificates.files.cert",
        None => "certificates.files",
    }
}

/// Builds everything `config` asks for and lets it go again.
///
/// # Errors
/// Every reason why an engine with this configuration would not start, sockets aside.
pub fn check(config: &Config) -> Result<(), Vec<Problem>> {
    let world = World::for_check()
        .map_err(|error| vec![config.problem("", format!("cannot be checked: {error}"))])?;
    // Whoever looks leaves nothing behind, compiled plugins included.
    let runtime = match config.plugins.is_empty() {
        true => None,
        false => Some(plugins::runtime(&config.wasm, None))
            .transpose()
            .map_err(|error| vec![config.problem("wasm", error.to_string())])?,
    };
    let kept = Kept {
        geoip: Some(Databases::default()),
        runtime,
        ..Kept::default()
    };
    Built::new(config, &world, None, kept).map(|_| ())
}

/// Everything that is wrong with a configuration that could not be read whole: what reading it
/// found, and what building the rest of it finds. Nothing is started for it.
pub fn every_problem(invalid: Invalid) -> Vec<Problem> {
    every_problem_with(invalid, None)
}

pub(super) fn every_problem_with(invalid: Invalid, more: Option<&MoreFilters>) -> Vec<Problem> {
    let mut found = Vec::new();
    if let Some(files) = invalid.certificate_files()
        && let Err(error) = Tls::new(files)
    {
        found.push(invalid.problem(key_of(files, &error), error.to_string()));
    }
    // Credentials are for projects: where those are not known whole, some would seem to be for none.
    if let Some(path) = invalid.credentials()
        && invalid.policies_are_whole()
        && let Err(problems) = credentials_in(path, invalid.projects())
    {
        found.extend(problems);
    }
    if let (Ok(world), Ok(authority)) = (World::for_check(), nobodys_authority()) {
        let load = world.load();
        let own = invalid.geoip_database();
        let geoip = places(own, Databases::default(), &load).unwrap_or_else(|message| {
            found.push(invalid.problem("geoip.database", message));
            // Filters that rely on it are not to blame.
            let absent = own.map(|path| Arc::new(Database::absent(path)));
            Databases::default().with_shared(absent)
        });
        let services = Services {
            desk: login::nobodys_desk(&world),
            gate: login::nobodys_gate(&world),
            geoip,
            ..Services::new(authority)
        };
        let mut registry = registry(&services, more);
        if let Some((plugins, wasm)) = invalid.plugins()
            && !plugins.is_empty()
            && let Ok(runtime) = plugins::runtime(wasm, None)
        {
            let asked = plugins::Asked {
                plugins,
                runtime: &runtime,
                problem: &|key, text| invalid.problem(key, text),
            };
            registry = plugins::add(registry, asked, &load, &mut found);
        }
        found.extend(Policies::problems_of(&invalid, &registry, load));
    }
    invalid.with(found)
}

/// An authority whose secret nobody has, for filters that never meet a token.
fn nobodys_authority() -> Result<Arc<Authority>, AuthorityError> {
    let mut octets = [0; JWT_SECRET_BYTES_MIN];
    OsRandom.fill(&mut octets);
    Authority::new(&Secret::new(hex::encode(octets))).map(Arc::new)
}

/// Refuses a configuration that differs from the one in effect in what cannot change.
pub(super) fn needs_restart(before: &Config, after: &Config) -> Result<(), ReloadError> {
    let changed = [
        ("engine.host", before.engine.host != after.engine.host),
        (
            "engine.public-port",
            before.engine.public_port != after.engine.public_port,
        ),
        (
            "engine.threads",
            before.engine.threads != after.engine.threads,
        ),
        (
            "engine.state-dir",
            before.engine.state_dir != after.engine.state_dir,
        ),
        ("listen.https", before.listen.https != after.listen.https),
        ("listen.http", before.listen.http != after.listen.http),
        (
            "listen.metrics",
            before.listen.metrics != after.listen.metrics,
        ),
        ("admin.socket", before.admin.socket != after.admin.socket),
        ("wasm", before.wasm != after.wasm),
    ];
    let keys: Vec<&str> = changed
        .into_iter()
        .filter_map(|(key, changed)| changed.then_some(key))
        .collect();
    match keys.is_empty() {
        true => Ok(()),
        false => Err(ReloadError::NeedsRestart(keys)),
    }
}

/// The port the public reaches the engine at, which listens on `bound`.
pub(super) fn public_port(config: &Config, bound: u16) -> u16 {
    config.engine.public_port.unwrap_or(bound)
}

pub(super) fn listen_settings(config: &Config, names: OwnNames, built: &Built) -> Settings {
    Settings {
        names,
        tls: Arc::clone(&built.tls),
        hello_bytes: config.limits.hello_bytes,
        hello_wait: config.timeouts.hello,
    }
}

pub(super) fn plain_limits(config: &Config) -> PlainLimits {
    PlainLimits {
        header_bytes: config.limits.header_bytes,
        header_fields: config.limits.header_fields,
        header_wait: config.timeouts.http_header,
        lingering: config.timeouts.lingering,
        lingering_bytes: config.limits.lingering_bytes,
    }
}

pub(super) fn edge_limits(config: &Config) -> edge::Limits {
    let (limits, timeouts) = (&config.limits, &config.timeouts);
    edge::Limits {
        header_bytes: limits.header_bytes,
        header_fields: limits.header_fields,
        h2_streams: limits.h2_streams,
        h2_resets_per_minute: limits.h2_resets_per_minute,
        header_wait: timeouts.http_header,
        idle: timeouts.http_idle,
        body_idle: timeouts.body_idle,
        lingering: timeouts.lingering,
        lingering_bytes: limits.lingering_bytes,
        upstream_idle_max: limits.upstream_idle_per_tunnel,
        upstream_h2_streams: limits.upstream_h2_streams,
        ..edge::Limits::default()
    }
}
