//! Connect, request and response: who is asked, in which order, and what an answer leads to.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::sync::Arc;

use adit_filters::{
    Admission, Chain, Connected, Decision, Established, Fact, FilterError, Identity, Placed,
    Reason, Redirect, Reply, Revised, Revision, Upgrade, Verdict,
};
use http::{HeaderValue, StatusCode};
use support::{
    Probe, Seen, connected, exchange, get, head, info, observer, outcome, outcome_of, placed, seen,
    tunnel, when,
};

const FAILED: FilterError = FilterError::Trapped { reason: "test" };

fn three(seen: &Seen, change: impl FnOnce(&mut Probe)) -> Chain {
    let mut middle = Probe::new("b", seen);
    change(&mut middle);
    compile([
        placed("a", Probe::new("a", seen).hooks()),
        placed("b", middle.hooks()),
        placed("c", Probe::new("c", seen).hooks()),
    ])
}

fn compile(filters: impl IntoIterator<Item = Placed>) -> Chain {
    Chain::compile(filters.into_iter().collect()).unwrap()
}

/// A request for `/`, then the response `status` if it passed or what the edge would render, then the log.
async fn round(chain: &Chain, asked: Option<Upgrade>) -> String {
    let mut exchange = exchange(chain).await;
    let mut request = get("https://a.example/");
    let decision = chain.request(&mut request, &mut exchange, asked).await;
    let mut response = head(200);
    let revised = chain.response(&mut response, &exchange).await;
    chain.log(&exchange, &outcome());
    let decision = match decision {
        Decision::Pass { upgrade } => format!("pass{}", if upgrade { "+upgrade" } else { "" }),
        Decision::Respond { reply, by } => format!("{by} responds {}", reply.status.as_u16()),
        Decision::Redirect { redirect, by } => format!("{by} redirects {:?}", redirect.location),
        Decision::Refuse(refusal) => format!(
            "{} refuses: {}",
            refusal.by.as_deref().unwrap_or("edge"),
            refusal.reason
        ),
        Decision::Close { by } => format!("{by} closes"),
    };
    format!(
        "{decision}, {}",
        match revised {
            Revised::Keep => "kept".to_owned(),
            Revised::Replace(reply) => format!("replaced by {}", reply.status.as_u16()),
            Revised::Refuse(refusal) => format!("withheld: {}", refusal.reason),
            Revised::Close { .. } => "closed".to_owned(),
        }
    )
}

// Rule 5: down the chain, back up through those that let the request in, log once for all.
#[tokio::test]
async fn requests_go_down_and_responses_up_through_those_who_let_them_in() {
    type Case = (fn(&mut Probe), &'static str, &'static str);
    let cases: &[Case] = &[
        (|_| {}, "pass, kept", "+a +b +c >a >b >c <c <b <a #a #b #c"),
        (
            |p| p.request = |_| Ok(Verdict::Refuse(Reason::Ip)),
            "b refuses: ip, kept",
            "+a +b +c >a >b <a #a #b #c",
        ),
        (
            |p| {
                p.request = |_| {
                    Ok(Verdict::Redirect(Box::new(Redirect {
                        status: StatusCode::FOUND,
                        location: HeaderValue::from_static("/login"),
                    })))
                }
            },
            "b redirects \"/login\", kept",
            "+a +b +c >a >b <a #a #b #c",
        ),
        (
            |p| {
                p.request = |_| {
                    Ok(Verdict::Respond(Box::new(Reply {
                        status: StatusCode::IM_A_TEAPOT,
                        ..Reply::default()
                    })))
                }
            },
            "b responds 418, kept",
            "+a +b +c >a >b <a #a #b #c",
        ),
        (
            |p| p.request = |_| Ok(Verdict::Close),
            "b closes, kept",
            "+a +b +c >a >b <a #a #b #c",
        ),
    ];
    for (change, result, order) in cases {
        let log = Seen::default();
        let chain = three(&log, change);
        assert_eq!(round(&chain, None).await, *result);
        assert_eq!(seen(&log), *order, "{result}");
    }
}

