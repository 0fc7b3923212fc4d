//! Where plugins may send requests: to hosts that the operator has named, and where those really are.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use adit_agent::TunnelOptions;
use adit_tests::engine::TestEngine;
use adit_tests::guests::guest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A service on this machine that says the same to everybody, and counts who comes.
struct Service {
    port: u16,
    asked: Arc<AtomicUsize>,
}

impl Service {
    async fn start(answer: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let answer = answer.clone();
                tokio::spawn(async move {
                    let _head = stream.read(&mut [0; 4096]).await;
                    let _gone = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        Self { port, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// A filter that asks `url` about each visitor's address, and lets nobody in that it hears nothing of.
fn rules(grant: &str, url: &str) -> String {
    let file = guest("ip_reputation");
    format!(
        "[front]\ntrusted = [\"127.0.0.1\"]\n[plugin.p]\ncomponent = {file:?}\n{grant}\n\
         [policy.edge]\nfilters = [{{ use = \"p\", url = {url:?}, worst = 75, strict = true }}]\n\
         [project.default]\npolicies = [\"edge\"]\n"
    )
}

/// What was remembered of one visitor says nothing of another.
fn visitor(number: usize) -> String {
    format!("X-Forwarded-For: 192.0.2.{number}\r\n")
}

#[tokio::test]
async fn nothing_is_reached_that_was_not_named() {
    let good = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 11\r\n\r\n{\"score\":0}";
    let service = Service::start(good.to_owned()).await;
    let port = service.port;
    let engine = TestEngine::start(&rules("", "http://127.0.0.1:1/")).await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, TunnelOptions::http()).await;
    let local = "allow-private-hosts = [\"localhost\"]";
    let numeric = "allow-private-hosts = [\"127.0.0.1\"]";
    let cases = [
        // By the name that was given, or by the address, and by nothing else that leads to the same place.
        (numeric, format!("http://127.0.0.1:{port}/"), true),
        (local, format!("http://localhost:{port}/"), true),
        (local, format!("http://LOCALHOST:{port}/"), true),
        ("", format!("http://127.0.0.1:{port}/"), false),
        ("", format!("http://localhost:{port}/"), false),
        (local, format!("http://127.0.0.1:{port}/"), false),
        (numeric, format!("http://localhost:{port}/"), false),
        (numeric, format!("http://2130706433:{port}/"), false),
        (numeric, format!("http://127.1:{port}/"), false),
        (numeric, format!("http://[::ffff:127.0.0.1]:{port}/"), false),
        (local, format!("http://127.0.0.1:{port}@localhost/"), false),
        (local, format!("http://localhost@127.0.0.1:{port}/"), false),
        (local, format!("http://localhost.:{port}/"), false),
        // Hosts that are to be public have to be: the address itself, and a name that leads to one of the house.
        (
            "allow-hosts = [\"127.0.0.1\"]",
            format!("http://127.0.0.1:{port}/"),
            false,
        ),
        (
            "allow-hosts = [\"localhost\"]",
            format!("http://localhost:{port}/"),
            false,
        ),
    ];
    for (number, (grant, url, reaches)) in cases.into_iter().enumerate() {
        engine.rewrite(&rules(grant, &url));
        engine.engine.reload().unwrap();
        let before = (service.asked(), arrived.count());
        let (status, _) = engine.get(&host, "/", &visitor(number)).await;
        let came = usize::from(reaches);
        let after = (service.asked() - before.0, arrived.count() - before.1);
        assert_eq!(after, (came, came), "{grant} {url}: {status}");
        assert_eq!(status, if reaches { 200 } else { 503 }, "{grant} {url}");
    }
}

#[tokio::test]
async fn a_redirection_is_an_answer_and_leads_nowhere() {
    let inner =
        Service::start("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"score\":0}".to_owned())
            .await;
    for status in [
        "301 Moved Permanently",
        "302 Found",
        "303 See Other",
        "307 Temporary Redirect",
    ] {
        let to = format!("http://127.0.0.1:{}/", inner.port);
        let outer = Service::start(format!(
            "HTTP/1.1 {status}\r\nLocation: {to}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
        let url = format!("http://localhost:{}/", outer.port);
        // Whether the plugin might go there itself, or not.
        for grant in ["[\"localhost\"]", "[\"localhost\", \"127.0.0.1\"]"] {
            let before = outer.asked();
            let grant = format!("allow-private-hosts = {grant}");
            let engine = TestEngine::start(&rules(&grant, &url)).await;
            let client = engine.client().await;
            let (host, _) = engine.publish_watched(&client, TunnelOptions::http()).await;
            assert_eq!(engine.get(&host, "/", &visitor(1)).await.0, 503);
            assert_eq!((outer.asked() - before, inner.asked()), (1, 0), "{status}");
        }
    }
}
