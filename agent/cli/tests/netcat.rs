//! `adit nc` over private tunnels of a real engine, and the lists that show them.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use adit_plugins::identity::token::{Authority, Claims};
use support::{Running, adit, output};

/// An engine on this machine and what a client needs to know of it.
struct Place {
    folder: tempfile::TempDir,
    engine: String,
    _running: Running,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut running = Running::start(adit(folder.path()).args(["dev", "--port", "0"]));
        let port = running.wait("public URL", |line| {
            let (_, port) = line.trim().strip_prefix("https://")?.split_once(':')?;
            Some(port.to_owned())
        });
        let secret = std::fs::read_to_string(folder.path().join(".adit/jwt.secret")).unwrap();
        let claims = Claims {
            sub: Some("tester".to_owned()),
            ..Claims::default()
        };
        let secret = adit_config::Secret::new(secret.trim().to_owned());
        let token = Authority::new(&secret).unwrap().mint(&claims).unwrap();
        std::fs::write(folder.path().join("token"), token).unwrap();
        Self {
            folder,
            engine: format!("adit.localhost:{port}"),
            _running: running,
        }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = adit(self.folder.path());
        command
            .args(words)
            .args(["--engine", &self.engine, "--token-file", "token"])
            .args(["--ca-file", ".adit/ca.pem"]);
        command
    }

    fn serve(&self, words: &[&str]) -> Running {
        let mut server = Running::start(&mut self.command(words));
        server.wait_for("listening on ");
        server
    }

    /// Input for a client, and what it prints, when it ends well.
    fn talk(&self, words: &[&str], input: &[u8]) -> Vec<u8> {
        let mut client = self
            .command(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = client.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success());
        writer.join().unwrap().unwrap();
        output.stdout
    }
}

#[test]
fn bytes_pass_unchanged_and_each_direction_ends_by_itself() {
    let place = Place::new();
    // `sort` answers only after the end of its input.
    let _sort = place.serve(&["nc", "-L", "rstrm://sort", "-e", "sort -r"]);
    assert_eq!(place.talk(&["nc", "rstrm://sort"], b"a\nb\n"), b"b\na\n");

    let _cat = place.serve(&["nc", "-L", "rstrm://cat", "-c", "cat"]);
    let bulk: Vec<u8> = (0u32..2_000_000).flat_map(u32::to_be_bytes).collect();
    assert!(place.talk(&["nc", "rstrm:///cat"], &bulk) == bulk);
}

#[test]
fn a_local_service_is_reached_through_the_tunnel_and_a_local_port() {
    let place = Place::new();
    let service = support::service("from afar").to_string();
    let _far = place.serve(&[
        "nc",
        "-L",
        "rstrm://far",
        "-R",
        &format!("localhost:{service}"),
    ]);
    let mut near =
        Running::start(&mut place.command(&["nc", "-L", "127.0.0.1:0", "-R", "rstrm://far"]));
    let address = near.wait("address", |line| {
        line.strip_prefix("listening on ").map(str::to_owned)
    });
    let mut visitor = std::net::TcpStream::connect(address).unwrap();
    visitor
        .write_all(b"GET / HTTP/1.1\r\nHost: far\r\n\r\n")
        .unwrap();
    // The service ends its side when it sees the end of ours, three hops away.
    visitor.shutdown(std::net::Shutdown::Write).unwrap();
    visitor.set_read_timeout(Some(support::PATIENCE)).unwrap();
    let mut answer = String::new();
    visitor.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("from afar"), "{answer}");
}

#[test]
fn a_connection_above_the_limit_is_closed_and_the_others_go_on() {
    // agent-cli §10 C30, with a lower limit
    let place = Place::new();
    let mut server = Running::start(&mut place.command(&[
        "nc",
        "-L",
        "127.0.0.1:0",
        "-e",
        "cat",
        "--max-connections",
        "1",
    ]));
    let address = server.wait("address", |line| {
        line.strip_prefix("listening on ").map(str::to_owned)
    });
    let mut first = std::net::TcpStream::connect(&address).unwrap();
    first.write_all(b"x").unwrap();
    let mut byte = [0];
    first.read_exact(&mut byte).unwrap();
    let mut second = std::net::TcpStream::connect(&address).unwrap();
    assert!(second.read_exact(&mut [0]).is_err());
    server.wait_for("1 are open already");
    first.write_all(b"y").unwrap();
    first.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"y");
}

#[test]
fn a_tunnel_nobody_serves_is_an_error_with_the_engines_reason() {
    let place = Place::new();
    let output = place.command(&["nc", "rstrm://nobody"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("engine error 3000"), "{error}");
}

#[test]
fn lists_show_tunnels_and_agents_and_a_stopped_server_leaves_them() {
    let place = Place::new();
    let mut server = place.serve(&["nc", "-L", "rstrm://listed", "-e", "cat"]);
    let ids = |words: &[&str]| output(&mut place.command(words)).lines().count();
    let listed = &["tunnel", "list", "-q", "--filter", "name=listed"];
    assert_eq!(ids(listed), 1);
    let table = output(&mut place.command(&["tunnel", "ls"]));
    let row = table
        .lines()
        .find(|line| line.contains(" listed "))
        .unwrap();
    assert!(
        row.contains(" bytestream ") && row.contains(" false "),
        "{row}"
    );
    let json = output(&mut place.command(&["client", "list", "-o", "json"]));
    let agents: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    // The development server's own agent and ours.
    assert_eq!(agents.len(), 2);

    server.signal("TERM");
    assert!(server.ended().success());
    assert_eq!(ids(listed), 0);
}

#[test]
fn a_server_out_of_descriptors_serves_again_once_there_are_some() {
    let folder = tempfile::tempdir().unwrap();
    let service = support::service("still there");
    let mut refused = 0;
    // Each connection takes two, so that one of two limits runs out while accepting.
    for limit in [32, 33] {
        let program = env!("CARGO_BIN_EXE_adit");
        let line =
            format!("ulimit -n {limit}; exec {program} nc -L 127.0.0.1:0 -R 127.0.0.1:{service}");
        let mut shell = Command::new("sh");
        let mut server = Running::start(shell.current_dir(folder.path()).args(["-c", &line]));
        let address = server.wait("address", |line| {
            line.strip_prefix("listening on ").map(str::to_owned)
        });
        let connect = || std::net::TcpStream::connect(&address).unwrap();
        let held: Vec<_> = (0..limit).map(|_| connect()).collect();
        let line = server.wait_for("Too many open files");
        refused += usize::from(line.starts_with("cannot accept a connection"));
        drop(held);
        let answer = || -> std::io::Result<String> {
            let mut visitor = connect();
            visitor.set_read_timeout(Some(support::PATIENCE))?;
            visitor.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
            visitor.shutdown(std::net::Shutdown::Write)?;
            let mut text = String::new();
            visitor.read_to_string(&mut text)?;
            Ok(text)
        };
        // Those held before may still be on their way out.
        let answered = (0..1000).any(|_| answer().is_ok_and(|text| text.ends_with("still there")));
        assert!(answered);
    }
    assert!(refused > 0);
}
