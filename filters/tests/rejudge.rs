//! Who is asked about an open exchange, and what comes of what they say.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod support;

use std::future::{pending, ready};
use std::sync::Arc;

use adit_filters::{
    Admission, Chain, ConnectCx, Exchange, FilterError, Hooks, Identity, OnConnect, OnRejudge,
    Placed, Reason, Rehearsal, RejudgeCx, Stage, Stay, Upgrade, Verdict,
};
use support::{Probe, Seen, connected, dry_run, get, observer, placed, when};

type Word = fn(&mut RejudgeCx<'_>) -> Result<Stay, FilterError>;

/// Says this when it is asked again.
struct Again(Word);

impl OnRejudge for Again {
    fn on_rejudge(&self, cx: &mut RejudgeCx<'_>) -> Result<Stay, FilterError> {
        (self.0)(cx)
    }
}

fn again(word: Word) -> Hooks {
    Hooks::new().rejudge(Arc::new(Again(word)))
}

fn lost() -> FilterError {
    FilterError::Unavailable {
        service: "oracle",
        source: None,
    }
}

/// An exchange that this chain let in, at `/a`.
async fn begun(chain: &Chain) -> Exchange {
    let mut exchange = chain.exchange(connected(chain).await);
    let mut head = get("/a");
    let _decided = chain.request(&mut head, &mut exchange, None).await;
    exchange
}

async fn verdict(filters: Vec<Placed>, upgrade: Option<Upgrade>) -> Option<(String, Reason)> {
    let before = Chain::default();
    let exchange = begun(&before).await;
    let chain = Chain::compile(filters).unwrap();
    let refusal = chain
        .rejudge(&before, &exchange, upgrade, pending::<()>)
        .await
        .err()?;
    let by = refusal.by.map(|by| by.to_string());
    Some((by.unwrap_or_default(), refusal.reason))
}

#[tokio::test]
async fn what_a_filter_says_counts_as_it_does_when_a_request_comes() {
    let no: Word = |_| Ok(Stay::No(Reason::Ip));
    let fails: Word = |_| Err(lost());
    let ends = |reason| Some(("f".to_owned(), reason));
    for (filter, expected) in [
        (placed("f", again(|_| Ok(Stay::Yes))), None),
        (placed("f", again(no)), ends(Reason::Ip)),
        (observer(placed("f", again(no))), ends(Reason::Ip)),
        (dry_run(placed("f", again(no))), None),
        (placed("f", again(fails)), ends(Reason::Unavailable)),
        (observer(placed("f", again(fails))), None),
        (when("/a", placed("f", again(no))), ends(Reason::Ip)),
        (when("/b", placed("f", again(no))), None),
    ] {
        let text = format!("{filter:?}");
        assert_eq!(verdict(vec![filter], None).await, expected, "{text}");
    }
}

#[tokio::test]
async fn the_connection_is_decided_about_again_unless_the_filter_knows_better() {
    let refuses = |seen: &Seen| {
        let mut probe = Probe::new("f", seen);
        probe.connect = |cx| {
            Ok(match cx.facts.get::<Rehearsal>() {
                Some(_) => Admission::Refuse(Reason::Country),
                None => Admission::Admit,
            })
        };
        probe
    };
    let seen = Seen::default();
    let chain = |hooks: Hooks| Chain::compile(vec![placed("f", hooks)]).unwrap();
    for (hooks, ends) in [
        (refuses(&seen).hooks(), true),
        (refuses(&seen).hooks().judges_once(), false),
        (
            refuses(&seen)
                .hooks()
                .rejudge(Arc::new(Again(|_| Ok(Stay::Yes)))),
            false,
        ),
    ] {
        let chain = chain(hooks);
        let exchange = begun(&chain).await;
        let reason = chain
            .rejudge(&chain, &exchange, None, pending::<()>)
            .await
            .err();
        let reason = reason.map(|refusal| refusal.reason);
        assert_eq!(reason, ends.then_some(Reason::Country));
    }
}

#[tokio::test]
async fn whoever_does_not_answer_in_time_could_not_decide() {
    struct Stuck;
    impl OnConnect for Stuck {
        async fn on_connect(&self, cx: &mut ConnectCx<'_>) -> Result<Admission, FilterError> {
            if cx.facts.get::<Rehearsal>().is_some() {
                pending::<()>().await;
            }
            Ok(Admission::Admit)
        }
    }
    let stuck = || placed("f", Hooks::new().connect(Arc::new(Stuck)));
    for (filter, expected) in [
        (stuck(), Some(Reason::Unavailable)),
        (observer(stuck()), None),
        (dry_run(stuck()), None),
    ] {
        let text = format!("{filter:?}");
        let chain = Chain::compile(vec![filter]).unwrap();
        let exchange = begun(&chain).await;
        let verdict = chain.rejudge(&chain, &exchange, None, || ready(())).await;
        let reason = verdict.err().map(|refusal| refusal.reason);
        assert_eq!(reason, expected, "{text}");
    }
}

#[tokio::test]
async fn without_an_opinion_what_it_said_stands_if_it_was_asked() {
    let seen = Seen::default();
    let filter = || {
        let quiet = Hooks::new().request(Arc::new(Quiet));
        placed("f", quiet)
    };
    let chain = |filters: Vec<Placed>| Chain::compile(filters).unwrap();
    let now = chain(vec![filter()]);
    for (before, stays) in [
        (chain(vec![filter()]), true),
        (chain(vec![when("/a", filter())]), true),
        (chain(vec![]), false),
        (chain(vec![when("/b", filter())]), false),
        (chain(vec![dry_run(filter())]), false),
        (
            chain(vec![placed("g", Probe::new("g", &seen).hooks())]),
            false,
        ),
    ] {
        let exchange = begun(&before).await;
        let verdict = now.rejudge(&before, &exchange, None, pending::<()>).await;
        assert_eq!(verdict.is_ok(), stays, "{verdict:?}");
        // An observer that cannot be asked is passed over.
        let now = chain(vec![observer(filter())]);
        assert!(
            now.rejudge(&before, &exchange, None, pending::<()>)
                .await
                .is_ok()
        );
    }
}

/// Lets every request pass.
struct Quiet;

impl adit_filters::OnRequest for Quiet {
    async fn on_request(
        &self,
        _: &mut adit_filters::RequestCx<'_>,
    ) -> Result<Verdict, FilterError> {
        Ok(Verdict::Continue)
    }
}

#[tokio::test]
async fn an_upgrade_goes_on_while_a_filter_grants_it() {
    let socket = Some(Upgrade::WebSocket);
    let grants = || placed("w", again(|_| Ok(Stay::Upgraded)).at(Stage::Upgrade));
    let passes = || placed("f", again(|_| Ok(Stay::Yes)));
    let ends = Some((String::new(), Reason::Unsupported));
    assert_eq!(verdict(vec![passes(), grants()], socket).await, None);
    assert_eq!(verdict(vec![passes()], socket).await, ends);
    assert_eq!(verdict(vec![dry_run(grants())], socket).await, ends);
    assert_eq!(verdict(vec![passes()], None).await, None);
}

#[tokio::test]
async fn what_was_proved_counts_once_its_filter_says_so_again() {
    let proves: Word = |cx| {
        let identity = Identity::default();
        Ok(match cx.facts.establish(identity) {
            Ok(()) => Stay::Yes,
            Err(_) => Stay::No(Reason::Policy),
        })
    };
    let needs: Word = |cx| {
        Ok(match cx.facts.get::<Identity>() {
            Some(_) => Stay::Yes,
            None => Stay::No(Reason::Login),
        })
    };
    let ends = Some(("n".to_owned(), Reason::Login));
    let needs = || placed("n", again(needs));
    let proves = || placed("p", again(proves));
    assert_eq!(verdict(vec![proves(), needs()], None).await, None);
    assert_eq!(verdict(vec![needs()], None).await, ends);
    assert_eq!(verdict(vec![dry_run(proves()), needs()], None).await, ends);
    // What a failed observer has established is undone.
    let half: Word = |cx| {
        let _ = cx.facts.establish(Identity::default());
        Err(lost())
    };
    let half = observer(placed("h", again(half)));
    assert_eq!(verdict(vec![half, needs()], None).await, ends);
}

#[tokio::test]
async fn a_condition_is_held_against_the_path_in_the_end_too() {
    // As a plugin may, before the filter that guards the other path.
    let moves = Hooks::new().request(Arc::new(Moves)).judges_once();
    let before = Chain::compile(vec![placed("m", moves)]).unwrap();
    let exchange = begun(&before).await;
    let no: Word = |_| Ok(Stay::No(Reason::Login));
    for (path, ends) in [("/a", true), ("/moved", true), ("/other", false)] {
        let chain = Chain::compile(vec![when(path, placed("f", again(no)))]).unwrap();
        let verdict = chain.rejudge(&before, &exchange, None, pending::<()>).await;
        assert_eq!(verdict.is_err(), ends, "{path}");
    }
}

/// Sends every request to another path.
struct Moves;

impl adit_filters::OnRequest for Moves {
    async fn on_request(
        &self,
        cx: &mut adit_filters::RequestCx<'_>,
    ) -> Result<Verdict, FilterError> {
        cx.head.uri = "/moved".parse().unwrap();
        Ok(Verdict::Continue)
    }
}
