//! Which header fields may be logged.

use adit_filters::{LOGGED_FIELDS_MAX, redact};
use http::HeaderName;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use serde::Deserialize;

/// The name of a header field that carries no credential.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct LoggedName(HeaderName);

impl TryFrom<String> for LoggedName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let name: HeaderName = text
            .parse()
            .map_err(|_| format!("`{text}` is not the name of a header field"))?;
        if redact::is_secret_name(name.as_str()) {
            return Err(format!(
                "`{name}` carries credentials and is never logged, remove it"
            ));
        }
        Ok(Self(name))
    }
}

/// A list of names that is not too long.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "Vec<LoggedName>")]
pub struct LoggedNames(Vec<LoggedName>);

impl LoggedNames {
    pub(super) fn of_requests() -> Self {
        Self(
            [ACCEPT, CONTENT_LENGTH, CONTENT_TYPE]
                .map(LoggedName)
                .into(),
        )
    }

    pub(super) fn of_responses() -> Self {
        Self([CONTENT_LENGTH, CONTENT_TYPE].map(LoggedName).into())
    }

    pub(super) fn into_names(self) -> Vec<HeaderName> {
        self.0.into_iter().map(|LoggedName(name)| name).collect()
    }
}

impl TryFrom<Vec<LoggedName>> for LoggedNames {
    type Error = String;

    fn try_from(names: Vec<LoggedName>) -> Result<Self, String> {
        if names.len() > LOGGED_FIELDS_MAX {
            return Err(format!(
                "at most {LOGGED_FIELDS_MAX} header fields can be logged, name fewer"
            ));
        }
        Ok(Self(names))
    }
}
