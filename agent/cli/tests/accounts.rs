//! `adit engine account` as an operator uses it.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Output, Stdio};

use support::{adit, output};

/// What `adit engine account` makes of a line on standard input.
fn account(folder: &Path, args: &[&str], line: &str) -> Output {
    let mut child = adit(folder)
        .args(["engine", "account"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _read_or_not = writeln!(child.stdin.take().unwrap(), "{line}");
    child.wait_with_output().unwrap()
}

fn succeeds(folder: &Path, args: &[&str], line: &str) -> String {
    let output = account(folder, args, line);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

fn fails(folder: &Path, args: &[&str], line: &str) -> String {
    let output = account(folder, args, line);
    assert!(!output.status.success(), "{args:?} succeeded");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn accounts_are_added_and_given_other_passwords() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    output(adit(here).args(["engine", "init", "--host", "localhost"]));
    // Without a file to write to, the account is printed.
    let printed = succeeds(here, &["add", "ada"], "correct horse");
    assert!(
        printed.starts_with("[account.\"ada\"]\npassword = \"$argon2id$")
            || printed.starts_with("[account.ada]"),
        "{printed}"
    );
    assert!(fails(here, &["password", "ada"], "x").contains("names no file"));

    let config = fs::read_to_string(here.join("engine.toml")).unwrap();
    let config = format!("{config}\n[login]\naccounts = \"accounts.toml\"\n");
    fs::write(here.join("engine.toml"), config).unwrap();
    let args = ["add", "ada", "--email", "ada@example.com", "--group", "ops"];
    succeeds(here, &args, "correct horse");
    succeeds(here, &["add", "bob@example.com"], "correct horse");
    let file = here.join("accounts.toml");
    let text = fs::read_to_string(&file).unwrap();
    let read: toml::Table = text.parse().unwrap();
    let accounts = read.get("account").unwrap().as_table().unwrap();
    assert_eq!(
        accounts.keys().collect::<Vec<_>>(),
        ["ada", "bob@example.com"]
    );
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(!text.contains("correct horse"));

    let changed = succeeds(here, &["password", "ada"], "another horse");
    assert!(changed.contains("another password"), "{changed}");
    let after = fs::read_to_string(&file).unwrap();
    let hash = |text: &str, name: &str| {
        let read: toml::Table = text.parse().unwrap();
        read["account"][name]["password"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_ne!(hash(&text, "ada"), hash(&after, "ada"));
    assert_eq!(
        hash(&text, "bob@example.com"),
        hash(&after, "bob@example.com")
    );
    assert!(after.contains("ada@example.com"));

    for (args, line, told) in [
        (&["add", "ada"][..], "correct horse", "is there already"),
        (&["add", "Ada"], "correct horse", "is not a name"),
        (&["add", "carol"], "short", "8 characters at least"),
        (
            &["add", "carol", "--email", "x"],
            "correct horse",
            "not a mail address",
        ),
        (
            &["password", "carol"],
            "correct horse",
            "`adit engine account add carol`",
        ),
    ] {
        let error = fails(here, args, line);
        assert!(error.contains(told), "{args:?}: {error}");
    }
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        after,
        "nothing was changed"
    );
}
