//! `adit plugin build`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::check::{self, Report};
use super::language::Language;
use crate::terminal::clean;

/// Build the filter in a folder, and check it
#[derive(Debug, Args)]
#[command(after_help = "\
A filter in Rust is built with `cargo build --release --target wasm32-wasip2`, and its component is
left beside Cargo.toml under the package's name. One in JavaScript is built with npm, by the script
`build` of its package.json, and one in Python with componentize-py, in an environment in its folder.

Examples:
  adit plugin build
  adit plugin build filters/only-browsers")]
pub(super) struct BuildArgs {
    /// The filter's folder
    #[arg(default_value = ".", value_name = "FOLDER")]
    folder: PathBuf,
}

impl BuildArgs {
    /// For the filter in this folder.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }
}

/// Builds, and says where the component is; none if no engine could load it.
pub(super) fn build(args: &BuildArgs) -> anyhow::Result<Option<PathBuf>> {
    let folder = &args.folder;
    let built = Language::of(folder)?.build(folder)?;
    let shown = built.component.display();
    let bytes = fs::read(&built.component).with_context(|| format!("cannot read `{shown}`"))?;
    let report = match check::look(&bytes) {
        Ok(report) => report,
        Err(error) => {
            println!("{shown}: not loadable: {}", clean(&error.to_string()));
            return Ok(None);
        }
    };
    let place = match folder.as_os_str() == "." {
        true => PathBuf::from(format!("{}.wasm", built.name)),
        false => folder.join(format!("{}.wasm", built.name)),
    };
    let shown = place.display();
    fs::write(&place, &bytes).with_context(|| format!("cannot write `{shown}`"))?;
    let Report {
        bytes,
        sha256,
        phases,
        ..
    } = &report;
    println!("{shown}");
    println!("  size    {} bytes", super::grouped(*bytes as u64));
    println!("  sha256  {sha256}");
    println!("  phases  {}", phases.join(", "));
    println!("`adit plugin check {shown}` says more, `adit plugin test {shown}` tries it");
    Ok(Some(place))
}
