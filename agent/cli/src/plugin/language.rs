//! Languages that filters are written in: for each, a project to begin with and how it is built.

mod javascript;
mod python;
mod rust;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::ValueEnum;

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
