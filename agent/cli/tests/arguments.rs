//! What is found wrong before anything is dialled, what help says, and which code ends a command.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::process::{Command, Output, Stdio};

/// The binary, cut off from the settings of whoever runs the tests.
fn adit(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adit"));
    command.args(words).env_clear().stdin(Stdio::null());
    command
}

fn output(words: &[&str]) -> Output {
    adit(words).output().unwrap()
}

/// Ends with code 1, nothing on stdout, and an error that holds `text`.
fn refused(words: &[&str], text: &str) {
    let output = output(words);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{words:?}: {error}");
    assert!(output.stdout.is_empty(), "{words:?}");
    assert!(error.contains(text), "{words:?}: {error}");
}

#[test]
fn help_and_version_end_well_and_go_to_stdout() {
    for words in [
        &["--help"][..],
        &["--version"],
        &["forward", "--help"],
        &["nc", "--help"],
        &["netcat", "--help"],
        &["tunnel", "--help"],
        &["tunnel", "list", "--help"],
        &["client", "ls", "--help"],
    ] {
        let output = output(words);
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        assert!(!output.stdout.is_empty(), "{words:?}");
        assert!(output.stderr.is_empty(), "{words:?}");
    }
}

#[test]
fn a_group_without_a_command_shows_its_help() {
    // agent-cli §1
    for words in [&["tunnel"][..], &["client"], &[]] {
        assert_eq!(output(words).status.code(), Some(0), "{words:?}");
    }
    refused(&["tunnel", "stray"], "stray");
}

#[test]
fn help_has_examples_and_says_where_the_engine_is_looked_for() {
    for words in [
        &["forward", "--help"][..],
        &["nc", "--help"],
        &["tunnel", "list", "--help"],
        &["client", "list", "--help"],
    ] {
        let text = String::from_utf8(output(words).stdout).unwrap();
        for part in ["Examples:", "ADIT_ENGINE", "ADIT_TOKEN", "config.toml"] {
            assert!(text.contains(part), "{words:?}: {part}");
        }
    }
}

#[test]
fn forward_checks_its_flags_before_it_connects() {
    // agent-cli §10 C3, C4, C6
    refused(
        &["forward", "80", "--retry-interval", "0"],
        "--retry-interval",
    );
    refused(&["forward", "22", "--tcp", "--host", "x"], "--host");
    refused(&["forward", "80", "--tls", "--token-auth"], "--token-auth");
    refused(&["forward", "80", "--tls", "--http"], "--tls");
    refused(
        &["forward", "80", "--publish", "--no-publish"],
        "--no-publish",
    );
    refused(&["forward", "80", "--retry", "--no-retry"], "--no-retry");
    refused(&["forward", "80", "--host", " "], "--host");
    refused(&["forward", "80", "-o", "yaml"], "json");
    refused(&["forward", "nowhere"], "nowhere");
    refused(&["forward", "80", "81"], "81");
}

#[test]
fn a_token_is_never_an_argument() {
    refused(&["forward", "80", "--token", "x"], "--token");
}

#[test]
fn a_missing_engine_or_token_is_named() {
    refused(&["forward", "80"], "ADIT_ENGINE");
    refused(&["forward", "80", "--engine", "a.b"], "ADIT_TOKEN");
    refused(&["tunnel", "list"], "ADIT_ENGINE");
    refused(&["nc", "rstrm://x"], "ADIT_ENGINE");
}

#[test]
fn an_expired_token_is_refused_before_anything_is_dialled() {
    // agent-cli §10 C14. {"alg":"HS256"} . {"exp":1} . x, and an address nobody may dial.
    let output = adit(&["forward", "80", "--engine", "192.0.2.1"])
        .env("ADIT_TOKEN", "eyJhbGciOiJIUzI1NiJ9.eyJleHAiOjF9.x")
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("expired"), "{error}");
    assert!(!error.contains("eyJ"), "{error}");
}

#[test]
fn nc_checks_its_flags_before_it_connects() {
    // agent-cli §10 C27
    refused(&["nc", "-L", "rstrm://a"], "-R");
    refused(&["nc", "a:1", "b:2"], "one endpoint");
    refused(&["nc", "a:1", "-R", "b:1"], "-L");
    refused(&["nc", "udp://a:1"], "udp");
    refused(
        &["nc", "-L", "rstrm://a", "-e", "cat", "-c", "cat"],
        "--sh-exec",
    );
}

#[test]
fn an_engine_that_is_not_there_ends_forward_when_retries_are_off() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let engine = format!("127.0.0.1:{port}");
    let ca = rcgen::generate_simple_self_signed(vec!["x".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    std::fs::write(&path, ca.cert.pem()).unwrap();
    let output = adit(&["forward", "80", "--no-retry", "-o", "json"])
        .args(["--engine", &engine, "--ca-file"])
        .arg(&path)
        .env("ADIT_TOKEN", "opaque")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("refuses connections"), "{error}");
    // agent-cli §10 C9
    let lines = String::from_utf8(output.stdout).unwrap();
    let statuses: Vec<String> = lines
        .lines()
        .map(|line| {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            object.get("status").unwrap().as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(statuses.first().map(String::as_str), Some("connecting"));
    assert!(statuses.last().unwrap().starts_with("connection failed ("));
}

#[test]
fn nc_passes_the_end_of_its_input_on_and_prints_the_reply() {
    // agent-cli §10 C26
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let echo = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
    });
    let mut child = adit(&["nc", &address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"\0x\xff").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"\0x\xff");
    assert_eq!(output.status.code(), Some(0));
    echo.join().unwrap();
}

#[test]
fn nc_ends_when_the_peer_does_even_if_its_input_stays_open() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"bye").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    });
    let mut child = adit(&["nc", &address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let held = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(held);
    assert_eq!(
        (output.stdout.as_slice(), output.status.code()),
        (&b"bye"[..], Some(0))
    );
    peer.join().unwrap();
}

#[test]
fn nc_connects_a_command_on_either_side() {
    // A server that runs a command for each connection, and a client whose command talks to it.
    let mut server = adit(&["nc", "-L", "127.0.0.1:0", "-e", "tr a-z A-Z"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = std::io::BufReader::new(server.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut stderr, &mut line).unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap();
    let mut client = adit(&["nc", address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    client.stdin.take().unwrap().write_all(b"shout\n").unwrap();
    let output = client.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"SHOUT\n");
    server.kill().unwrap();
    server.wait().unwrap();
}
