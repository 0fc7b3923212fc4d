use super::*;
use adit_protocol::message::{CloseTunnelReq, CloseTunnelRsp};

use crate::edge::{Directory, Found};
use crate::route::Lookup;

fn tunnel_req(request: &str, properties: TunnelProperties) -> OpenTunnelReq {
    OpenTunnelReq {
        request_id: request.to_owned(),
        tunnel_properties: Some(Box::new(properties)),
    }
}

#[tokio::test]
async fn a_published_tunnel_is_answered_with_everything_in_effect() {
    // agent-protocol §16 case 11, edge-behaviour §14.1 C1
    let engine = Engine::new();
    let mut link = engine.agent().await;
    let tunnel = link.open_tunnel(TunnelProperties::default()).await.unwrap();
    assert_eq!(tunnel.id.as_ref().unwrap().len(), 24);
    assert!(tunnel.creation_date.is_some());
    assert_eq!(tunnel.r#type.as_deref(), Some("bytestream"));
    assert_eq!(tunnel.protocol.as_deref(), Some("http"));
    assert_eq!(tunnel.http_version.as_deref(), Some("http/1.1"));
    assert_eq!(tunnel.publish, Some(true));
    assert_eq!(tunnel.port, Some(443));
    assert_eq!(tunnel.allow_cross_region_routing, Some(false));
    let hostname = tunnel.hostname.unwrap();
    assert!(hostname.ends_with(".t.engine.example.com"), "{hostname}");
    assert_eq!(tunnel.host.as_ref(), Some(&hostname));
    assert!(matches!(engine.routes.find(&hostname), Found::Site(_)));
    let listed = &engine.agents.tunnels()[0];
    assert_eq!(listed.hostname.as_ref(), Some(&hostname));
    assert_eq!(listed.client_id, engine.agents.clients()[0].id);
}

#[tokio::test]
async fn a_private_tunnel_has_no_public_address() {
    // agent-protocol §10.2
    let engine = Engine::new();
    let mut link = engine.agent().await;
    let tunnel = link.open_tunnel(private("db")).await.unwrap();
    assert_eq!(tunnel.publish, Some(false));
    assert_eq!(tunnel.protocol, None);
    assert_eq!(
        (tunnel.hostname, tunnel.host, tunnel.port),
        (None, None, None)
    );
    assert!(engine.routes.name("default", "db").is_some());
}

#[tokio::test]
async fn the_port_is_told_where_it_is_not_the_default() {
    let engine = Engine::with(Settings {
        public_port: 8443,
        ..settings()
    });
    let mut link = engine.agent().await;
    let tunnel = link.open_tunnel(published("shop")).await.unwrap();
    assert_eq!(tunnel.port, Some(8443));
    assert_eq!(
        tunnel.host.as_deref(),
        Some("shop.t.engine.example.com:8443")
    );
}

#[tokio::test]
async fn names_agents_derive_on_their_own_lead_to_a_name_of_ours() {
    // agent-protocol §10.2, §19 #14
    let engine = Engine::new();
    let mut link = engine.agent().await;
    let asked = "r1a2b3c4d-engine.t.example.com";
    let tunnel = link.open_tunnel(published(asked)).await.unwrap();
    let given = "r1a2b3c4d-engine.t.engine.example.com";
    assert_eq!(tunnel.hostname.as_deref(), Some(given));
}

#[tokio::test]
async fn a_name_of_another_project_is_refused() {
    // edge-behaviour §14.1 C21
    let engine = Engine::new();
    let mut link = engine.agent().await;
    for (asked, allowed) in [("web-0a1b", false), ("web-0a1c", true), ("0a1b", true)] {
        let got = link.open_tunnel(published(asked)).await;
        let code = got.as_ref().err().map(|error| error.code);
        let expected = (!allowed).then_some(ErrorCode::INVALID_REQUEST);
        assert_eq!(code, expected, "{asked}");
    }
    // Whose endpoint it is may.
    let mut owner = engine.connect_to(Some("0a1b.engine.example.com"));
    owner.open_as(details(Some(TOKEN)), None).await.unwrap();
    owner.open_tunnel(published("web-0a1b")).await.unwrap();
}

#[tokio::test]
async fn refusals_carry_code_and_text_and_leave_the_channel_open() {
    // agent-protocol §16 cases 12 and 14
    let engine = Engine::new();
    let mut link = engine.agent().await;
    let tls = TunnelProperties {
        protocol: Some("tls".to_owned()),
        ..TunnelProperties::default()
    };
    let error = link.open_tunnel(tls).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::FEATURE_NOT_AVAILABLE);
    assert!(error.message.contains("unsupported"), "{error}");
    let error = link.open_tunnel(published("a b")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::INVALID_REQUEST);
    // Two requests in one burst, answered each by its own id.
    link.send(tunnel_req("first", published("one"))).await;
    link.send(tunnel_req("second", published("two"))).await;
    link.tunnel_answer("first").await.unwrap();
    link.tunnel_answer("second").await.unwrap();
}

