#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
use std::net::SocketAddr;

use adit_config::Section;
use adit_filters::env::fake::Fake;
use adit_filters::{Chain, Connected, ConnectionInfo, Decision, Passed, Placed, Transport};
use http::request;

use super::*;

/// A chain of one `limits` filter, and the world it is in.
struct World {
    fake: Fake,
    chain: Chain,
}

/// Says who the visitor is, by a field.
struct Knows;

impl OnRequest for Knows {
    async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        let subject = cx.head.headers.get("who").map(|who| who.to_str().unwrap());
        let identity = Identity {
            subject: subject.unwrap_or("nobody").to_owned(),
            method: "token",
            ..Identity::default()
        };
        cx.exchange.establish(identity).unwrap();
        Ok(Verdict::Continue)
    }
}

impl World {
    fn new(table: &str) -> Self {
        let fake = Fake::default();
        let section = Section::parse("engine.toml", table).unwrap();
        let limits = Limits::new(section.deserialize().unwrap(), &mut fake.env()).unwrap();
        let knows = Hooks::new().request(Arc::new(Knows)).gives::<Identity>();
        let chain = Chain::compile(vec![
            Placed::new("knows", knows),
            Placed::new("limits", Arc::new(limits).hooks()),
        ])
        .unwrap();
        Self { fake, chain }
    }

    async fn connect(
        &self,
        peer: &str,
        tunnel: &str,
    ) -> Result<Arc<adit_filters::Connection>, Reason> {
        let info = Arc::new(ConnectionInfo {
            id: 1,
            peer: SocketAddr::new(peer.parse().unwrap(), 1),
            transport: Transport::Tls,
            hello: None,
            tls: None,
        });
        let tunnel = Arc::new(TunnelInfo {
            id: tunnel.to_owned(),
            ..TunnelInfo::default()
        });
        match self.chain.connect(info, tunnel).await {
            Connected::Admitted(connection) => Ok(connection),
            Connected::Refused { refusal, .. } => Err(refusal.reason),
            other => panic!("{other:?}"),
        }
    }

    async fn ask(
        &self,
        connection: &Arc<adit_filters::Connection>,
        mut head: request::Parts,
    ) -> Result<Exchange, Reason> {
        let mut exchange = self.chain.exchange(connection.clone());
        match self.chain.request(&mut head, &mut exchange, None).await {
            Decision::Pass { .. } => Ok(exchange),
            Decision::Refuse(refusal) => Err(refusal.reason),
            other => panic!("{other:?}"),
        }
    }

    async fn get(
        &self,
        connection: &Arc<adit_filters::Connection>,
        who: &str,
    ) -> Result<Exchange, Reason> {
        let request = http::Request::get("https://a.example/").header("who", who);
        self.ask(connection, request.body(()).unwrap().into_parts().0)
            .await
    }
}

