//! With the engine's own tokens instead of the doorman.

use adit_config::Secret as ConfigSecret;
use adit_plugins::identity::credentials;
use adit_plugins::identity::token::{self, Claims};
use serde_json::{Value, json};

use super::*;
use crate::agents::TokenAuthority;
use adit_protocol::message::{StreamRsp, stream_rsp};

fn authority(secret: &str) -> Arc<token::Authority> {
    Arc::new(token::Authority::new(&ConfigSecret::new(secret.to_owned())).unwrap())
}

const KEY: &str = "a key for tests that is long enough to be taken";

fn engine() -> Engine {
    let engine = Engine::new();
    engine
        .agents
        .set_authority(TokenAuthority::new(authority(KEY)));
    engine
}

fn mint(key: &str, claims: Value) -> String {
    let claims: Claims = serde_json::from_value(claims).unwrap();
    authority(key).mint(&claims).unwrap()
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs_f64()
}

/// A token of user `u7` within a boundary.
fn within(boundary: Value) -> String {
    mint(
        KEY,
        json!({ "type": "auth", "userId": "u7", "iat": now(), "exp": now() + 600.0, "resources": { "tunnels": boundary } }),
    )
}

async fn open(
    link: &mut Link,
    token: &str,
) -> Result<adit_protocol::message::open_control_channel_rsp::Ok, ProtocolError> {
    link.open_as(details(Some(token)), None).await
}

#[tokio::test]
async fn a_token_must_be_ours_and_in_time() {
    // agent-protocol §8
    let engine = engine();
    let claims =
        |exp: f64| json!({ "type": "auth", "userId": "u7", "iat": now() - 900.0, "exp": exp });
    for (token, code) in [
        (mint(KEY, claims(now() + 600.0)), None),
        (mint(KEY, claims(now() - 300.0)), Some(1000)),
        (
            mint(
                "another key that is long enough as well",
                claims(now() + 600.0),
            ),
            Some(1000),
        ),
        ("nonsense".to_owned(), Some(1000)),
        (String::new(), Some(1000)),
    ] {
        let opened = open(&mut engine.connect(), &token).await;
        assert_eq!(opened.err().map(|error| error.code.0), code, "{token}");
    }
    engine
        .until(|engine| engine.agents.agent_count() == 0)
        .await;
}

#[tokio::test]
async fn a_token_for_one_project_opens_no_other() {
    let engine = engine();
    let token =
        within(json!({ "projects": ["shop"], "scopes": { "tunnels": { "create": true } } }));
    let error = open(&mut engine.connect(), &token).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UNAUTHORIZED);
    let mut link = engine.connect_to(Some("0a1b.engine.example.com"));
    open(&mut link, &token).await.unwrap();
    link.open_tunnel(private("db")).await.unwrap();
    assert_eq!(engine.agents.clients()[0].user_id.as_deref(), Some("u7"));
}

#[tokio::test]
async fn a_token_that_pins_a_tunnel_yields_it_from_a_bare_request() {
    // edge-behaviour §14.1 C25 and C26
    let engine = engine();
    let token = within(
        json!({ "projects": ["default"], "scopes": { "tunnels": { "create": { "filters": {
        "name": "web", "protocol": "http", "publish": true, "token_auth": true, "labels": { "team": "a" },
    } } } } }),
    );
    let mut link = engine.connect();
    open(&mut link, &token).await.unwrap();
    let label = |value: &str| TunnelProperties {
        labels: [("team".to_owned(), value.to_owned())].into(),
        ..TunnelProperties::default()
    };
    for other in [private(""), private("web"), label("b")] {
        let error = link.open_tunnel(other).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::UNAUTHORIZED, "{error}");
    }
    let tunnel = link.open_tunnel(TunnelProperties::default()).await.unwrap();
    assert_eq!(tunnel.name.as_deref(), Some("web"));
    assert_eq!(tunnel.protocol.as_deref(), Some("http"));
    assert_eq!(
        (tunnel.publish, tunnel.token_auth),
        (Some(true), Some(true))
    );
    assert_eq!(tunnel.labels, label("a").labels);
    // The name is taken now, which is worth another try later.
    let error = link
        .open_tunnel(TunnelProperties::default())
        .await
        .unwrap_err();
    assert_eq!(error.code, ErrorCode::RESOURCE_CONFLICT);
}

