//! Whatever an agent says and wherever it stops, nothing of it is left.

use super::*;
use adit_protocol::message::{
    CloseControlChannelReq, CloseTunnelReq, DatagramChannelClose, Error, Heartbeat, ProxyConnRsp,
    ProxyRsp, ServerMessage, StreamRsp,
};

/// One of each message, some of them twice with other contents; `id` is a live tunnel of somebody
/// else.
fn everything(id: &str) -> Vec<Message> {
    let request = |request_id: &str, properties| OpenTunnelReq {
        request_id: request_id.to_owned(),
        tunnel_properties: properties,
    };
    vec![
        Message { payload: None },
        Heartbeat::default().into(),
        Heartbeat {
            sequence: u64::MAX,
            acknowledgement: u64::MAX,
        }
        .into(),
        request("", None).into(),
        request("a", Some(Box::new(published("stolen")))).into(),
        request("a", Some(Box::new(private(id)))).into(),
        CloseTunnelReq {
            tunnel_id: id.to_owned(),
        }
        .into(),
        CloseTunnelReq::default().into(),
        ProxyConnRsp {
            stream_id: id.to_owned(),
            error: Some(Error::default()),
        }
        .into(),
        DatagramChannelClose::default().into(),
        CloseControlChannelReq {}.into(),
        OpenControlChannelReq {
            client_details: details(Some(TOKEN)),
            liveness: None,
        }
        .into(),
        ProxyReq::default().into(),
        StreamReq::default().into(),
        ProxyConnReq::default().into(),
        ProxyRsp::default().into(),
        StreamRsp::default().into(),
        ServerMessage::default().into(),
        OpenTunnelRsp::default().into(),
        OpenControlChannelRsp::default().into(),
    ]
}

#[tokio::test]
async fn every_pair_of_messages_leaves_the_engine_as_it_was() {
    let engine = Engine::new();
    let (_owner, id) = engine.agent_with(published("shop")).await;
    let messages = everything(&id);
    for first in &messages {
        for second in &messages {
            for opened in [false, true] {
                let mut link = engine.connect();
                if opened {
                    link.open(None).await.unwrap();
                }
                for message in [first, second] {
                    // The engine may have hung up by now.
                    let _ = messages::write(&mut link.writer, message).await;
                }
                drop(link);
                engine
                    .until(|engine| engine.agents.agent_count() == 1 && engine.routes.len() == 1)
                    .await;
            }
        }
    }
    assert!(engine.routes.id(&id).is_some());
    assert_eq!(engine.agents.pending.len(), 0);
}

#[tokio::test]
async fn a_session_cut_at_any_byte_leaves_nothing() {
    let engine = Engine::new();
    let session: Vec<u8> = [
        Message::from(OpenControlChannelReq {
            client_details: details(Some(TOKEN)),
            liveness: None,
        }),
        OpenTunnelReq {
            request_id: "r".to_owned(),
            tunnel_properties: Some(Box::new(published("shop"))),
        }
        .into(),
        Heartbeat::default().into(),
    ]
    .iter()
    .flat_map(|message| message.to_frame().unwrap())
    .collect();
    for cut in 0..=session.len() {
        let mut link = engine.connect();
        link.writer.write_all(&session[..cut]).await.unwrap();
        link.writer.shutdown().await.unwrap();
        let mut answers = Vec::new();
        let _ = link.payload().0.read_to_end(&mut answers).await;
        engine
            .until(|engine| engine.agents.agent_count() == 0 && engine.routes.is_empty())
            .await;
    }
}
