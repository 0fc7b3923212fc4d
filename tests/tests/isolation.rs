//! Every proof against every other place it could be shown: two projects, two tunnels each, two paths, over HTTP/1.1, a
//! reused connection over HTTP/2 and WebSocket. What is refused reaches no service, and its twin does.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::fs;
use std::sync::Arc;

use adit_agent::{Client, TunnelOptions};
use adit_plugins::identity::rstream_auth::{Hash, SALT_BYTES};
use adit_plugins::identity::token::{Claims, Resources};
use adit_tests::browser::{Browser, solved};
use adit_tests::certificate::ClientCertificate;
use adit_tests::engine::{TestEngine, provider};
use adit_tests::service::Reached;
use adit_tests::visitor;
use bytes::Bytes;
use http::Request;
use rustls::ClientConfig;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PATHS: [&str; 2] = ["/up/1", "/up/2"];

/// A published tunnel.
struct Place {
    host: String,
    name: String,
    project: &'static str,
    reached: Reached,
}

/// Something a visitor can show, and where it counts.
struct Proof {
    /// The place it was made for.
    of: usize,
    /// The one path it counts for; none where it counts for all.
    path: Option<&'static str>,
    fields: String,
    certificate: Option<Arc<ClientCertificate>>,
}

/// Ways to ask.
const WAYS: [Way; 3] = [Way::Fresh, Way::Reused, Way::Socket];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    /// A connection of its own over HTTP/1.1.
    Fresh,
    /// The connection over HTTP/2 on which the proof was good before.
    Reused,
    /// A WebSocket's handshake.
    Socket,
}

async fn engine(credentials: &str) -> TestEngine {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("credentials.toml"), credentials).unwrap();
    let accounts = folder.path().join("accounts.toml");
    let hash = Hash::of("a password", [7; SALT_BYTES]);
    fs::write(
        &accounts,
        format!("[account.ada]\npassword = '{}'\n", hash.as_str()),
    )
    .unwrap();
    let more = format!(
        "credentials = \"credentials.toml\"\n[login]\naccounts = {accounts:?}\n[challenge]\nbits = 4\n\
         [project.default]\n[project.shop]\nendpoints = [\"0a1b2c3d\"]\n"
    );
    TestEngine::start_in(folder, &more).await
}

