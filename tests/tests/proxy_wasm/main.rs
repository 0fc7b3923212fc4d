//! Filters for proxy-wasm, written with its Rust SDK as for Envoy, through a whole engine: each refusal with its
//! allowed twin.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod bodies;

use std::fs;

use adit_agent::TunnelOptions;
use adit_tests::engine::TestEngine;
use adit_tests::guests::proxy_wasm;
use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Little of everything, so that a test reaches it soon.
const LIMITS: &str = "limits = { memory = \"4MiB\", decide-fuel = 3000000, piece-fuel = 3000000, start-fuel = 30000000, wait = \"20s\" }";

/// One filter of a guest, with more of its plugin's table and of its own.
fn rules(guest: &str, more: &str, filter: &str) -> String {
    let file = proxy_wasm(guest);
    let limits = match more.contains("limits") {
        true => "",
        false => LIMITS,
    };
    format!(
        "[plugin.p]\ncomponent = {file:?}\n{limits}\n{more}\n\
         [policy.edge]\nfilters = [{{ use = \"access-log\", to = {{ file = \"log.jsonl\" }}, fields = [\"path\", \"status\", \"filter\", \"reason\", \"detail\"] }}, {{ use = \"p\", name = \"guest\"{filter} }}]\n\
         [project.default]\npolicies = [\"edge\"]\n"
    )
}

/// Places for three machines, over all filters.
const FEW: &str = "[wasm]\ninstances = 3\n";

/// Answers one request on a socket, and says what its head was.
async fn answer_one(mut socket: TcpStream, answer: &str) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    socket.write_all(answer.as_bytes()).await.unwrap();
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn heads_are_seen_and_changed() {
    let filter = ", configuration = \"as it is: {\"";
    let engine = TestEngine::start(&rules("door", "", filter)).await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, TunnelOptions::http()).await;
    let fields = "X-Many: 1\r\nX-Gone: 1\r\nX-Stays: 1\r\n";
    let (status, answer) = engine.get(&host, "/seen", fields).await;
    assert_eq!(status, 200, "{answer}");
    assert!(
        answer.contains("x-configuration: as it is: {\r\n"),
        "{answer}"
    );
    let head = arrived.last().unwrap();
    let seen = format!("x-seen: GET {host}:{} true\r\n", engine.port());
    for part in [
        "GET /elsewhere?a=b HTTP/1.1\r\n",
        &seen,
        "x-many: 1\r\n",
        "x-many: 2\r\n",
    ] {
        assert!(head.contains(part), "{part} is not in {head}");
    }
    assert!(head.contains("x-stays: 1"), "{head}");
    assert!(!head.contains("x-gone"), "{head}");
    assert!(!head.contains("1.2.3.4"), "the edge's own: {head}");
    // A table is its JSON text, and none is nothing.
    for (filter, expected) in [
        (
            ", b = 1, a = [\"x\"]",
            "x-configuration: {\"a\":[\"x\"],\"b\":1}\r\n",
        ),
        ("", "x-configuration: \r\n"),
    ] {
        engine.rewrite(&rules("door", "", filter));
        engine.engine.reload().unwrap();
        let (_, answer) = engine.get(&host, "/", "").await;
        assert!(answer.contains(expected), "{answer}");
    }
}

