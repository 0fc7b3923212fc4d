//! Which filters can stand together, and what is said when they cannot.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::sync::Arc;

use adit_filters::{
    BODY_HOLD_MAX, BodyCx, CHAIN_FILTERS_MAX, CHAIN_SLOTS_MAX, Chain, Exchange, Fact, FilterError,
    Hooks, Identity, OnRequestBody, Passage, Placed, Stage,
};
use bytes::Bytes;
use support::{Probe, Seen, observer, placed, when};

struct Country;
impl Fact for Country {
    const NAME: &'static str = "country";
}

struct Holds(usize);
impl OnRequestBody for Holds {
    type State = ();
    fn begin(&self, _: &Exchange) {}
    fn on_request_body(
        &self,
        (): &mut (),
        _: &mut BodyCx<'_>,
        _: &mut Bytes,
    ) -> Result<Passage, FilterError> {
        Ok(Passage::Forward)
    }
    fn holds(&self) -> usize {
        self.0
    }
}

fn check(filters: Vec<Placed>) -> String {
    match Chain::compile(filters) {
        Ok(chain) => chain
            .rows()
            .map(|row| row.name.to_string())
            .collect::<Vec<_>>()
            .join(" "),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_chain_that_cannot_work_is_refused_with_positions() {
    let at = |name, stage| placed(name, Hooks::new().at(stage));
    let gives = |name| placed(name, Hooks::new().gives::<Identity>());
    let needs = |name| placed(name, Hooks::new().needs::<Identity>());
    let body = |name, holds| placed(name, Hooks::new().request_body(Arc::new(Holds(holds))));
    let connects = |name| placed(name, Probe::new(name, &Seen::default()).hooks());
    let slots = |name, count| placed(name, Hooks::new().with_slots(count));
    let cases = [
        (
            vec![at("aa", Stage::Network), at("b", Stage::Policy)],
            "aa b",
        ),
        (
            vec![at("aa", Stage::Policy), at("b", Stage::Network)],
            "engine.toml:1:3: `b` belongs to stage network but follows `aa` of stage policy",
        ),
        (vec![gives("aa"), needs("b")], "aa b"),
        (
            vec![needs("b"), gives("aa")],
            "engine.toml:1:3: `b` needs the fact `identity`, which `aa` at engine.toml:2:3 gives too late or only sometimes: put it earlier, without a narrower `when`",
        ),
        (
            vec![placed("aa", Hooks::new().gives::<Country>()), needs("b")],
            "engine.toml:1:3: `b` needs the fact `identity`, which no filter gives: add one that does before it",
        ),
        // A filter does not give itself what it needs.
        (
            vec![placed(
                "b",
                Hooks::new().needs::<Identity>().gives::<Identity>(),
            )],
            "engine.toml:1:3: `b` needs the fact `identity`, which no filter gives: add one that does before it",
        ),
        (
            vec![observer(gives("aa")), needs("b")],
            "engine.toml:1:3: `b` needs the fact `identity`, which `aa` at engine.toml:2:3 gives too late or only sometimes: put it earlier, without a narrower `when`",
        ),
        (
            vec![when("/x/*", gives("aa")), when("/x/*", needs("b"))],
            "aa b",
        ),
        (
            vec![when("/x/*", gives("aa")), needs("b")],
            "engine.toml:1:3: `b` needs the fact `identity`, which `aa` at engine.toml:2:3 gives too late or only sometimes: put it earlier, without a narrower `when`",
        ),
        (vec![connects("b")], "b"),
        (
            vec![when("/x", connects("b"))],
            "engine.toml:1:3: `b` decides about connections, where nothing is requested yet; `when` cannot limit it: remove `when`",
        ),
        (
            vec![when("/x", at("b", Stage::Network))],
            "engine.toml:1:3: `b` decides about connections, where nothing is requested yet; `when` cannot limit it: remove `when`",
        ),
        (vec![body("b", BODY_HOLD_MAX)], "b"),
        (
            vec![body("b", BODY_HOLD_MAX + 1)],
            "engine.toml:1:3: `b` holds 1048577 bytes of a body; at most 1048576 can be held",
        ),
        (vec![slots("b", CHAIN_SLOTS_MAX)], "b"),
        (
            vec![slots("aa", CHAIN_SLOTS_MAX), slots("b", 1)],
            "engine.toml:1:3: with `b` the chain takes 201 slots; at most 200 can be taken",
        ),
    ];
    for (filters, expected) in cases {
        assert_eq!(check(filters), expected);
    }
}

#[test]
fn a_chain_has_a_greatest_length() {
    let many = |count: usize| {
        (0..count)
            .map(|_| placed("x", Hooks::new()))
            .collect::<Vec<_>>()
    };
    assert_eq!(Chain::compile(many(CHAIN_FILTERS_MAX)).unwrap().len(), 200);
    // 256 and more would wrap a position of one byte.
    for count in [CHAIN_FILTERS_MAX + 1, 256, 300] {
        let error = Chain::compile(many(count)).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("a chain of {count} filters is too long; at most 200 can stand in one")
        );
    }
}

#[test]
fn rows_say_what_stands_where_and_why() {
    let chain = Chain::compile(vec![
        Placed {
            optional: true,
            ..placed(
                "edge/probe",
                Probe::new("p", &Seen::default()).hooks().at(Stage::Network),
            )
        },
        when(
            "/admin/*",
            observer(placed(
                "edge/body",
                Hooks::new().request_body(Arc::new(Holds(10))),
            )),
        ),
    ])
    .unwrap();
    let rows: Vec<_> = chain.rows().collect();
    let [first, second] = rows.as_slice() else {
        panic!("{rows:?}")
    };
    assert_eq!(
        (
            first.stage,
            first.origin.as_str(),
            first.phases.as_slice(),
            first.optional,
            first.when.as_deref()
        ),
        (
            Stage::Network,
            "engine.toml:10:3",
            ["connect", "request", "response", "log"].as_slice(),
            true,
            None
        )
    );
    assert_eq!(
        (second.observer, second.when.as_deref()),
        (true, Some("path /admin/*"))
    );
    assert_eq!(second.phases, ["request-body"]);
    assert_eq!(chain.request_hold(), 10);
}