#[tokio::test]
async fn a_dial_needs_a_token_that_may_connect() {
    // edge-behaviour §14.1 C27
    let engine = engine();
    let owner = mint(
        KEY,
        json!({ "type": "auth", "userId": "u7", "exp": now() + 600.0 }),
    );
    let mut control = engine.connect();
    open(&mut control, &owner).await.unwrap();
    control.open_tunnel(private("db")).await.unwrap();
    control.open_tunnel(private("api")).await.unwrap();
    let token = within(
        json!({ "projects": ["default"], "scopes": { "tunnels": { "connect": {
        "filters": { "name": "api" },
    } } } }),
    );
    let mut creator = engine.connect();
    open(&mut creator, &token).await.unwrap();
    let error = creator.open_tunnel(private("x")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UNAUTHORIZED);
    for (target, allowed) in [("db", false), ("api", true)] {
        let mut dialer = engine.connect();
        dialer
            .send(StreamReq {
                client_details: details(Some(&token)),
                tunnel_id_name: target.to_owned(),
                ..StreamReq::default()
            })
            .await;
        if allowed {
            let request = control.stream_request().await;
            let _leg = engine.bring(&request, Some(true)).await;
        }
        let Some(Payload::StreamRsp(StreamRsp { result })) = dialer.next().await else {
            panic!("no answer");
        };
        match result.unwrap() {
            stream_rsp::Result::StreamId(_) => assert!(allowed),
            stream_rsp::Result::Error(error) => {
                assert!(!allowed);
                assert_eq!(error.code, 1000);
            }
        }
    }
}

// edge-behaviour §7.2 "Stream lifetime"
#[tokio::test]
async fn who_was_let_in_goes_when_its_credential_does() {
    let shared = authority(KEY);
    let engine = Engine::new();
    engine
        .agents
        .set_authority(TokenAuthority::new(Arc::clone(&shared)));
    let claims = |user: &str| json!({ "type": "auth", "userId": user, "exp": now() + 600.0 });
    let (agent, other) = (mint(KEY, claims("agent")), mint(KEY, claims("other")));
    let mut control = engine.connect();
    open(&mut control, &agent).await.unwrap();
    let mut unmoved = engine.connect();
    open(&mut unmoved, &other).await.unwrap();
    unmoved.open_tunnel(private("db")).await.unwrap();
    let mut dialer = engine.connect();
    dialer
        .send(StreamReq {
            client_details: details(Some(&agent)),
            tunnel_id_name: "db".to_owned(),
            zero_rtt: Some(true),
            datagram_channel: None,
        })
        .await;
    let request = unmoved.stream_request().await;
    let leg = engine.bring(&request, Some(true)).await;
    let (mut read, mut write) = leg.payload();
    write.write_all(b"down").await.unwrap();
    let (mut near, _open) = dialer.payload();
    let mut bytes = [0; 4];
    near.read_exact(&mut bytes).await.unwrap();

    let stored = |more: &str| {
        let hash = hex::encode(credentials::sha256(agent.as_bytes()));
        let text = format!("[[credential]]\nid = \"c\"\ntoken-sha256 = [\"{hash}\"]\n{more}");
        let section = adit_config::Section::parse("credentials.toml", &text).unwrap();
        credentials::Credentials::read(&section, ["default", "shop"]).unwrap()
    };
    let judge = |more: &str| {
        shared.set_credentials(stored(more));
        engine.agents.judge_again();
    };
    judge("");
    control.open_tunnel(private("still")).await.unwrap();
    // Its rights are those it has now.
    judge("permissions = [\"tunnels.streams.create-delete\"]");
    let error = control.open_tunnel(private("more")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UNAUTHORIZED);
    assert!(engine.routes.name("default", "still").is_some());
    judge("revoked = true");
    control.ended().await;
    assert!(engine.routes.name("default", "still").is_none());
    // The stream it had dialled is cut at both ends.
    assert!(matches!(near.read(&mut bytes).await, Ok(0) | Err(_)));
    assert!(matches!(read.read(&mut bytes).await, Ok(0) | Err(_)));
    let error = open(&mut engine.connect(), &agent).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UNAUTHORIZED);
    // Who has nothing to do with it notices nothing.
    unmoved.open_tunnel(private("more")).await.unwrap();
    assert_eq!(engine.agents.agent_count(), 1);
}

#[test]
fn a_certificate_lets_in_by_itself_and_never_beside_a_token() {
    // agent-protocol §8
    let key = rcgen::generate_simple_self_signed(["agent".to_owned()]).unwrap();
    let der = bytes::Bytes::copy_from_slice(key.cert.der());
    let certificate = adit_filters::ClientCertificate {
        sha256: credentials::sha256(&der),
        chain: vec![der],
    };
    let credential = credentials::Credential {
        id: "c".into(),
        user_id: "u7".into(),
        ..credentials::Credential::default()
    };
    let known =
        credentials::Credentials::default().with_certificate(certificate.sha256, credential.into());
    let authority = authority(KEY);
    authority.set_credentials(known);
    let authority = TokenAuthority::new(authority);
    let token = Secret::new(mint(KEY, json!({ "sub": "u8" })));
    let blank = Secret::new(" ");
    for (token, certificate, user) in [
        (Some(&token), None, Some("u8")),
        (None, Some(&certificate), Some("u7")),
        (Some(&blank), Some(&certificate), Some("u7")),
        (Some(&token), Some(&certificate), None),
        (None, None, None),
    ] {
        let shown = Shown { token, certificate };
        match authority.verify(shown, "default", SystemTime::now()) {
            Ok(principal) => assert_eq!(principal.user_id(), user),
            Err(error) => assert_eq!((error.code.0, user), (1000, None), "{}", error.message),
        }
    }
}
