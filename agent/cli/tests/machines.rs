//! An engine and an agent as two machines would run them: apart, from files of their own, and one
//! of them dying.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::time::Duration;

use support::machines::{Laptop, Server, online};
use support::{Running, adit, fetch, fetch_until, output, service};

#[test]
fn a_laptop_publishes_through_a_server_with_what_init_left() {
    let server = Server::new();
    let mode = fs::metadata(server.path("jwt.secret")).unwrap();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777,
        0o600
    );
    output(&mut server.command(&["engine", "check"]));
    let engine = server.start();
    let laptop = Laptop::new(&server);
    let port = service("from the laptop").to_string();
    let mut agent = laptop.forward(&[&port]);
    let url = agent.wait("online status", online);
    let (status, answer) = fetch(&url, &server.path("ca.pem")).unwrap();
    assert_eq!(status, 200, "{answer}");
    assert!(answer.ends_with("from the laptop"));
    // The operator sees what runs, and why.
    let host = url
        .strip_prefix("https://")
        .unwrap()
        .split(':')
        .next()
        .unwrap();
    let explained = output(&mut server.command(&["engine", "explain", host]));
    assert!(explained.contains("websocket"), "{explained}");
    agent.signal("TERM");
    assert!(agent.ended().success());
    let mut engine = engine;
    engine.signal("TERM");
    assert!(engine.ended().success());
}

#[test]
fn an_engine_that_was_killed_finds_its_agent_again_under_the_same_name() {
    let server = Server::new();
    let mut engine = server.start();
    let laptop = Laptop::new(&server);
    let port = service("still here").to_string();
    let mut agent = laptop.forward(&[&port]);
    let url = agent.wait("online status", online);
    assert_eq!(fetch(&url, &server.path("ca.pem")).unwrap().0, 200);
    engine.kill();
    agent.wait("lost status", |line| {
        line.contains("disconnected").then_some(())
    });
    let _engine = server.start();
    let took = fetch_until(&url, &server.path("ca.pem"), 200);
    // The aim is 3 s; three times that on a machine that does other things too.
    assert!(took < Duration::from_secs(9), "{took:?}");
    assert_eq!(agent.wait("online status", online), url);
}

#[test]
fn an_agent_that_was_killed_gives_its_name_free() {
    let server = Server::new();
    let _engine = server.start();
    let laptop = Laptop::new(&server);
    let port = service("one or the other").to_string();
    let host = "shop.t.edge.localhost";
    let mut first = laptop.forward(&[&port, "--host", host]);
    let url = first.wait("online status", online);
    assert!(url.contains(host), "{url}");
    first.kill();
    let began = std::time::Instant::now();
    let mut second = laptop.forward(&[&port, "--host", host, "--retry-interval", "100"]);
    assert_eq!(second.wait("online status", online), url);
    // The aim is 1 s.
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(fetch(&url, &server.path("ca.pem")).unwrap().0, 200);
}

#[test]
fn a_laptop_is_known_by_its_client_certificate_and_needs_no_token() {
    let server = Server::new();
    let laptop = Laptop::new(&server);
    let place = laptop.folder.path();
    fs::remove_file(place.join("token")).unwrap();
    let pair = rcgen::generate_simple_self_signed(["laptop".to_owned()]).unwrap();
    fs::write(place.join("laptop.pem"), pair.cert.pem()).unwrap();
    fs::write(place.join("laptop.key"), pair.signing_key.serialize_pem()).unwrap();
    let certificate = place.join("laptop.pem").display().to_string();
    let credential = output(adit(place).args(["engine", "credential", &certificate]));
    let table = format!("[[credential]]\nid = \"laptop\"\n{credential}");
    fs::write(server.path("credentials.toml"), table).unwrap();
    let mut engine = server.command(&["engine"]);
    engine
        .env("ADIT_AUTH__CREDENTIALS", server.path("credentials.toml"))
        .env("ADIT_AUTH__CERTIFICATE_HOST", "mtls.localhost");
    let _engine = Running::start(&mut engine);
    let ready = format!("https://edge.localhost:{}/api/health/ready", server.port);
    fetch_until(&ready, &server.path("ca.pem"), 200);

    let by_certificate = |arguments: &[&str]| {
        let mut command = adit(place);
        command
            .args(arguments)
            .args(["--engine", &laptop.engine, "--ca-file", "ca.pem"])
            .args(["--cert-file", "laptop.pem", "--key-file", "laptop.key"])
            .args(["-o", "json"]);
        command
    };
    let port = service("from the laptop").to_string();
    let mut agent = Running::start(&mut by_certificate(&["forward", &port, "--name", "mine"]));
    let url = agent.wait("online status", online);
    let (status, answer) = fetch(&url, &server.path("ca.pem")).unwrap();
    assert_eq!(status, 200, "{answer}");
    // The list is asked for where the engine says that it takes certificates.
    let listed = output(&mut by_certificate(&["tunnel", "list"]));
    assert!(listed.contains("\"mine\""), "{listed}");
}
