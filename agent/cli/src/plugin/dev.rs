//! `adit plugin dev`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use adit_config::{Settling, Stamp};
use anyhow::Context as _;
use clap::Args;

use super::build::{self, BuildArgs};
use super::test::{self, TestArgs};
use crate::process::Stop;
use crate::terminal::clean;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Most files looked at.
const FILES_MAX: usize = 10_000;

/// Folders that hold what is made, and what others wrote.
const PASSED_OVER: [&str; 7] = [
    "target",
    "dist",
    "node_modules",
    "vendor",
    "types",
    "wit_world",
    "__pycache__",
];

/// Build the filter in a folder, and try its cases, whenever something in it changes
#[derive(Debug, Args)]
#[command(after_help = "\
An engine takes a changed component up by itself. Beside this, with the same folder:

  adit dev 3000 --plugin only-browsers/only-browsers.wasm

What the engine's filter then says of each request is in the lines of `adit dev`. A component that
no engine could load is not put in place of the one that is there. Ctrl-C ends it.

Examples:
  adit plugin dev
  adit plugin dev only-browsers")]
pub(super) struct DevArgs {
    /// The filter's folder
    #[arg(default_value = ".", value_name = "FOLDER")]
    folder: PathBuf,
}

pub(super) fn dev(args: DevArgs) -> anyhow::Result<ExitCode> {
    crate::process::block_on(watch(args.folder))
}

async fn watch(folder: PathBuf) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::new()?;
    let mut settling = Settling::acted_upon(None);
    loop {
        let seen = sources(&folder)?;
        if settling.look(Some(seen)) {
            let folder = folder.clone();
            tokio::select! {
                done = tokio::task::spawn_blocking(move || round(&folder)) => done?,
                () = stop.wanted() => break,
            }
            println!("\nwaiting for a change; Ctrl-C ends");
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.wanted() => break,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds once, and tries the cases if that went well.
fn round(folder: &Path) {
    let built = build::build(&BuildArgs::new(folder.to_owned()));
    let tried = built.and_then(|component| match component {
        Some(component) if component.with_file_name(test::CASES).is_file() => {
            test::test(&TestArgs::new(component)).map(|_| ())
        }
        _ => Ok(()),
    });
    if let Err(error) = tried {
        eprintln!("{}", clean(&format!("{error:#}")));
    }
}

/// The files that a filter is made of, and how they are.
fn sources(folder: &Path) -> anyhow::Result<BTreeMap<PathBuf, Stamp>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        let entries = match fs::read_dir(&next) {
            // It was there a moment ago.
            Err(_) if next != folder => continue,
            entries => entries.with_context(|| format!("cannot read `{}`", next.display()))?,
        };
        for entry in entries.flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            let name = name.to_string_lossy();
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if name.starts_with('.') || name.ends_with(".wasm") || name == "Cargo.lock" {
                continue;
            }
            if kind.is_dir() && !PASSED_OVER.contains(&&*name) {
                open.push(path);
            } else if kind.is_file()
                && found.len() < FILES_MAX
                && let Some(stamp) = Stamp::of(&path)
            {
                found.insert(path, stamp);
            }
        }
    }
    Ok(found)
}
