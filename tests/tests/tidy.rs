//! Rules of the repository that no compiler checks. Each breach is reported with `file:line`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Lines a source file may have, its tests apart.
const SOURCE_LINES_MAX: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Every file below `folder` with this ending, with its path from the root.
fn files(folder: &str, ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with('.') || name == "target" || name == "node_modules" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(ending) {
                let shown = path.strip_prefix(root()).unwrap();
                let shown = shown.to_string_lossy().into_owned();
                found.push((shown, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn report(rule: &str, breaches: Vec<String>) {
    assert!(breaches.is_empty(), "{rule}:\n{}", breaches.join("\n"));
}

/// Which crates a crate may name, from the table in ARCHITECTURE.md.
const MAY_IMPORT: [(&str, &[&str]); 10] = [
    ("config", &[]),
    ("filters", &["adit-config"]),
    ("plugins/native", &["adit-config", "adit-filters"]),
    ("plugins/wasm", &["adit-config", "adit-filters"]),
    (
        "plugins/proxy-wasm",
        &["adit-config", "adit-filters", "adit-wasm"],
    ),
    ("agent/protocol", &[]),
    ("agent/transport", &["adit-protocol"]),
    ("agent/sdk", &["adit-protocol", "adit-transport"]),
    (
        "proxy",
        &[
            "adit-config",
            "adit-filters",
            "adit-plugins",
            "adit-protocol",
            "adit-proxy-wasm",
            "adit-transport",
            "adit-wasm",
        ],
    ),
    (
        "agent/cli",
        &[
            "adit-agent",
            "adit-config",
            "adit-filters",
            "adit-plugins",
            "adit-protocol",
            "adit-proxy",
            "adit-transport",
            "adit-wasm",
        ],
    ),
];

#[test]
fn crates_depend_in_one_direction() {
    let mut breaches = Vec::new();
    for (folder, allowed) in MAY_IMPORT {
        let manifest = format!("{folder}/Cargo.toml");
        let text = fs::read_to_string(root().join(&manifest)).unwrap();
        let mut section = "";
        for (at, line) in text.lines().enumerate() {
            if line.starts_with('[') {
                section = line;
            }
            let name = line.split(['.', ' ', '=']).next().unwrap();
            let counted = section == "[dependencies]" || section == "[build-dependencies]";
            if counted && name.starts_with("adit") && !allowed.contains(&name) {
                breaches.push(format!("{manifest}:{}: {name}", at + 1));
            }
        }
    }
    report("a crate imports what it may not", breaches);
}

/// A library, and where alone it may be named.
const ONLY_IN: [(&str, &[&str]); 4] = [
    (
        "hyper::",
        &["proxy/src/edge/http1/", "agent/cli/src/", "tests/"],
    ),
    (
        "h2::",
        &["proxy/src/edge/http2/", "agent/cli/src/", "tests/"],
    ),
    (
        "quinn::",
        &[
            "proxy/src/listen/",
            "proxy/src/edge/",
            "agent/transport/src/",
        ],
    ),
    ("wasmtime::", &["plugins/wasm/"]),
];

#[test]
fn protocol_libraries_are_named_in_their_rooms_only() {
    let mut breaches = Vec::new();
    for folder in ["config", "filters", "plugins", "agent", "proxy"] {
        for (path, text) in files(folder, ".rs") {
            for (library, rooms) in ONLY_IN {
                if rooms.iter().any(|room| path.starts_with(room)) {
                    continue;
                }
                for (at, line) in text.lines().enumerate() {
                    let named = line.match_indices(library).any(|(start, _)| {
                        !line[..start]
                            .ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
                    });
                    if named && !line.trim_start().starts_with("//") {
                        breaches.push(format!("{path}:{}: {library}", at + 1));
                    }
                }
            }
        }
    }
    report("a library is named outside its room", breaches);
}

/// What the crates without input and output must not name.
const NO_IO: [&str; 6] = [
    "std::net::Tcp",
    "std::fs::",
    "tokio::",
    "Instant::now",
    "SystemTime::now",
    "std::thread",
];

#[test]
fn the_core_crates_do_no_io_and_read_no_clock() {
    let mut breaches = Vec::new();
    for folder in ["filters/src", "agent/protocol/src"] {
        for (path, text) in files(folder, ".rs") {
            for (at, line) in code_lines(&text) {
                for banned in NO_IO {
                    if line.contains(banned) {
                        breaches.push(format!("{path}:{}: {banned}", at + 1));
                    }
                }
            }
        }
    }
    report("a core crate reaches outside", breaches);
}

/// Lines that are neither comments nor a file's own tests.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

#[test]
fn files_stay_small_enough_to_read() {
    let mut breaches = Vec::new();
    for folder in ["config/src", "filters/src", "plugins", "agent", "proxy/src"] {
        for (path, text) in files(folder, ".rs") {
            if path.contains("/tests/") || path.contains("/target/") {
                continue;
            }
            let lines = text
                .lines()
                .take_while(|line| !line.starts_with("#[cfg(test)]"))
                .count();
            if lines > SOURCE_LINES_MAX {
                breaches.push(format!("{path}:{lines}: over {SOURCE_LINES_MAX} lines"));
            }
        }
    }
    report("a file is too long", breaches);
}

#[test]
fn no_left_over_markers_and_no_silent_exceptions() {
    // Spelled apart so that this file does not report itself.
    let markers = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("#[igno", "re]"),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
    ];
    let mut breaches = Vec::new();
    for folder in ["config", "filters", "plugins", "agent", "proxy", "tests"] {
        for (path, text) in files(folder, ".rs") {
            for (at, line) in text.lines().enumerate() {
                for marker in markers {
                    if line.contains(marker) {
                        breaches.push(format!("{path}:{}: {marker}", at + 1));
                    }
                }
            }
        }
    }
    report("a marker was left behind", breaches);
}

#[test]
fn every_filter_has_a_sample_and_a_row_in_the_readme() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let mut breaches = Vec::new();
    let mut filters = 0;
    for (path, text) in files("plugins/native/src", ".rs") {
        for (at, line) in code_lines(&text) {
            let Some(rest) = line.trim().strip_prefix("const NAME: &'static str = \"") else {
                continue;
            };
            let name = rest.split('"').next().unwrap();
            filters += 1;
            let sample = root().join(format!("config/examples/filters/{name}.toml"));
            if !sample.exists() {
                breaches.push(format!("{path}:{}: `{name}` has no sample", at + 1));
            }
            if !readme.contains(&format!("`{name}`")) {
                breaches.push(format!("{path}:{}: `{name}` is not in README.md", at + 1));
            }
        }
    }
    assert!(filters >= 4, "found only {filters} filters");
    report("a filter is not shown to its users", breaches);
}

/// Cases of the edge's description, by letter and number.
const CASES: [(char, usize); 5] = [('C', 30), ('T', 22), ('M', 15), ('H', 13), ('X', 19)];

#[test]
fn every_case_is_named_in_a_test_or_in_the_list_of_those_that_wait() {
    let list = fs::read_to_string(root().join("tests/CONFORMANCE.md")).unwrap();
    let waiting: Vec<&str> = list
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .collect();
    let mut named = std::collections::BTreeSet::new();
    let places = [
        ("config", ".rs"),
        ("filters", ".rs"),
        ("plugins", ".rs"),
        ("agent", ".rs"),
    ];
    let places = places
        .iter()
        .chain(&[("proxy", ".rs"), ("tests", ".rs"), ("tests", ".py")]);
    for (path, text) in places.flat_map(|(folder, ending)| files(folder, ending)) {
        if path.ends_with("tidy.rs") {
            continue;
        }
        let lines = text.lines().filter(|line| line.contains(['#', '/', '"']));
        let words = lines.flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric()));
        named.extend(words.filter(|word| word.len() <= 3).map(str::to_owned));
    }
    let mut breaches = Vec::new();
    for (letter, count) in CASES {
        for number in 1..=count {
            let case = format!("{letter}{number}");
            match (named.contains(&case), waiting.contains(&case.as_str())) {
                (false, false) => breaches.push(format!("{case}: no test names it")),
                (true, true) => breaches.push(format!("{case}: a test names it, and it waits")),
                _ => {}
            }
        }
    }
    report("tests/CONFORMANCE.md is not true", breaches);
}

#[test]
fn nothing_in_the_repository_names_the_machine_it_was_made_on() {
    let mut breaches = Vec::new();
    for ending in [".rs", ".toml", ".md", ".py", ".sh", ".mjs", ".go"] {
        for (path, text) in files(".", ending) {
            if path.starts_with("target/") || path.contains("/.cache/") {
                continue;
            }
            for (at, line) in text.lines().enumerate() {
                for place in [concat!("/wo", "rk/"), concat!("/ro", "ot/")] {
                    if line.contains(place) {
                        breaches.push(format!("{path}:{}: {place}", at + 1));
                    }
                }
            }
        }
    }
    report("a path of one machine", breaches);
}
