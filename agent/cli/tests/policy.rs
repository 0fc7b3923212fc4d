//! `adit policy`: filters switched in a running engine, and what becomes of that.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::fs;
use std::process::Command;

use support::machines::{Laptop, Server, online};
use support::{Running, fetch, fetch_until, output, service};

const POLICY: &str = "[policy.edge]
filters = [
  { use = \"trusted-ips\", deny = [\"127.0.0.0/8\"], optional = true },
  { use = \"trusted-ips\", name = \"fixed\", deny = [\"192.0.2.0/24\"] },
]
[project.default]
policies = [\"edge\"]
";

/// A server with these tables behind what `init` left.
fn server(policy: &str) -> Server {
    let server = Server::new();
    rewrite(&server, policy);
    server
}

/// Replaces what follows the tables that `init` left.
fn rewrite(server: &Server, policy: &str) {
    let path = server.path("engine.toml");
    let text = fs::read_to_string(&path).unwrap();
    let kept = text.split("\n# under test\n").next().unwrap();
    fs::write(
        server.path("fresh"),
        format!("{kept}\n# under test\n{policy}"),
    )
    .unwrap();
    fs::rename(server.path("fresh"), path).unwrap();
}

fn policy(server: &Server, arguments: &[&str]) -> Command {
    let mut command = server.command(&[&["policy"], arguments].concat());
    // A daemon's environment names no user; the socket says who asks.
    command.env_remove("USER").env_remove("LOGNAME");
    command
}

/// What a command that fails says.
fn failure(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{command:?} succeeded");
    String::from_utf8(output.stderr).unwrap()
}

/// A laptop that publishes a service, and the public address.
fn published(server: &Server) -> (Laptop, Running, String) {
    let laptop = Laptop::new(server);
    let port = service("from the service").to_string();
    let mut agent = laptop.forward(&[&port, "--name", "shop"]);
    let url = agent.wait("online", online);
    (laptop, agent, url)
}

#[test]
fn a_filter_is_switched_at_once_and_stays_so_through_reload_and_crash() {
    let server = server(POLICY);
    let mut engine = server.start();
    let (_laptop, _agent, url) = published(&server);
    let ca = server.path("ca.pem");
    let status = || fetch(&url, &ca).unwrap().0;
    assert_eq!(status(), 403);

    let why = ["--reason", "all customers are on this machine"];
    let told = output(policy(&server, &["off", "default", "edge/trusted-ips"]).args(why));
    assert!(
        told.starts_with("edge/trusted-ips of project default is off (switched off by "),
        "{told}"
    );
    assert!(told.contains("new requests of 1 open tunnel"), "{told}");
    assert_eq!(status(), 200);
    // The log names the one who opened the door.
    let uid = rustix::process::geteuid().as_raw();
    let logged = engine.wait_for("a filter was switched");
    assert!(logged.contains(&format!("uid {uid}")), "{logged}");
    assert!(logged.contains("all customers"), "{logged}");

    let switched = |told: &str| {
        assert!(told.contains(&format!("uid {uid}")), "{told}");
        assert!(told.contains("all customers are on this machine"), "{told}");
    };
    let listed = output(&mut policy(&server, &["ls"]));
    let row = listed
        .lines()
        .find(|line| line.contains("edge/trusted-ips"))
        .unwrap();
    assert!(
        row.starts_with("default  edge/trusted-ips (optional)  off  on    off by "),
        "{listed}"
    );
    assert!(
        row.ends_with("engine.toml:109:3") || row.contains("engine.toml:"),
        "{listed}"
    );
    switched(&listed);
    switched(&output(&mut policy(
        &server,
        &["show", "default", "edge/trusted-ips"],
    )));
    let host = url.strip_prefix("https://").unwrap();
    let explained = output(&mut server.command(&["engine", "explain", host]));
    switched(&explained);
    assert!(explained.contains("the file says on"), "{explained}");

    output(&mut server.command(&["engine", "reload"]));
    assert_eq!(status(), 200);
    engine.kill();
    let _engine = server.start();
    fetch_until(&url, &ca, 200);
    switched(&output(&mut policy(&server, &["ls", "default"])));

    let told = output(&mut policy(
        &server,
        &["reset", "default", "edge/trusted-ips"],
    ));
    assert!(told.contains("is on (as in the file"), "{told}");
    assert_eq!(status(), 403);
    let told = failure(&mut policy(
        &server,
        &["reset", "default", "edge/trusted-ips"],
    ));
    assert!(
        told.contains("`edge/trusted-ips` of project `default` is not switched"),
        "{told}"
    );

    // What the file has off can be switched on.
    rewrite(&server, &format!("{POLICY}off = [\"edge/trusted-ips\"]\n"));
    output(&mut server.command(&["engine", "reload"]));
    assert_eq!(status(), 200);
    output(&mut policy(&server, &["on", "default", "edge/trusted-ips"]));
    assert_eq!(status(), 403);
    let told = output(&mut policy(
        &server,
        &["show", "default", "edge/trusted-ips", "--json"],
    ));
    let shown: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(shown[0]["written"], "off");
    assert_eq!(shown[0]["position"], "on");
    assert_eq!(shown[0]["switch"]["by"]["uid"], uid);
}

#[test]
fn what_cannot_be_switched_is_told_with_the_way_out() {
    let server = server(
        "[policy.edge]\nfilters = [\n  { use = \"token\", name = \"first\", missing = \"next\" },\n  \
         { use = \"token\", optional = true },\n]\n[project.default]\npolicies = [\"edge\"]\n",
    );
    let _engine = server.start();
    let (_laptop, _agent, url) = published(&server);
    for (arguments, expected) in [
        (
            ["off", "default", "edge/first"],
            "`edge/first` cannot be switched: mark it `optional = true` at engine.toml:",
        ),
        (
            ["off", "default", "edge/tokn"],
            "project `default` has no filter `edge/tokn`, use one of edge/first, edge/token",
        ),
        (
            ["show", "default", "token"],
            "`token` does not name a filter, use `policy/filter`",
        ),
        (
            ["off", "shop", "edge/token"],
            "there is no project `shop`, use one of default",
        ),
        // The chain would let in who has shown no token.
        (
            ["off", "default", "edge/token"],
            "with `edge/token` off, the chain of project `default` cannot be made: engine.toml:",
        ),
    ] {
        let told = failure(&mut policy(&server, &arguments));
        assert!(told.contains(expected), "{told}");
    }
    assert_eq!(fetch(&url, &server.path("ca.pem")).unwrap().0, 401);
    let shown = output(&mut policy(&server, &["show", "default", "edge/token"]));
    assert!(shown.contains("switched  no"), "{shown}");
    let long = "x".repeat(501);
    for reason in ["two\nlines", &long] {
        let mut off = policy(
            &server,
            &["off", "default", "edge/token", "--reason", reason],
        );
        assert!(failure(&mut off).contains("one line of at most 500 bytes"));
    }
}

#[test]
fn an_engine_without_a_state_folder_switches_nothing() {
    let server = server(POLICY);
    let path = server.path("engine.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("state-dir = \"state\"", "")).unwrap();
    let _engine = server.start();
    let told = failure(&mut policy(
        &server,
        &["off", "default", "edge/trusted-ips"],
    ));
    assert!(
        told.contains("set `engine.state-dir` and restart"),
        "{told}"
    );
    output(&mut policy(&server, &["ls"]));
}

#[test]
fn a_switch_that_does_not_fit_a_new_file_is_undone_without_the_engine() {
    let both = "[policy.edge]\nfilters = [\n  { use = \"token\", name = \"first\" },\n  \
                { use = \"token\", optional = true },\n]\n[project.default]\npolicies = [\"edge\"]\n";
    let server = server(both);
    let mut engine = server.start();
    output(&mut policy(&server, &["off", "default", "edge/token"]));
    let next = both.replace("\"first\" }", "\"first\", missing = \"next\" }");
    rewrite(&server, &next);
    let told = failure(&mut server.command(&["engine", "reload"]));
    let hint = "`adit policy reset default edge/token` forgets that";
    assert!(told.contains(hint), "{told}");
    engine.kill();
    let told = failure(&mut server.command(&["engine"]));
    assert!(told.contains(hint), "{told}");
    let told = output(&mut policy(&server, &["reset", "default", "edge/token"]));
    assert!(told.contains("once the engine starts"), "{told}");
    let _engine = server.start();
    // A filter that the file no longer has leaves a switch that is told, and can be forgotten.
    output(&mut policy(&server, &["on", "default", "edge/token"]));
    rewrite(&server, "");
    output(&mut server.command(&["engine", "reload"]));
    let told = output(&mut policy(&server, &["ls"]));
    assert!(
        told.contains("without effect: edge/token of project default, switched on by"),
        "{told}"
    );
    output(&mut policy(&server, &["reset", "default", "edge/token"]));
    assert!(!output(&mut policy(&server, &["ls"])).contains("without effect"));
}

#[test]
fn a_damaged_store_is_told_with_the_way_out() {
    let server = server(POLICY);
    let mut engine = server.start();
    output(&mut policy(
        &server,
        &["off", "default", "edge/trusted-ips"],
    ));
    engine.kill();
    let path = server.path("state/state.redb");
    let whole = fs::read(&path).unwrap();
    let half = whole.get(..whole.len() / 2).unwrap();
    fs::write(&path, half).unwrap();
    let told = failure(&mut server.command(&["engine"]));
    assert!(
        told.contains("`engine.state-dir`:")
            && told.contains("is damaged")
            && told.contains("move it away"),
        "{told}"
    );
    fs::write(&path, whole).unwrap();
    let _engine = server.start();
    let shown = output(&mut policy(
        &server,
        &["show", "default", "edge/trusted-ips"],
    ));
    assert!(shown.contains("is        off"), "{shown}");
}

#[test]
fn an_engine_killed_while_it_switches_comes_back_as_it_said_or_as_it_was_asked() {
    let server = server(POLICY);
    for _ in 0..3 {
        let mut engine = server.start();
        let (done, acknowledged) = std::sync::mpsc::channel();
        let (last, asked) = std::thread::scope(|scope| {
            let switching = scope.spawn(|| {
                let mut last = None;
                for to in ["off", "on"].into_iter().cycle() {
                    let mut switch = policy(&server, &[to, "default", "edge/trusted-ips"]);
                    if !switch.output().unwrap().status.success() {
                        return (last, to);
                    }
                    last = Some(to);
                    done.send(()).unwrap();
                }
                unreachable!("it goes on until the engine is gone")
            });
            // Somewhere in the fourth.
            for _ in 0..3 {
                acknowledged.recv().unwrap();
            }
            engine.kill();
            switching.join().unwrap()
        });
        let _engine = server.start();
        let shown = output(&mut policy(
            &server,
            &["show", "default", "edge/trusted-ips"],
        ));
        let is = |to: &str| shown.contains(&format!("is        {to}\n"));
        assert!(
            last.is_some_and(is) || is(asked),
            "{last:?}, {asked}: {shown}"
        );
    }
}

const TRIED: &str = "[policy.edge]
filters = [
  { use = \"trusted-ips\", deny = [\"192.0.2.0/24\"] },
  { use = \"trusted-ips\", name = \"later\", deny = [\"198.51.100.0/24\", \"127.0.0.1\"], dry-run = true },
  { use = \"token\", when = { path = \"/admin/*\" }, optional = true },
]
[policy.inner]
filters = [{ use = \"trusted-ips\", allow = [\"10.0.0.0/8\"] }]
[project.default]
policies = [\"edge\"]
tunnels = [{ match = { label = { tier = \"inner\" } }, policies = [\"inner\"] }]
";

#[test]
fn a_request_is_tried_before_anybody_makes_it() {
    let server = server(TRIED);
    let mut engine = server.start();
    let (_laptop, _agent, url) = published(&server);
    let host = url.strip_prefix("https://").unwrap();
    let token = output(&mut server.command(&["engine", "token"]));
    let bearer = format!("Authorization: Bearer {}", token.trim());
    fs::write(
        server.path("request.http"),
        format!("POST /admin/x HTTP/1.1\r\nHost: {host}\r\n{bearer}\r\n\r\nbody"),
    )
    .unwrap();
    let live = ["--host", host];
    let new = ["--project", "default", "--host", "new.t.edge.localhost"];
    type Case<'a> = (&'a [&'a str], &'a [&'a str], i32, &'a [&'a str]);
    let cases: &[Case<'_>] = &[
        (
            &live,
            &[],
            0,
            &["the request passes", "skipped by `when`", "edge/token"],
        ),
        (
            &live,
            &["--from", "192.0.2.7"],
            2,
            &[
                "refuses: ip",
                "not asked: an earlier filter had decided",
                "the request is refused by edge/trusted-ips: ip, 403 Forbidden",
            ],
        ),
        (
            &live,
            &["--from", "198.51.100.7"],
            0,
            &[
                "would say, but is on dry-run: refuses: ip",
                "the request passes",
            ],
        ),
        (
            &live,
            &["--path", "/admin/x"],
            2,
            &["the request is refused by edge/token: missing-token, 401 Unauthorized"],
        ),
        (
            &live,
            &["--path", "/admin/x", "--header", &bearer],
            0,
            &["the request passes"],
        ),
        (
            &["--request", "request.http"],
            &[],
            0,
            &["the request passes"],
        ),
        (
            &["--request", "request.http"],
            &["--header", "Authorization: Bearer x"],
            2,
            &["edge/token: invalid-token"],
        ),
        (
            &live,
            &["--path", "/a/../admin/x"],
            2,
            &["is refused by the edge before any filter: 400 Bad Request"],
        ),
        (
            &live,
            &[
                "--header",
                "Connection: upgrade",
                "--header",
                "Upgrade: websocket",
            ],
            0,
            &["passes, and leaves HTTP", "grants websocket"],
        ),
        (
            &new,
            &[],
            0,
            &["the policies of project default", "the request passes"],
        ),
        (
            &new,
            &["--label", "tier=inner"],
            2,
            &[
                "is refused by inner/trusted-ips: ip",
                "for the tunnels at engine.toml:",
            ],
        ),
        (
            &["--host", "new.t.edge.localhost"],
            &[],
            1,
            &["no live tunnel has the host", "`--project`"],
        ),
        (
            &["--host", "edge.localhost"],
            &[],
            1,
            &["the engine itself"],
        ),
        (
            &["--project", "shop", "--host", "x"],
            &[],
            1,
            &["there is no project `shop`"],
        ),
        (&[], &[], 1, &["which host?"]),
        (
            &live,
            &["--cert-sha256", "abc"],
            1,
            &["64 hexadecimal digits"],
        ),
    ];
    for (whose, more, code, expected) in cases {
        let output = policy(&server, &[&["test"], *whose, *more].concat())
            .output()
            .unwrap();
        let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(
            output.status.code(),
            Some(*code),
            "{whose:?} {more:?}: {told}"
        );
        for expected in *expected {
            assert!(told.contains(expected), "{whose:?} {more:?}: {told}");
        }
        assert!(!told.contains(token.trim()), "{told}");
    }
    // None of these was made: the first that is leaves the first word in the log.
    assert_eq!(fetch(&url, &server.path("ca.pem")).unwrap().0, 200);
    let logged = engine.wait_for("dry-run: would be refused");
    assert!(
        logged.contains("edge/later") && logged.contains("total=1"),
        "{logged}"
    );
    // Before a filter is switched on or off, and after.
    output(&mut policy(&server, &["off", "default", "edge/token"]));
    let told = output(&mut policy(
        &server,
        &["test", "--host", host, "--path", "/admin/x", "--json"],
    ));
    let report: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(report["passes"], true, "{told}");
}
