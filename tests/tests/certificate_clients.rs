//! Agents and users of the Engine API who are known by client certificates: each refusal with its allowed twin.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::sync::Arc;

use adit_agent::{Client, ClientBuilder, Error, Retry, TunnelOptions};
use adit_plugins::identity::token::Claims;
use adit_tests::certificate::ClientCertificate;
use adit_tests::engine::{ENGINE_HOST, TestEngine, provider};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// The host below which the API takes certificates, and its name for the engine.
const SETTINGS: &str =
    "credentials = \"credentials.toml\"\ncertificate-host = \"mtls.localhost\"\n";
const API_HOST: &str = "edge.mtls.localhost";

async fn engine(credentials: &str, more: &str) -> TestEngine {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("credentials.toml"), credentials).unwrap();
    TestEngine::start_in(folder, &format!("{SETTINGS}{more}")).await
}

/// An agent's settings, without a credential.
fn agent(engine: &TestEngine, host: &str) -> ClientBuilder {
    Client::builder()
        .engine(format!("{host}:{}", engine.port()))
        .ca_file(engine.folder.path().join("ca.pem"))
        .retry(Retry::Never)
}

fn shows(builder: ClientBuilder, certificate: &ClientCertificate) -> ClientBuilder {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate.write(folder.path());
    let _keep_until_the_test_ends = folder.keep();
    builder.certificate_files(certificate, key)
}

/// Why an agent is not let in.
async fn refusal(builder: ClientBuilder) -> (i32, String) {
    match builder.connect().await {
        Err(Error::Engine(error)) => (error.code.0, error.message),
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("the agent was let in"),
    }
}

#[tokio::test]
async fn an_agent_is_known_by_its_certificate_and_brings_streams_with_it() {
    // agent-protocol §8, §16 case 44
    let known = ClientCertificate::new();
    let limited = ClientCertificate::new();
    let late = ClientCertificate::with(|params| {
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    });
    let credentials = [
        known.credential("known", "user = \"ada\""),
        limited.credential("limited", "projects = [\"other\"]"),
        late.credential("late", ""),
    ];
    let engine = engine(
        &credentials.concat(),
        "[project.other]\nendpoints = [\"0a1b2c3d\"]\n",
    )
    .await;
    let own = |certificate| shows(agent(&engine, ENGINE_HOST), certificate);
    let client = own(&known).connect().await.unwrap();
    // The streams of this tunnel are brought with a secret and the certificate.
    let host = engine.publish(&client, TunnelOptions::http()).await;
    assert_eq!(engine.get(&host, "/", "").await.0, 200);

    let unknown = ClientCertificate::new();
    for (certificate, words) in [
        (&unknown, "not known"),
        (&limited, "not for project `default`"),
        (&late, "not valid now"),
    ] {
        let (code, text) = refusal(own(certificate)).await;
        assert_eq!(code, 1000, "{text}");
        assert!(text.contains(words), "{text}");
    }
    let (code, text) = refusal(agent(&engine, ENGINE_HOST)).await;
    assert_eq!(code, 1000, "{text}");
    let elsewhere = agent(&engine, &format!("0a1b2c3d.{ENGINE_HOST}"));
    shows(elsewhere, &limited).connect().await.unwrap();
}

#[tokio::test]
async fn our_agent_does_not_even_ask_with_two_credentials() {
    // agent-cli §10 C10
    let engine = engine("", "").await;
    let token = engine.token(&Claims::default());
    let both = shows(agent(&engine, ENGINE_HOST), &ClientCertificate::new()).token(token);
    assert!(matches!(both.start(), Err(Error::TwoCredentials)));
}

/// Hands shaken with an engine's name, with a certificate or none.
async fn shake(
    engine: &TestEngine,
    host: &str,
    certificate: Option<&ClientCertificate>,
    alpn: &str,
) -> TlsStream<TcpStream> {
    let config = match certificate {
        Some(certificate) => certificate.visitor(engine, alpn),
        None => {
            let mut config = ClientConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(engine.roots())
                .with_no_client_auth();
            config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
            Arc::new(config)
        }
    };
    engine.handshake(host, &config).await.unwrap()
}