#[tokio::test]
async fn heads_of_hostile_visitors_cost_nobody_a_machine() {
    let authz = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://127.0.0.1:{}", authz.local_addr().unwrap().port());
    let filter = format!(", configuration = \"\", clusters = {{ authz = \"{url}\" }}");
    let granted = "allow-private-hosts = [\"127.0.0.1\"]";
    let engine = TestEngine::start(&rules("door", granted, &filter)).await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, TunnelOptions::http()).await;
    let meanwhile = async {
        let (socket, _) = authz.accept().await.unwrap();
        // As many fields as the edge takes, `Host` and `Connection` among them.
        let many: String = (0..126)
            .map(|number| format!("X-{number}: {number}\r\n"))
            .collect();
        for path in ["/seen", "/rewrite"] {
            let (status, answer) = engine.get(&host, path, &many).await;
            assert_eq!(status, 200, "{answer}");
            assert!(arrived.last().unwrap().contains("x-125: 125\r\n"));
        }
        assert!(arrived.last().unwrap().contains("x-more: 1\r\n"));
        // What is no text.
        for path in ["/seen", "/rewrite"] {
            let mut stream = engine.visit(&host, "http/1.1").await;
            let head = format!(
                "GET {path} HTTP/1.1\r\nHost: {host}:{}\r\nConnection: close\r\nX-Odd: a",
                engine.port()
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(b"\xff\xc3b\r\n\r\n").await.unwrap();
            let mut answer = Vec::new();
            let _close_notify_or_not = stream.read_to_end(&mut answer).await;
            let answer = String::from_utf8_lossy(&answer);
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        answer_one(
            socket,
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nada",
        )
        .await
    };
    let ((status, answer), _) = tokio::join!(engine.get(&host, "/ask", ""), meanwhile);
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test]
async fn a_filter_answers_in_the_services_place() {
    let engine = TestEngine::start(&rules("door", "", "")).await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, TunnelOptions::http()).await;
    let (status, answer) = engine.get(&host, "/reply", "").await;
    assert_eq!((status, arrived.count()), (418, 0), "{answer}");
    assert!(answer.contains("x-from: door\r\n"), "{answer}");
    assert!(answer.contains("content-length: 15\r\n"), "{answer}");
    assert!(answer.ends_with("short and stout"), "{answer}");
    let (status, answer) = engine.get(&host, "/teapot", "").await;
    assert_eq!((status, arrived.count()), (418, 1), "{answer}");
    assert!(answer.contains("GET /teapot"), "{answer}");
    let (status, answer) = engine.get(&host, "/instead", "").await;
    assert_eq!((status, arrived.count()), (503, 2), "{answer}");
    assert!(answer.ends_with("another one"), "{answer}");
}

#[tokio::test]
async fn a_call_pauses_an_exchange_until_it_is_answered() {
    let authz = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://127.0.0.1:{}", authz.local_addr().unwrap().port());
    let filter = format!(", configuration = \"\", clusters = {{ authz = \"{url}\" }}");
    let granted = "allow-private-hosts = [\"127.0.0.1\"]";
    let engine = TestEngine::start(&rules("door", granted, &filter)).await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, TunnelOptions::http()).await;
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nada";
    let no = "HTTP/1.1 401 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    for (path, said, status, reached) in [
        ("/ask", ok, 200, 2),
        ("/ask", no, 403, 3),
        ("/ask-late", ok, 200, 5),
        ("/ask-late", no, 403, 7),
    ] {
        let answer_it = async {
            let (socket, _) = authz.accept().await.unwrap();
            // Whoever waits does not keep others waiting.
            assert_eq!(engine.get(&host, "/reply", "").await.0, 418);
            // Nor does a mistake of another exchange's cost it anything.
            let (_, broken) = engine.get(&host, "/body-pause", "").await;
            assert!(!broken.contains("GET /body-pause"), "{broken}");
            answer_one(socket, said).await
        };
        let ((got, answer), head) = tokio::join!(engine.get(&host, path, ""), answer_it);
        assert_eq!(
            (got, arrived.count()),
            (status, reached),
            "{path}: {answer}"
        );
        assert!(head.starts_with("GET /may HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("host: authz.test\r\n"), "{head}");
        // The service's answer is the head it was sent.
        assert_eq!(answer.contains("x-authz: ada"), status == 200, "{answer}");
        assert_eq!(answer.contains("x-why: asked"), status == 403, "{answer}");
    }
    // Nobody answers.
    let hung_up = async { drop(authz.accept().await.unwrap()) };
    let ((status, answer), ()) = tokio::join!(engine.get(&host, "/ask", ""), hung_up);
    assert_eq!((status, arrived.count()), (504, 7), "{answer}");
    let short = "limits = { wait = \"300ms\" }";
    engine.rewrite(&rules("door", &format!("{granted}\n{short}"), &filter));
    engine.engine.reload().unwrap();
    let (status, answer) = engine.get(&host, "/ask", "").await;
    assert!(matches!(status, 500 | 504), "{answer}");
    assert_eq!(arrived.count(), 7);
    // What the operator has not named is not asked.
    engine.rewrite(&rules("door", "allow-hosts = [\"authz.test\"]", &filter));
    engine.engine.reload().unwrap();
    let (status, answer) = engine.get(&host, "/ask", "").await;
    assert_eq!((status, arrived.count()), (500, 7), "{answer}");
    assert!(answer.contains("x-why: BadArgument"), "{answer}");
    assert_eq!(engine.get(&host, "/", "").await.0, 200);
}

#[tokio::test]
async fn a_misdeed_costs_one_exchange_and_the_next_finds_a_new_machine() {
    let engine = TestEngine::start(&rules("door", "", "")).await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, TunnelOptions::http()).await;
    let misdeeds = [
        ("/panic", "it panicked"),
        ("/loop", "it worked longer than its fuel lasts"),
        ("/pause", "nothing is under way that could wake it"),
        ("/deep", "its stack overflowed"),
        ("/flood", "it worked longer than its fuel lasts"),
    ];
    for (path, _) in misdeeds {
        for _ in 0..3 {
            let before = arrived.count();
            assert_eq!(engine.get(&host, path, "").await.0, 500, "{path}");
            assert_eq!(arrived.count(), before, "{path}");
            assert_eq!(engine.get(&host, "/well", "").await.0, 200, "{path}");
        }
    }
    // Who only looks on is passed over.
    engine.rewrite(&rules("door", "", ", on-error = \"pass\""));
    engine.engine.reload().unwrap();
    for (path, _) in misdeeds {
        assert_eq!(engine.get(&host, path, "").await.0, 200, "{path}");
    }
    let TestEngine { engine, folder, .. } = engine;
    engine.drain().await;
    let text = fs::read_to_string(folder.path().join("log.jsonl")).unwrap();
    for (path, detail) in misdeeds {
        let mut lines = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let line = lines.find(|line| line["path"] == path && line["status"] == 500);
        let line = line.unwrap_or_else(|| panic!("{path} is not in {text}"));
        assert_eq!(line["filter"], "edge/guest", "{line}");
        assert!(line["detail"].as_str().unwrap().contains(detail), "{line}");
    }
}

