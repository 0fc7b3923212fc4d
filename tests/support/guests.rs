//! The example plugins, built for the host's tests.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Where the workspace of the examples is.
const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/examples");

/// The file of an example; all are built when the first is asked for.
pub fn guest(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let target = target();
        // What cargo was told about this build is not meant for another target.
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--release"])
            .args(["--target", "wasm32-wasip2", "--target-dir"])
            .arg(&target)
            .current_dir(WORKSPACE)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_BUILD_TARGET")
            .status();
        assert!(status.unwrap().success(), "the examples cannot be built");
        target.join("wasm32-wasip2/release")
    });
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
