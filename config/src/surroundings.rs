//! What a configuration text refers to: variables, and files beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::load;
use crate::secret::Secret;

/// Where names in the text lead.
#[derive(Default)]
pub(crate) struct Surroundings {
    /// Folder that relative paths in the text start from.
    pub(crate) base: PathBuf,
    pub(crate) environment: BTreeMap<String, String>,
}

/// A secret from a file.
pub(crate) struct FromFile {
    pub(crate) secret: Secret<String>,
    /// What the operator should know about the file.
    pub(crate) warning: Option<String>,
}

impl Surroundings {
    /// A path, from the configuration's folder if it is relative.
    pub(crate) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.base.join(path)
    }

    /// The secret in an environment variable, or what is wrong.
    pub(crate) fn secret_variable(&self, variable: &str) -> Result<Secret<String>, String> {
        let value = self.environment.get(variable).ok_or_else(|| {
            format!("environment variable `{variable}` is not set, set it before starting")
        })?;
        Ok(Secret::new(value.clone()))
    }

    /// The secret in a file, or what is wrong.
    pub(crate) fn secret_file(&self, path: &Path) -> Result<FromFile, String> {
        let (secret, open_to_others) = load::secret(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let warning = open_to_others.then(|| {
            format!(
                "{} can be read by other users, set its mode to 0600",
                path.display()
            )
        });
        Ok(FromFile { secret, warning })
    }
}

// Variables may hold secrets: none is shown.
impl std::fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}
