//! A proxy-wasm module as a kind of filter.

use std::collections::HashMap;
use std::sync::Arc;

use adit_config::{Problem, Section};
use adit_filters::{Env, Factory, FilterError, Hooks, Stage};
use adit_wasm::module::Services;
use adit_wasm::{PluginSettings, Runtime};
use bytes::Bytes;
use http::Uri;
use serde_json::{Map, Value};

use crate::code::{AbiError, Code};
use crate::common::{Common, Settings, lock};
use crate::driver::drive;
use crate::filter::{Filter, Hook};
use crate::vm::NotStarted;

/// Keys of a table that is not the configuration itself but has it.
const KEYS: [&str; 3] = ["configuration", "vm-configuration", "clusters"];

/// A plugin, loaded.
pub struct Plugin {
    settings: PluginSettings,
    code: Arc<Code>,
}

impl Plugin {
    /// Loads a plugin from the bytes of its file.
    ///
    /// # Errors
    /// [`AbiError`].
    pub fn load(
        runtime: &Runtime,
        settings: PluginSettings,
        bytes: &[u8],
    ) -> Result<Self, AbiError> {
        let code = Arc::new(Code::new(runtime, bytes, &settings.limits)?);
        Ok(Self { settings, code })
    }

    /// SHA-256 of its file.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        self.code.module.sha256
    }
}

impl Factory for Plugin {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn stage(&self) -> Stage {
        self.settings.stage
    }

    fn build(&self, section: &Section, env: &mut Env) -> Result<Hooks, Vec<Problem>> {
        let table: Map<String, Value> = section.deserialize()?;
        let settings = settings(section, table)?;
        let slot = env
            .slot()
            .map_err(|error| vec![section.problem(None, error.message)])?;
        let services = Services::new(&self.settings, env.clone());
        let common = Arc::new(Common::new(services, settings));
        let filter = Arc::new(Filter::new(Arc::clone(&common), Arc::clone(&self.code)));
        let cannot = |text: String| vec![section.problem(None, text)];
        let first = filter.start(0).map_err(|error| match error {
            NotStarted::Failed(error) => cannot(failed(&error)),
            NotStarted::Rejected(what) => cannot(format!(
                "the plugin does not take its configuration: {what} says so"
            )),
        })?;
        if let Some(place) = filter.vms.first() {
            *lock(place) = Some(first);
        }
        let job = Box::pin(drive(Arc::downgrade(&filter)));
        // Exchanges outlive the load that they began under, and need it: it ends with the last of them.
        env.jobs
            .spawn_to_end("proxy-wasm", job)
            .map_err(|error| cannot(error.to_string()))?;
        let hooks = Hook { filter, slot }.hooks(self.settings.stage);
        Ok(hooks.with_slots(env.slots_taken()))
    }
}

fn failed(error: &FilterError) -> String {
    format!("the plugin cannot be configured: {}", error.detail())
}

/// What a filter's table says.
fn settings(section: &Section, table: Map<String, Value>) -> Result<Settings, Vec<Problem>> {
    if !KEYS.iter().any(|key| table.contains_key(*key)) {
        let plugin = match table.is_empty() {
            true => Bytes::new(),
            false => Value::Object(table).to_string().into(),
        };
        return Ok(Settings {
            plugin,
            ..Settings::default()
        });
    }
    let mut problems = Vec::new();
    let mut settings = Settings::default();
    for (key, value) in table {
        match &*key {
            "configuration" => settings.plugin = verbatim(value),
            "vm-configuration" => settings.vm = verbatim(value),
            "clusters" => match clusters(value) {
                Ok(clusters) => settings.clusters = clusters,
                Err((name, text)) => {
                    let key = name.map_or(key, |name| format!("clusters.{name}"));
                    problems.push(section.problem(Some(&key), text.to_owned()));
                }
            },
            _ => {
                let text = format!(
                    "beside `{}` there is no `{key}`: put it into `configuration`",
                    KEYS.join("`, `")
                );
                problems.push(section.problem(Some(&key), text));
            }
        }
    }
    match problems.is_empty() {
        true => Ok(settings),
        false => Err(problems),
    }
}

fn verbatim(value: Value) -> Bytes {
    match value {
        Value::String(text) => text.into(),
        other => other.to_string().into(),
    }
}

/// Where upstreams are, by their names; else whose place is none.
fn clusters(value: Value) -> Result<HashMap<String, Uri>, (Option<String>, &'static str)> {
    let Value::Object(table) = value else {
        return Err((None, "write a table of names and URLs"));
    };
    let mut clusters = HashMap::new();
    for (name, value) in table {
        let url = value.as_str().and_then(|text| text.parse::<Uri>().ok());
        let url = url.filter(|url| {
            matches!(url.scheme_str(), Some("http" | "https"))
                && url.host().is_some()
                && url.path() == "/"
                && url.query().is_none()
        });
        match url {
            Some(url) => clusters.insert(name, url),
            None => return Err((Some(name), "write a URL such as `https://api.example.com`")),
        };
    }
    Ok(clusters)
}
