//! What is heard of filters: in a trial of which nothing comes, and by a meter.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adit_filters::{
    Admission, Answered, BodyCx, Chain, Decision, Exchange, FilterError, Heard, Hooks, Meter,
    OnRequestBody, Passage, Phase, Placed, Reason, Rehearsal, Tally, Trial, Verdict,
};
use bytes::Bytes;
use support::{
    Probe, Seen, dry_run, exchange, get, head, info, observer, placed, seen, tunnel, when,
};

fn compile(filters: impl IntoIterator<Item = Placed>) -> Chain {
    Chain::compile(filters.into_iter().collect()).unwrap()
}

async fn try_out(chain: &Chain, path: &str, body: Option<&'static str>) -> Trial {
    let mut head = get(&format!("https://a.example{path}"));
    let body = body.map(|body| Bytes::from_static(body.as_bytes()));
    chain
        .trial(info(), tunnel("t"), &mut head, None, body)
        .await
}

fn shown(trial: &Trial) -> Vec<String> {
    let rows = trial.rows.iter();
    rows.map(|row| {
        let heard = match &row.heard {
            Heard::Said(said) => said.to_string(),
            Heard::WouldSay(said) => format!("({said})"),
            Heard::Skipped => "skipped".to_owned(),
            Heard::NotAsked => "not asked".to_owned(),
            Heard::NoPart => "no part".to_owned(),
        };
        let phase = row.phase.map_or("-", Phase::as_str);
        format!("{} {phase}: {heard}", row.filter.name)
    })
    .collect()
}

/// Refuses a body that says so.
struct Reads;
impl OnRequestBody for Reads {
    type State = ();
    fn begin(&self, _: &Exchange) {}
    fn on_request_body(
        &self,
        (): &mut (),
        cx: &mut BodyCx<'_>,
        chunk: &mut Bytes,
    ) -> Result<Passage, FilterError> {
        assert!(cx.exchange.fact::<Rehearsal>().is_some() && cx.last);
        Ok(match &chunk[..] {
            b"bad" => Passage::Refuse(Reason::Policy),
            _ => Passage::Forward,
        })
    }
}

/// Asked about requests alone, where a condition can limit it.
struct Conditional(Probe);
impl adit_filters::OnRequest for Conditional {
    async fn on_request(
        &self,
        cx: &mut adit_filters::RequestCx<'_>,
    ) -> Result<Verdict, FilterError> {
        (self.0.request)(cx)
    }
}

fn chain(log: &Seen) -> Chain {
    let mut fails = Probe::new("fails", log);
    fails.connect = |cx| {
        assert!(cx.facts.get::<Rehearsal>().is_some());
        Err(FilterError::Trapped { reason: "test" })
    };
    let mut trial = Probe::new("trial", log);
    trial.request = |_| {
        Ok(Verdict::RefuseFor(
            Reason::RateLimited,
            Duration::from_secs(9),
        ))
    };
    let mut admin = Probe::new("admin", log);
    admin.request = |cx| {
        assert!(cx.exchange.fact::<Rehearsal>().is_some());
        Ok(Verdict::Refuse(Reason::MissingToken))
    };
    compile([
        observer(placed("fails", fails.hooks())),
        dry_run(placed("trial", trial.hooks())),
        when(
            "/admin/*",
            placed("admin", Hooks::new().request(Arc::new(Conditional(admin)))),
        ),
        placed("reads", Hooks::new().request_body(Arc::new(Reads))),
        placed("answers", Probe::new("answers", log).response_only()),
    ])
}

#[tokio::test]
async fn a_trial_tells_what_each_filter_said_and_leaves_no_trace() {
    let log = Seen::default();
    let chain = chain(&log);
    let trial = try_out(&chain, "/", Some("good")).await;
    assert!(matches!(trial.decision, Decision::Pass { upgrade: false }));
    assert_eq!(
        shown(&trial),
        [
            "fails connect: (cannot decide: plugin stopped: test)",
            "trial connect: passes",
            "fails request: passes",
            "trial request: (refuses: rate-limited, for 9s)",
            "admin request: skipped",
            "reads request-body: passes",
            "answers -: no part",
        ]
    );
    assert_eq!(
        seen(&log),
        "+fails +trial >fails >trial",
        "no answer, no log"
    );

    // The refused twins: by a condition, and by the body.
    let trial = try_out(&chain, "/admin/x", Some("good")).await;
    assert!(
        matches!(&trial.decision, Decision::Refuse(refusal) if refusal.by.as_deref() == Some("admin"))
    );
    assert_eq!(
        shown(&trial).get(4..6).unwrap(),
        [
            "admin request: refuses: missing-token",
            "reads request-body: not asked"
        ]
    );
    let trial = try_out(&chain, "/", Some("bad")).await;
    assert!(
        matches!(&trial.decision, Decision::Refuse(refusal) if refusal.by.as_deref() == Some("reads"))
    );
    // Without a body nothing is said about one.
    assert_eq!(try_out(&chain, "/", None).await.rows.len(), 6);
}

