//! Filters that slow bytes down, and leave them as they are.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use adit_filters::{
    BodyCx, Chain, DatagramCx, Decision, Direction, Exchange, FilterError, Hooks, OnDatagram,
    OnRequest, OnRequestBody, OnResponseBody, OnStream, Passage, Passed, Placed, Reason, RequestCx,
    StreamCx, Verdict,
};
use bytes::Bytes;
use support::{dry_run, exchange, get, observer, placed};

/// Lets each piece go on after the same wait, and perhaps makes it longer.
struct Slow {
    wait: Duration,
    piece: usize,
    adds: &'static [u8],
}

impl Slow {
    fn pass(&self, chunk: &mut Bytes) -> Result<Passage, FilterError> {
        *chunk = [chunk, self.adds].concat().into();
        Ok(Passage::Pace(self.wait))
    }
}

impl OnRequestBody for Slow {
    type State = ();
    fn begin(&self, _: &Exchange) {}
    fn on_request_body(
        &self,
        (): &mut (),
        _: &mut BodyCx<'_>,
        chunk: &mut Bytes,
    ) -> Result<Passage, FilterError> {
        self.pass(chunk)
    }
    fn piece_max(&self) -> usize {
        self.piece
    }
    fn keeps_bytes(&self) -> bool {
        true
    }
}
impl OnResponseBody for Slow {
    type State = ();
    fn begin(&self, _: &Exchange) {}
    fn on_response_body(
        &self,
        (): &mut (),
        _: &mut BodyCx<'_>,
        chunk: &mut Bytes,
    ) -> Result<Passage, FilterError> {
        self.pass(chunk)
    }
    fn piece_max(&self) -> usize {
        self.piece
    }
}
impl OnStream for Slow {
    type State = ();
    fn begin(&self, _: &Exchange) {}
    fn on_stream(
        &self,
        (): &mut (),
        _: &mut StreamCx<'_>,
        chunk: &mut Bytes,
    ) -> Result<Passage, FilterError> {
        self.pass(chunk)
    }
    fn piece_max(&self, direction: Direction) -> usize {
        match direction {
            Direction::ToAgent => self.piece,
            Direction::ToClient => usize::MAX,
        }
    }
}
impl OnDatagram for Slow {
    type State = ();
    fn begin(&self, _: &Exchange) {}
    fn on_datagram(
        &self,
        (): &mut (),
        _: &mut DatagramCx<'_>,
        datagram: &mut Bytes,
    ) -> Result<Passage, FilterError> {
        self.pass(datagram)
    }
}

fn slow(name: &'static str, wait_ms: u64, piece: usize, adds: &'static [u8]) -> Placed {
    let filter = Arc::new(Slow {
        wait: Duration::from_millis(wait_ms),
        piece,
        adds,
    });
    let hooks = Hooks::new()
        .request_body(filter.clone())
        .response_body(filter.clone())
        .stream(filter.clone())
        .datagram(filter);
    placed(name, hooks)
}

async fn begun(filters: Vec<Placed>) -> (Chain, Exchange) {
    let chain = Chain::compile(filters).unwrap();
    let exchange = exchange(&chain).await;
    (chain, exchange)
}

fn show(passed: Passed) -> String {
    match passed {
        Passed::Pace(bytes, wait) => format!("{wait:?} {}", String::from_utf8_lossy(&bytes)),
        Passed::Forward(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Passed::Refuse(refusal) => format!(
            "refused by {}: {}",
            refusal.by.unwrap(),
            refusal.detail.unwrap()
        ),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_longest_wait_and_the_smallest_piece_count() {
    let filters = vec![
        slow("a", 20, 700, b""),
        slow("b", 50, 300, b""),
        slow("c", 0, usize::MAX, b""),
    ];
    let (chain, exchange) = begun(filters).await;
    let mut up = chain.request_body(&exchange).unwrap();
    assert_eq!((up.piece_max(), up.may_change()), (300, false));
    assert_eq!(show(up.pass(&exchange, "x".into(), false, None)), "50ms x");
    let stream = |direction| chain.stream(&exchange, direction).unwrap().piece_max();
    assert_eq!(stream(Direction::ToAgent), 300);
    assert_eq!(stream(Direction::ToClient), usize::MAX);
    // A datagram has no later.
    let mut datagrams = chain.datagram(&exchange, Direction::ToAgent).unwrap();
    let passed = show(datagrams.pass(&exchange, "x".into()));
    assert!(passed.contains("a datagram cannot be held"), "{passed}");
}

#[tokio::test]
async fn a_filter_on_trial_slows_nothing_down() {
    let filters = vec![dry_run(slow("a", 20, 5, b"!"))];
    let (chain, exchange) = begun(filters).await;
    let mut up = chain.request_body(&exchange).unwrap();
    assert_eq!((up.piece_max(), up.may_change()), (usize::MAX, false));
    assert_eq!(show(up.pass(&exchange, "x".into(), false, None)), "x");
}

#[tokio::test]
async fn who_says_that_it_keeps_the_bytes_must() {
    let (chain, exchange) = begun(vec![slow("liar", 0, 1, b"!")]).await;
    let mut up = chain.request_body(&exchange).unwrap();
    assert_eq!(
        show(up.pass(&exchange, "x".into(), true, None)),
        "refused by liar: plugin stopped: changed bytes it said to leave alone"
    );
    // It did not say so of the way down.
    let mut down = chain.response_body(&exchange).unwrap();
    assert!(down.may_change());
    assert_eq!(show(down.pass(&exchange, "x".into(), true, None)), "x!");
    // An observer is passed over, and its work undone.
    let (chain, exchange) = begun(vec![observer(slow("liar", 0, 1, b"!"))]).await;
    let mut up = chain.request_body(&exchange).unwrap();
    assert_eq!(show(up.pass(&exchange, "x".into(), true, None)), "x");
}

/// Gives the exchange so many seconds.
struct Ends(u64);

impl OnRequest for Ends {
    async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        cx.exchange
            .end_after(Duration::from_secs(self.0), Reason::TimeLimit);
        Ok(Verdict::Continue)
    }
}

#[tokio::test]
async fn the_first_of_several_deadlines_counts() {
    let ends = |name, seconds| placed(name, Hooks::new().request(Arc::new(Ends(seconds))));
    let filters = vec![
        ends("a", 30),
        ends("b", 20),
        ends("c", 40),
        dry_run(ends("d", 1)),
    ];
    let (chain, mut exchange) = begun(filters).await;
    let decision = chain
        .request(&mut get("https://a.example/"), &mut exchange, None)
        .await;
    assert!(matches!(decision, Decision::Pass { .. }));
    let deadline = exchange.deadline().unwrap();
    assert_eq!(deadline.after, Duration::from_secs(20));
    assert_eq!(deadline.refusal.by.as_deref(), Some("b"));
    assert_eq!(deadline.refusal.reason, Reason::TimeLimit);
    assert_eq!(
        deadline.refusal.detail.as_deref(),
        Some("not over after 20s")
    );
}