/// Two tunnels in each of two projects.
async fn places(
    engine: &TestEngine,
    agents: &[(&'static str, Client); 2],
    kind: &str,
    options: impl Fn() -> TunnelOptions,
) -> Vec<Place> {
    let mut places = Vec::new();
    for (project, client) in agents {
        for number in [1, 2] {
            let name = format!("{kind}-{number}");
            let options = options().name(&name);
            let (host, reached) = engine.publish_counted(client, options).await;
            places.push(Place {
                host,
                name,
                project,
                reached,
            });
        }
    }
    places
}

/// How a visitor with this certificate, or without one, shakes hands.
fn handshake(
    engine: &TestEngine,
    certificate: Option<&ClientCertificate>,
    alpn: &str,
) -> Arc<ClientConfig> {
    if let Some(certificate) = certificate {
        return certificate.visitor(engine, alpn);
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(engine.roots())
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    Arc::new(config)
}

/// The status of one request over HTTP/1.1.
async fn http1(engine: &TestEngine, proof: &Proof, host: &str, path: &str, socket: bool) -> u16 {
    let config = handshake(engine, proof.certificate.as_deref(), "http/1.1");
    let mut stream = engine.handshake(host, &config).await.unwrap();
    let request = match socket {
        true => visitor::websocket(host, path),
        false => format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nSec-Fetch-Mode: cors\r\n\r\n"),
    };
    let request = request.replacen("\r\n", &format!("\r\n{}", proof.fields), 1);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    String::from_utf8_lossy(&head[9..]).parse().unwrap()
}

/// A connection over HTTP/2.
struct Http2(h2::client::SendRequest<Bytes>);

impl Http2 {
    async fn to(engine: &TestEngine, proof: &Proof, host: &str) -> Self {
        let config = handshake(engine, proof.certificate.as_deref(), "h2");
        let stream = engine.handshake(host, &config).await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self(send)
    }

    async fn ask(&self, proof: &Proof, host: &str, path: &str) -> u16 {
        let mut request = Request::get(format!("https://{host}{path}"));
        request = request.header("sec-fetch-mode", "cors");
        for line in proof.fields.lines() {
            let (name, value) = line.split_once(": ").unwrap();
            request = request.header(name, value);
        }
        let mut send = self.0.clone().ready().await.unwrap();
        let request = request.body(()).unwrap();
        let (response, _) = send.send_request(request, true).unwrap();
        response.await.unwrap().status().as_u16()
    }
}

/// How many requests were refused and how many let in.
#[derive(Debug, Default, Eq, PartialEq)]
struct Sum {
    refused: usize,
    let_in: usize,
}

/// Shows every proof at every place, at every path, in every way.
async fn matrix(engine: &TestEngine, places: &[Place], proofs: &[Proof], refusals: &[u16]) -> Sum {
    let mut sum = Sum::default();
    for proof in proofs {
        let own = &places[proof.of];
        let path = proof.path.unwrap_or(PATHS[0]);
        let reused = Http2::to(engine, proof, &own.host).await;
        assert_eq!(reused.ask(proof, &own.host, path).await, 200);
        for (at, place) in places.iter().enumerate() {
            for path in PATHS {
                for way in WAYS {
                    let before: Vec<usize> = places.iter().map(|one| one.reached.count()).collect();
                    let status = match way {
                        Way::Fresh => http1(engine, proof, &place.host, path, false).await,
                        Way::Socket => http1(engine, proof, &place.host, path, true).await,
                        Way::Reused => reused.ask(proof, &place.host, path).await,
                    };
                    let counts = at == proof.of && proof.path.is_none_or(|own| own == path);
                    let case = format!(
                        "the proof of {} in {} at {} in {}, {path}, {way:?}: {status}",
                        own.name, own.project, place.name, place.project
                    );
                    let mut expected = before;
                    if counts {
                        let good = if way == Way::Socket { 101 } else { 200 };
                        assert_eq!(status, good, "{case}");
                        expected[at] += 1;
                        sum.let_in += 1;
                    } else {
                        assert!(refusals.contains(&status), "{case}");
                        sum.refused += 1;
                    }
                    let after: Vec<usize> = places.iter().map(|one| one.reached.count()).collect();
                    assert_eq!(after, expected, "{case}");
                }
            }
        }
    }
    sum
}

fn proof(of: usize, fields: String) -> Proof {
    Proof {
        of,
        path: None,
        fields,
        certificate: None,
    }
}

#[tokio::test]
async fn a_proof_counts_where_it_was_made_for_and_nowhere_else() {
    let certificates: Vec<_> = (0..4).map(|_| Arc::new(ClientCertificate::new())).collect();
    // Written once the tunnels are there: a credential is for a tunnel by its name and project.
    let engine = engine("").await;
    let agents = [
        ("default", engine.client().await),
        ("shop", engine.client_of("0a1b2c3d").await),
    ];

    let by_token = || TunnelOptions::http().token_auth(true);
    let tokens = places(&engine, &agents, "token", by_token).await;
    let mut proofs = Vec::new();
    for (of, place) in tokens.iter().enumerate() {
        for path in PATHS {
            let connect = json!({ "filters": { "name": place.name }, "params": { "path": path } });
            let scopes = json!({ "tunnels": { "connect": connect } });
            let tunnels = json!({ "projects": [place.project], "scopes": scopes });
            let token = engine.token(&Claims {
                sub: Some("u-1".into()),
                resources: Some(Resources { tunnels }),
                ..Claims::default()
            });
            proofs.push(Proof {
                path: Some(path),
                ..proof(of, format!("Authorization: Bearer {token}\r\n"))
            });
        }
    }
    let sum = matrix(&engine, &tokens, &proofs, &[403]).await;
    assert_eq!((sum.let_in, sum.refused), (24, 168));

    let by_login = || TunnelOptions::http().with(|asked| asked.rstream_auth = Some(true));
    let sessions = places(&engine, &agents, "session", by_login).await;
    let mut proofs = Vec::new();
    for (of, place) in sessions.iter().enumerate() {
        // A browser of its own for each: one that has signed in is let in everywhere.
        let mut browser = Browser::new(&engine);
        let page = browser.open(&browser.url(&place.host, "/up")).await;
        browser.sign_in(&page, "ada", "a password").await;
        proofs.push(proof(of, browser.cookies(&place.host)));
    }
    let sum = matrix(&engine, &sessions, &proofs, &[401]).await;
    assert_eq!((sum.let_in, sum.refused), (24, 72));

    let by_work = || TunnelOptions::http().with(|asked| asked.challenge_mode = Some(true));
    let challenges = places(&engine, &agents, "challenge", by_work).await;
    let mut proofs = Vec::new();
    for (of, place) in challenges.iter().enumerate() {
        let mut browser = Browser::new(&engine);
        let page = browser.open(&browser.url(&place.host, "/up")).await;
        let back = solved(&page.body);
        assert_eq!(browser.ask("GET", &back, &[], "").await.status, 303);
        proofs.push(proof(of, browser.cookies(&place.host)));
    }
    // Whoever opens a page is sent to work, whatever else they carry; a socket cannot be.
    let sum = matrix(&engine, &challenges, &proofs, &[302, 403]).await;
    assert_eq!((sum.let_in, sum.refused), (24, 72));

    let by_certificate = || TunnelOptions::http().with(|asked| asked.mtls_auth = Some(true));
    let handshakes = places(&engine, &agents, "mtls", by_certificate).await;
    let mut credentials = String::new();
    let mut proofs = Vec::new();
    for (of, (place, certificate)) in handshakes.iter().zip(&certificates).enumerate() {
        let more = format!(
            "projects = [\"{}\"]\n[credential.resources.tunnels.scopes.tunnels.connect]\n\
             filters = {{ name = \"{}\" }}",
            place.project, place.name
        );
        credentials.push_str(&certificate.credential(&format!("c-{of}"), &more));
        proofs.push(Proof {
            certificate: Some(Arc::clone(certificate)),
            ..proof(of, String::new())
        });
    }
    fs::write(engine.folder.path().join("credentials.toml"), credentials).unwrap();
    engine.engine.reload().unwrap();
    let sum = matrix(&engine, &handshakes, &proofs, &[403, 421]).await;
    assert_eq!((sum.let_in, sum.refused), (24, 72));

    // One kind of proof is none where another is asked for.
    let mut strangers = Vec::new();
    let kinds = [&tokens, &sessions, &challenges];
    let token = engine.token(&Claims::default());
    let bearer = format!("Authorization: Bearer {token}\r\n");
    for kind in kinds {
        let host = &kind[0].host;
        let mut browser = Browser::new(&engine);
        browser.open(&browser.url(&sessions[1].host, "/up")).await;
        strangers.push((host, browser.cookies(&sessions[1].host)));
    }
    for (host, fields) in strangers {
        let status = http1(&engine, &proof(0, fields), host, "/up", false).await;
        assert!(matches!(status, 401 | 302), "{host}: {status}");
    }
    let by_both = http1(&engine, &proof(0, bearer), &sessions[0].host, "/up", false).await;
    assert_eq!(by_both, 401);
}
