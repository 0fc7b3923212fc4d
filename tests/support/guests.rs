//! Plugins, built for the host's tests: the examples, and filters for proxy-wasm.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The file of an example; all are built when the first is asked for.
pub fn guest(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/examples");
    let folder = BUILT.get_or_init(|| build(workspace, "wasm32-wasip2"));
    file(folder, name)
}

/// The file of a filter for proxy-wasm; all are built when the first is asked for.
pub fn proxy_wasm(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/guests");
    let folder = BUILT.get_or_init(|| build(workspace, "wasm32-wasip1"));
    file(folder, name)
}

/// Builds a workspace of guests, and says where they are.
fn build(workspace: &str, triple: &str) -> PathBuf {
    let target = target();
    // What cargo was told about this build is not meant for another target.
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--release"])
        .args(["--target", triple, "--target-dir"])
        .arg(&target)
        .current_dir(workspace)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .status();
    assert!(status.unwrap().success(), "{workspace} cannot be built");
    target.join(triple).join("release")
}

fn file(folder: &std::path::Path, name: &str) -> PathBuf {
    let file = folder.join(name).with_extension("wasm");
    assert!(file.is_file(), "{file:?}");
    file
}

/// Where guests are built, beside what this test was built into: `target/debug/deps/TEST` gives `target/guests`.
pub fn target() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.ancestors().nth(3).unwrap();
    target.join("guests")
}
