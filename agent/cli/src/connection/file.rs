//! The context file.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use adit_agent::Secret;
use anyhow::{Context as _, anyhow, bail};
use serde::Deserialize;

use super::{Credential, token};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    default_context: Option<String>,
    #[serde(default)]
    context: BTreeMap<String, Context>,
}

/// One `[context.NAME]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Context {
    pub(super) engine: Option<String>,
    token: Option<String>,
    token_file: Option<PathBuf>,
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    pub(super) server_name: Option<String>,
    /// The file's directory, which its paths are relative to.
    #[serde(skip)]
    directory: PathBuf,
}

impl Context {
    /// The credential stored, if one is.
    pub(super) fn credential(&self) -> anyhow::Result<Option<Credential>> {
        let near = |path: &Option<PathBuf>| path.as_ref().map(|path| self.directory.join(path));
        Credential::one(self.token()?, near(&self.cert_file), near(&self.key_file))
            .context("in the context")
    }

    fn token(&self) -> anyhow::Result<Option<Secret>> {
        match (&self.token, &self.token_file) {
            (Some(_), Some(_)) => bail!("the context has both `token` and `token-file`, give one"),
            (Some(token), None) => Ok(Some(Secret::new(token.trim()))),
            (None, Some(path)) => token::read(&self.directory.join(path)).map(Some),
            (None, None) => Ok(None),
        }
    }

    pub(super) fn ca_file(&self) -> Option<PathBuf> {
        self.ca_file.as_ref().map(|path| self.directory.join(path))
    }
}

/// The context meant, if one is. The file and the context must be there if they were named.
pub(super) fn find(
    path: Option<&Path>,
    name: Option<&str>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<Option<Context>> {
    let named = path
        .map(Path::to_path_buf)
        .or_else(|| variable("ADIT_CONFIG").map(PathBuf::from));
    let Some(path) = named.clone().or_else(|| default_path(variable)) else {
        return match name.map(str::to_owned).or_else(|| variable("ADIT_CONTEXT")) {
            Some(name) => Err(anyhow!(
                "there is no context file to find context `{name}` in"
            )),
            None => Ok(None),
        };
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound && named.is_none() => String::new(),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read `{}`", path.display()));
        }
    };
    let mut file = parse(&path, &text)?;
    if !text.is_empty() && file.context.values().any(|context| context.token.is_some()) {
        token::warn_if_shared(&path);
    }
    let wanted = name
        .map(str::to_owned)
        .or_else(|| variable("ADIT_CONTEXT"))
        .or(file.default_context);
    let Some(wanted) = wanted else {
        return Ok(None);
    };
    let Some(mut context) = file.context.remove(&wanted) else {
        let names: Vec<&String> = file.context.keys().collect();
        bail!(
            "no context `{wanted}` in `{}`, there is {names:?}",
            path.display()
        );
    };
    context.directory = path.parent().map(Path::to_path_buf).unwrap_or_default();
    Ok(Some(context))
}

fn default_path(variable: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let directory = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".config")))?;
    Some(directory.join("adit").join("config.toml"))
}

fn parse(path: &Path, text: &str) -> anyhow::Result<File> {
    toml::from_str(text).map_err(|error| {
        let before = error
            .span()
            .and_then(|span| text.get(..span.start))
            .unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        anyhow!(
            "{}:{line}:{column}: {}",
            path.display(),
            error.message().trim()
        )
    })
}
