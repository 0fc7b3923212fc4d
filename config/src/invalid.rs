//! A configuration that cannot be used, with what of it can still be looked into.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::places::Places;
use crate::plugin::{Plugin, Wasm};
use crate::policy::{Policy, Project};
use crate::problem::Problem;
use crate::settings::CertificateFiles;

/// Why a configuration cannot be used: every problem found in reading it.
///
/// Some mistakes show only when what a configuration names is built: an unknown kind of filter, a
/// certificate that is none. So that these are told in the same run, the parts that could be read
/// are here too. They are for looking into, never for running.
#[derive(Clone, Debug)]
pub struct Invalid {
    problems: Vec<Problem>,
    pub(crate) readable: Box<Readable>,
}

/// The parts of a configuration that others look into.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readable {
    pub(crate) certificates: Option<CertificateFiles>,
    pub(crate) credentials: Option<PathBuf>,
    pub(crate) geoip: Option<PathBuf>,
    pub(crate) plugins: BTreeMap<String, Plugin>,
    pub(crate) wasm: Option<Wasm>,
    pub(crate) policies: BTreeMap<String, Policy>,
    pub(crate) projects: BTreeMap<String, Project>,
    pub(crate) places: Arc<Places>,
}

impl Invalid {
    pub(crate) fn new(mut problems: Vec<Problem>, readable: Readable) -> Self {
        sort(&mut problems);
        Self {
            problems,
            readable: Box::new(readable),
        }
    }

    /// What is wrong, in the order of the text.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The certificate files named, if both are.
    pub fn certificate_files(&self) -> Option<&CertificateFiles> {
        self.readable.certificates.as_ref()
    }

    /// The credentials file, if one is named.
    pub fn credentials(&self) -> Option<&Path> {
        self.readable.credentials.as_deref()
    }

    /// The database of places, if one is named.
    pub fn geoip_database(&self) -> Option<&Path> {
        self.readable.geoip.as_deref()
    }

    /// The plugins that could be read, and what they run in.
    pub fn plugins(&self) -> Option<(&BTreeMap<String, Plugin>, &Wasm)> {
        Some((&self.readable.plugins, self.readable.wasm.as_ref()?))
    }

    /// The policies, without the filters that could not be read.
    pub fn policies(&self) -> &BTreeMap<String, Policy> {
        &self.readable.policies
    }

    /// The projects, without the policies that are not there.
    pub fn projects(&self) -> &BTreeMap<String, Project> {
        &self.readable.projects
    }

    /// Whether policies and projects have no problem so far, so that they can be judged together.
    pub fn policies_are_whole(&self) -> bool {
        !self.problems.iter().any(|problem| {
            let top = problem.key().split('.').next().unwrap_or_default();
            // A syntax error has no key; nothing is known of what stands around it.
            matches!(top, "" | "policy" | "project")
        })
    }

    /// A problem with the value at the dotted `key`, as [`Config::problem`](crate::Config::problem).
    pub fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        self.readable.places.problem(key, message)
    }

    /// Everything that is wrong: these problems and those `found` in looking further, in the order
    /// of the text. Where this value was reported already, the first word about it is enough.
    pub fn with(self, found: Vec<Problem>) -> Vec<Problem> {
        let mut all = self.problems;
        let known = all.len();
        for problem in found {
            let told = all.iter().take(known).any(|earlier| {
                earlier.place() == problem.place() && earlier.key() == problem.key()
            });
            if !told {
                all.push(problem);
            }
        }
        sort(&mut all);
        all
    }
}

impl From<Vec<Problem>> for Invalid {
    fn from(problems: Vec<Problem>) -> Self {
        Self::new(problems, Readable::default())
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Invalid {}

/// In the order of the text, each once.
fn sort(problems: &mut Vec<Problem>) {
    problems.sort_by(|one, other| one.place().cmp(other.place()));
    problems.dedup();
}
