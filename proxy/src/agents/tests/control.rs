use super::*;
use adit_protocol::message::{CloseControlChannelReq, Heartbeat, ProxyConnRsp};
use adit_transport::messages::ReadError;

fn interval(ms: u32) -> Option<ControlChannelLiveness> {
    Some(ControlChannelLiveness {
        heartbeat_interval_ms: ms,
        heartbeat_timeout_ms: 0,
    })
}

#[tokio::test]
async fn the_first_answer_names_the_client() {
    // agent-protocol §16 cases 1 and 4
    let engine = Engine::new();
    let mut link = engine.connect();
    let ok = link.open(None).await.unwrap();
    assert_eq!(ok.client_id.len(), 24);
    assert_eq!(ok.liveness, None);
    assert_eq!(ok.server_details.unwrap().agent.as_deref(), Some("adit"));
    let clients = engine.agents.clients();
    assert_eq!(clients[0].id, ok.client_id);
    assert_eq!(clients[0].user_id.as_deref(), Some("u1"));
    assert_eq!(clients[0].protocol_version.as_deref(), Some("1.4.5"));
}

#[tokio::test]
async fn a_bad_token_or_version_is_answered_and_the_connection_closed() {
    // agent-protocol §16 case 2
    let engine = Engine::new();
    let version = |version: Option<&str>| {
        details(Some(TOKEN)).map(|details| ClientDetails {
            protocol_version: version.map(str::to_owned),
            ..details
        })
    };
    for (details, code) in [
        (details(Some("wrong")), 1000),
        (details(None), 1000),
        (None, 2010),
        (version(None), 2010),
        (version(Some("new")), 2020),
        (version(Some("2.0.0")), 2030),
    ] {
        let mut link = engine.connect();
        let error = link.open_as(details, None).await.unwrap_err();
        assert_eq!(error.code.0, code, "{error}");
        assert!(!error.message.is_empty());
        link.ended().await;
    }
    assert_eq!(engine.agents.agent_count(), 0);
}

#[tokio::test]
async fn the_interval_asked_for_is_granted() {
    // agent-protocol §16 case 3
    let engine = Engine::new();
    for (asked, granted) in [
        (1_000, Some((1_000, 60_000))),
        (5_000, Some((5_000, 60_000))),
        (300_000, Some((300_000, 900_000))),
        (500, None),
    ] {
        let ok = engine.connect().open(interval(asked)).await.unwrap();
        let liveness = ok
            .liveness
            .map(|agreed| (agreed.heartbeat_interval_ms, agreed.heartbeat_timeout_ms));
        assert_eq!(liveness, granted);
    }
}