/// One `GET` from the API on a connection of its own: status, and everything that came.
async fn get(
    engine: &TestEngine,
    host: &str,
    certificate: Option<&ClientCertificate>,
    path: &str,
    fields: &str,
) -> (u16, String) {
    let mut stream = shake(engine, host, certificate, "http/1.1").await;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _close_notify_or_not = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).unwrap_or_default();
    (status.parse().unwrap_or_default(), answer)
}

#[tokio::test]
async fn discovery_names_the_host_that_takes_certificates() {
    // H13; engine-api §4
    let project = "[project.shop]\nendpoints = [\"0a1b2c3d\"]\n";
    let engine = engine("", project).await;
    let port = engine.port();
    let path = "/.well-known/rstream/engine";
    for (host, endpoint) in [
        (ENGINE_HOST.to_owned(), "edge"),
        (format!("0a1b2c3d.{ENGINE_HOST}"), "0a1b2c3d"),
    ] {
        let (status, answer) = get(&engine, &host, None, path, "").await;
        assert_eq!(status, 200, "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("content-type: application/json"), "{head}");
        assert!(head.contains("max-age=3600"), "{head}");
        let document: serde_json::Value = serde_json::from_str(body).unwrap();
        let expected = serde_json::json!({
            "version": 1,
            "projectEndpoint": endpoint,
            "mtlsApiUrl": format!("https://{endpoint}.mtls.localhost:{port}/api"),
            "capabilities": ["engine-api-mtls"],
        });
        assert_eq!(document, expected);
    }
    assert_eq!(get(&engine, API_HOST, None, path, "").await.0, 404);
    let without = TestEngine::start("").await;
    assert_eq!(get(&without, ENGINE_HOST, None, path, "").await.0, 404);
}

#[tokio::test]
async fn the_api_takes_certificates_at_a_name_of_their_own() {
    // engine-api §2, §4
    let reader = ClientCertificate::new();
    let visitor = ClientCertificate::new();
    let unknown = ClientCertificate::new();
    let credentials = [
        reader.credential("reader", ""),
        visitor.credential(
            "visitor",
            "permissions = [\"tunnels.streams.create-delete\"]",
        ),
    ];
    let engine = engine(&credentials.concat(), "").await;
    let bearer = format!(
        "Authorization: Bearer {}\r\n",
        engine.token(&Claims::default())
    );
    let tunnels = "/api/tunnels";
    for (host, certificate, path, fields, status) in [
        (API_HOST, Some(&reader), tunnels, "", 200),
        (API_HOST, Some(&visitor), tunnels, "", 403),
        (API_HOST, Some(&unknown), tunnels, "", 401),
        (API_HOST, None, tunnels, "", 401),
        (API_HOST, None, tunnels, &bearer, 200),
        // Never both.
        (API_HOST, Some(&reader), tunnels, &bearer, 400),
        (API_HOST, Some(&unknown), tunnels, &bearer, 400),
        (
            API_HOST,
            Some(&reader),
            "/api/tunnels?rstream.token=x",
            "",
            400,
        ),
        // Nothing but the API is here.
        (API_HOST, Some(&reader), "/rstream/auth", "", 404),
        // The ordinary host does not ask, whoever has one.
        (ENGINE_HOST, Some(&reader), tunnels, "", 401),
        (ENGINE_HOST, Some(&reader), tunnels, &bearer, 200),
    ] {
        let (got, answer) = get(&engine, host, certificate, path, fields).await;
        assert_eq!(got, status, "{host} {path} {fields}: {answer}");
    }
}

#[tokio::test]
async fn a_connection_to_another_name_does_not_reach_the_one_for_certificates() {
    let reader = ClientCertificate::new();
    let engine = engine(&reader.credential("reader", ""), "").await;
    for (first, cases) in [
        (ENGINE_HOST, [(ENGINE_HOST, 401), (API_HOST, 421)]),
        (API_HOST, [(API_HOST, 200), (ENGINE_HOST, 401)]),
    ] {
        let stream = shake(&engine, first, Some(&reader), "h2").await;
        let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        for (host, status) in cases {
            let uri = format!("https://{host}:{}/api/tunnels", engine.port());
            let request = http::Request::get(uri).body(()).unwrap();
            send = send.ready().await.unwrap();
            let (response, _) = send.send_request(request, true).unwrap();
            assert_eq!(response.await.unwrap().status().as_u16(), status, "{host}");
        }
    }
}
