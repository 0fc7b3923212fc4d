//! `adit engine` as an operator uses it.
#![cfg(feature = "engine")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::{Running, adit, output};

/// A folder with what `engine init` leaves and a certificate, the engine on a port of its own.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let told = output(adit(folder.path()).args(["engine", "init", "--host", "localhost"]));
    assert!(
        told.contains("adit forward 3000 --engine localhost"),
        "{told}"
    );
    let names = ["localhost".to_owned(), "*.t.localhost".to_owned()];
    let pair = rcgen::generate_simple_self_signed(names).unwrap();
    fs::write(folder.path().join("cert.pem"), pair.cert.pem()).unwrap();
    fs::write(
        folder.path().join("key.pem"),
        pair.signing_key.serialize_pem(),
    )
    .unwrap();
    folder
}

fn engine(folder: &Path, args: &[&str]) -> Command {
    let mut command = adit(folder);
    command
        .arg("engine")
        .args(args)
        .env("ADIT_LISTEN__HTTPS", "127.0.0.1:0");
    command
}

/// What is printed to standard error by a command that fails.
fn failure(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{command:?} succeeded");
    String::from_utf8(output.stderr).unwrap()
}

fn append(folder: &Path, text: &str) {
    let path = folder.join("engine.toml");
    let before = fs::read_to_string(&path).unwrap();
    fs::write(folder.join("fresh"), format!("{before}{text}")).unwrap();
    fs::rename(folder.join("fresh"), path).unwrap();
}

#[test]
fn five_mistakes_are_reported_at_five_positions() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[engine]\nhost = \"https://x.y\"\nthread = 1\n[listen]\nhttps = 443\n\
                [certificates]\nfiles = { cert = \"c\" }\n[timeouts]\ndrain = \"soon\"\n\
                [auth]\njwt-secret = { env = \"ADIT_TEST_SECRET\" }\n";
    fs::write(folder.path().join("engine.toml"), text).unwrap();
    let mut check = engine(folder.path(), &["check"]);
    check
        .env_remove("ADIT_LISTEN__HTTPS")
        .env("ADIT_TEST_SECRET", "x".repeat(32));
    let told = failure(&mut check);
    let positions: Vec<&str> = told
        .lines()
        .filter_map(|line| line.strip_prefix("engine.toml:"))
        .filter_map(|line| line.split(": ").next())
        .collect();
    assert_eq!(positions, ["2:8", "3:1", "5:9", "7:9", "9:9"], "{told}");
    assert!(
        told.ends_with("error: 5 problems with engine.toml\n"),
        "{told}"
    );
}

#[test]
fn mistakes_in_settings_and_in_filters_are_told_in_one_run() {
    let folder = folder();
    fs::remove_file(folder.path().join("key.pem")).unwrap();
    append(
        folder.path(),
        "[timeouts]\ndrain = \"soon\"\n[policy.edge]\nfilters = [\n  \
         { use = \"trusted-ips\", allow = [\"300.0.0.1\", \"::x\"] },\n  { use = \"nothing\" },\n\
         ]\n[project.default]\npolicies = [\"missing\"]\ncolour = \"red\"\n",
    );
    let told = failure(&mut engine(folder.path(), &["check"]));
    let keys: Vec<&str> = told
        .lines()
        .filter_map(|line| line.strip_prefix("engine.toml:")?.split(": ").nth(1))
        .collect();
    let expected = [
        "certificates.files.key",
        "timeouts.drain",
        "policy.edge.filters.0.allow.0",
        "policy.edge.filters.0.allow.1",
        "policy.edge.filters.1.use",
        "project.default.policies.0",
        "project.default.colour",
    ];
    assert_eq!(keys, expected, "{told}");
    // An engine says the same before it starts.
    let mut start = engine(folder.path(), &[]);
    assert_eq!(failure(&mut start), told);
}

#[test]
fn check_looks_at_what_the_configuration_names() {
    let folder = folder();
    let told = output(&mut engine(folder.path(), &["check"]));
    assert_eq!(told, "engine.toml: no problems\n");
    fs::remove_file(folder.path().join("cert.pem")).unwrap();
    append(
        folder.path(),
        "[policy.p]\nfilters = [{ use = \"tokem\" }]\n",
    );
    let told = failure(&mut engine(folder.path(), &["check"]));
    assert!(
        told.contains("certificates.files.cert: cannot read"),
        "{told}"
    );
    assert!(
        told.contains("policy.p.filters.0.use: unknown filter `tokem`"),
        "{told}"
    );
}

#[test]
fn a_missing_configuration_names_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let told = failure(&mut engine(folder.path(), &[]));
    assert!(told.contains("adit engine init"), "{told}");
}

#[test]
fn an_engine_reloads_explains_and_drains() {
    let folder = folder();
    let path = folder.path();
    let mut running = Running::start(&mut engine(path, &[]));
    running.wait_for("the engine listens");
    let told = output(&mut engine(path, &["explain", "https://localhost:8443/"]));
    assert!(told.contains("is the engine itself"), "{told}");
    let told = failure(&mut engine(path, &["explain", "x.t.localhost"]));
    assert!(told.contains("nobody's name"), "{told}");
    let told = output(&mut engine(path, &["status"]));
    assert!(
        told.contains("serving") && told.contains("agents 0"),
        "{told}"
    );
    // Wrong in one place: the log says where, and the engine goes on.
    append(path, "[limits]\nagents = 0\n");
    running.signal("HUP");
    running.wait_for("limits.agents: out of bounds");
    running.wait_for("nothing of the new configuration is in effect");
    let fixed = fs::read_to_string(path.join("engine.toml")).unwrap();
    fs::write(
        path.join("engine.toml"),
        fixed.replace("agents = 0", "agents = 9"),
    )
    .unwrap();
    let told = output(&mut engine(path, &["reload"]));
    assert!(told.contains("in effect"), "{told}");
    let told = output(&mut engine(path, &["drain"]));
    assert!(told.contains("drains"), "{told}");
    running.wait_for("stopped");
    assert!(running.ended().success());
    let told = failure(&mut engine(path, &["status"]));
    assert!(told.contains("is it running?"), "{told}");
}

#[test]
fn a_signal_ends_the_engine_in_order() {
    for signal in ["TERM", "INT"] {
        let folder = folder();
        let mut running = Running::start(&mut engine(folder.path(), &[]));
        running.wait_for("the engine listens");
        running.signal(signal);
        running.wait_for("stopped");
        assert!(running.ended().success());
        assert!(!folder.path().join("admin.sock").exists());
    }
}

#[test]
fn two_engines_do_not_share_a_folder_or_a_socket() {
    let folder = folder();
    let mut running = Running::start(&mut engine(folder.path(), &[]));
    running.wait_for("the engine listens");
    let told = failure(&mut engine(folder.path(), &[]));
    assert!(
        told.contains("state.redb is open in another engine"),
        "{told}"
    );
    let mut elsewhere = engine(folder.path(), &[]);
    let told = failure(elsewhere.env("ADIT_ENGINE__STATE_DIR", "elsewhere"));
    assert!(told.contains("another engine listens"), "{told}");
    output(&mut engine(folder.path(), &["status"]));
}
