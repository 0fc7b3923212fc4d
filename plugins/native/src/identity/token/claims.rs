//! What a token says.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The claims this engine reads and writes. Numbers are Unix seconds.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Claims {
    /// The kind of token; none on an operator's own.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<TokenKind>,
    /// The user it stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The application it stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The user, in the standard claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// What it allows; absent or null means everything its owner may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Vec<String>>,
    /// Issued at.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "seconds"
    )]
    pub iat: Option<f64>,
    /// Not valid before.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "seconds"
    )]
    pub nbf: Option<f64>,
    /// Not valid from then on.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "seconds"
    )]
    pub exp: Option<f64>,
    /// The token's own id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// Where it may be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// The engine it is for, and an older form of its boundary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    /// For whom it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aud: Option<Audience>,
    /// The short id of the project it is for.
    #[serde(
        rename = "token_endpoint",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub token_endpoint: Option<String>,
    /// The same in an older spelling.
    #[serde(
        rename = "tokendpoint",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub tokendpoint: Option<String>,
    /// The stored credential it was derived from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_credential_id: Option<String>,
    /// When that credential had last been changed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_credential_updated_at: Option<String>,
    /// The boundary in an older form: a tree, or a list of trees any of which allows.
    #[serde(default, skip_serializing)]
    pub tunnels_grants: Option<Value>,
}

/// One audience or several.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Audience {
    /// One.
    One(String),
    /// Any of these.
    Any(Vec<String>),
}

impl Audience {
    /// Whether one of `names` is among them.
    #[must_use]
    pub fn includes(&self, names: &[String]) -> bool {
        match self {
            Self::One(name) => names.contains(name),
            Self::Any(any) => any.iter().any(|name| names.contains(name)),
        }
    }
}

/// Whole seconds are written as integers: there are clients that read nothing else.
fn seconds<S: serde::Serializer>(time: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        // Casting saturates, so a number beyond the integers comes back as another.
        Some(seconds) if (*seconds as i64) as f64 == *seconds => {
            serializer.serialize_i64(*seconds as i64)
        }
        other => other.serialize(serializer),
    }
}

/// The boundary claim.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// The boundary over tunnels, as written; [`TunnelResource::parse`](super::TunnelResource::parse) reads it.
    pub tunnels: Value,
}

/// What clients keep in a token for themselves.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Metadata {
    /// The engine's address, which some clients take from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// The boundary in an older form.
    #[serde(default, skip_serializing)]
    pub scopes: Option<Value>,
}

/// Kinds of token.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    /// A user's, short-lived.
    Auth,
    /// A user's, long-lived.
    Pat,
    /// An application's.
    App,
}

impl TokenKind {
    /// The kind as tokens and the log write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Pat => "pat",
            Self::App => "app",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_are_integers() {
        let text = |seconds| {
            let claims = Claims {
                exp: Some(seconds),
                ..Claims::default()
            };
            serde_json::to_string(&claims).unwrap_or_default()
        };
        assert_eq!(text(1_800_000_000.0), r#"{"exp":1800000000}"#);
        assert_eq!(text(1.5), r#"{"exp":1.5}"#);
        assert_eq!(text(1e300), r#"{"exp":1e+300}"#);
    }
}
