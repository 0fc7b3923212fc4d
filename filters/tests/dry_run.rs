//! Filters on trial: they are asked like any other, and nothing they say or do has an effect.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use adit_filters::{
    Admission, BodyCx, Chain, Decision, Exchange, FilterError, Hooks, Identity, OnRequestBody,
    Passage, Passed, Placed, Reason, Redirect, Reply, Revised, Revision, Upgrade, Verdict,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use support::{Probe, Seen, connected, dry_run, exchange, get, head, observer, placed, seen, when};

fn compile(filters: impl IntoIterator<Item = Placed>) -> Chain {
    Chain::compile(filters.into_iter().collect()).unwrap()
}

fn told(exchange: &Exchange) -> Vec<String> {
    let refusals = exchange.dry_refusals().into_iter();
    refusals
        .map(|refusal| {
            let detail = refusal.detail.unwrap_or_default();
            format!("{} {} {detail}", refusal.by.unwrap(), refusal.reason)
        })
        .collect()
}

#[tokio::test]
async fn whatever_it_says_about_a_request_the_request_passes_and_it_is_told() {
    type Case = (fn() -> Result<Verdict, FilterError>, &'static str);
    let cases: &[Case] = &[
        (|| Ok(Verdict::Continue), ""),
        (|| Ok(Verdict::Refuse(Reason::Ip)), "b ip "),
        (
            || {
                Ok(Verdict::RefuseFor(
                    Reason::RateLimited,
                    Duration::from_secs(9),
                ))
            },
            "b rate-limited ",
        ),
        (|| Ok(Verdict::Close), "b policy closes without a word"),
        (
            || {
                Ok(Verdict::Respond(Box::new(Reply {
                    status: StatusCode::IM_A_TEAPOT,
                    ..Reply::default()
                })))
            },
            "b policy answers 418 itself",
        ),
        (
            || {
                Ok(Verdict::Redirect(Box::new(Redirect {
                    status: StatusCode::FOUND,
                    location: HeaderValue::from_static("/login"),
                })))
            },
            "b policy redirects with 302 to /login",
        ),
        (
            || Err(FilterError::Trapped { reason: "test" }),
            "b plugin plugin stopped: test",
        ),
    ];
    for (verdict, expected) in cases {
        let log = Seen::default();
        let mut probe = Probe::new("b", &log);
        // Through the head, since a probe is a plain function.
        probe.request = |cx| {
            cx.head.headers.insert("x-b", HeaderValue::from_static("1"));
            cx.exchange.establish(Identity::default()).unwrap();
            let verdict = cx
                .head
                .extensions
                .get::<fn() -> Result<Verdict, FilterError>>();
            verdict.unwrap()()
        };
        let chain = compile([
            placed("a", Probe::new("a", &log).hooks()),
            dry_run(placed("b", probe.hooks())),
            placed("c", Probe::new("c", &log).hooks()),
        ]);
        let mut exchange = exchange(&chain).await;
        let mut request = get("https://a.example/");
        request.extensions.insert(*verdict);
        let decision = chain.request(&mut request, &mut exchange, None).await;
        assert!(matches!(decision, Decision::Pass { upgrade: false }));
        assert_eq!(seen(&log), "+a +b +c >a >b >c");
        assert!(request.headers.is_empty(), "its changes are undone");
        assert!(exchange.fact::<Identity>().is_none(), "it gives no fact");
        assert_eq!(told(&exchange).join(""), *expected);
        assert!(exchange.lapses().is_empty());
    }
}

#[tokio::test]
async fn it_refuses_no_connection_and_grants_no_upgrade() {
    let log = Seen::default();
    for (answer, expected) in [
        (
            (|_| Ok(Admission::Refuse(Reason::Country)))
                as for<'a, 'b> fn(&'a mut adit_filters::ConnectCx<'b>) -> _,
            "b country ",
        ),
        (|_| Ok(Admission::Close), "b policy closes without a word"),
    ] {
        let mut probe = Probe::new("b", &log);
        probe.connect = answer;
        probe.request = |_| Ok(Verdict::Upgrade(Upgrade::WebSocket));
        // An observer on trial is on trial.
        let chain = compile([observer(dry_run(placed("b", probe.hooks())))]);
        let mut exchange = chain.exchange(connected(&chain).await);
        let mut request = get("https://a.example/");
        let asked = Some(Upgrade::WebSocket);
        let decision = chain.request(&mut request, &mut exchange, asked).await;
        assert!(matches!(decision, Decision::Pass { upgrade: false }));
        assert_eq!(told(&exchange), [expected]);
    }
}

#[tokio::test]
async fn it_sees_answers_and_changes_none() {
    for (answer, expected) in [
        (
            (|cx| {
                cx.head.status = StatusCode::IM_A_TEAPOT;
                Ok(Revision::Keep)
            }) as for<'a, 'b> fn(&'a mut adit_filters::ResponseCx<'b>) -> _,
            "",
        ),
        (|_| Ok(Revision::Close), "b policy closes without a word"),
        (
            |_| Ok(Revision::Replace(Box::default())),
            "b policy answers 200 itself",
        ),
    ] {
        let log = Seen::default();
        let mut probe = Probe::new("b", &log);
        probe.response = answer;
        let chain = compile([dry_run(placed("b", probe.hooks()))]);
        let mut exchange = exchange(&chain).await;
        let mut request = get("https://a.example/");
        chain.request(&mut request, &mut exchange, None).await;
        let mut response = head(200);
        let revised = chain.response(&mut response, &exchange).await;
        assert!(matches!(revised, Revised::Keep));
        assert_eq!(response.status, 200);
        assert_eq!(told(&exchange).join(""), expected);
    }
}

/// Refuses the second piece, and would like to hold and to change the first.
struct Meddles;

impl OnRequestBody for Meddles {
    type State = usize;
    fn begin(&self, _: &Exchange) -> usize {
        0
    }
    fn on_request_body(
        &self,
        state: &mut usize,
        cx: &mut BodyCx<'_>,
        chunk: &mut Bytes,
    ) -> Result<Passage, FilterError> {
        *state += 1;
        *chunk = Bytes::from_static(b"garbled");
        if let Some(trailers) = &mut cx.trailers {
            trailers.clear();
        }
        Ok(match state {
            1 => Passage::Hold,
            2 => Passage::Refuse(Reason::TooLarge),
            _ => panic!("not asked again"),
        })
    }
    fn holds(&self) -> usize {
        1000
    }
}

#[tokio::test]
async fn it_holds_and_changes_no_bytes_and_keeps_nobody_waiting() {
    let chain = compile([dry_run(placed(
        "b",
        Hooks::new().request_body(Arc::new(Meddles)),
    ))]);
    assert_eq!(chain.request_hold(), 0);
    let exchange = exchange(&chain).await;
    let mut flow = chain.request_body(&exchange).unwrap();
    assert_eq!(flow.hold(), 0);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("1"));
    for (piece, last) in [("1", false), ("2", true), ("3", true)] {
        let trailers = last.then_some(&mut trailers);
        match flow.pass(
            &exchange,
            Bytes::from_static(piece.as_bytes()),
            last,
            trailers,
        ) {
            Passed::Forward(passed) => assert_eq!(passed, piece),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(trailers.len(), 1);
    assert_eq!(told(&exchange), ["b too-large "]);
}

#[tokio::test]
async fn it_guards_no_path() {
    let log = Seen::default();
    let chain = compile([dry_run(when(
        "/x/*",
        placed("b", Probe::new("b", &log).response_only()),
    ))]);
    for path in ["/%2e%2e/x", "/x/y", "/y"] {
        let mut exchange = exchange(&chain).await;
        let mut request = get(&format!("https://a.example{path}"));
        let decision = chain.request(&mut request, &mut exchange, None).await;
        assert!(matches!(decision, Decision::Pass { .. }), "{path}");
    }
}

#[test]
fn others_cannot_build_on_it() {
    let gives = || placed("aa", Hooks::new().gives::<Identity>());
    let needs = || placed("b", Hooks::new().needs::<Identity>());
    assert!(Chain::compile(vec![gives(), needs()]).is_ok());
    let error = Chain::compile(vec![dry_run(gives()), needs()]).unwrap_err();
    assert!(
        error.to_string().contains("too late or only sometimes"),
        "{error}"
    );
    // It leaves nothing to others either.
    let defers = || placed("aa", Hooks::new().defers::<Identity>());
    assert!(Chain::compile(vec![defers()]).is_err());
    assert!(Chain::compile(vec![dry_run(defers())]).is_ok());
}
