//! Filters in JavaScript.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::{Built, File};

/// What says that a folder holds a filter in JavaScript.
pub(super) const MARK: &str = "package.json";

macro_rules! ours {
    ($path:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../", $path))
    };
}

/// What filters are written with, where a project has it.
const SOURCES: &[(&str, &str)] = &[
    ("vendor/adit/LICENSE", ours!("LICENSE")),
    (
        "vendor/adit/plugins/guest-js/filter.js",
        ours!("plugins/guest-js/filter.js"),
    ),
    ("vendor/adit/wit/README.md", ours!("wit/README.md")),
    ("wit/deps/adit-filter/context.wit", ours!("wit/context.wit")),
    ("wit/deps/adit-filter/host.wit", ours!("wit/host.wit")),
    ("wit/deps/adit-filter/phases.wit", ours!("wit/phases.wit")),
    ("wit/deps/adit-filter/types.wit", ours!("wit/types.wit")),
    ("wit/deps/adit-filter/world.wit", ours!("wit/world.wit")),
    // The versions that our own example is built and tested with.
    (
        "package-lock.json",
        ours!("plugins/examples/js/package-lock.json"),
    ),
];

/// A new project's files.
pub(super) fn files(name: &str) -> Vec<File> {
    let own = [
        (MARK, include_str!("javascript/package.json")),
        ("filter.js", include_str!("javascript/filter.js")),
        ("wit/world.wit", include_str!("javascript/world.wit")),
        ("tsconfig.json", include_str!("javascript/tsconfig.json")),
        ("cases.toml", include_str!("javascript/cases.toml")),
        ("README.md", include_str!("javascript/readme.md")),
        (".gitignore", include_str!("javascript/gitignore")),
    ];
    let own = own.map(|(path, text)| File::new(path, text.replace("{{name}}", name)));
    let carried = SOURCES.iter().map(|(path, text)| File::new(*path, *text));
    own.into_iter().chain(carried).collect()
}

/// Has npm build the project, with its tools fetched first where they are not there yet.
pub(super) fn build(folder: &Path) -> anyhow::Result<Built> {
    let name = package_name(&folder.join(MARK))?;
    // What npm writes when it is done.
    if !folder.join("node_modules/.package-lock.json").is_file() {
        npm(
            folder,
            &["ci", "--no-audit", "--no-fund"],
            "fetch the tools of",
        )?;
    }
    npm(folder, &["run", "--silent", "build"], "build")?;
    let component = folder.join("dist").join(format!("{name}.wasm"));
    if !component.is_file() {
        bail!(
            "npm built no `{}`: does the script `build` write there?",
            component.display()
        );
    }
    Ok(Built { name, component })
}

/// What npm says goes to stderr as it says it.
fn npm(folder: &Path, args: &[&str], to: &str) -> anyhow::Result<()> {
    let status = Command::new("npm")
        .args(args)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .context("cannot run `npm`: https://nodejs.org has it, with Node.js")?;
    match status.success() {
        true => Ok(()),
        false => bail!("npm could not {to} `{}`: see above", folder.display()),
    }
}

fn package_name(manifest: &Path) -> anyhow::Result<String> {
    #[derive(Deserialize)]
    struct Manifest {
        name: String,
    }
    let shown = manifest.display();
    let text = fs::read_to_string(manifest).with_context(|| format!("cannot read `{shown}`"))?;
    let Manifest { name } = serde_json::from_str(&text)
        .with_context(|| format!("`{shown}` is not the manifest of a package"))?;
    match name.contains(['/', '\\']) || name.starts_with('.') {
        false => Ok(name),
        true => bail!("`{shown}`: `name` names a file too, write it without `/` and no `.` first"),
    }
}
