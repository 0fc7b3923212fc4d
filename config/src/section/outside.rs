//! Values of a section that lead outside of the text: secrets, and paths from its folder.
//!
//! Serde knows neither, so they are asked for by a name of their own and handed over as texts. Read from anything but
//! a [`Section`](super::Section), they are refused: a secret does not belong in other texts either.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, Visitor};

use crate::secret::Secret;
use crate::surroundings::Surroundings;
use crate::tree::{Node, Value};

/// What a type is called that is read from a variable or file.
const SECRET: &str = "adit::Secret";

/// What a type is called that is a path from the configuration's folder.
const PATH: &str = "adit::NearPath";

/// How a secret is written.
const SECRET_FORM: &str = "`{ env = \"VARIABLE\" }` or `{ file = \"path\" }`";

/// A path; where it is written relative, it starts from the folder of the configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NearPath(pub PathBuf);

impl AsRef<Path> for NearPath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

/// What a type called `name` reads at `node`; `None` where it is any other type.
pub(super) fn text(
    name: &str,
    node: &Node,
    around: &Surroundings,
) -> Option<Result<Secret<String>, String>> {
    match name {
        SECRET => Some(secret(node, around)),
        PATH => Some(path(node, around).map(Secret::new)),
        _ => None,
    }
}

fn secret(node: &Node, around: &Surroundings) -> Result<Secret<String>, String> {
    let entry = match &node.value {
        Value::Table(entries) => match entries.as_slice() {
            [entry] => entry,
            _ => {
                return Err(format!(
                    "name one place the secret comes from, use {SECRET_FORM}"
                ));
            }
        },
        Value::String(_) => {
            return Err(format!(
                "a secret does not belong in this file, use {SECRET_FORM}"
            ));
        }
        _ => {
            return Err(format!(
                "{} is not a secret, use {SECRET_FORM}",
                node.kind()
            ));
        }
    };
    match (entry.key.as_str(), &entry.node.value) {
        ("env", Value::String(variable)) => around.secret_variable(variable),
        ("file", Value::String(path)) => Ok(around.secret_file(&around.path(path))?.secret),
        _ => Err(format!(
            "`{}` is no place for a secret, use {SECRET_FORM}",
            entry.key
        )),
    }
}

fn path(node: &Node, around: &Surroundings) -> Result<String, String> {
    match &node.value {
        Value::String(path) if path.is_empty() => {
            Err("an empty path names nothing, write one or leave the key out".to_owned())
        }
        // The text was a string, and so is the folder's name where it was given as one.
        Value::String(path) => Ok(around.path(path).to_string_lossy().into_owned()),
        _ => Err(format!("{} is not a path, use a string", node.kind())),
    }
}

impl<'de> Deserialize<'de> for Secret<String> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = deserializer.deserialize_newtype_struct(SECRET, Found(SECRET_FORM))?;
        Ok(Self::new(text))
    }
}

impl<'de> Deserialize<'de> for NearPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = deserializer.deserialize_newtype_struct(PATH, Found("a path"))?;
        Ok(Self(PathBuf::from(text)))
    }
}

/// Takes the text that was found outside.
struct Found(&'static str);

impl Visitor<'_> for Found {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use std::collections::BTreeMap;

    use serde::Deserialize;

    use crate::{Config, Invalid, Secret};

    use super::NearPath;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        headers: BTreeMap<String, Secret<String>>,
        file: Option<NearPath>,
    }

    fn read(folder: &std::path::Path, filter: &str) -> Result<Sample, String> {
        let text = format!(
            "[engine]\nhost = 'a.example'\n[certificates]\nfiles = {{ cert = 'c', key = 'k' }}\n\
             [auth]\njwt-secret = {{ env = 'SECRET' }}\n[policy.p]\nfilters = [{{ use = 'x', {filter} }}]"
        );
        let environment = [(
            "SECRET".to_owned(),
            "from the environment, long enough".to_owned(),
        )];
        let name = folder.join("engine.toml");
        let config = Config::parse(name.to_str().unwrap(), &text, environment)
            .unwrap_or_else(|invalid: Invalid| panic!("{invalid:?}"));
        let section = &config.policies["p"].filters[0].section;
        section.deserialize().map_err(|problems| {
            let problem = problems.first().unwrap();
            format!(
                "{:?} {}: {}",
                problem.position(),
                problem.key(),
                problem.message()
            )
        })
    }

    #[test]
    fn a_filters_secret_comes_from_a_variable_or_a_file_near_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "from a file\n").unwrap();
        let sample = read(
            folder.path(),
            "headers = { a = { env = 'SECRET' }, b = { file = 'key' } }, file = 'log/x'",
        )
        .unwrap();
        assert!(sample.headers["a"].matches("from the environment, long enough"));
        assert!(sample.headers["b"].matches("from a file"));
        assert_eq!(sample.file.unwrap().0, folder.path().join("log/x"));
    }

    #[test]
    fn a_secret_that_is_not_there_or_is_in_the_text_is_pointed_at() {
        let form = "`{ env = \"VARIABLE\" }` or `{ file = \"path\" }`";
        let cases = [
            (
                "headers = { a = 's3cret' }",
                format!("Some((8, 41)) policy.p.filters.0.headers.a: a secret does not belong in this file, use {form}"),
            ),
            (
                "headers = { a = { env = 'NONE' } }",
                "Some((8, 41)) policy.p.filters.0.headers.a: environment variable `NONE` is not set, set it before starting".to_owned(),
            ),
            (
                "headers = { a = { env = 'SECRET', file = 'x' } }",
                format!("Some((8, 41)) policy.p.filters.0.headers.a: name one place the secret comes from, use {form}"),
            ),
            (
                "headers = { a = { vault = 'x' } }",
                format!("Some((8, 41)) policy.p.filters.0.headers.a: `vault` is no place for a secret, use {form}"),
            ),
            (
                "headers = { a = 7 }",
                format!("Some((8, 41)) policy.p.filters.0.headers.a: an integer is not a secret, use {form}"),
            ),
            (
                "headers = { }, file = ''",
                "Some((8, 47)) policy.p.filters.0.file: an empty path names nothing, write one or leave the key out".to_owned(),
            ),
        ];
        let folder = tempfile::tempdir().unwrap();
        for (filter, expected) in cases {
            assert_eq!(
                read(folder.path(), filter).unwrap_err(),
                expected,
                "{filter}"
            );
        }
        let missing = read(folder.path(), "headers = { a = { file = 'none' } }").unwrap_err();
        assert!(missing.contains("cannot read"), "{missing}");
    }

    #[test]
    fn a_secret_is_read_from_nothing_else() {
        let error = toml::from_str::<BTreeMap<String, Secret<String>>>("a = 's3cret'").unwrap_err();
        assert!(error.message().contains("newtype"), "{error}");
    }
}
