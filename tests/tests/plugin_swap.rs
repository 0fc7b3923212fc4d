//! Plugins are changed while visitors are there: nobody notices but by what the filter does.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adit_agent::{Tunnel, TunnelOptions};
use adit_tests::engine::TestEngine;
use adit_tests::guests::guest;
use adit_tests::visitor;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::{Semaphore, mpsc};

/// A request comes so often: 500 a second.
const BETWEEN: Duration = Duration::from_millis(2);

/// Requests that each version has to answer under load.
const EACH: usize = 250;

/// Requests under way at most: a slow machine is not drowned in them.
const UNDER_WAY: usize = 32;

/// The component as it is, and one that calls everything of its own by another name: the next version, as it were.
fn versions() -> [Vec<u8>; 2] {
    let first = fs::read(guest("ab_router")).unwrap();
    let mut next = first.clone();
    let (from, to) = (b"variant", b"version");
    for at in 0..next.len() - from.len() {
        if next[at..].starts_with(from) {
            next[at..at + from.len()].copy_from_slice(to);
        }
    }
    [first, next]
}

fn rules(file: &Path) -> String {
    format!(
        "[plugin.p]\ncomponent = {file:?}\n[policy.edge]\nfilters = [{{ use = \"p\", percent = 100 }}]\n\
         [project.default]\npolicies = [\"edge\"]\n"
    )
}

/// What a service and its test tell each other of requests for `/held`.
struct Held {
    arrived: Semaphore,
    answered: Semaphore,
}

/// Answers with the name of the field that the filter has put into the request.
async fn serve(mut tunnel: Tunnel, held: Arc<Held>) {
    while let Ok(stream) = tunnel.accept().await {
        let held = Arc::clone(&held);
        let service = service_fn(move |request: Request<Incoming>| {
            let held = Arc::clone(&held);
            async move {
                if request.uri().path() == "/held" {
                    held.arrived.add_permits(1);
                    held.answered.acquire().await.unwrap().forget();
                }
                let seen = ["x-variant", "x-version"].map(|name| request.headers().get(name));
                let seen = format!("{seen:?}");
                let answer = Response::builder().header("seen", seen);
                Ok::<_, Infallible>(answer.body(Empty::<Bytes>::new()).unwrap())
            }
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service),
        );
    }
}