#[tokio::test]
async fn after_a_refusal_nobody_else_is_asked() {
    let log = Seen::default();
    let mut first = Probe::new("a", &log);
    first.connect = |_| Ok(Admission::Refuse(Reason::Country));
    let chain = compile([
        placed("a", first.hooks()),
        placed("b", Probe::new("b", &log).hooks()),
    ]);
    let trial = try_out(&chain, "/", None).await;
    assert_eq!(
        shown(&trial),
        [
            "a connect: refuses: country",
            "b connect: not asked",
            "a request: not asked",
            "b request: not asked",
        ]
    );
}

/// A clock that is a second later whenever it is looked at, and every answer with its time.
#[derive(Clone, Default)]
struct Ledger(Arc<Mutex<Vec<String>>>, Arc<AtomicU64>);
struct Line(Ledger, String);
impl Meter for Ledger {
    fn tally(&self, filter: &Arc<str>, phase: Phase) -> Arc<dyn Tally> {
        Arc::new(Line(self.clone(), format!("{filter} {}", phase.as_str())))
    }
}
impl Tally for Line {
    fn now(&self) -> Duration {
        Duration::from_secs(self.0.1.fetch_add(1, Ordering::Relaxed))
    }
    fn add(&self, answered: Answered, took: Duration) {
        let line = format!("{} {} {}s", self.1, answered.as_str(), took.as_secs());
        self.0.0.lock().unwrap().push(line);
    }
}

#[tokio::test]
async fn a_meter_hears_every_answer_with_its_time_and_none_of_a_trial() {
    let log = Seen::default();
    let ledger = Ledger::default();
    let mut trial = Probe::new("trial", &log);
    trial.request = |_| Ok(Verdict::Close);
    let mut last = Probe::new("last", &log);
    last.request = |_| Ok(Verdict::Refuse(Reason::Policy));
    let filters = vec![
        placed("first", Probe::new("first", &log).hooks()),
        dry_run(placed("trial", trial.hooks())),
        placed("last", last.hooks()),
    ];
    let chain = Chain::measured(filters, Some(&ledger)).unwrap();
    try_out(&chain, "/", None).await;
    assert!(ledger.0.lock().unwrap().is_empty());

    let mut exchange = exchange(&chain).await;
    let mut request = get("https://a.example/");
    chain.request(&mut request, &mut exchange, None).await;
    chain.response(&mut head(403), &exchange).await;
    assert_eq!(
        *ledger.0.lock().unwrap(),
        [
            "first connect pass 1s",
            "trial connect pass 1s",
            "last connect pass 1s",
            "first request pass 1s",
            "trial request would-refuse 1s",
            "last request refuse 1s",
            "trial response pass 1s",
            "first response pass 1s",
        ]
    );
    // One look at the clock for each answer, and one at the start of each of three phases.
    assert_eq!(ledger.1.load(Ordering::Relaxed), 8 + 3);
}

#[tokio::test]
async fn a_meter_hears_pieces_of_a_body() {
    let ledger = Ledger::default();
    let filters = vec![placed("reads", Hooks::new().request_body(Arc::new(Free)))];
    let chain = Chain::measured(filters, Some(&ledger)).unwrap();
    let exchange = exchange(&chain).await;
    let mut flow = chain.request_body(&exchange).unwrap();
    flow.pass(&exchange, Bytes::from_static(b"a"), false, None);
    flow.pass(&exchange, Bytes::from_static(b"b"), true, None);
    assert_eq!(
        *ledger.0.lock().unwrap(),
        ["reads request-body pass 1s", "reads request-body close 1s"]
    );
}

/// Closes at the end.
struct Free;
impl OnRequestBody for Free {
    type State = ();
    fn begin(&self, _: &Exchange) {}
    fn on_request_body(
        &self,
        (): &mut (),
        cx: &mut BodyCx<'_>,
        _: &mut Bytes,
    ) -> Result<Passage, FilterError> {
        Ok(if cx.last {
            Passage::Close
        } else {
            Passage::Forward
        })
    }
}
