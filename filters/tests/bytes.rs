//! Bytes passing: holding, releasing, refusing, and the state each direction keeps.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::sync::{Arc, Mutex};

use adit_filters::{
    BODY_HOLD_MAX, BodyCx, BodyFlow, Chain, DatagramCx, Decision, Direction, Exchange, FilterError,
    Hooks, LogCx, OnDatagram, OnLog, OnRequestBody, OnResponseBody, OnStream, Passage, Passed,
    Reason, Reply, StreamCx,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use support::{connected, exchange, get, observer, outcome, placed, when};

type Act = fn(&mut Vec<String>, &mut BodyCx<'_>, &mut Bytes) -> Result<Passage, FilterError>;

/// A body filter whose state is the list of pieces it saw.
struct Pieces {
    act: Act,
    holds: usize,
    logged: Mutex<Vec<(Direction, String)>>,
}

impl Pieces {
    fn new(act: Act) -> Arc<Self> {
        Arc::new(Self {
            act,
            holds: 0,
            logged: Mutex::default(),
        })
    }
}

impl OnRequestBody for Pieces {
    type State = Vec<String>;
    fn begin(&self, _: &Exchange) -> Vec<String> {
        vec![]
    }
    fn on_request_body(
        &self,
        state: &mut Vec<String>,
        cx: &mut BodyCx<'_>,
        chunk: &mut Bytes,
    ) -> Result<Passage, FilterError> {
        state.push(String::from_utf8_lossy(chunk).into_owned());
        (self.act)(state, cx, chunk)
    }
    fn holds(&self) -> usize {
        self.holds
    }
}
impl OnResponseBody for Pieces {
    type State = Vec<String>;
    fn begin(&self, _: &Exchange) -> Vec<String> {
        vec![]
    }
    fn on_response_body(
        &self,
        state: &mut Vec<String>,
        cx: &mut BodyCx<'_>,
        chunk: &mut Bytes,
    ) -> Result<Passage, FilterError> {
        state.push(String::from_utf8_lossy(chunk).into_owned());
        (self.act)(state, cx, chunk)
    }
}
impl OnLog for Pieces {
    fn on_log(&self, cx: &LogCx<'_>) {
        for direction in [Direction::ToAgent, Direction::ToClient] {
            if let Some(pieces) = cx.left::<Vec<String>>(direction) {
                self.logged
                    .lock()
                    .unwrap()
                    .push((direction, pieces.join("|")));
            }
        }
    }
}

fn both(name: &'static str, filter: &Arc<Pieces>) -> adit_filters::Placed {
    let hooks = Hooks::new()
        .request_body(filter.clone())
        .response_body(filter.clone())
        .log(filter.clone());
    placed(name, hooks)
}

fn show(passed: Passed) -> String {
    match passed {
        Passed::Forward(bytes) => format!("forward {}", String::from_utf8_lossy(&bytes)),
        Passed::Pace(bytes, wait) => {
            let text = String::from_utf8_lossy(&bytes);
            format!("after {wait:?} {text}")
        }
        Passed::Held => "held".into(),
        Passed::Refuse(refusal) => format!(
            "refuse {} by {}",
            refusal.reason,
            refusal.by.as_deref().unwrap_or("edge")
        ),
        Passed::Respond { reply, by } => format!("respond {} by {by}", reply.status.as_u16()),
        Passed::Close { by } => format!("close by {by}"),
    }
}

/// Sends pieces (the last one as last) and shows what became of each.
fn send(flow: &mut BodyFlow, exchange: &Exchange, pieces: &[&'static str]) -> Vec<String> {
    let count = pieces.len();
    (1..)
        .zip(pieces)
        .map(|(n, piece)| {
            show(flow.pass(
                exchange,
                Bytes::from_static(piece.as_bytes()),
                n == count,
                None,
            ))
        })
        .collect()
}

#[tokio::test]
async fn pieces_are_held_released_dropped_changed_and_refused() {
    let cases: &[(&str, Act, &[&str], &[&str])] = &[
        (
            "forwards",
            |_, _, _| Ok(Passage::Forward),
            &["a", "b"],
            &["forward a", "forward b"],
        ),
        (
            "holds until it has seen three pieces",
            |seen, cx, _| {
                Ok(if seen.len() < 3 && !cx.last {
                    Passage::Hold
                } else {
                    Passage::Forward
                })
            },
            &["a", "b", "c", "d"],
            &["held", "held", "forward abc", "forward d"],
        ),
        (
            "replaces what it held",
            |_, cx, chunk| {
                Ok(if cx.last {
                    *chunk = Bytes::from_static(b"new");
                    Passage::Replace
                } else {
                    Passage::Hold
                })
            },
            &["a", "b", "c"],
            &["held", "held", "forward new"],
        ),
        (
            "changes",
            |_, _, chunk| {
                *chunk = chunk.to_ascii_uppercase().into();
                Ok(Passage::Forward)
            },
            &["a", "b"],
            &["forward A", "forward B"],
        ),
        (
            "discards what it holds and this piece, but not the end",
            |_, cx, _| {
                Ok(if cx.last {
                    Passage::Discard
                } else {
                    Passage::Hold
                })
            },
            &["a", "b"],
            &["held", "forward "],
        ),
        (
            "discards in the middle",
            |_, _, chunk| {
                Ok(if chunk == "b" {
                    Passage::Discard
                } else {
                    Passage::Forward
                })
            },
            &["a", "b", "c"],
            &["forward a", "held", "forward c"],
        ),
        (
            "refuses, and nothing passes afterwards",
            |_, _, chunk| {
                Ok(if chunk == "b" {
                    Passage::Refuse(Reason::Policy)
                } else {
                    Passage::Forward
                })
            },
            &["a", "b", "c"],
            &["forward a", "refuse policy by x", "close by x"],
        ),
        (
            "responds",
            |_, _, _| {
                Ok(Passage::Respond(Box::new(Reply {
                    status: StatusCode::IM_A_TEAPOT,
                    ..Reply::default()
                })))
            },
            &["a"],
            &["respond 418 by x"],
        ),
        (
            "closes",
            |_, _, _| Ok(Passage::Close),
            &["a"],
            &["close by x"],
        ),
        (
            "fails",
            |_, _, _| Err(FilterError::OverLimit { limit: 3 }),
            &["a", "b"],
            &["refuse plugin by x", "close by x"],
        ),
        (
            "cannot hold the end",
            |_, _, _| Ok(Passage::Hold),
            &["a"],
            &["refuse plugin by x"],
        ),
    ];
    for (name, act, pieces, expected) in cases {
        let chain = Chain::compile(vec![both("x", &Pieces::new(*act))]).unwrap();
        let exchange = exchange(&chain).await;
        let mut flow = chain.request_body(&exchange).unwrap();
        assert_eq!(send(&mut flow, &exchange, pieces), *expected, "{name}");
        let mut flow = chain.response_body(&exchange).unwrap();
        assert_eq!(
            send(&mut flow, &exchange, pieces),
            *expected,
            "{name}, response"
        );
    }
}

#[tokio::test]
async fn no_more_is_held_than_the_bound_allows() {
    let act: Act = |_, cx, _| {
        Ok(if cx.last {
            Passage::Forward
        } else {
            Passage::Hold
        })
    };
    let chain = Chain::compile(vec![both("x", &Pieces::new(act))]).unwrap();
    let half = Bytes::from(vec![b'x'; BODY_HOLD_MAX / 2]);
    for (extra, expected) in [(0, "held"), (1, "refuse too-large by x")] {
        let exchange = exchange(&chain).await;
        let mut flow = chain.request_body(&exchange).unwrap();
        assert_eq!(
            show(flow.pass(&exchange, half.clone(), false, None)),
            "held"
        );
        let rest = Bytes::from(vec![b'x'; BODY_HOLD_MAX / 2 + extra]);
        assert_eq!(show(flow.pass(&exchange, rest, false, None)), expected);
        if extra == 0 {
            let Passed::Forward(whole) = flow.pass(&exchange, Bytes::new(), true, None) else {
                panic!()
            };
            assert_eq!(whole.len(), BODY_HOLD_MAX);
            // What was released no longer counts.
        }
    }
}

#[tokio::test]
async fn two_filters_share_the_bound_and_each_release_reaches_the_next() {
    let first: Act = |seen, cx, _| {
        Ok(if seen.len() < 2 && !cx.last {
            Passage::Hold
        } else {
            Passage::Forward
        })
    };
    let second: Act = |_, cx, chunk| {
        assert!(
            cx.last || chunk.len() == 2,
            "the second filter sees what the first released, whole"
        );
        Ok(Passage::Forward)
    };
    let (a, b) = (Pieces::new(first), Pieces::new(second));
    let chain = Chain::compile(vec![both("a", &a), both("b", &b)]).unwrap();
    let exchange = exchange(&chain).await;
    let mut flow = chain.request_body(&exchange).unwrap();
    assert_eq!(
        send(&mut flow, &exchange, &["1", "2", "3"]),
        ["held", "forward 12", "forward 3"]
    );
}

#[tokio::test]
async fn requests_meet_the_outer_filter_first_and_responses_the_inner_one() {
    let tag = |name: char| -> Act {
        match name {
            'a' => |_, _, chunk| {
                *chunk = [chunk, &b"a"[..]].concat().into();
                Ok(Passage::Forward)
            },
            _ => |_, _, chunk| {
                *chunk = [chunk, &b"b"[..]].concat().into();
                Ok(Passage::Forward)
            },
        }
    };
    let chain = Chain::compile(vec![
        both("a", &Pieces::new(tag('a'))),
        both("b", &Pieces::new(tag('b'))),
    ])
    .unwrap();
    let exchange = exchange(&chain).await;
    assert_eq!(
        send(
            &mut chain.request_body(&exchange).unwrap(),
            &exchange,
            &["-"]
        ),
        ["forward -ab"]
    );
    assert_eq!(
        send(
            &mut chain.response_body(&exchange).unwrap(),
            &exchange,
            &["-"]
        ),
        ["forward -ba"]
    );
}

// Rule 12: state is split per direction, both run at once, and the log reads what both left.
#[tokio::test]
async fn each_direction_keeps_its_own_state_and_the_log_reads_both() {
    let filter = Pieces::new(|_, _, _| Ok(Passage::Forward));
    let other = Pieces::new(|_, _, _| Ok(Passage::Forward));
    let chain = Arc::new(Chain::compile(vec![both("x", &filter), both("y", &other)]).unwrap());
    let mut exchange = exchange(&chain).await;
    chain
        .request(&mut get("https://a.example/"), &mut exchange, None)
        .await;
    let exchange = Arc::new(exchange);
    let threads = [(true, "up"), (false, "down")].map(|(up, text)| {
        let (chain, exchange) = (chain.clone(), exchange.clone());
        std::thread::spawn(move || {
            let flow = if up {
                chain.request_body(&exchange)
            } else {
                chain.response_body(&exchange)
            };
            let mut flow = flow.unwrap();
            for last in [false, true] {
                flow.pass(&exchange, Bytes::from_static(text.as_bytes()), last, None);
            }
            flow.finish(&exchange);
        })
    });
    for thread in threads {
        thread.join().unwrap();
    }
    chain.log(&exchange, &outcome());
    assert_eq!(
        *filter.logged.lock().unwrap(),
        [
            (Direction::ToAgent, "up|up".to_owned()),
            (Direction::ToClient, "down|down".to_owned())
        ]
    );
}

#[tokio::test]
async fn an_observer_that_fails_on_bytes_is_not_asked_again_and_keeps_nothing_back() {
    let act: Act = |seen, _, chunk| {
        if seen.len() == 1 {
            return Ok(Passage::Hold);
        }
        assert_eq!(seen.len(), 2, "not asked again");
        *chunk = Bytes::from_static(b"garbled");
        Err(FilterError::Trapped { reason: "test" })
    };
    let chain = Chain::compile(vec![observer(both("x", &Pieces::new(act)))]).unwrap();
    let exchange = exchange(&chain).await;
    let mut flow = chain.request_body(&exchange).unwrap();
    assert_eq!(
        send(&mut flow, &exchange, &["1", "2", "3"]),
        ["held", "forward 12", "forward 3"]
    );
    assert_eq!(exchange.lapses().len(), 1);
}

#[tokio::test]
async fn trailers_reach_the_filter_with_the_last_piece() {
    let act: Act = |_, cx, _| {
        if let Some(trailers) = &mut cx.trailers {
            assert!(cx.last);
            trailers.insert("x-seen", HeaderValue::from_static("1"));
        }
        Ok(Passage::Forward)
    };
    let chain = Chain::compile(vec![
        both("a", &Pieces::new(act)),
        both("b", &Pieces::new(act)),
    ])
    .unwrap();
    let exchange = exchange(&chain).await;
    let mut flow = chain.response_body(&exchange).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    assert_eq!(
        show(flow.pass(&exchange, Bytes::new(), true, Some(&mut trailers))),
        "forward "
    );
    assert_eq!(trailers.len(), 2);
}

#[tokio::test]
async fn a_filter_may_ask_the_upstream_leg_to_wait() {
    let holding = Arc::new(Pieces {
        act: |_, _, _| Ok(Passage::Forward),
        holds: 4096,
        logged: Mutex::default(),
    });
    let hooks = Hooks::new().request_body(holding.clone());
    let chain = Chain::compile(vec![
        when("/hook", placed("x", hooks)),
        both("y", &Pieces::new(|_, _, _| Ok(Passage::Forward))),
    ])
    .unwrap();
    assert_eq!(chain.request_hold(), 4096);
    for (path, hold) in [("/hook", 4096), ("/other", 0)] {
        let mut exchange = chain.exchange(connected(&chain).await);
        let decision = chain
            .request(
                &mut get(&format!("https://a.example{path}")),
                &mut exchange,
                None,
            )
            .await;
        assert!(matches!(decision, Decision::Pass { .. }));
        assert_eq!(
            chain.request_body(&exchange).unwrap().hold(),
            hold,
            "{path}"
        );
    }
}

struct Streams;
impl OnStream for Streams {
    type State = u32;
    fn begin(&self, _: &Exchange) -> u32 {
        0
    }
    fn on_stream(
        &self,
        seen: &mut u32,
        cx: &mut StreamCx<'_>,
        chunk: &mut Bytes,
    ) -> Result<Passage, FilterError> {
        *seen += 1;
        Ok(match (&chunk[..], cx.direction) {
            (b"secret", Direction::ToClient) => Passage::Refuse(Reason::Policy),
            _ => Passage::Forward,
        })
    }
}
impl OnDatagram for Streams {
    type State = ();
    fn begin(&self, _: &Exchange) {}
    fn on_datagram(
        &self,
        (): &mut (),
        _: &mut DatagramCx<'_>,
        datagram: &mut Bytes,
    ) -> Result<Passage, FilterError> {
        Ok(match &datagram[..] {
            b"hold" => Passage::Hold,
            b"drop" => Passage::Discard,
            _ => Passage::Forward,
        })
    }
}

#[tokio::test]
async fn streams_and_datagrams_pass_by_direction() {
    let filter = Arc::new(Streams);
    let hooks = Hooks::new().stream(filter.clone()).datagram(filter);
    let chain = Chain::compile(vec![placed("x", hooks)]).unwrap();
    let exchange = exchange(&chain).await;
    for (direction, expected) in [
        (Direction::ToAgent, "forward secret"),
        (Direction::ToClient, "refuse policy by x"),
    ] {
        let mut flow = chain.stream(&exchange, direction).unwrap();
        assert_eq!(
            show(flow.pass(&exchange, Bytes::from_static(b"secret"), false)),
            expected
        );
        flow.finish(&exchange);
    }
    let mut flow = chain.datagram(&exchange, Direction::ToAgent).unwrap();
    let shown: Vec<_> = ["a", "drop", "b", "hold", "c"]
        .map(|text| show(flow.pass(&exchange, Bytes::from_static(text.as_bytes()))))
        .into();
    // A datagram cannot be held: its boundaries would be lost.
    assert_eq!(
        shown,
        [
            "forward a",
            "held",
            "forward b",
            "refuse plugin by x",
            "close by x"
        ]
    );
    flow.finish(&exchange);
}