#[tokio::test]
async fn a_large_module_has_no_more_of_the_stack_than_another() {
    let limits = LIMITS.replace("4MiB", "20MiB");
    let engine = TestEngine::start(&rules("door", &limits, "")).await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, TunnelOptions::http()).await;
    assert_eq!(engine.get(&host, "/deep", "").await.0, 500);
    assert_eq!(arrived.count(), 0);
    assert_eq!(engine.get(&host, "/well", "").await.0, 200);
}

#[tokio::test]
async fn properties_say_what_an_exchange_is() {
    let engine = TestEngine::start(&rules("door", "", "")).await;
    let client = engine.client().await;
    let (host, _) = engine.publish_watched(&client, TunnelOptions::http()).await;
    // The path is the one the guest knows: a query is no part of its name here.
    let (status, answer) = engine.get(&host, "/properties", "X-Mine: a.b\r\n").await;
    assert_eq!(status, 200, "{answer}");
    let authority = format!("{host}:{}", engine.port());
    let server_name = format!("connection.requested_server_name={host}\n");
    for line in [
        "source.address=127.0.0.1:",
        "request.path=/properties\n",
        "request.url_path=/properties\n",
        "request.query=none\n",
        &format!("request.host={authority}\n"),
        "request.method=GET\n",
        "request.scheme=https\n",
        "request.headers.x-mine=a.b\n",
        "request.protocol=HTTP/1.1\n",
        &server_name,
        "connection.tls_version=TLSv1.3\n",
        "plugin_name=edge/guest\n",
        "adit.tunnel.project=default\n",
        "xds.cluster_name=none\n",
        "mine=kept\n",
    ] {
        assert!(answer.contains(line), "{line} is not in {answer}");
    }
}

