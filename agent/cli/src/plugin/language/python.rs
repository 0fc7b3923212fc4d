//! Filters in Python.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

use super::{Built, CASES, File, VENDOR, WIT, file_name, ours, run};

/// What says that a folder holds a filter in Python.
pub(super) const MARK: &str = "pyproject.toml";

/// Where the project's tools are.
const TOOLS: &str = ".venv";

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
        ("cases.toml", CASES),
        ("README.md", include_str!("python/readme.md")),
        (".gitignore", include_str!("python/gitignore")),
    ];
    let own = own.map(|(path, text)| File::new(path, text.replace("{{name}}", name)));
    let carried = WIT.into_iter().chain([ours!("LICENSE")]);
    let carried = carried.map(|(path, text)| File::new(format!("{VENDOR}{path}"), text));
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
    file_name(name, manifest)
}
