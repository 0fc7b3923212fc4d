//! The TLS carrier over loopback: what passes, what is refused, and how a connection ends.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use adit_transport::EngineAddress;
use adit_transport::tls::{self, ConnectError, Connector, ConnectorOptions};
use adit_transport::trust::Trust;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const NAME: &str = "engine.localhost";

struct Engine {
    address: EngineAddress,
    ca: String,
    accepted: JoinHandle<io::Result<tls::ServerStream<TcpStream>>>,
}

/// What an engine with a certificate for `NAME` answers with, and that certificate.
fn config(alpn: &[u8]) -> (Arc<rustls::ServerConfig>, String) {
    let key = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![key.cert.der().clone()],
            PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    (Arc::new(config), key.cert.pem())
}

/// Accepts one connection, with a certificate for `NAME` and the given ALPN.
async fn engine(alpn: &[u8]) -> Engine {
    let (config, ca) = config(alpn);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepted = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await?;
        tls::accept(config, tcp, Duration::from_secs(10)).await
    });
    Engine {
        address: format!("{NAME}:{port}").parse().unwrap(),
        ca,
        accepted,
    }
}

fn connector(ca: &str, server_name: Option<&str>) -> Connector {
    Connector::new(&ConnectorOptions {
        trust: Trust::system().without_system().and_pem(ca),
        server_name: server_name.map(str::to_owned),
        ..ConnectorOptions::default()
    })
    .unwrap()
}

async fn pair() -> (tls::ClientStream, tls::ServerStream<TcpStream>) {
    let engine = engine(adit_protocol::ALPN).await;
    let client = connector(&engine.ca, None)
        .connect(&engine.address)
        .await
        .unwrap();
    (client, engine.accepted.await.unwrap().unwrap())
}

#[tokio::test]
async fn both_ends_agree_on_tls_1_3_and_the_post_quantum_group() {
    let (client, server) = pair().await;
    let session = client.get_ref().get_ref().1;
    assert_eq!(
        session.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    assert_eq!(
        session
            .negotiated_key_exchange_group()
            .map(|group| group.name()),
        Some(rustls::NamedGroup::X25519MLKEM768)
    );
    let session = server.get_ref().get_ref().1;
    assert_eq!(session.alpn_protocol(), Some(adit_protocol::ALPN));
    assert_eq!(session.server_name(), Some(NAME));
}

#[tokio::test]
async fn a_second_connection_resumes_the_session_of_the_first() {
    // Every stream is a connection: without this each pays for a signature and its verification.
    let (config, ca) = config(adit_protocol::ALPN);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let address: EngineAddress = format!("{NAME}:{port}").parse().unwrap();
    let connector = connector(&ca, None);
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let accept = async {
            let (tcp, _) = listener.accept().await.unwrap();
            let limit = Duration::from_secs(10);
            let mut server = tls::accept(Arc::clone(&config), tcp, limit).await.unwrap();
            server.write_all(b"x").await.unwrap();
            server
        };
        let (client, _server) = tokio::join!(connector.connect(&address), accept);
        let mut client = client.unwrap();
        // Tickets come before the first byte of payload.
        assert_eq!(client.read_u8().await.unwrap(), b'x');
        kinds.push(client.get_ref().get_ref().1.handshake_kind().unwrap());
    }
    assert_eq!(
        kinds,
        [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed]
    );
}

#[tokio::test]
async fn close_notify_ends_one_direction_only() {
    // agent-protocol §3.2
    let (mut client, mut server) = pair().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut text = String::new();
    server.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "question");
    server.write_all(b"answer").await.unwrap();
    server.shutdown().await.unwrap();
    text.clear();
    client.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "answer");
}

#[tokio::test]
async fn a_dropped_end_is_an_error_and_never_an_end_of_file() {
    let (mut client, mut server) = pair().await;
    client.write_all(b"half of it").await.unwrap();
    client.flush().await.unwrap();
    drop(client);
    assert!(server.read_to_end(&mut Vec::new()).await.is_err());

    let (mut client, server) = pair().await;
    drop(server);
    assert!(client.read_to_end(&mut Vec::new()).await.is_err());
}

#[tokio::test]
async fn a_tcp_end_without_close_notify_is_a_truncation() {
    // The process of the peer died: the kernel closes its sockets in an orderly way.
    let engine = engine(adit_protocol::ALPN).await;
    let mut client = connector(&engine.ca, None)
        .connect(&engine.address)
        .await
        .unwrap();
    let server = engine.accepted.await.unwrap().unwrap();
    let raw = socket2::SockRef::from(server.get_ref().get_ref().0)
        .try_clone()
        .unwrap();
    raw.shutdown(std::net::Shutdown::Write).unwrap();
    let error = client.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn an_unknown_authority_is_refused_with_the_remedy() {
    for other in [NAME, "other.example"] {
        let engine = engine(adit_protocol::ALPN).await;
        let other = rcgen::generate_simple_self_signed(vec![other.to_owned()]).unwrap();
        let error = connector(&other.cert.pem(), None)
            .connect(&engine.address)
            .await
            .unwrap_err();
        assert!(
            matches!(error, ConnectError::UnknownAuthority { .. }),
            "{error}"
        );
        assert!(error.to_string().contains("--ca-file"));
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_unless_that_name_is_expected() {
    let first = engine(adit_protocol::ALPN).await;
    let port = first.address.port();
    let by_other_name: EngineAddress = format!("other.localhost:{port}").parse().unwrap();
    let error = connector(&first.ca, None)
        .connect(&by_other_name)
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ConnectError::Name { name, .. } if name == "other.localhost"),
        "{error}"
    );

    let second = engine(adit_protocol::ALPN).await;
    let by_ip: EngineAddress = format!("127.0.0.1:{}", second.address.port())
        .parse()
        .unwrap();
    connector(&second.ca, Some(NAME))
        .connect(&by_ip)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_chosen_server_name_is_not_used_for_a_redirect() {
    // agent-protocol §16 case 23
    let engine = engine(adit_protocol::ALPN).await;
    let connector = connector(&engine.ca, Some("elsewhere.example"));
    connector.connect_redirected(&engine.address).await.unwrap();
}

#[tokio::test]
async fn a_server_of_another_protocol_is_told_apart() {
    let engine = engine(b"h2").await;
    let error = connector(&engine.ca, None)
        .connect(&engine.address)
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::NotAnEngine { .. }), "{error}");
}

#[tokio::test]
async fn a_closed_port_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let ca = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
    let error = connector(&ca.cert.pem(), None)
        .connect(&format!("{NAME}:{port}").parse().unwrap())
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Refused { .. }), "{error}");
}

#[tokio::test]
async fn a_peer_that_never_answers_the_handshake_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let ca = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
    let connector = Connector::new(&ConnectorOptions {
        trust: Trust::system().without_system().and_pem(ca.cert.pem()),
        timeout: Duration::from_millis(50),
        ..ConnectorOptions::default()
    })
    .unwrap();
    let error = connector
        .connect(&format!("{NAME}:{port}").parse().unwrap())
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Timeout { .. }), "{error}");
}
