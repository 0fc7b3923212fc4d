//! The whole configuration of an engine.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::invalid::{Invalid, Readable};
use crate::load;
use crate::overrides;
use crate::places::Places;
use crate::plugin::{self, Plugin, Wasm};
use crate::policy::{self, Policy, Project};
use crate::problem::Problem;
use crate::reader::{Reader, Reading};
use crate::settings::{Admin, Auth, Certificates, Engine, Front, GeoIp, Limits, Listen, Timeouts};
use crate::sign_in::{Challenge, Login};
use crate::surroundings::Surroundings;
use crate::tree::Source;

/// What an engine runs with: every value typed, every default filled in.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who this engine is.
    pub engine: Engine,
    /// Its sockets.
    pub listen: Listen,
    /// What it shows on its own names.
    pub certificates: Certificates,
    /// Who may use it.
    pub auth: Auth,
    /// What browsers are asked to prove.
    pub challenge: Challenge,
    /// Who may sign in.
    pub login: Login,
    /// Where addresses are.
    pub geoip: GeoIp,
    /// Proxies in front of it.
    pub front: Front,
    /// The operator's door.
    pub admin: Admin,
    /// How long it waits.
    pub timeouts: Timeouts,
    /// How much it takes on.
    pub limits: Limits,
    /// Components that are kinds of filter, by name.
    pub plugins: BTreeMap<String, Plugin>,
    /// What they run in.
    pub wasm: Wasm,
    /// Policies by name.
    pub policies: BTreeMap<String, Policy>,
    /// Projects by name; [`DEFAULT_PROJECT`](crate::DEFAULT_PROJECT) is always among them.
    pub projects: BTreeMap<String, Project>,
    /// What works and should be otherwise, for the log.
    pub warnings: Vec<Problem>,
    /// Where each value stands, by its dotted key.
    pub(crate) places: Arc<Places>,
}

impl Config {
    /// Reads the file at `path`, with `environment` laid over it.
    ///
    /// # Errors
    /// Every problem found, in the order of the text, and what could be read all the same.
    pub fn load(
        path: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Invalid> {
        let name = path.display().to_string();
        let text = load::text(path)
            .map_err(|error| vec![Problem::of_file(&name, format!("cannot be read: {error}"))])?;
        Self::parse(&name, &text, environment)
    }

    /// Reads `text`, known to its user as `name`, with `environment` laid over it. Relative paths
    /// start from the folder `name` is in; secrets are read from the files the text names.
    ///
    /// # Errors
    /// Every problem found, in the order of the text, and what could be read all the same.
    pub fn parse(
        name: &str,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Invalid> {
        let environment: BTreeMap<String, String> = environment.into_iter().collect();
        let source = Arc::new(Source::new(name, text));
        let mut root = source.tree()?;
        let misled = overrides::apply(&mut root, &environment);
        let reading = Reading {
            source,
            around: Arc::new(Surroundings {
                base: Path::new(name)
                    .parent()
                    .map_or_else(PathBuf::new, Path::to_owned),
                environment,
            }),
            problems: RefCell::new(misled),
            warnings: RefCell::new(Vec::new()),
        };
        let read = read(Reader::root(&reading, &root));
        let places = Arc::new(Places(root.places(&reading.source)));
        let problems = reading.problems.into_inner();
        match read {
            Ok(mut config) if problems.is_empty() => {
                config.warnings = reading.warnings.into_inner();
                config.places = places;
                Ok(config)
            }
            read => {
                let readable = read.map_or_else(|readable| *readable, Readable::from);
                Err(Invalid::new(problems, Readable { places, ..readable }))
            }
        }
    }

    /// A problem with the value at the dotted `key`, found after reading: a file that cannot be used,
    /// a filter that cannot be built. It stands at the value, or at the nearest table above it.
    pub fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        self.places.problem(key, message)
    }

    /// The project called `name`, if it is configured.
    pub fn project(&self, name: &str) -> Option<&Project> {
        self.projects.get(name)
    }
}

impl From<Config> for Readable {
    fn from(config: Config) -> Self {
        Self {
            certificates: Some(config.certificates.files),
            credentials: config.auth.credentials,
            geoip: config.geoip.database,
            plugins: config.plugins,
            wasm: Some(config.wasm),
            policies: config.policies,
            projects: config.projects,
            places: config.places,
        }
    }
}

/// Reads every table before missing any, so that one run names every problem.
fn read(mut root: Reader<'_>) -> Result<Config, Box<Readable>> {
    let engine = Engine::read(root.table("engine"));
    let listen = Listen::read(root.table("listen"));
    let certificates = Certificates::read(root.table("certificates"));
    let auth = Auth::read(root.table("auth"));
    let challenge = Challenge::read(root.table("challenge"));
    let login = Login::read(root.table("login"));
    let geoip = GeoIp::read(root.table("geoip"));
    let front = Front::read(root.table("front"));
    let state_dir = engine.as_ref().and_then(|engine| engine.state_dir.as_ref());
    let admin = Admin::read(root.table("admin"), state_dir);
    let timeouts = Timeouts::read(root.table("timeouts"));
    let limits = Limits::read(root.table("limits"));
    let plugins = plugin::read_plugins(&root.table("plugin"));
    let wasm = Wasm::read(root.table("wasm"));
    let policies = policy::read_policies(&root.table("policy"));
    let projects = policy::read_projects(&root.table("project"), &policies);
    root.finish();
    match (engine, certificates, auth) {
        (Some(engine), Some(certificates), Some(auth)) => Ok(Config {
            engine,
            listen,
            certificates,
            auth,
            challenge,
            login,
            geoip,
            front,
            admin,
            timeouts,
            limits,
            plugins,
            wasm,
            policies,
            projects,
            warnings: Vec::new(),
            places: Arc::default(),
        }),
        (_, certificates, auth) => Err(Box::new(Readable {
            certificates: certificates.map(|certificates| certificates.files),
            credentials: auth.and_then(|auth| auth.credentials),
            geoip: geoip.database,
            plugins,
            wasm: Some(wasm),
            policies,
            projects,
            places: Arc::default(),
        })),
    }
}
