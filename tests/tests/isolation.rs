//! What opens one tunnel opens no other, of its project or of another, and no other path: whatever the proof, on a
//! connection of its own, on one that was let in elsewhere, and for a WebSocket.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use adit_tests::certificate::{alert, get};
use adit_tests::engine::TestEngine;
use adit_tests::site::{Kind, PATHS, Place, Proof, Site};
use adit_tests::visitor::{KEY, whole};
use bytes::Bytes;
use h2::client::SendRequest;
use rustls::AlertDescription;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// How many tunnels there are.
const PLACES: usize = 20;

/// How many proofs: one of each tunnel, and each of the four tokens in two ways.
const PROOFS: usize = 24;

/// How often a proof is at its own tunnel and path: with a token (in two ways) or a certificate at one path, with
/// cookies and keys at two.
const AT_HOME: usize = 4 * 2 + 4 + 4 * 2 + 4 * 2 + 4 * 2;

/// A text message of two letters (RFC 6455 §5.2), which comes back as it is.
const MESSAGE: [u8; 8] = [0x81, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2];

/// What is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum What {
    Page,
    Socket,
}

/// Whether the connection has a handshake of its own for the tunnel, or was opened for another one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Connection {
    Own,
    Reused,
}

/// What came of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Came {
    /// 200; for a WebSocket 101 or what HTTP/2 has for it, and the echo.
    Passed,
    Refused(u16),
    /// Nothing but the end of the connection, for want of a certificate.
    Ended,
}

/// What must come of a proof at a place.
fn expected(site: &Site, proof: &Proof, at: usize, path: &str, what: What, on: Connection) -> Came {
    let home = proof.home == at;
    if home && (path == PATHS[0] || !proof.one_path()) {
        return Came::Passed;
    }
    let same_kind = site.places[proof.home].kind == site.places[at].kind;
    match (site.places[at].kind, what) {
        // edge behaviour §7.2: a token that counts elsewhere is 403, no token is 401.
        (Kind::Token, _) if same_kind => Came::Refused(403),
        (Kind::Token, _) => Came::Refused(401),
        // What the plugin says of a key it does not know, and of none.
        (Kind::Key, _) => Came::Refused(401),
        // §7.6: pages are sent to sign in, nothing else is.
        (Kind::Session, What::Page) => Came::Refused(302),
        (Kind::Session, What::Socket) => Came::Refused(401),
        // §7.5, H1, H4: pages are sent to work; a token must be authorised here to spare it.
        (Kind::Challenge, What::Page) => Came::Refused(302),
        (Kind::Challenge, What::Socket) => Came::Refused(403),
        // §7.4, M1, M12, M13, M14; §8.2: the handshake was not this tunnel's.
        (Kind::Certificate, _) if on == Connection::Reused && !home => Came::Refused(421),
        (Kind::Certificate, _) if same_kind => Came::Refused(403),
        (Kind::Certificate, _) => Came::Ended,
    }
}

/// How many requests there were, and how many were let in.
#[derive(Debug, Default, Eq, PartialEq)]
struct Tally {
    asked: usize,
    passed: usize,
}

impl Tally {
    /// Waits for what comes of a proof at a place, and holds it and every service's count to what must come of it.
    async fn hold(
        &mut self,
        site: &Site,
        (proof, at, path): (&Proof, usize, &str),
        expected: Came,
        came: impl Future<Output = Came>,
    ) {
        let place = &site.places[at];
        let case = format!("{proof} for {} at {place}{path}", site.places[proof.home]);
        let mut counts = site.counts();
        let came = came.await;
        assert_eq!(came, expected, "{case}");
        self.asked += 1;
        if expected == Came::Passed {
            self.passed += 1;
            counts[at] += 1;
            let head = place.arrived.last().unwrap();
            assert!(head.starts_with(&format!("GET {path} ")), "{case}: {head}");
        }
        assert_eq!(site.counts(), counts, "{case}");
    }
}

