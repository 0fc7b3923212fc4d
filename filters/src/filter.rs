//! How a native filter is named, configured and built.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::env::Env;
use crate::hooks::Hooks;
use crate::stage::Stage;

/// A native filter. Everything dynamic is derived from this.
pub trait Filter: Send + Sync + Sized + 'static {
    /// What `use = "…"` calls it.
    const NAME: &'static str;
    /// Where it stands.
    const STAGE: Stage = Stage::Policy;
    /// Its own table: `deny_unknown_fields`, defaults written once.
    type Config: DeserializeOwned;

    /// Builds it from its table.
    ///
    /// # Errors
    /// What is wrong with the table, and where in it.
    fn new(config: Self::Config, env: &mut Env) -> Result<Self, ConfigError>;

    /// The phases it takes part in.
    fn hooks(self: Arc<Self>) -> Hooks;
}

/// What is wrong with a filter's table.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct ConfigError {
    /// The key it is wrong at; none if it is the table as a whole.
    pub key: Option<String>,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl ConfigError {
    /// A mistake at one key.
    #[must_use]
    pub fn at(key: &str, message: impl Into<String>) -> Self {
        Self {
            key: Some(key.to_owned()),
            message: message.into(),
        }
    }
}