fn show(passed: Passed) -> String {
    match passed {
        Passed::Forward(bytes) => format!("{} now", bytes.len()),
        Passed::Pace(bytes, wait) => format!("{} after {wait:?}", bytes.len()),
        Passed::Refuse(refusal) => refusal.reason.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn so_many_requests_at_once_for_each_address_principal_and_tunnel() {
    // edge behaviour F13
    let world = World::new("request = { concurrent = { ip = 3, token = 2, tunnel = 4 } }");
    let here = world.connect("192.0.2.1", "t1").await.unwrap();
    let there = world.connect("192.0.2.2", "t1").await.unwrap();
    let elsewhere = world.connect("192.0.2.3", "t2").await.unwrap();
    let a = world.get(&here, "a").await.unwrap();
    let b = world.get(&here, "a").await.unwrap();
    // A principal is the same at any address, and others at its address are not it.
    assert_eq!(world.get(&there, "a").await.err(), Some(Reason::Capacity));
    let c = world.get(&here, "b").await.unwrap();
    assert_eq!(world.get(&here, "c").await.err(), Some(Reason::Capacity));
    let d = world.get(&there, "c").await.unwrap();
    // The tunnel is full, another is not.
    assert_eq!(world.get(&there, "d").await.err(), Some(Reason::Capacity));
    let e = world.get(&elsewhere, "d").await.unwrap();
    // One that was refused for one key holds no place under another.
    drop(a);
    drop(b);
    let again = world.get(&there, "a").await.unwrap();
    assert!(world.get(&here, "a").await.is_ok());
    drop((c, d, e, again));
}

#[tokio::test]
async fn so_many_connections_at_once() {
    let world = World::new("connection = { concurrent = { ip = 2, tunnel = 3, token = 1 } }");
    let a = world.connect("2001:db8:0:1::1", "t").await.unwrap();
    let b = world.connect("2001:db8:0:1::2", "t").await.unwrap();
    let refused = world.connect("2001:db8:0:1::3", "t").await;
    assert_eq!(refused.err(), Some(Reason::Capacity));
    let c = world.connect("2001:db8:0:2::1", "t").await.unwrap();
    let refused = world.connect("2001:db8:0:3::1", "t").await;
    assert_eq!(refused.err(), Some(Reason::Capacity));

    // Whose a connection is, its requests tell.
    assert!(world.get(&a, "one").await.is_ok());
    assert!(world.get(&a, "one").await.is_ok());
    assert_eq!(world.get(&b, "one").await.err(), Some(Reason::Capacity));
    assert!(world.get(&b, "two").await.is_ok());
    drop(a);
    assert!(world.get(&b, "one").await.is_ok());
    drop((b, c));
    assert!(world.connect("2001:db8:0:1::3", "t").await.is_ok());
}

#[tokio::test]
async fn a_connection_is_not_everybodys() {
    let world = World::new("connection = { concurrent = { token = 1 } }");
    let connection = world.connect("192.0.2.1", "t").await.unwrap();
    for n in 0..PRINCIPALS_MAX {
        assert!(world.get(&connection, &format!("p{n}")).await.is_ok());
    }
    assert!(world.get(&connection, "p0").await.is_ok());
    let refused = world.get(&connection, "one too many").await;
    assert_eq!(refused.err(), Some(Reason::Capacity));
}

#[tokio::test]
async fn a_body_over_its_limit_is_refused_before_or_on_its_way() {
    let world = World::new("request = { body = '1KiB', bytes = { up = '2KiB' } }");
    let connection = world.connect("192.0.2.1", "t").await.unwrap();
    let post = |length: Option<usize>| {
        let mut request = http::Request::post("https://a.example/");
        if let Some(length) = length {
            request = request.header(CONTENT_LENGTH, length);
        }
        request.body(()).unwrap().into_parts().0
    };
    let refused = world.ask(&connection, post(Some(1025))).await;
    assert_eq!(refused.err(), Some(Reason::TooLarge));
    for (announced, pieces) in [(Some(1024), [1000, 24]), (None, [1000, 25])] {
        let exchange = world.ask(&connection, post(announced)).await.unwrap();
        let mut up = world.chain.request_body(&exchange).unwrap();
        assert!(!up.may_change());
        let mut pass =
            |bytes: usize, last| show(up.pass(&exchange, Bytes::from(vec![0; bytes]), last, None));
        assert_eq!(pass(pieces[0], false), "1000 now");
        let end = pass(pieces[1], true);
        match announced {
            Some(_) => assert_eq!(end, "24 now"),
            None => assert_eq!(end, "too-large"),
        }
    }
    // A stream is no body; its volume is its own.
    let exchange = world.ask(&connection, post(None)).await.unwrap();
    let mut up = world.chain.stream(&exchange, Direction::ToAgent).unwrap();
    let mut pass = |bytes: usize| show(up.pass(&exchange, Bytes::from(vec![0; bytes]), false));
    assert_eq!(
        [pass(2000), pass(48), pass(1)],
        ["2000 now", "48 now", "too-large"]
    );
    let mut down = world.chain.stream(&exchange, Direction::ToClient).unwrap();
    assert_eq!(
        show(down.pass(&exchange, Bytes::from(vec![0; 9000]), false)),
        "9000 now"
    );
}

#[tokio::test]
async fn requests_share_what_their_connection_may_use() {
    let world = World::new(
        "request = { bandwidth = { down = '2Mbit/s' } }\n\
         connection = { bandwidth = { down = '1Mbit/s' }, bytes = { down = '50KiB' } }",
    );
    let connection = world.connect("192.0.2.1", "t").await.unwrap();
    let (one, other) = (
        world.get(&connection, "a").await.unwrap(),
        world.get(&connection, "a").await.unwrap(),
    );
    let mut one_down = world.chain.response_body(&one).unwrap();
    let mut other_down = world.chain.response_body(&other).unwrap();
    assert_eq!(one_down.piece_max(), 6250);
    let piece = || Bytes::from(vec![0; 6250]);
    let mut shown = Vec::new();
    for _ in 0..4 {
        shown.push(show(one_down.pass(&one, piece(), false, None)));
        shown.push(show(other_down.pass(&other, piece(), false, None)));
    }
    assert_eq!(
        shown,
        [
            "6250 now",
            "6250 now",
            "6250 after 50ms",
            "6250 after 100ms",
            "6250 after 150ms",
            "6250 after 200ms",
            "6250 after 250ms",
            "6250 after 300ms"
        ]
    );
    world.fake.clock.advance(Duration::from_secs(1));
    assert_eq!(show(one_down.pass(&one, piece(), false, None)), "too-large");
    // It is used up, a new one is not.
    let refused = world.get(&connection, "a").await;
    assert_eq!(refused.err(), Some(Reason::Misdirected));
    let fresh = world.connect("192.0.2.1", "t").await.unwrap();
    assert!(world.get(&fresh, "a").await.is_ok());
}

#[tokio::test]
async fn what_a_request_has_left_of_its_time_and_of_its_connections() {
    let world = World::new("request = { duration = '10s' }\nconnection = { duration = '30s' }");
    let connection = world.connect("192.0.2.1", "t").await.unwrap();
    let mut left = Vec::new();
    for _ in 0..4 {
        let exchange = world.get(&connection, "a").await;
        left.push(exchange.map(|exchange| exchange.deadline().unwrap().after.as_secs()));
        world.fake.clock.advance(Duration::from_secs(12));
    }
    let over = Err(Reason::Misdirected);
    assert_eq!(left, [Ok(10), Ok(10), Ok(6), over]);
}

#[tokio::test]
async fn a_rehearsal_takes_no_place() {
    let world = World::new(
        "request = { body = '1KiB', concurrent = { ip = 1 } }\nconnection = { concurrent = { ip = 1 } }",
    );
    let connection = world.connect("192.0.2.1", "t").await.unwrap();
    let held = world.get(&connection, "a").await.unwrap();
    for (length, passes) in [(1024, true), (1025, false)] {
        let request = http::Request::get("https://a.example/").header(CONTENT_LENGTH, length);
        let mut head = request.body(()).unwrap().into_parts().0;
        let (info, tunnel) = (connection.info().clone(), connection.tunnel().clone());
        let trial = world.chain.trial(info, tunnel, &mut head, None, None).await;
        let passed = matches!(trial.decision, Decision::Pass { .. });
        assert_eq!(passed, passes, "{length}");
    }
    drop(held);
    assert!(world.get(&connection, "a").await.is_ok());
}