/// Asks on a new HTTP/1.1 connection.
async fn ask_http1(
    engine: &TestEngine,
    proof: &Proof,
    place: &Place,
    path: &str,
    what: What,
) -> Came {
    let mut fields = proof
        .field()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .unwrap_or_default();
    if what == What::Socket {
        fields += &format!(
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {KEY}\r\n"
        );
    }
    let config = proof.visitor(engine, "http/1.1");
    let asked = async {
        let mut stream = engine.handshake(&place.host, &config).await?;
        let (status, _) = get(&mut stream, &place.host, &proof.target(path), &fields).await?;
        if status == 101 {
            stream.write_all(&MESSAGE).await?;
            let mut echo = [0; MESSAGE.len()];
            stream.read_exact(&mut echo).await?;
            assert_eq!(echo, MESSAGE);
        }
        Ok(status)
    };
    match (asked.await, what) {
        (Ok(200), What::Page) | (Ok(101), What::Socket) => Came::Passed,
        (Ok(status), _) => Came::Refused(status),
        (Err(error), _) => {
            assert_eq!(alert(&error), AlertDescription::CertificateRequired);
            Came::Ended
        }
    }
}

/// A new HTTP/2 connection to a place, with the certificate of a proof that is one.
async fn connect(engine: &TestEngine, proof: &Proof, place: &Place) -> SendRequest<Bytes> {
    let config = proof.visitor(engine, "h2");
    let stream = engine.handshake(&place.host, &config).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Asks on an HTTP/2 connection.
async fn ask_http2(
    sender: &SendRequest<Bytes>,
    proof: &Proof,
    place: &Place,
    path: &str,
    what: What,
) -> Came {
    let uri = format!("https://{}{}", place.host, proof.target(path));
    let mut request = match what {
        What::Page => http::Request::get(uri),
        What::Socket => http::Request::connect(uri)
            .extension(h2::ext::Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13"),
    };
    if let Some((name, value)) = proof.field() {
        request = request.header(name, value);
    }
    let mut sender = sender.clone().ready().await.unwrap();
    let (response, mut send) = sender
        .send_request(request.body(()).unwrap(), what == What::Page)
        .unwrap();
    let response = response.await.unwrap();
    match (response.status().as_u16(), what) {
        (200, What::Page) => {
            whole(response).await.unwrap();
            Came::Passed
        }
        (200, What::Socket) => {
            send.send_data(Bytes::from_static(&MESSAGE), false).unwrap();
            let mut body = response.into_body();
            let mut echo = Vec::new();
            while echo.len() < MESSAGE.len() {
                echo.extend(body.data().await.unwrap().unwrap());
            }
            assert_eq!(echo, MESSAGE);
            Came::Passed
        }
        (status, _) => Came::Refused(status),
    }
}

/// Each proof at each place and path, each time on a connection of its own.
async fn over_own_connections(what: What) {
    let site = Site::start().await;
    let mut tally = Tally::default();
    for proof in &site.proofs {
        for (at, place) in site.places.iter().enumerate() {
            for path in PATHS {
                let must = expected(&site, proof, at, path, what, Connection::Own);
                let came = ask_http1(&site.engine, proof, place, path, what);
                tally.hold(&site, (proof, at, path), must, came).await;
            }
        }
    }
    let must = Tally {
        asked: PROOFS * PLACES * PATHS.len(),
        passed: AT_HOME,
    };
    assert_eq!(tally, must);
}

/// Each proof at each place and path, on one connection that it opened at home, before and after.
async fn over_a_reused_connection(what: What) {
    let site = Site::start().await;
    let mut tally = Tally::default();
    for proof in &site.proofs {
        let home = &site.places[proof.home];
        let at_home = (proof, proof.home, PATHS[0]);
        let sender = connect(&site.engine, proof, home).await;
        // The first answer also brings the settings that allow an extended CONNECT.
        let came = ask_http2(&sender, proof, home, PATHS[0], What::Page);
        tally.hold(&site, at_home, Came::Passed, came).await;
        for (at, place) in site.places.iter().enumerate() {
            for path in PATHS {
                let must = expected(&site, proof, at, path, what, Connection::Reused);
                let came = ask_http2(&sender, proof, place, path, what);
                tally.hold(&site, (proof, at, path), must, came).await;
            }
        }
        let came = ask_http2(&sender, proof, home, PATHS[0], What::Page);
        tally.hold(&site, at_home, Came::Passed, came).await;
    }
    let must = Tally {
        asked: PROOFS * (1 + PLACES * PATHS.len() + 1),
        passed: PROOFS * 2 + AT_HOME,
    };
    assert_eq!(tally, must);
}

/// Each proof at each other place and both paths, and at home, on a connection that the other place's own proof opened.
async fn over_connections_of_others(what: What) {
    let site = Site::start().await;
    let mut tally = Tally::default();
    let mut connections = 0;
    for proof in &site.proofs {
        let home = &site.places[proof.home];
        if home.kind == Kind::Certificate {
            // A connection has one certificate: there is no showing another on it.
            continue;
        }
        for own in &site.proofs {
            let place = &site.places[own.home];
            let certificate = place.kind == Kind::Certificate;
            // A pass is no proof of who one is, and a plugin's key is its own affair: neither is a conflict with a
            // certificate that lets in.
            let is_conflict = !matches!(home.kind, Kind::Challenge | Kind::Key);
            if own.home == proof.home || (certificate && !is_conflict) {
                continue;
            }
            connections += 1;
            let sender = connect(&site.engine, own, place).await;
            let came = ask_http2(&sender, own, place, PATHS[0], What::Page);
            let opened = (own, own.home, PATHS[0]);
            tally.hold(&site, opened, Came::Passed, came).await;
            for path in PATHS {
                // §7.1 rule 2: what stands beside the certificate of the connection is refused for that.
                let must = if certificate {
                    Came::Refused(400)
                } else {
                    expected(&site, proof, own.home, path, what, Connection::Reused)
                };
                let came = ask_http2(&sender, proof, place, path, what);
                let case = (proof, own.home, path);
                tally.hold(&site, case, must, came).await;
            }
            let came = ask_http2(&sender, proof, home, PATHS[0], what);
            let twin = (proof, proof.home, PATHS[0]);
            tally.hold(&site, twin, Came::Passed, came).await;
        }
    }
    // Tokens meet all but the two of their own tunnel, sessions all but their own, passes and keys also not the
    // certificates.
    assert_eq!(connections, 8 * 22 + 4 * 23 + 8 * 19);
    let must = Tally {
        asked: connections * 4,
        passed: connections * 2,
    };
    assert_eq!(tally, must);
}

#[tokio::test]
async fn what_opens_one_tunnel_opens_no_other() {
    // edge behaviour T2, T3, M2, M12, M14; §7.2 to §7.6
    over_own_connections(What::Page).await;
}

#[tokio::test]
async fn what_opens_one_tunnel_opens_a_web_socket_at_no_other() {
    // edge behaviour T19, H4
    over_own_connections(What::Socket).await;
}

#[tokio::test]
async fn what_opens_one_tunnel_opens_no_other_on_the_same_connection() {
    // edge behaviour M13, R1; §8.2
    over_a_reused_connection(What::Page).await;
}

#[tokio::test]
async fn what_opens_one_tunnel_opens_a_web_socket_at_no_other_on_the_same_connection() {
    // edge behaviour M13, R7; §8.2
    over_a_reused_connection(What::Socket).await;
}

#[tokio::test]
async fn a_connection_that_was_let_in_lets_nobody_else_in() {
    // edge behaviour R1, M5, M6; §7.1, §8.2
    over_connections_of_others(What::Page).await;
}

#[tokio::test]
async fn a_connection_that_was_let_in_opens_a_web_socket_to_nobody_else() {
    // edge behaviour R1, R7; §7.1, §8.2
    over_connections_of_others(What::Socket).await;
}
