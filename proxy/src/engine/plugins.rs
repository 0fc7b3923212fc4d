//! Plugins as a configuration wants them: kinds of filter made of components, or of modules for proxy-wasm.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use adit_config::{Plugin, PluginLimits, Problem, Wasm};
use adit_filters::{Factory, Registry, Stage, UnknownStage};
use adit_proxy_wasm::is_proxy_wasm;
use adit_wasm::{
    COMPONENT_BYTES_MAX, Grants, Limits, Plugin as Loaded, PluginSettings, Runtime, RuntimeError,
    Settings,
};

use crate::env::Load;

/// The folder in `engine.state-dir` where compiled components are kept.
const CACHE: &str = "compiled";

/// What components run in, as the configuration wants it.
///
/// # Errors
/// [`RuntimeError`].
pub(super) fn runtime(wasm: &Wasm, state_dir: Option<&Path>) -> Result<Runtime, RuntimeError> {
    let settings = Settings {
        instances: wasm.instances,
        memory: wasm.instance_memory,
        large_instances: wasm.large_instances,
        large_memory: wasm.large_memory,
        cache: state_dir.map(|folder| folder.join(CACHE)),
    };
    Runtime::new(&settings)
}

/// Adds every plugin that can be used to the kinds of filter; what is wrong with the others goes to the problems.
pub(super) fn add(
    mut registry: Registry,
    asked: Asked<'_>,
    load: &Load,
    problems: &mut Vec<Problem>,
) -> Registry {
    for plugin in asked.plugins.values() {
        match one(&registry, &asked, plugin, load) {
            Ok(loaded) => registry = registry.with_factory(loaded),
            Err(problem) => problems.push(problem),
        }
    }
    registry
}

/// The plugins that a configuration asks for.
pub(super) struct Asked<'a> {
    pub(super) plugins: &'a BTreeMap<String, Plugin>,
    pub(super) runtime: &'a Runtime,
    /// A problem at a key of the configuration.
    pub(super) problem: &'a dyn Fn(&str, String) -> Problem,
}

fn one(
    registry: &Registry,
    asked: &Asked<'_>,
    plugin: &Plugin,
    load: &Load,
) -> Result<Box<dyn Factory>, Problem> {
    let name = &plugin.name;
    let wrong = |key: &str, text: String| (asked.problem)(&format!("plugin.{name}{key}"), text);
    if registry.find(name).is_some() {
        let text = format!("there is a built-in filter `{name}`, give the plugin another name");
        return Err(wrong("", text));
    }
    let shown = plugin.component.display();
    let bytes = read(&plugin.component)
        .map_err(|error| wrong(".component", format!("`{shown}` cannot be read: {error}")))?;
    let settings = settings(plugin, asked.runtime.memory_of(&bytes))
        .map_err(|error| wrong(".stage", error.to_string()))?;
    let unusable = |text: String| wrong(".component", format!("`{shown}` cannot be used: {text}"));
    let (loaded, sha256): (Box<dyn Factory>, _) = match is_proxy_wasm(&bytes) {
        true => {
            let loaded = adit_proxy_wasm::Plugin::load(asked.runtime, settings, &bytes)
                .map_err(|error| unusable(error.to_string()))?;
            let sha256 = loaded.sha256();
            (Box::new(loaded), sha256)
        }
        false => {
            let env = load.env(&format!("plugin/{name}"));
            let loaded = Loaded::load(asked.runtime, settings, &bytes, env)
                .map_err(|error| unusable(error.to_string()))?;
            let sha256 = loaded.component().sha256;
            (Box::new(loaded), sha256)
        }
    };
    if let Some(pinned) = &plugin.sha256 {
        let found = hex::encode(sha256);
        if !pinned.eq_ignore_ascii_case(&found) {
            let text = format!("`{shown}` is another file: its SHA-256 is {found}");
            return Err(wrong(".sha256", text));
        }
    }
    Ok(loaded)
}

/// What a plugin is, as its table says. `usual_memory` is what an instance may have where the table does not say.
///
/// # Errors
/// If its stage is none.
pub fn settings(plugin: &Plugin, usual_memory: usize) -> Result<PluginSettings, UnknownStage> {
    let stage = match &plugin.stage {
        None => Stage::default(),
        Some(text) => text.parse()?,
    };
    Ok(PluginSettings {
        name: plugin.name.clone(),
        stage,
        grants: Grants {
            allow_hosts: plugin.allow_hosts.iter().cloned().collect(),
            allow_private_hosts: plugin.allow_private_hosts.iter().cloned().collect(),
            establish_identity: plugin.establish_identity,
        },
        limits: limits(&plugin.limits, usual_memory),
        reuse: plugin.reuse,
    })
}

/// The bytes of a plugin's file, one more than is taken at most.
///
/// # Errors
/// If it cannot be read.
pub fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than is taken: a larger file is told from one that just fits.
    let limit = COMPONENT_BYTES_MAX as u64 + 1;
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn limits(of: &PluginLimits, usual_memory: usize) -> Limits {
    Limits {
        memory: of.memory.unwrap_or(usual_memory),
        fuel_start: of.start_fuel,
        fuel_decide: of.decide_fuel,
        fuel_piece: of.piece_fuel,
        wait: of.wait,
        host_calls: of.host_calls,
        fields: of.fields,
        field_bytes: of.field_bytes,
        variable_bytes: of.variable_bytes,
        reply_bytes: of.reply_bytes,
        log_lines: of.log_lines,
        log_line_bytes: of.log_line_bytes,
        fetch_bytes: of.fetch_bytes,
    }
}
