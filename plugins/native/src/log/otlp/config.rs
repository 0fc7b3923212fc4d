//! How `otlp` is configured.

use std::collections::BTreeMap;

use adit_config::Secret;
use adit_filters::ConfigError;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::resource::v1::Resource;
use serde::Deserialize;

use super::collector;
use super::signal::key_value;
use crate::log::writer::default_queue;

/// How many header fields or resource attributes can be configured.
pub const ENTRIES_MAX: usize = 32;

/// Where signals go and which ones there are.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The collector, without the signal's path.
    pub endpoint: Endpoint,
    /// Header fields it is shown, such as an API key.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret<String>>,
    /// `service.name` of everything sent.
    #[serde(default = "default_service_name")]
    pub service_name: String,
    /// Further attributes of the resource.
    #[serde(default)]
    pub resource: BTreeMap<String, String>,
    /// Whether there are spans, and services are told of them.
    #[serde(default = "yes")]
    pub traces: bool,
    /// Whether there are log records.
    #[serde(default = "yes")]
    pub logs: bool,
    /// The part of traces begun here that is recorded, from 0 to 1.
    #[serde(default = "all")]
    pub sample_ratio: f64,
    /// Whether visitors' traces are continued.
    #[serde(default)]
    pub trust_incoming: bool,
    /// How many exchanges may wait to be sent.
    #[serde(default = "default_queue")]
    pub queue: usize,
}

fn default_service_name() -> String {
    "adit".to_owned()
}

fn yes() -> bool {
    true
}

fn all() -> f64 {
    1.0
}

/// A collector's address, such as `http://collector:4318`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct Endpoint(String);

impl TryFrom<String> for Endpoint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let like = "write it like `http://collector:4318`";
        let uri: Uri = text
            .parse()
            .map_err(|error| format!("`{text}` is not an address ({error}), {like}"))?;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if !matches!(uri.scheme_str(), Some("http" | "https")) || authority.is_empty() {
            return Err(format!(
                "`{text}` is not an `http` or `https` address, {like}"
            ));
        }
        if authority.contains('@') {
            return Err(format!(
                "credentials do not belong in an address, use `headers`, and {like}"
            ));
        }
        if uri.query().is_some() {
            return Err(format!("`{text}` has a query, {like}"));
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl Endpoint {
    fn of(&self, signal: &str) -> Result<Uri, ConfigError> {
        let address = format!("{}/v1/{signal}", self.0);
        let wrong = |error| ConfigError::at("endpoint", format!("`{address}`: {error}"));
        address.parse().map_err(wrong)
    }
}

impl Config {
    /// What does not fit, beyond what the types say.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            let message = "`sample-ratio` must be between 0 and 1";
            return Err(ConfigError::at("sample-ratio", message));
        }
        if !self.traces && !self.logs {
            let message = "with neither `traces` nor `logs` there is nothing to send, set one";
            return Err(ConfigError::at("traces", message));
        }
        for (key, entries) in [
            ("headers", self.headers.len()),
            ("resource", self.resource.len()),
        ] {
            if entries > ENTRIES_MAX {
                let message = format!("at most {ENTRIES_MAX} entries can be set, leave some out");
                return Err(ConfigError::at(key, message));
            }
        }
        Ok(())
    }

    /// Where traces go.
    pub(super) fn traces_uri(&self) -> Result<Option<Uri>, ConfigError> {
        self.traces.then(|| self.endpoint.of("traces")).transpose()
    }

    /// Where log records go.
    pub(super) fn logs_uri(&self) -> Result<Option<Uri>, ConfigError> {
        self.logs.then(|| self.endpoint.of("logs")).transpose()
    }

    /// The fields of every request.
    pub(super) fn fields(&self) -> Result<HeaderMap, ConfigError> {
        let read = |(name, value): (&String, &Secret<String>)| {
            let key = format!("headers.{name}");
            let named: HeaderName = name.parse().map_err(|_| {
                let message = format!("`{name}` is not the name of a header field");
                ConfigError::at(&key, message)
            })?;
            let mut value: HeaderValue = value.expose().parse().map_err(|_| {
                let message = "the secret has characters that no header field can carry";
                ConfigError::at(&key, message)
            })?;
            value.set_sensitive(true);
            Ok((named, value))
        };
        let fields: Result<Vec<_>, ConfigError> = self.headers.iter().map(read).collect();
        Ok(collector::fields(fields?))
    }

    /// What sends.
    pub(super) fn resource(&self) -> Resource {
        let named = [
            ("service.name", self.service_name.as_str()),
            ("service.version", env!("CARGO_PKG_VERSION")),
        ];
        let more = self.resource.iter();
        let all = named
            .into_iter()
            .chain(more.map(|(key, value)| (key.as_str(), value.as_str())));
        Resource {
            attributes: all
                .map(|(key, value)| key_value(key, Value::StringValue(value.to_owned())))
                .collect(),
            ..Resource::default()
        }
    }
}
