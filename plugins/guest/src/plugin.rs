//! A filter's type and its configuration.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

/// What is wrong with a filter's table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    /// A dotted path into the table, such as `allow.0`; the host tells the operator file, line and column.
    pub key: Option<String>,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl ConfigError {
    /// A mistake at one key.
    pub fn at(key: &str, message: impl Into<String>) -> Self {
        Self {
            key: Some(key.to_owned()),
            message: message.into(),
        }
    }

    /// A mistake of the table as a whole.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            key: None,
            message: message.into(),
        }
    }
}

/// A filter.
pub trait Plugin: Sized + Send + Sync + 'static {
    /// Its own table. What does not fit is refused before [`new`](Self::new) sees it.
    type Config: DeserializeOwned + JsonSchema;

    /// Builds it from its table: once for each instance, so it should be quick.
    ///
    /// # Errors
    /// What is wrong with the table.
    fn new(config: Self::Config) -> Result<Self, ConfigError>;
}

/// The JSON Schema of a filter's table.
#[doc(hidden)]
#[must_use]
pub fn schema<P: Plugin>() -> String {
    schemars::schema_for!(P::Config).as_value().to_string()
}

/// The filter of a table in JSON.
#[doc(hidden)]
pub fn configured<P: Plugin>(config: &str) -> Result<P, ConfigError> {
    let config =
        serde_json::from_str(config).map_err(|error| ConfigError::new(error.to_string()))?;
    P::new(config)
}