#[tokio::test(start_paused = true)]
async fn heartbeats_are_acknowledged_only_when_negotiated() {
    // agent-protocol §16 cases 4 and 5
    let engine = Engine::new();
    let mut link = engine.connect();
    link.open(interval(1_000)).await.unwrap();
    for sequence in [1, 2, 7] {
        let beat = Heartbeat {
            sequence,
            acknowledgement: 0,
        };
        link.send(beat).await;
        let answer = Heartbeat {
            sequence: 0,
            acknowledgement: sequence,
        };
        assert_eq!(link.next().await, Some(Payload::Heartbeat(answer)));
    }
    let mut legacy = engine.agent().await;
    legacy.send(Heartbeat::default()).await;
    legacy.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn silence_frees_the_names_of_an_agent() {
    // agent-protocol §9.2, both modes
    let engine = Engine::new();
    for liveness in [interval(1_000), None] {
        let mut link = engine.connect();
        link.open(liveness).await.unwrap();
        link.open_tunnel(published("shop")).await.unwrap();
        link.send(Heartbeat {
            sequence: u64::from(liveness.is_some()),
            acknowledgement: 0,
        })
        .await;
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert_eq!(engine.routes.len(), 1);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(engine.routes.is_empty());
        assert_eq!(engine.agents.agent_count(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_without_heartbeats_may_be_silent() {
    let engine = Engine::new();
    let (link, _) = engine.agent_with(private("")).await;
    tokio::time::sleep(Duration::from_secs(24 * 60 * 60)).await;
    assert_eq!(engine.routes.len(), 1);
    drop(link);
    engine.until(|engine| engine.routes.is_empty()).await;
}

#[tokio::test]
async fn an_orderly_close_is_confirmed_and_is_the_last_word() {
    // agent-protocol §16 case 16
    let engine = Engine::new();
    let (mut link, id) = engine.agent_with(published("shop")).await;
    link.send(CloseControlChannelReq {}).await;
    let answer = link.next().await.unwrap();
    assert!(matches!(answer, Payload::CloseControlChannelRsp(_)));
    link.ended().await;
    assert!(engine.routes.id(&id).is_none());
    assert_eq!(engine.agents.agent_count(), 0);
}

#[tokio::test]
async fn a_drain_ends_the_channel_without_a_word_and_takes_no_new_agents() {
    // agent-protocol §9.4
    let engine = Engine::new();
    let (mut link, _) = engine.agent_with(published("shop")).await;
    engine.agents.drain();
    link.ended().await;
    assert!(engine.routes.is_empty());
    let error = engine.connect().open(None).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_connection_that_says_nothing_leaves_nothing() {
    // agent-protocol §16 case 38
    let engine = Engine::new();
    let mut link = engine.connect();
    link.writer.shutdown().await.unwrap();
    link.ended().await;
    drop(engine.connect());
    assert_eq!(engine.agents.agent_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_first_frame_is_waited_for_so_long() {
    let engine = Engine::new();
    let mut link = engine.connect();
    let begun = tokio::time::Instant::now();
    link.ended().await;
    assert_eq!(begun.elapsed(), settings().first_frame);
}

#[tokio::test]
async fn frames_that_are_too_long_end_the_connection() {
    // agent-protocol §16 case 39
    let engine = Engine::new();
    let mut first = engine.connect();
    let over = u32::try_from(super::super::FIRST_FRAME_BYTES_MAX + 1).unwrap();
    first.writer.write_all(&over.to_be_bytes()).await.unwrap();
    first.ended().await;

    let (mut link, _) = engine.agent_with(published("shop")).await;
    link.writer
        .write_all(&65_536u32.to_be_bytes())
        .await
        .unwrap();
    link.ended().await;
    assert!(engine.routes.is_empty());
}

#[tokio::test]
async fn what_is_no_message_or_not_an_agents_ends_the_connection() {
    let engine = Engine::new();
    let mut garbage = engine.connect();
    garbage
        .writer
        .write_all(&[0, 0, 0, 2, 0xff, 0xff])
        .await
        .unwrap();
    garbage.ended().await;
    let mut wrong_role = engine.connect();
    wrong_role.send(Heartbeat::default()).await;
    wrong_role.ended().await;
    let mut open = engine.agent().await;
    open.send(ProxyConnReq::default()).await;
    open.ended().await;
    // Answers nobody waits for are no offence.
    let mut late = engine.agent().await;
    late.send(ProxyConnRsp::default()).await;
    late.is_quiet().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_reads_nothing_does_not_stay() {
    let engine = Engine::new();
    let mut link = engine.connect_over(256);
    link.open(interval(1_000)).await.unwrap();
    let mut sequence = 0;
    // Its heartbeats keep coming, so it counts as alive; it is their answers that pile up.
    loop {
        sequence += 1;
        let beat = Message::new(Heartbeat {
            sequence,
            acknowledgement: 0,
        });
        if messages::write(&mut link.writer, &beat).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(engine.agents.agent_count(), 0);
    assert!((60..600).contains(&sequence), "{sequence}");
    while matches!(link.reader.next().await, Ok(Some(_))) {}
    assert!(matches!(
        link.reader.next().await,
        Ok(None) | Err(ReadError::Truncated)
    ));
}

#[tokio::test(start_paused = true)]
async fn what_came_while_the_engine_stood_still_counts() {
    let engine = Engine::new();
    let mut link = engine.connect();
    link.open(interval(1_000)).await.unwrap();
    for sequence in 1..=20 {
        link.send(Heartbeat {
            sequence,
            acknowledgement: 0,
        })
        .await;
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(matches!(link.next().await, Some(Payload::Heartbeat(_))));
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_reads_slowly_stays() {
    let engine = Engine::new();
    let mut link = engine.connect_over(256);
    link.open(interval(1_000)).await.unwrap();
    let (mut read, mut write) = link.payload();
    // Each second six bytes more wait for it, of which it reads two.
    for sequence in 1..=200 {
        let beat = Message::new(Heartbeat {
            sequence,
            acknowledgement: 0,
        });
        messages::write(&mut write, &beat).await.unwrap();
        if sequence % 30 == 0 {
            read.read_exact(&mut [0; 60]).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(engine.agents.agent_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn openers_are_told_at_once_when_an_agent_asks_to_close() {
    let engine = Engine::new();
    let mut link = engine.connect_over(256);
    link.open(interval(1_000)).await.unwrap();
    let tunnel = link.open_tunnel(private("a")).await.unwrap();
    let tunnel = engine.routes.id(&tunnel.id.unwrap()).unwrap();
    let opening =
        tokio::spawn(async move { tunnel.session.open(&tunnel.info.id, None).await.map(drop) });
    link.stream_request().await;
    // So much waits for the agent that it will not see the answer.
    for sequence in 1..=100 {
        let acknowledgement = 0;
        link.send(Heartbeat {
            sequence,
            acknowledgement,
        })
        .await;
    }
    let start = tokio::time::Instant::now();
    link.send(CloseControlChannelReq {}).await;
    let opened = opening.await.unwrap();
    assert_eq!(opened, Err(crate::edge::DialError::Offline));
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(engine.agents.agent_count(), 1);
}

#[tokio::test]
async fn the_server_name_chooses_the_project() {
    let engine = Engine::new();
    let mut link = engine.connect_to(Some("0a1b.engine.example.com"));
    link.open(None).await.unwrap();
    let tunnel = link.open_tunnel(private("db")).await.unwrap();
    let id = tunnel.id.unwrap();
    assert_eq!(engine.routes.id(&id).unwrap().info.project, "shop");
    assert!(engine.routes.name("default", "db").is_none());
}
