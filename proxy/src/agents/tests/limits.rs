use super::*;
use crate::edge::DialError;
use adit_protocol::message::ProxyConnRsp;

#[tokio::test]
async fn so_many_agents_may_connect() {
    let engine = Engine::with(Settings {
        agents_max: 1,
        ..settings()
    });
    let first = engine.agent().await;
    let error = engine.connect().open(None).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::CAPACITY_EXHAUSTED);
    drop(first);
    engine
        .until(|engine| engine.agents.agent_count() == 0)
        .await;
    engine.agent().await;
}

#[tokio::test]
async fn so_many_tunnels_may_be_open() {
    let engine = Engine::with(Settings {
        tunnels_per_agent: 2,
        tunnels_per_project: 3,
        ..settings()
    });
    let mut first = engine.agent().await;
    first.open_tunnel(private("")).await.unwrap();
    first.open_tunnel(private("")).await.unwrap();
    let error = first.open_tunnel(private("")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::CAPACITY_EXHAUSTED);
    let mut second = engine.agent().await;
    second.open_tunnel(private("")).await.unwrap();
    let error = second.open_tunnel(private("")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::CAPACITY_EXHAUSTED);
    drop(first);
    engine.until(|engine| engine.routes.len() == 1).await;
    second.open_tunnel(private("")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn so_many_streams_are_asked_for_at_a_time_and_so_many_wait() {
    // agent-protocol §11.1: clients end the channel or refuse above their own limits
    let engine = Engine::with(Settings {
        pending_opens: 2,
        queued_opens: 1,
        ..settings()
    });
    let (mut control, id) = engine.agent_with(published("shop")).await;
    let tunnel = engine.routes.id(&id).unwrap();
    let open = || {
        let tunnel = Arc::clone(&tunnel);
        tokio::spawn(async move { tunnel.session.open(&tunnel.info.id, None).await })
    };
    let (_one, _two) = (open(), open());
    let first = control.stream_request().await;
    control.stream_request().await;
    let queued = open();
    control.is_quiet().await;
    let above = open();
    assert_eq!(above.await.unwrap().err(), Some(DialError::Capacity));
    // An answer makes room; the stream itself may come later.
    control
        .send(ProxyConnRsp {
            stream_id: first.stream_id,
            error: None,
        })
        .await;
    let request = control.stream_request().await;
    let _leg = engine.bring(&request, Some(true)).await;
    queued.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_never_answered_give_their_turn_back() {
    let engine = Engine::with(Settings {
        pending_opens: 1,
        queued_opens: 1,
        ..settings()
    });
    let (mut control, id) = engine.agent_with(published("shop")).await;
    let tunnel = engine.routes.id(&id).unwrap();
    for _ in 0..3 {
        let opened = tunnel.session.open(&id, None);
        let (opened, _) = tokio::join!(opened, control.stream_request());
        assert!(matches!(opened.err(), Some(DialError::Timeout(_))));
    }
    // An opener that goes away at once does not make room: the agent still owes its answer.
    let opening = tokio::spawn({
        let tunnel = Arc::clone(&tunnel);
        async move { tunnel.session.open(&tunnel.info.id, None).await.map(drop) }
    });
    let request = control.stream_request().await;
    opening.abort();
    assert!(opening.await.unwrap_err().is_cancelled());
    assert_eq!(engine.agents.pending.len(), 0);
    let waiting = tokio::spawn({
        let tunnel = Arc::clone(&tunnel);
        async move { tunnel.session.open(&tunnel.info.id, None).await.map(drop) }
    });
    control.is_quiet().await;
    control
        .send(ProxyConnRsp {
            stream_id: request.stream_id,
            error: None,
        })
        .await;
    control.stream_request().await;
    waiting.abort();
}