// Rule 5: a replaced response goes on up, and its head is what those further out see.
#[tokio::test]
async fn a_replaced_response_goes_on_up_the_chain() {
    let log = Seen::default();
    let mut outer = Probe::new("a", &log);
    outer.response = |cx| {
        assert_eq!(cx.head.status, 503, "the outer filter sees the replacement");
        assert_eq!(cx.head.headers.get("x-from").unwrap(), "b");
        cx.head
            .headers
            .insert("x-outer", HeaderValue::from_static("1"));
        Ok(Revision::Keep)
    };
    let mut middle = Probe::new("b", &log);
    middle.response = |_| {
        let mut reply = Reply {
            status: StatusCode::SERVICE_UNAVAILABLE,
            ..Reply::default()
        };
        reply
            .headers
            .insert("x-from", HeaderValue::from_static("b"));
        reply.body = "sorry".into();
        Ok(Revision::Replace(Box::new(reply)))
    };
    let chain = compile([placed("a", outer.hooks()), placed("b", middle.hooks())]);
    let mut exchange = exchange(&chain).await;
    assert!(matches!(
        chain
            .request(&mut get("https://a.example/"), &mut exchange, None)
            .await,
        Decision::Pass { upgrade: false }
    ));
    let mut response = head(200);
    response
        .headers
        .insert("x-upstream", HeaderValue::from_static("1"));
    let Revised::Replace(reply) = chain.response(&mut response, &exchange).await else {
        panic!()
    };
    assert_eq!(
        (reply.status.as_u16(), &reply.body[..]),
        (503, &b"sorry"[..])
    );
    assert_eq!(
        reply.headers.get("x-outer").unwrap(),
        "1",
        "later changes are in it"
    );
    assert!(
        reply.headers.get("x-upstream").is_none(),
        "the upstream's fields are gone"
    );
}