#[tokio::test]
async fn a_credential_that_may_not_create_is_refused() {
    // edge-behaviour §14.1 C27
    let engine = Engine::new();
    let mut link = engine.connect();
    link.open_as(details(Some(CONFINED)), None).await.unwrap();
    let error = link.open_tunnel(private("")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UNAUTHORIZED);
    assert!(engine.routes.is_empty());
}

#[tokio::test]
async fn a_tunnel_is_closed_and_confirmed_as_often_as_asked() {
    // agent-protocol §16 case 15
    let engine = Engine::new();
    let (mut link, id) = engine.agent_with(published("shop")).await;
    for _ in 0..2 {
        link.send(CloseTunnelReq {
            tunnel_id: id.clone(),
        })
        .await;
        let confirmed = CloseTunnelRsp {
            tunnel_id: id.clone(),
        };
        assert_eq!(link.next().await, Some(Payload::CloseTunnelRsp(confirmed)));
        assert!(engine.routes.is_empty());
    }
    let host = "shop.t.engine.example.com";
    assert!(matches!(engine.routes.host(host), Lookup::Offline));
    link.open_tunnel(published("shop")).await.unwrap();
}

#[tokio::test]
async fn an_agent_cannot_close_the_tunnel_of_another() {
    let engine = Engine::new();
    let (_owner, id) = engine.agent_with(published("shop")).await;
    let mut other = engine.agent().await;
    other
        .send(CloseTunnelReq {
            tunnel_id: id.clone(),
        })
        .await;
    assert!(matches!(
        other.next().await,
        Some(Payload::CloseTunnelRsp(_))
    ));
    assert!(engine.routes.id(&id).is_some());
}

#[tokio::test]
async fn a_name_stays_taken_until_its_channel_ends() {
    // agent-protocol §16 case 43, edge-behaviour §14.1 C19
    let engine = Engine::new();
    let (dead, _) = engine.agent_with(published("shop")).await;
    let mut next = engine.agent().await;
    let error = next.open_tunnel(published("shop")).await.unwrap_err();
    assert_eq!(
        error,
        ProtocolError::new(ErrorCode::RESOURCE_CONFLICT, "Hostname is already in use.")
    );
    drop(dead);
    engine.until(|engine| engine.routes.is_empty()).await;
    let tunnel = next.open_tunnel(published("shop")).await.unwrap();
    assert_eq!(
        tunnel.hostname.as_deref(),
        Some("shop.t.engine.example.com")
    );
    next.open_tunnel(private("db")).await.unwrap();
    let error = next.open_tunnel(private("db")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::RESOURCE_CONFLICT);
}

#[tokio::test]
async fn new_chains_reach_live_tunnels_and_close_those_that_get_none() {
    let engine = Engine::new();
    let mut link = engine.agent().await;
    let kept = link.open_tunnel(published("kept")).await.unwrap();
    let lost = link.open_tunnel(published("lost")).await.unwrap();
    let chain = Arc::new(Chain::empty());
    let new = Arc::clone(&chain);
    let closed = engine.agents.set_assemble(move |info, _| {
        if info.hostname.as_deref() == Some("lost.t.engine.example.com") {
            return Err(ProtocolError::new(ErrorCode::INTERNAL, "no chain"));
        }
        Ok(Arc::clone(&new))
    });
    assert_eq!(closed.len(), 1);
    let gone = CloseTunnelRsp {
        tunnel_id: lost.id.unwrap(),
    };
    assert_eq!(link.next().await, Some(Payload::CloseTunnelRsp(gone)));
    let tunnel = engine.routes.id(&kept.id.unwrap()).unwrap();
    assert!(Arc::ptr_eq(&tunnel.site.as_ref().unwrap().chain(), &chain));
    assert_eq!(engine.routes.len(), 1);
}
