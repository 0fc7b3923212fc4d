//! Filters in Python.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::{Built, File};

/// What says that a folder holds a filter in Python.
pub(super) const MARK: &str = "pyproject.toml";

/// Where the project's tools are.
const TOOLS: &str = ".venv";

macro_rules! ours {
    ($path:literal) => {
        (
            concat!("vendor/adit/", $path),
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../", $path)),
        )
    };
}

/// What filters are written with, where a project has it.
const SOURCES: &[(&str, &str)] = &[
    ours!("LICENSE"),
    ours!("wit/README.md"),
    ours!("wit/context.wit"),
    ours!("wit/host.wit"),
    ours!("wit/phases.wit"),
    ours!("wit/types.wit"),
    ours!("wit/world.wit"),
];

/// The version that our own example is built and tested with.
const REQUIREMENTS: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../plugins/examples/python/requirements.txt"
));

/// A new project's files.
pub(super) fn files(name: &str) -> Vec<File> {
    let own = [
        (MARK, include_str!("python/pyproject.toml")),
        ("requirements.txt", REQUIREMENTS),
        ("filter.py", include_str!("python/filter.py")),
        ("world.wit", include_str!("python/world.wit")),
        ("cases.toml", include_str!("python/cases.toml")),
        ("README.md", include_str!("python/readme.md")),
        (".gitignore", include_str!("python/gitignore")),
    ];
    let own = own.map(|(path, text)| File::new(path, text.replace("{{name}}", name)));
    let carried = SOURCES.iter().map(|(path, text)| File::new(*path, *text));
    own.into_iter().chain(carried).collect()
}

/// Has componentize-py build the project, fetched first into an environment of the project's own where it is not there
/// yet.
pub(super) fn build(folder: &Path) -> anyhow::Result<Built> {
    let name = package_name(&folder.join(MARK))?;
    let tool = Path::new(TOOLS).join("bin/componentize-py");
    if !folder.join(&tool).is_file() {
        let why = "https://www.python.org has it";
        run(folder, Path::new("python3"), &["-m", "venv", TOOLS], why)?;
        let pip = Path::new(TOOLS).join("bin/python");
        let args = ["-m", "pip", "install", "-q", "-r", "requirements.txt"];
        run(folder, &pip, &args, "remove `.venv` and try again")?;
    }
    let place = folder.join("dist");
    fs::create_dir_all(&place).with_context(|| format!("cannot make `{}`", place.display()))?;
    let component = format!("dist/{name}.wasm");
    let args = [
        "-d",
        "vendor/adit/wit",
        "-d",
        "world.wit",
        "-w",
        "project:filter/filter",
        "componentize",
        "filter",
        "-o",
        &component,
    ];
    run(folder, &tool, &args, "remove `.venv` and try again")?;
    let component = folder.join(component);
    Ok(Built { name, component })
}

/// What a tool says goes to stderr as it says it.
fn run(folder: &Path, tool: &Path, args: &[&str], otherwise: &str) -> anyhow::Result<()> {
    // A path is looked for from the folder, a name where commands are.
    let program = match tool.components().count() {
        1 => tool.to_owned(),
        _ => std::path::absolute(folder.join(tool))?,
    };
    let shown = tool.display();
    let status = Command::new(program)
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("cannot run `{shown}`: {otherwise}"))?;
    match status.success() {
        true => Ok(()),
        false => bail!("`{shown}` failed: see above"),
    }
}

fn package_name(manifest: &Path) -> anyhow::Result<String> {
    #[derive(Deserialize)]
    struct Manifest {
        project: Named,
    }
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let shown = manifest.display();
    let text = fs::read_to_string(manifest).with_context(|| format!("cannot read `{shown}`"))?;
    let Manifest {
        project: Named { name },
    } = toml::from_str(&text)
        .with_context(|| format!("`{shown}` does not say what the project is called"))?;
    match name.contains(['/', '\\']) || name.starts_with('.') {
        false => Ok(name),
        true => bail!("`{shown}`: `name` names a file too, write it without `/` and no `.` first"),
    }
}