/// What the clockwork has counted.
async fn counted(engine: &TestEngine, host: &str) -> (u64, u64) {
    let (status, answer) = engine.get(host, "/", "").await;
    assert_eq!(status, 200, "{answer}");
    let number = |name: &str| -> u64 {
        let (_, rest) = answer.split_once(name).unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    (number("ticks "), number("visits "))
}

#[tokio::test]
async fn a_root_context_works_by_the_clock() {
    let engine = TestEngine::start(&rules("clockwork", "", "")).await;
    let client = engine.client().await;
    let (host, _) = engine.publish_watched(&client, TunnelOptions::http()).await;
    while counted(&engine, &host).await.0 < 3 {}
    let metrics = engine.metrics().await;
    for part in [
        "plugin_clockwork_ticks{plugin=\"p\"} ",
        "plugin_clockwork_last{plugin=\"p\"} 7",
        "plugin_clockwork_times_bucket{plugin=\"p\",le=\"5\"} ",
    ] {
        assert!(metrics.contains(part), "{part} is not in {metrics}");
    }
    assert_eq!(engine.get(&host, "/visit", "").await.0, 200);
    assert_eq!(engine.get(&host, "/visit", "").await.0, 200);
    while counted(&engine, &host).await.1 < 2 {}
    // A clock that breaks is wound up again, and shared data outlives it, and a reload.
    assert_eq!(engine.get(&host, "/die", "").await.0, 200);
    let before = counted(&engine, &host).await.0;
    while counted(&engine, &host).await.0 < before + 5 {}
    // What wakes itself again and again keeps nobody else from working, and ends with its load.
    assert_eq!(engine.get(&host, "/again", "").await.0, 200);
    let now = counted(&engine, &host).await.0;
    while counted(&engine, &host).await.0 < now + 2 {}
    engine.rewrite(&rules("clockwork", "", ", b = 1"));
    engine.engine.reload().unwrap();
    let (ticks, visits) = counted(&engine, &host).await;
    assert!(ticks >= before + 5 && visits == 2, "{ticks} {visits}");
    while counted(&engine, &host).await.0 < ticks + 3 {}
}

#[tokio::test]
async fn a_reload_swaps_what_can_be_started() {
    let first = rules("door", FEW, ", configuration = \"one\"");
    let engine = TestEngine::start(&first).await;
    let client = engine.client().await;
    let (host, _) = engine.publish_watched(&client, TunnelOptions::http()).await;
    let configured = async || {
        let (_, answer) = engine.get(&host, "/", "").await;
        let line = answer.lines().find(|line| line.starts_with("x-conf"));
        line.unwrap_or_default().to_owned()
    };
    assert_eq!(configured().await, "x-configuration: one");
    for (filter, expected) in [
        (
            ", configuration = \"refuse this\"",
            "does not take its configuration: `proxy_on_configure` says so",
        ),
        (
            ", configuration = \"\", more = 1",
            "policy.edge.filters.1.more: beside ",
        ),
        (
            ", clusters = { a = \"b\" }",
            "policy.edge.filters.1.clusters.a: write a URL",
        ),
    ] {
        engine.rewrite(&rules("door", FEW, filter));
        let error = engine.engine.reload().unwrap_err().lines().join("\n");
        assert!(error.contains(expected), "{filter}: {error}");
        assert_eq!(configured().await, "x-configuration: one");
    }
    // There are places for few machines: nothing of what is replaced stays.
    for round in 0..8 {
        let filter = format!(", configuration = \"{round}\"");
        engine.rewrite(&rules("door", FEW, &filter));
        engine.engine.reload().unwrap();
        assert_eq!(configured().await, format!("x-configuration: {round}"));
    }
    engine.rewrite(&rules("clockwork", FEW, ""));
    engine.engine.reload().unwrap();
    assert!(engine.get(&host, "/", "").await.1.contains("ticks "));
    engine.rewrite(&first);
    engine.engine.reload().unwrap();
    assert_eq!(configured().await, "x-configuration: one");
    // Modules that are something else.
    let file = engine.folder.path().join("other.wasm");
    engine.rewrite(&first.replace(proxy_wasm("door").to_str().unwrap(), file.to_str().unwrap()));
    for (bytes, expected) in [
        (
            &b"\0asm\x01\0\0\0"[..],
            "nor a proxy-wasm module: it does not export `proxy_abi_version_0_2_1`",
        ),
        (
            b"\0asm\x01\0\0\0\x05\x03\x01\0\x01\x07\x0a\x01\x06memory\x02\0",
            "nor a proxy-wasm module",
        ),
        (b"\0asm\x01\0\0\0\xff", "it is no WebAssembly module"),
    ] {
        fs::write(&file, bytes).unwrap();
        let error = engine.engine.reload().unwrap_err().lines().join("\n");
        assert!(error.contains(expected), "{bytes:?}: {error}");
    }
}

#[tokio::test]
async fn contexts_end_with_their_exchanges() {
    let more = "limits = { memory = \"2MiB\" }";
    let engine = TestEngine::start(&rules("door", more, "")).await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, TunnelOptions::http()).await;
    let visitor = engine.h2(&host).await;
    // A context keeps its path: if contexts were kept, memory would be used up several times.
    let path = "x".repeat(3000);
    const REQUESTS: usize = 3000;
    for number in 0..REQUESTS {
        let uri = format!("https://{host}:{}/{path}{number}", engine.port());
        let request = Request::get(uri).body(()).unwrap();
        let mut sender = visitor.clone().ready().await.unwrap();
        let (answer, _) = sender.send_request(request, true).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200, "{number}");
        let mut body = answer.into_body();
        while let Some(piece) = body.data().await {
            let piece: Bytes = piece.unwrap();
            let _ = body.flow_control().release_capacity(piece.len());
        }
    }
    assert_eq!(arrived.count(), REQUESTS);
}
