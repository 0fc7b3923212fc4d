//! The whole configuration of an engine.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::load;
use crate::overrides;
use crate::policy::{self, Policy, Project};
use crate::problem::{Place, Problem};
use crate::reader::{Reader, Reading};
use crate::settings::{Admin, Auth, Certificates, Engine, Front, Limits, Listen, Timeouts};
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
    /// Proxies in front of it.
    pub front: Front,
    /// The operator's door.
    pub admin: Admin,
    /// How long it waits.
    pub timeouts: Timeouts,
    /// How much it takes on.
    pub limits: Limits,
    /// Policies by name.
    pub policies: BTreeMap<String, Policy>,
    /// Projects by name; [`DEFAULT_PROJECT`](crate::DEFAULT_PROJECT) is always among them.
    pub projects: BTreeMap<String, Project>,
    /// What works and should be otherwise, for the log.
    pub warnings: Vec<Problem>,
    /// Where each value stands, by its dotted key.
    pub(crate) places: Arc<BTreeMap<String, Place>>,
}

impl Config {
    /// Reads the file at `path`, with `environment` laid over it.
    ///
    /// # Errors
    /// Every problem found, in the order of the text.
    pub fn load(
        path: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Vec<Problem>> {
        let name = path.display().to_string();
        let text = load::text(path)
            .map_err(|error| vec![Problem::of_file(&name, format!("cannot be read: {error}"))])?;
        Self::parse(&name, &text, environment)
    }

    /// Reads `text`, known to its user as `name`, with `environment` laid over it. Relative paths
    /// start from the folder `name` is in; secrets are read from the files the text names.
    ///
    /// # Errors
    /// Every problem found, in the order of the text.
    pub fn parse(
        name: &str,
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Vec<Problem>> {
        let environment: BTreeMap<String, String> = environment.into_iter().collect();
        let source = Arc::new(Source::new(name, text));
        let mut root = source.tree()?;
        let misled = overrides::apply(&mut root, &environment);
        let lookup = |variable: &str| environment.get(variable).cloned();
        let reading = Reading {
            source,
            base: Path::new(name)
                .parent()
                .map_or_else(PathBuf::new, Path::to_owned),
            environment: &lookup,
            problems: RefCell::new(misled),
            warnings: RefCell::new(Vec::new()),
        };
        let config = read(Reader::root(&reading, &root));
        let places = root.places(&reading.source);
        let mut problems = reading.problems.into_inner();
        problems.sort_by(|one, other| one.place().cmp(other.place()));
        problems.dedup();
        match config {
            Some(mut config) if problems.is_empty() => {
                config.warnings = reading.warnings.into_inner();
                config.places = Arc::new(places);
                Ok(config)
            }
            _ => Err(problems),
        }
    }

    /// A problem with the value at the dotted `key`, found after reading: a file that cannot be used,
    /// a filter that cannot be built. It stands at the value, or at the nearest table above it.
    pub fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        let mut above = key;
        let place = loop {
            if let Some(place) = self.places.get(above) {
                break place.clone();
            }
            // The root's key is empty and always there.
            above = above.rsplit_once('.').map_or("", |(above, _)| above);
            if above.is_empty() && !self.places.contains_key("") {
                break Place::File("the configuration".into());
            }
        };
        Problem::new(place, key, message)
    }

    /// The project called `name`, if it is configured.
    pub fn project(&self, name: &str) -> Option<&Project> {
        self.projects.get(name)
    }
}

/// Reads every table before missing any, so that one run names every problem.
fn read(mut root: Reader<'_>) -> Option<Config> {
    let engine = Engine::read(root.table("engine"));
    let listen = Listen::read(root.table("listen"));
    let certificates = Certificates::read(root.table("certificates"));
    let auth = Auth::read(root.table("auth"));
    let front = Front::read(root.table("front"));
    let state_dir = engine.as_ref().and_then(|engine| engine.state_dir.as_ref());
    let admin = Admin::read(root.table("admin"), state_dir);
    let timeouts = Timeouts::read(root.table("timeouts"));
    let limits = Limits::read(root.table("limits"));
    let policies = policy::read_policies(&root.table("policy"));
    let projects = policy::read_projects(&root.table("project"), &policies);
    root.finish();
    Some(Config {
        engine: engine?,
        listen,
        certificates: certificates?,
        auth: auth?,
        front,
        admin,
        timeouts,
        limits,
        policies,
        projects,
        warnings: Vec::new(),
        places: Arc::default(),
    })
}
