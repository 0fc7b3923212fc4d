//! `challenge`: only browsers that have done a moment's work, unless somebody has proved to be somebody.

use std::sync::Arc;

use adit_config::{Problem, Section};
use adit_filters::{
    Env, Fact, Factory, FilterError, Hooks, Identity, OnRejudge, OnRequest, Reason, RejudgeCx,
    RequestCx, Stage, Stay, Verdict,
};
use http::Method;
use serde::Deserialize;

use super::gate::Gate;
use crate::Services;
use crate::identity::token::TokenFilter;

/// What `use = "…"` calls the filter.
pub const NAME: &str = "challenge";

/// The fact's name.
const PASSED: &str = "challenge-passed";

/// Behind the filters over tokens, before the one that asks to sign in (edge-behaviour §4, F10).
const RANK: u8 = 1;

/// The filter has no settings of its own: how hard it is is the engine's, since browsers work on the engine's host.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {}

/// Makes `challenge` filters that share one gate.
#[derive(Debug)]
pub struct ChallengeFactory {
    services: Services,
}

impl ChallengeFactory {
    /// Filters send browsers to the gate of these services.
    #[must_use]
    pub fn new(services: Services) -> Self {
        Self { services }
    }
}

impl Factory for ChallengeFactory {
    fn name(&self) -> &str {
        NAME
    }

    fn stage(&self) -> Stage {
        Stage::Identity
    }

    fn build(&self, section: &Section, env: &mut Env) -> Result<Hooks, Vec<Problem>> {
        let Config {} = section.deserialize()?;
        let Some(gate) = self.services.gate.clone() else {
            let message = "challenges are off, remove `challenge.enabled = false`";
            return Err(vec![section.problem(None, message)]);
        };
        let filter = Arc::new(Challenge {
            gate,
            tokens: TokenFilter::new(Arc::clone(&self.services.authority), env),
        });
        Ok(Hooks::new()
            .at(Stage::Identity)
            .rank(RANK)
            .request(Arc::clone(&filter))
            .rejudge(filter))
    }
}

/// The filter.
struct Challenge {
    gate: Arc<Gate>,
    /// Who has a token that allows the request needs no challenge.
    tokens: TokenFilter,
}

/// The visitor has done its work.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Passed;

impl Fact for Passed {
    const NAME: &'static str = PASSED;
}

impl OnRequest for Challenge {
    async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        if cx.exchange.fact::<Identity>().is_some() || self.tokens.welcome(cx)? {
            return Ok(Verdict::Continue);
        }
        let connection = Arc::clone(cx.exchange.connection());
        let (tunnel, peer) = (connection.tunnel(), connection.info().peer.ip());
        if self.gate.has_pass(&cx.head.headers, tunnel, peer) {
            // Established already if the project asks too.
            let _ = cx.exchange.establish(Passed);
            return Ok(Verdict::Continue);
        }
        // Only a page that is opened can be left for another; a form's body, or a socket, would be lost on the way.
        if cx.upgrade.is_some() || !matches!(cx.head.method, Method::GET | Method::HEAD) {
            return Ok(Verdict::Refuse(Reason::Challenge));
        }
        match self.gate.ask(cx.head, tunnel, peer) {
            Some(reply) => Ok(Verdict::Respond(Box::new(reply.because(Reason::Challenge)))),
            None => Err(FilterError::Unavailable {
                service: "challenge page",
                source: None,
            }),
        }
    }
}

impl OnRejudge for Challenge {
    fn on_rejudge(&self, cx: &mut RejudgeCx<'_>) -> Result<Stay, FilterError> {
        let stays = cx.facts.get::<Identity>().is_some()
            || self.tokens.still_welcome(cx) == Some(true)
            || cx.exchange.fact::<Passed>().is_some();
        Ok(match stays {
            true => Stay::Yes,
            false => Stay::No(Reason::Challenge),
        })
    }
}
