//! `adit plugin check`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use adit_proxy::engine::plugin_bytes;
use adit_proxy::env::World;
use adit_wasm::{ComponentError, Limits, Plugin, PluginSettings, Runtime, Settings};
use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::terminal::clean;

/// Instances at a time: one filter is looked at or tried, and nobody else is there.
const INSTANCES: u32 = 8;

/// Say whether an engine can load a component, and what it wants
#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 if an engine can load it, 1 if not.

Examples:
  adit plugin check only-browsers.wasm
  adit plugin check only-browsers.wasm --json")]
pub(super) struct CheckArgs {
    /// The component
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What there is to say about a component.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) bytes: usize,
    pub(super) sha256: String,
    /// Where it takes part.
    pub(super) phases: Vec<&'static str>,
    /// Where its filters could stand to some effect.
    /// Which stage suits it: it may stand at any.
    stage: &'static str,
    exports: Vec<String>,
    imports: Vec<Imported>,
    /// Keys of its table in the configuration without which it will not do all it can.
    grants: Vec<Grant>,
    config: Vec<Setting>,
    schema: Value,
}

/// A report on a component that can be used.
#[derive(Serialize)]
struct Loadable<'a> {
    loadable: bool,
    #[serde(flatten)]
    report: &'a Report,
}

#[derive(Debug, Serialize)]
struct Imported {
    interface: String,
    functions: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Grant {
    key: &'static str,
    why: &'static str,
}

/// A key of a filter's table.
#[derive(Debug, Serialize)]
struct Setting {
    key: String,
    #[serde(rename = "type")]
    kind: String,
    required: bool,
    about: Option<String>,
}

pub(super) fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let bytes = read(&args.file)?;
    let shown = clean(&args.file.display().to_string());
    match look(&bytes) {
        Ok(report) if args.json => {
            let loadable = Loadable {
                loadable: true,
                report: &report,
            };
            println!("{}", serde_json::to_string_pretty(&loadable)?);
            Ok(ExitCode::SUCCESS)
        }
        Ok(report) => {
            println!("{shown}: loadable");
            print!("{}", told(&report));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) if args.json => {
            let value = serde_json::json!({ "loadable": false, "why": error.to_string() });
            println!("{}", serde_json::to_string_pretty(&value)?);
            Ok(ExitCode::FAILURE)
        }
        Err(error) => {
            println!("{shown}: not loadable: {}", clean(&error.to_string()));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The bytes of a component.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    plugin_bytes(path).with_context(|| format!("cannot read `{}`", path.display()))
}

/// What components run on while one is looked at or tried.
pub(super) fn runtime() -> anyhow::Result<Runtime> {
    let settings = Settings {
        instances: INSTANCES,
        large_instances: INSTANCES,
        ..Settings::default()
    };
    Runtime::new(&settings).context("components cannot be run on this machine")
}

/// Loads a component as an engine would.
pub(super) fn look(bytes: &[u8]) -> anyhow::Result<Report> {
    let runtime = runtime()?;
    let settings = PluginSettings {
        name: "checked".to_owned(),
        stage: adit_filters::Stage::default(),
        grants: adit_wasm::Grants::default(),
        limits: Limits {
            memory: runtime.memory_of(bytes),
            ..Limits::default()
        },
        reuse: 1,
    };
    let world = World::for_check().context("there is nothing to run it in")?;
    let env = world.load().env("plugin/checked");
    let plugin = Plugin::load(&runtime, settings, bytes, env)
        .map_err(|error: ComponentError| anyhow::anyhow!("{error}"))?;
    let component = plugin.component();
    let imports = component.imports();
    let uses = |interface, function| {
        imports
            .iter()
            .any(|import| import.uses(interface, function))
    };
    let mut grants = Vec::new();
    if uses("http-client", "fetch") {
        grants.push(Grant {
            key: "allow-hosts",
            why: "it can send requests of its own: name the hosts (`allow-private-hosts` for those in the house)",
        });
    }
    if uses("context", "[method]exchange.establish-identity") {
        grants.push(Grant {
            key: "establish-identity",
            why: "it can say who visitors are",
        });
    }
    let phases = component.phases();
    Ok(Report {
        bytes: bytes.len(),
        sha256: hex::encode(component.sha256),
        stage: stage(&phases, &grants),
        exports: component.exports(),
        imports: imports
            .iter()
            .map(|import| Imported {
                interface: import.interface.clone(),
                functions: import.functions.clone(),
            })
            .collect(),
        grants,
        config: settings_of(plugin.schema()),
        schema: plugin.schema().clone(),
        phases,
    })
}

fn stage(phases: &[&str], grants: &[Grant]) -> &'static str {
    let only = |one: &str| phases.iter().all(|phase| *phase == one);
    if grants.iter().any(|grant| grant.key == "establish-identity") {
        "`identity` suits it: what stands behind can ask who the visitor is"
    } else if only("log") {
        "`log` suits it"
    } else if phases.contains(&"connect") {
        "`network` suits what looks at addresses alone"
    } else {
        "`policy`, unless its table names another"
    }
}

/// The keys that a schema describes.
fn settings_of(schema: &Value) -> Vec<Setting> {
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let properties = schema.get("properties").and_then(Value::as_object);
    let properties = properties.into_iter().flatten();
    let settings = properties.map(|(key, of)| Setting {
        required: required.contains(&key.as_str()),
        kind: kind(of, schema, KIND_DEPTH),
        about: of
            .get("description")
            .and_then(Value::as_str)
            .map(str::to_owned),
        key: key.clone(),
    });
    let mut settings: Vec<Setting> = settings.collect();
    settings.sort_by_key(|setting| !setting.required);
    settings
}

/// How deep lists of lists are told of: schemas come from strangers.
const KIND_DEPTH: usize = 3;

/// What a key holds, in a few words.
fn kind(of: &Value, schema: &Value, depth: usize) -> String {
    if let Some(place) = of.get("$ref").and_then(Value::as_str) {
        let found = schema.pointer(place.trim_start_matches('#'));
        // One step: what refers on is named by where it leads.
        return match found.filter(|found| found.get("$ref").is_none()) {
            Some(found) => kind(found, &Value::Null, depth),
            None => place.rsplit('/').next().unwrap_or_default().to_owned(),
        };
    }
    if let Some(values) = of.get("enum").and_then(Value::as_array) {
        let values: Vec<String> = values.iter().map(Value::to_string).collect();
        return format!("one of {}", values.join(", "));
    }
    let names: Vec<&str> = match of.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names
            .iter()
            .filter_map(Value::as_str)
            .filter(|name| *name != "null")
            .collect(),
        _ => return "a value".to_owned(),
    };
    let names = names.iter().map(|name| match *name {
        "array" => match of.get("items") {
            Some(items) if depth > 0 => format!("list of {}", kind(items, schema, depth - 1)),
            _ => "list".to_owned(),
        },
        "object" => "table".to_owned(),
        other => other.to_owned(),
    });
    names.collect::<Vec<_>>().join(" or ")
}

