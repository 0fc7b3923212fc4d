//! `adit dev` as a new user meets it.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use support::{Running, adit, fetch, service};

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
