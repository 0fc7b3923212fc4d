//! Filters in JavaScript.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::{Built, CASES, File, VENDOR, WIT, file_name, ours, run};

/// What says that a folder holds a filter in JavaScript.
pub(super) const MARK: &str = "package.json";

/// Where the tools look for what the interface is made of.
const DEPENDENCY: &str = "wit/deps/adit-filter/";

/// A new project's files.
pub(super) fn files(name: &str) -> Vec<File> {
    let own = [
        (MARK, include_str!("javascript/package.json")),
        ("filter.js", include_str!("javascript/filter.js")),
        ("wit/world.wit", include_str!("javascript/world.wit")),
        ("tsconfig.json", include_str!("javascript/tsconfig.json")),
        ("cases.toml", CASES),
        ("README.md", include_str!("javascript/readme.md")),
        (".gitignore", include_str!("javascript/gitignore")),
    ];
    let own = own.map(|(path, text)| File::new(path, text.replace("{{name}}", name)));
    let interface = WIT.into_iter().map(|(path, text)| {
        match path
            .strip_suffix(".wit")
            .and_then(|path| path.strip_prefix("wit/"))
        {
            Some(name) => File::new(format!("{DEPENDENCY}{name}.wit"), text),
            None => File::new(format!("{VENDOR}{path}"), text),
        }
    });
    let carried = [ours!("LICENSE"), ours!("plugins/guest-js/filter.js")];
    let carried = carried.map(|(path, text)| File::new(format!("{VENDOR}{path}"), text));
    // The versions that our own example is built and tested with.
    let (_, lock) = ours!("plugins/examples/js/package-lock.json");
    let carried = interface
        .chain(carried)
        .chain([File::new("package-lock.json", lock)]);
    own.into_iter().chain(carried).collect()
}

/// Has npm build the project, with its tools fetched first where they are not there yet.
pub(super) fn build(folder: &Path) -> anyhow::Result<Built> {
    let name = package_name(&folder.join(MARK))?;
    let (npm, otherwise) = (Path::new("npm"), "https://nodejs.org has it, with Node.js");
    // What npm writes when it is done.
    if !folder.join("node_modules/.package-lock.json").is_file() {
        run(folder, npm, &["ci", "--no-audit", "--no-fund"], otherwise)?;
    }
    run(folder, npm, &["run", "--silent", "build"], otherwise)?;
    let component = folder.join("dist").join(format!("{name}.wasm"));
    if !component.is_file() {
        bail!(
            "npm built no `{}`: does the script `build` write there?",
            component.display()
        );
    }
    Ok(Built { name, component })
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
    file_name(name, manifest)
}