fn told(report: &Report) -> String {
    let mut lines: Vec<(&str, String)> = vec![
        (
            "size",
            format!("{} bytes", super::grouped(report.bytes as u64)),
        ),
        ("sha256", report.sha256.clone()),
        ("phases", report.phases.join(", ")),
        ("stage", format!("any; {}", report.stage)),
    ];
    for export in &report.exports {
        lines.push(("exports", export.clone()));
    }
    let mut wasi = false;
    for Imported {
        interface,
        functions,
    } in &report.imports
    {
        // What every compiler adds, and finds empty.
        if interface.starts_with("wasi:") {
            wasi = true;
            continue;
        }
        let functions: Vec<&str> = functions
            .iter()
            .map(|name| name.split(']').next_back().unwrap_or(name))
            .collect();
        let text = match functions.is_empty() {
            true => interface.clone(),
            false => format!("{interface}: {}", functions.join(", ")),
        };
        lines.push(("imports", text));
    }
    if wasi {
        let text = "WASI, where there are no files, no sockets and no environment";
        lines.push(("imports", text.to_owned()));
    }
    match report.grants.is_empty() {
        true => lines.push(("grants", "none needed".to_owned())),
        false => lines.extend(
            report
                .grants
                .iter()
                .map(|grant| ("grants", format!("`{}`: {}", grant.key, grant.why))),
        ),
    }
    for setting in &report.config {
        let mut text = format!("`{}`: {}", setting.key, setting.kind);
        if !setting.required {
            text.push_str(", may be left out");
        }
        if let Some(about) = &setting.about {
            text.push_str(&format!(". {}", about.replace('\n', " ")));
        }
        lines.push(("config", text));
    }
    if report.config.is_empty() {
        lines.push(("config", "no keys".to_owned()));
    }
    let mut text = String::new();
    let mut before = "";
    for (name, line) in lines {
        // A name is written once for the lines that it heads.
        let shown = if name == before { "" } else { name };
        text.push_str(&format!("  {shown:<8} {}\n", clean(&line)));
        before = name;
    }
    text
}