/// Which version has seen an exchange: its request, and its response.
fn seen(answer: &visitor::Whole) -> [Option<usize>; 2] {
    let field = |name: &str| answer.head.headers.get(name)?.to_str().ok();
    let request = match field("seen") {
        Some("[Some(\"b\"), None]") => Some(0),
        Some("[None, Some(\"b\")]") => Some(1),
        _ => None,
    };
    let cookie = field("set-cookie").and_then(|cookie| cookie.split('=').next());
    let known = ["variant", "version"];
    let response = known.iter().position(|name| cookie == Some(*name));
    [request, response]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_is_swapped_under_load_and_nobody_is_turned_away() {
    let [first, next] = versions();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("filter.wasm");
    fs::write(&file, &first).unwrap();
    let engine = TestEngine::start_in(folder, &rules(&file)).await;
    let client = engine.client().await;
    let tunnel = client.create_tunnel(TunnelOptions::http()).await.unwrap();
    let host = tunnel.info().unwrap().hostname().unwrap().to_owned();
    let held = Arc::new(Held {
        arrived: Semaphore::new(0),
        answered: Semaphore::new(0),
    });
    tokio::spawn(serve(tunnel, Arc::clone(&held)));
    let sender = engine.h2(&host).await;
    let get = |path: &str| {
        let (sender, uri) = (sender.clone(), format!("https://{host}{path}"));
        async move { visitor::get(&sender, &uri).await.unwrap() }
    };

    // It is let in by the first version, and answered after the swap.
    let long = tokio::spawn(get("/held"));
    held.arrived.acquire().await.unwrap().forget();

    let (answers, mut answered) = mpsc::unbounded_channel();
    let load = tokio::spawn({
        let (sender, uri) = (sender.clone(), format!("https://{host}/"));
        async move {
            let mut ticks = tokio::time::interval(BETWEEN);
            let room = Arc::new(Semaphore::new(UNDER_WAY));
            while !answers.is_closed() {
                ticks.tick().await;
                let place = Arc::clone(&room).acquire_owned().await.unwrap();
                let (sender, uri, answers) = (sender.clone(), uri.clone(), answers.clone());
                tokio::spawn(async move {
                    let _over = answers.send(visitor::get(&sender, &uri).await);
                    drop(place);
                });
            }
        }
    });
    let mut counts = [0; 2];
    while counts[1] < EACH {
        // None has failed, and none was seen by both.
        let answer = answered.recv().await.unwrap().unwrap();
        assert_eq!(answer.head.status, 200);
        let [Some(request), response] = seen(&answer) else {
            panic!("{answer:?}");
        };
        assert_eq!(response, Some(request), "{answer:?}");
        counts[request] += 1;
        if counts == [EACH, 0] {
            // Nobody tells the engine.
            fs::write(&file, &next).unwrap();
        }
    }
    drop(answered);
    load.await.unwrap();
    // What has begun with a version ends with it.
    held.answered.add_permits(1);
    assert_eq!(seen(&long.await.unwrap()), [Some(0), Some(0)]);
    assert_eq!(seen(&get("/").await), [Some(1), Some(1)]);

    // A file that is none changes nothing, and is told with its name.
    for (broken, why) in [
        (&b"not a component"[..], "it is no WebAssembly component"),
        (&next[..next.len() / 2], "it is no WebAssembly component"),
    ] {
        fs::write(&file, broken).unwrap();
        let error = engine.engine.reload().unwrap_err().lines().join("\n");
        assert!(
            error.contains("filter.wasm") && error.contains(why),
            "{error}"
        );
        assert!(error.contains("plugin.p.component"), "{error}");
        assert_eq!(seen(&get("/").await), [Some(1), Some(1)]);
    }
    fs::write(&file, &first).unwrap();
    engine.engine.reload().unwrap();
    assert_eq!(seen(&get("/").await), [Some(0), Some(0)]);
}

/// WebSockets in all, and on one connection.
const SOCKETS: [usize; 2] = [500, 50];

#[tokio::test]
async fn open_websockets_hold_no_instance_of_who_let_them_in() {
    let file = guest("ws_origin");
    let rules = format!(
        "[wasm]\ninstances = 8\n[plugin.p]\ncomponent = {file:?}\nstage = \"upgrade\"\n\
         [policy.edge]\nfilters = [{{ use = \"p\", origins = [\"https://app.test\"] }}]\n\
         [project.default]\npolicies = [\"edge\"]\nupgrades = []\n"
    );
    let engine = TestEngine::start(&rules).await;
    let client = engine.client().await;
    let host = engine.publish_service(&client, TunnelOptions::http()).await;
    let up = format!("https://{host}/up");
    let [all, each] = SOCKETS;
    let mut senders = Vec::new();
    let mut sockets = Vec::new();
    for _ in 0..all / each {
        let sender = engine.h2(&host).await;
        // The settings that allow WebSockets come with the first answer.
        visitor::get(&sender, &up).await.unwrap();
        for _ in 0..each {
            let request = Request::connect(format!("https://{host}/echo"))
                .extension(h2::ext::Protocol::from_static("websocket"))
                .header("sec-websocket-version", "13")
                .header("origin", "https://app.test")
                .body(())
                .unwrap();
            let mut ready = sender.clone().ready().await.unwrap();
            let (answer, send) = ready.send_request(request, false).unwrap();
            let answer = answer.await.unwrap();
            assert_eq!(answer.status(), 200, "{}", sockets.len());
            sockets.push((send, answer.into_body()));
        }
        senders.push(sender);
    }
    // There is still room for whoever comes next, and everybody is served.
    for sender in &senders {
        assert_eq!(visitor::get(sender, &up).await.unwrap().head.status, 200);
    }
    for (send, receive) in &mut sockets {
        send.send_data(Bytes::from_static(b"ping"), false).unwrap();
        assert_eq!(receive.data().await.unwrap().unwrap(), "ping");
        receive.flow_control().release_capacity(4).unwrap();
    }
}
