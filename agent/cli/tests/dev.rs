//! `adit dev` as a new user meets it.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use support::{PATIENCE, Running, adit, connect, fetch, service};

/// The URL `adit dev` prints on a line of its own.
fn url(line: &str) -> Option<String> {
    let text = line.trim();
    text.starts_with("https://").then(|| text.to_owned())
}

#[test]
fn the_demo_site_is_published_and_requests_are_shown() {
    let folder = tempfile::tempdir().unwrap();
    let mut dev = Running::start(adit(folder.path()).args(["dev", "--port", "0"]));
    let url = dev.wait("public URL", url);
    assert!(url.starts_with("https://demo.t.adit.localhost:"), "{url}");
    let curl = dev.wait_for("curl --cacert");
    assert!(curl.contains(&url), "{curl}");
    let ca = folder.path().join(".adit/ca.pem");
    let (status, answer) = fetch(&format!("{url}/hello"), &ca).unwrap();
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains("hello from behind the tunnel"), "{answer}");
    let line = dev.wait_for("/hello  ");
    assert!(
        line.contains("GET") && line.contains("200") && line.contains(" ms"),
        "{line}"
    );

    // The engine answers as `localhost` too, for resolvers that do not know `*.localhost`.
    let port = url.rsplit(':').next().unwrap();
    let ready = format!("https://localhost:{port}/api/health/ready");
    assert_eq!(fetch(&ready, &ca).unwrap().0, 200);

    dev.signal("INT");
    dev.wait_for("draining");
    dev.wait_for("stopped");
    assert!(dev.ended().success());
}

#[test]
fn a_local_port_is_published_under_the_name_it_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let port = service("from the service").to_string();
    let mut dev =
        Running::start(adit(folder.path()).args(["dev", &port, "--port", "0", "--name", "shop"]));
    let url = dev.wait("public URL", url);
    assert!(url.starts_with("https://shop.t.adit.localhost:"), "{url}");
    let ca = folder.path().join(".adit/ca.pem");
    let (status, answer) = fetch(&url, &ca).unwrap();
    assert_eq!(status, 200, "{answer}");
    assert!(answer.ends_with("from the service"), "{answer}");
}

#[test]
fn a_port_nobody_listens_on_is_said_and_answered_502() {
    let folder = tempfile::tempdir().unwrap();
    let port = support::free_port().to_string();
    let mut dev = Running::start(adit(folder.path()).args(["dev", &port, "--port", "0"]));
    let url = dev.wait("public URL", url);
    let ca = folder.path().join(".adit/ca.pem");
    let (status, answer) = fetch(&url, &ca).unwrap();
    assert_eq!(status, 502, "{answer}");
    dev.wait_for("does not answer");
}

#[test]
fn output_nobody_reads_holds_up_neither_requests_nor_the_end() {
    /// Enough lines to fill a pipe of 64 KiB, a reader's buffer and the queue before them.
    const REQUESTS: usize = 2500;
    let folder = tempfile::tempdir().unwrap();
    let (output, input) = std::io::pipe().unwrap();
    let mut output = BufReader::new(output);
    // Its stderr is drained; its stdout only until the URL is known.
    let mut dev = Running::start_with(
        adit(folder.path()).args(["dev", "--port", "0"]),
        Stdio::from(input),
    );
    let mut line = String::new();
    let url = loop {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0);
        if let Some(url) = url(&line) {
            break url;
        }
    };
    let authority = url.strip_prefix("https://").unwrap();
    let ca = folder.path().join(".adit/ca.pem");
    let mut stream = BufReader::new(connect(authority, &ca).unwrap());
    for _ in 0..REQUESTS {
        let request = format!("GET /hello HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        stream.get_mut().write_all(request.as_bytes()).unwrap();
        let mut length = 0;
        loop {
            line.clear();
            stream.read_line(&mut line).unwrap();
            let lower = line.to_ascii_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
            assert!(!line.is_empty(), "the connection ended");
        }
        std::io::copy(
            &mut std::io::Read::take(&mut stream, length),
            &mut std::io::sink(),
        )
        .unwrap();
    }
    drop(stream);
    dev.signal("TERM");
    assert!(dev.ended().success(), "within {PATIENCE:?}");
    drop(output);
}
