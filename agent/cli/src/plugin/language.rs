//! Languages that filters are written in: for each, a project to begin with and how it is built.

mod javascript;
mod python;
mod rust;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use clap::ValueEnum;

/// A file of Adit's own tree, and its text.
macro_rules! ours {
    ($path:literal) => {
        (
            $path,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../", $path)),
        )
    };
}
use ours;

/// The interface, and the guide to it: what filters in every language are written with.
const WIT: [(&str, &str); 6] = [
    ours!("wit/README.md"),
    ours!("wit/context.wit"),
    ours!("wit/host.wit"),
    ours!("wit/phases.wit"),
    ours!("wit/types.wit"),
    ours!("wit/world.wit"),
];

/// The cases of a new filter in a language that its component brings along: without a bound of fuel, which is mostly
/// the language's.
const CASES: &str = include_str!("language/cases.toml");

/// Where a project keeps what filters are written with. Below it, everything stands as in Adit's own tree, so that the
/// same sources find the interface from both.
const VENDOR: &str = "vendor/adit/";

/// A language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Language {
    Rust,
    #[value(name = "js", alias = "javascript")]
    JavaScript,
    Python,
}

/// A file of a new project.
pub(super) struct File {
    /// From the project's folder.
    pub(super) path: Cow<'static, str>,
    pub(super) text: Cow<'static, str>,
}

impl File {
    fn new(path: impl Into<Cow<'static, str>>, text: impl Into<Cow<'static, str>>) -> Self {
        Self {
            path: path.into(),
            text: text.into(),
        }
    }
}

/// A component that has been built.
pub(super) struct Built {
    /// What the project calls itself.
    pub(super) name: String,
    /// Where the language's tools left it.
    pub(super) component: PathBuf,
}

impl Language {
    /// The language of the project in a folder.
    pub(super) fn of(folder: &Path) -> anyhow::Result<Self> {
        let marks = Self::value_variants()
            .iter()
            .map(|language| (language, language.mark()));
        for (language, mark) in marks.clone() {
            if folder.join(mark).is_file() {
                return Ok(*language);
            }
        }
        let marks: Vec<String> = marks.map(|(_, mark)| format!("`{mark}`")).collect();
        bail!(
            "there is no filter in `{}` (no {}): `adit plugin new NAME` begins one",
            folder.display(),
            marks.join(", ")
        )
    }

    /// As people write it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::JavaScript => "JavaScript",
            Self::Python => "Python",
        }
    }

    /// The file that is the filter.
    pub(super) fn source(self) -> &'static str {
        match self {
            Self::Rust => "src/lib.rs",
            Self::JavaScript => "filter.js",
            Self::Python => "filter.py",
        }
    }

    /// The file that says that a folder holds a project in it.
    fn mark(self) -> &'static str {
        match self {
            Self::Rust => rust::MARK,
            Self::JavaScript => javascript::MARK,
            Self::Python => python::MARK,
        }
    }

    /// The files of a new project.
    pub(super) fn files(self, name: &str) -> anyhow::Result<Vec<File>> {
        match self {
            Self::Rust => rust::files(name),
            Self::JavaScript => Ok(javascript::files(name)),
            Self::Python => Ok(python::files(name)),
        }
    }

    /// Builds the project in a folder.
    pub(super) fn build(self, folder: &Path) -> anyhow::Result<Built> {
        match self {
            Self::Rust => rust::build(folder),
            Self::JavaScript => javascript::build(folder),
            Self::Python => python::build(folder),
        }
    }
}

/// Has a tool of the language do something in a folder. What it says goes to stderr as it says it. `otherwise` is what to
/// do where it is not there.
fn run(folder: &Path, tool: &Path, args: &[&str], otherwise: &str) -> anyhow::Result<()> {
    // A path is looked for from the folder, a name where commands are.
    let program = match tool.components().count() {
        1 => tool.to_owned(),
        _ => std::path::absolute(folder.join(tool))?,
    };
    let shown = tool.display();
    let status = Command::new(program)
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("cannot run `{shown}`: {otherwise}"))?;
    match status.success() {
        true => Ok(()),
        false => bail!("`{shown} {}` failed: see above", args.join(" ")),
    }
}

/// What a project calls itself, if a file can be called so too.
fn file_name(name: String, manifest: &Path) -> anyhow::Result<String> {
    match name.contains(['/', '\\']) || name.starts_with('.') {
        false => Ok(name),
        true => bail!(
            "`{}`: `name` names a file too, write it without `/` and no `.` first",
            manifest.display()
        ),
    }
}