// Rule 2: an error is never a pass, except for an observer.
#[tokio::test]
async fn an_error_refuses_unless_the_filter_is_an_observer() {
    type Case = (fn(&mut Probe), &'static str);
    let cases: &[Case] = &[
        (|p| p.request = |_| Err(FAILED), "b refuses: plugin, kept"),
        (
            |p| {
                p.request = |_| {
                    Err(FilterError::Unavailable {
                        service: "db",
                        source: None,
                    })
                }
            },
            "b refuses: unavailable, kept",
        ),
        (|p| p.response = |_| Err(FAILED), "pass, withheld: plugin"),
    ];
    for (change, result) in cases {
        let log = Seen::default();
        assert_eq!(round(&three(&log, change), None).await, *result);
        // The allowed twin: the same failure of an observer.
        let mut probe = Probe::new("b", &log);
        change(&mut probe);
        let chain = compile([
            observer(placed("b", probe.hooks())),
            placed("c", Probe::new("c", &log).hooks()),
        ]);
        assert_eq!(round(&chain, None).await, "pass, kept");
    }
}

#[tokio::test]
async fn an_observer_that_fails_leaves_nothing_behind_but_a_note() {
    let log = Seen::default();
    let mut probe = Probe::new("b", &log);
    probe.request = |cx| {
        cx.head
            .headers
            .insert("x-half", HeaderValue::from_static("1"));
        cx.exchange
            .establish(Identity {
                subject: "nobody".into(),
                method: "test",
                ..Identity::default()
            })
            .unwrap();
        Err(FAILED)
    };
    probe.response = |cx| {
        cx.head.status = StatusCode::IM_A_TEAPOT;
        Err(FAILED)
    };
    let chain = compile([observer(placed("b", probe.hooks()))]);
    let mut exchange = exchange(&chain).await;
    let mut request = get("https://a.example/");
    chain.request(&mut request, &mut exchange, None).await;
    let mut response = head(200);
    assert!(matches!(
        chain.response(&mut response, &exchange).await,
        Revised::Keep
    ));
    assert!(request.headers.is_empty());
    assert!(exchange.fact::<Identity>().is_none());
    assert_eq!(response.status, 200);
    let lapses = exchange.lapses();
    assert_eq!(lapses.len(), 2);
    assert_eq!(
        lapses.first().unwrap().detail.as_deref(),
        Some("plugin stopped: test")
    );
}

#[tokio::test]
async fn a_withheld_response_is_rendered_for_those_further_out_only() {
    let log = Seen::default();
    let chain = three(&log, |p| p.response = |_| Err(FAILED));
    let mut exchange = exchange(&chain).await;
    chain
        .request(&mut get("https://a.example/"), &mut exchange, None)
        .await;
    seen(&log);
    assert!(
        matches!(chain.response(&mut head(200), &exchange).await, Revised::Refuse(r) if r.by.as_deref() == Some("b"))
    );
    assert!(matches!(
        chain.response(&mut head(502), &exchange).await,
        Revised::Keep
    ));
    assert_eq!(seen(&log), "<c <b <a");
}

// Rule 6: an upgrade is a wish; only the one the request asked for can be granted.
#[tokio::test]
async fn only_the_upgrade_asked_for_is_granted_and_later_filters_still_decide() {
    let log = Seen::default();
    let grants = |p: &mut Probe| p.request = |_| Ok(Verdict::Upgrade(Upgrade::WebSocket));
    let cases = [
        (Some(Upgrade::WebSocket), "pass+upgrade, kept"),
        (Some(Upgrade::Connect), "pass, kept"),
        (None, "pass, kept"),
    ];
    for (asked, result) in cases {
        assert_eq!(round(&three(&log, grants), asked).await, result);
    }
    assert_eq!(
        round(&three(&log, |_| {}), Some(Upgrade::WebSocket)).await,
        "pass, kept",
        "nobody granted it"
    );
    let mut ws = Probe::new("ws", &log);
    grants(&mut ws);
    let mut auth = Probe::new("auth", &log);
    auth.request = |_| Ok(Verdict::Refuse(Reason::MissingToken));
    let chain = compile([placed("ws", ws.hooks()), placed("auth", auth.hooks())]);
    assert_eq!(
        round(&chain, Some(Upgrade::WebSocket)).await,
        "auth refuses: missing-token, kept"
    );
}

// Rule 7: a connect decision belongs to (connection, tunnel).
#[tokio::test]
async fn a_connection_is_decided_again_for_another_tunnel() {
    let log = Seen::default();
    let mut probe = Probe::new("b", &log);
    probe.connect = |cx| {
        cx.facts
            .establish(Identity {
                subject: cx.tunnel.id.clone(),
                method: "test",
                ..Identity::default()
            })
            .unwrap();
        Ok(if cx.tunnel.id == "closed" {
            Admission::Refuse(Reason::Ip)
        } else {
            Admission::Admit
        })
    };
    let chain = compile([placed("b", probe.hooks())]);
    let connection = info();
    let Connected::Admitted(open) = chain.connect(connection.clone(), tunnel("open")).await else {
        panic!()
    };
    assert_eq!(
        open.fact::<Identity>().unwrap().subject,
        "open",
        "facts are this tunnel's"
    );
    let Connected::Refused {
        refusal,
        connection,
    } = chain.connect(connection, tunnel("closed")).await
    else {
        panic!()
    };
    assert_eq!(
        (refusal.reason, refusal.by.as_deref()),
        (Reason::Ip, Some("b"))
    );
    assert_eq!(
        connection.fact::<Identity>().unwrap().subject,
        "closed",
        "the log knows what was found out before the refusal"
    );
}

#[tokio::test]
async fn connect_hooks_close_fail_and_are_passed_over_when_observers() {
    let log = Seen::default();
    let failing = || {
        let mut probe = Probe::new("b", &log);
        probe.connect = |cx| {
            cx.facts
                .establish(Identity {
                    subject: "half".into(),
                    method: "test",
                    ..Identity::default()
                })
                .unwrap();
            Err(FAILED)
        };
        placed("b", probe.hooks())
    };
    let refused = compile([failing()]).connect(info(), tunnel("t")).await;
    assert!(
        matches!(refused, Connected::Refused { refusal, .. } if refusal.reason == Reason::Plugin)
    );
    let passed = connected(&compile([observer(failing())])).await;
    assert!(
        passed.fact::<Identity>().is_none(),
        "what it half did is undone"
    );
    let lapses = Chain::empty().exchange(passed).lapses();
    assert_eq!(
        lapses.first().and_then(|lapse| lapse.by.as_deref()),
        Some("b"),
        "and it is told"
    );
    let mut closes = Probe::new("x", &log);
    closes.connect = |_| Ok(Admission::Close);
    let closed = compile([placed("x", closes.hooks())])
        .connect(info(), tunnel("t"))
        .await;
    assert!(matches!(closed, Connected::Close { by, .. } if &*by == "x"));
}

// Rule 12: connection facts are frozen after connect, and shared by exchanges that have their own.
#[tokio::test]
async fn exchanges_share_connection_facts_and_keep_their_own() {
    struct Visit(String);
    impl Fact for Visit {
        const NAME: &'static str = "visit";
    }
    let log = Seen::default();
    let mut probe = Probe::new("b", &log);
    probe.connect = |cx| {
        cx.facts
            .establish(Identity {
                subject: "peer".into(),
                method: "mtls",
                ..Identity::default()
            })
            .unwrap();
        Ok(Admission::Admit)
    };
    probe.request = |cx| {
        let path = cx.head.uri.path().to_owned();
        cx.exchange.establish(Visit(path)).unwrap();
        let second = cx.exchange.establish(Identity {
            subject: "other".into(),
            method: "token",
            ..Identity::default()
        });
        assert_eq!(
            second,
            Err(Established { fact: "identity" }),
            "a connection's fact cannot be overridden"
        );
        Ok(Verdict::Continue)
    };
    let chain = compile([placed("b", probe.hooks())]);
    let connection = connected(&chain).await;
    for path in ["/1", "/2"] {
        let mut exchange = chain.exchange(connection.clone());
        chain
            .request(
                &mut get(&format!("https://a.example{path}")),
                &mut exchange,
                None,
            )
            .await;
        // Both directions share it from here on.
        let exchange = Arc::new(exchange);
        let other = exchange.clone();
        let read = std::thread::spawn(move || other.fact::<Visit>().unwrap().0.clone())
            .join()
            .unwrap();
        assert_eq!(read, path);
        assert_eq!(exchange.fact::<Identity>().unwrap().subject, "peer");
    }
}

#[tokio::test]
async fn a_conditional_filter_takes_part_only_where_its_condition_holds() {
    let log = Seen::default();
    let refusing = || {
        let mut probe = Probe::new("guard", &log);
        probe.request = |_| Ok(Verdict::Refuse(Reason::Policy));
        let probe = Arc::new(probe);
        let hooks = adit_filters::Hooks::new()
            .request(probe.clone())
            .response(probe.clone())
            .log(probe);
        when("/admin/*", placed("guard", hooks))
    };
    let chain = compile([refusing()]);
    let cases = [
        ("/admin/x", "refuse policy", ">guard #guard"),
        ("/%61dmin/x", "refuse policy", ">guard #guard"),
        ("//admin/x", "refuse policy", ">guard #guard"),
        ("/public", "pass", ""),
        // A path with two readings cannot be judged by its condition.
        ("/public/..%2fadmin/x", "refuse bad-request", "#guard"),
        ("/public/../admin/x", "refuse bad-request", "#guard"),
    ];
    for (path, result, order) in cases {
        let mut exchange = exchange(&chain).await;
        let uri = format!("https://a.example{path}");
        let decision = chain.request(&mut get(&uri), &mut exchange, None).await;
        let decision = match decision {
            Decision::Pass { .. } => "pass".to_owned(),
            Decision::Refuse(refusal) => format!("refuse {}", refusal.reason),
            other => format!("{other:?}"),
        };
        chain.response(&mut head(200), &exchange).await;
        chain.log(&exchange, &outcome_of(&uri));
        assert_eq!(
            (decision.as_str(), seen(&log).as_str()),
            (result, order),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_conditional_log_is_of_its_paths_whoever_refuses_before() {
    let log = Seen::default();
    let mut refuses = Probe::new("r", &log);
    refuses.request = |_| Ok(Verdict::Refuse(Reason::Policy));
    let refuses = Arc::new(refuses);
    let writes = Arc::new(Probe::new("w", &log));
    let writes = adit_filters::Hooks::new().log(writes);
    let chain = compile([
        placed("r", adit_filters::Hooks::new().request(refuses)),
        when("/admin/*", placed("w", writes)),
    ]);
    let ambiguous = "/public/..%2fadmin/x";
    for (path, is_logged) in [("/admin/x", true), ("/public", false), (ambiguous, true)] {
        let uri = format!("https://a.example{path}");
        let mut asked = exchange(&chain).await;
        chain.request(&mut get(&uri), &mut asked, None).await;
        chain.log(&asked, &outcome_of(&uri));
        assert_eq!(seen(&log).contains("#w"), is_logged, "{path}");
        // Nor is it of all that is refused before there is a request.
        let refused = chain.denied(Arc::clone(asked.connection()));
        chain.log(&refused, &outcome_of(&uri));
        assert_eq!(seen(&log).contains("#w"), is_logged, "{path}");
    }
}

#[tokio::test]
async fn a_later_filter_cannot_move_a_request_past_a_guard() {
    let log = Seen::default();
    let rewrite = |to: fn(&mut adit_filters::RequestCx<'_>) -> Result<Verdict, FilterError>| {
        let guard = Arc::new(Probe::new("guard", &log));
        let mut rewriter = Probe::new("rewrite", &log);
        rewriter.request = to;
        compile([
            when(
                "/admin/*",
                placed("guard", adit_filters::Hooks::new().request(guard)),
            ),
            placed("rewrite", rewriter.hooks()),
        ])
    };
    let go = async |chain: Chain| {
        let mut exchange = exchange(&chain).await;
        chain
            .request(&mut get("https://a.example/public"), &mut exchange, None)
            .await
    };
    let moved = go(rewrite(|cx| {
        cx.head.uri = "https://a.example/admin/x".parse().unwrap();
        Ok(Verdict::Continue)
    }))
    .await;
    assert!(matches!(moved, Decision::Refuse(refusal) if refusal.by.as_deref() == Some("guard")));
    let elsewhere = go(rewrite(|cx| {
        cx.head.uri = "https://a.example/other".parse().unwrap();
        Ok(Verdict::Continue)
    }))
    .await;
    assert!(matches!(elsewhere, Decision::Pass { .. }));
}

#[tokio::test]
async fn slots_keep_what_a_filter_put_there_for_one_exchange() {
    let mut env = adit_filters::env::fake::Fake::default().env();
    let (number, text) = (env.slot::<u32>().unwrap(), env.slot::<String>().unwrap());
    let chain = Chain::empty();
    let mut first = exchange(&chain).await;
    first.fill(number, 7);
    first.fill(text, "seven".to_owned());
    first.fill(number, 8);
    *first.slot_mut(number).unwrap() += 1;
    assert_eq!(first.slot(number), Some(&9));
    assert_eq!(first.slot(text).map(String::as_str), Some("seven"));
    assert_eq!(exchange(&chain).await.slot(number), None);
    let refused = (0..100)
        .map(|_| env.slot::<u8>())
        .find_map(Result::err)
        .unwrap();
    assert_eq!(refused.to_string(), "one filter may take at most 16 slots");
}

// Rule 9: a phase nobody takes costs nothing.
#[tokio::test]
async fn an_empty_chain_passes_everything_and_grants_no_upgrade() {
    let chain = Chain::empty();
    assert_eq!(round(&chain, Some(Upgrade::WebSocket)).await, "pass, kept");
    assert!(
        !(chain.takes_connect()
            || chain.takes_request()
            || chain.takes_response()
            || chain.takes_request_body()
            || chain.takes_response_body()
            || chain.takes_stream()
            || chain.takes_datagram()
            || chain.takes_log())
    );
    let exchange = exchange(&chain).await;
    assert!(chain.request_body(&exchange).is_none() && chain.response_body(&exchange).is_none());
}

// Rule 5: the log runs for all, also for who never got in.
#[tokio::test]
async fn a_connection_that_was_refused_can_be_logged() {
    let log = Seen::default();
    let mut probe = Probe::new("a", &log);
    probe.connect = |_| Ok(Admission::Refuse(Reason::Ip));
    let chain = compile([placed("a", probe.hooks())]);
    let Connected::Refused { connection, .. } = chain.connect(info(), tunnel("t")).await else {
        panic!()
    };
    let exchange = chain.denied(connection);
    assert!(matches!(
        chain.response(&mut head(403), &exchange).await,
        Revised::Keep
    ));
    chain.log(&exchange, &outcome());
    assert_eq!(seen(&log), "+a #a", "no response hook, one log");
}
