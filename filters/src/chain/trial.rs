//! What each filter would say to a request that nobody made.

use std::sync::Arc;

use bytes::Bytes;
use http::request;

use super::{Chain, ChainRow, Connected, Decision};
use crate::carry::Passed;
use crate::connection::{ConnectionInfo, TunnelInfo};
use crate::facts::{Fact, Facts};
use crate::meter::{Answered, Ear, Phase, Told};
use crate::verdict::Upgrade;
use crate::weight::Said;

/// Established before the first filter is asked about what does not happen now: in a [`trial`](Chain::trial), of which
/// nothing comes, and when an open exchange is [judged again](Chain::rejudge). A filter that counts must not count it,
/// and one that remembers must not remember it.
#[derive(Clone, Copy, Debug)]
pub struct Rehearsal;

impl Fact for Rehearsal {
    const NAME: &'static str = "rehearsal";
}

/// What came of asking every filter about one request.
#[derive(Debug)]
pub struct Trial {
    /// Each filter in order, once for each phase in which it was or would have been asked.
    pub rows: Vec<TrialRow>,
    /// What the chain would decide.
    pub decision: Decision,
}

/// One filter in one phase of a trial.
#[derive(Clone, Debug)]
pub struct TrialRow {
    /// The filter.
    pub filter: ChainRow,
    /// The phase; none for a filter that says nothing about requests on their way in.
    pub phase: Option<Phase>,
    /// What it said.
    pub heard: Heard,
}

/// What was heard of a filter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Heard {
    /// This, and it counts.
    Said(Said),
    /// This, and it does not count: the filter is on trial, or what it fails to decide passes.
    WouldSay(Said),
    /// Its condition leaves this request out.
    Skipped,
    /// Nothing: an earlier one had decided already.
    NotAsked,
    /// Nothing: it takes no part in decisions about requests.
    NoPart,
}

impl Chain {
    /// Asks the filters about a connection and a request that nobody made, and about its `body` if there is one. No
    /// exchange comes of it: nothing is measured or logged, and filters know by [`Rehearsal`].
    pub async fn trial(
        &self,
        info: Arc<ConnectionInfo>,
        tunnel: Arc<TunnelInfo>,
        head: &mut request::Parts,
        asked: Option<Upgrade>,
        body: Option<Bytes>,
    ) -> Trial {
        let mut told = [Vec::new(), Vec::new(), Vec::new()];
        let [connect, request, request_body] = &mut told;
        let mut facts = Facts::default();
        // The first fact of all: nobody can have established it.
        let _is_new = facts.establish(Rehearsal);
        let mut ear = Ear::writing(connect);
        let mut skipped = Vec::new();
        let has_body = body.is_some();
        let decision = match self.connect_heard(info, tunnel, facts, &mut ear).await {
            Connected::Refused { refusal, .. } => Decision::Refuse(refusal),
            Connected::Close { by, .. } => Decision::Close { by },
            Connected::Admitted(connection) => {
                let mut exchange = self.exchange(connection);
                exchange.set_bodiless(!has_body);
                let mut ear = Ear::writing(request);
                let decision = self
                    .request_heard(head, &mut exchange, asked, &mut ear)
                    .await;
                skipped = (0..self.len).filter(|at| exchange.skips(*at)).collect();
                let passes = matches!(decision, Decision::Pass { .. });
                let flow = body
                    .filter(|_| passes)
                    .and_then(|body| Some((self.request_body(&exchange)?, body)));
                match flow {
                    Some((mut flow, body)) => {
                        let mut ear = Ear::writing(request_body);
                        stopped(flow.pass_heard(&exchange, body, true, None, &mut ear))
                            .unwrap_or(decision)
                    }
                    None => decision,
                }
            }
        };
        Trial {
            rows: self.trial_rows(&told, &skipped, has_body),
            decision,
        }
    }

    fn trial_rows(
        &self,
        [connect, request, request_body]: &[Vec<Told>; 3],
        skipped: &[u8],
        has_body: bool,
    ) -> Vec<TrialRow> {
        let mut rows = Vec::new();
        let phases = [
            (Phase::Connect, connect),
            (Phase::Request, request),
            (Phase::RequestBody, request_body),
        ];
        // Who looks at bodies has a part, if only there were one.
        let mut told_any = vec![false; self.rows.len()];
        for (phase, told) in phases {
            for ((at, row), told_any) in (0u8..).zip(&self.rows).zip(&mut told_any) {
                if !row.phases.contains(&phase.as_str()) {
                    continue;
                }
                *told_any = true;
                if phase == Phase::RequestBody && !has_body {
                    continue;
                }
                let heard = match told.iter().find(|told| told.at == at) {
                    Some(told) => Heard::from(told),
                    None if skipped.contains(&at) => Heard::Skipped,
                    None => Heard::NotAsked,
                };
                rows.push(TrialRow {
                    filter: row.clone(),
                    phase: Some(phase),
                    heard,
                });
            }
        }
        let silent = self.rows.iter().zip(told_any).filter(|(_, told)| !told);
        rows.extend(silent.map(|(row, _)| TrialRow {
            filter: row.clone(),
            phase: None,
            heard: Heard::NoPart,
        }));
        rows
    }
}

impl From<&Told> for Heard {
    fn from(told: &Told) -> Self {
        let said = told.said.clone();
        match told.answered {
            Answered::WouldRefuse | Answered::PassedOver => Self::WouldSay(said),
            _ => Self::Said(said),
        }
    }
}

/// What filters that saw the whole body make of it, if they stop it.
fn stopped(passed: Passed) -> Option<Decision> {
    match passed {
        Passed::Refuse(refusal) => Some(Decision::Refuse(refusal)),
        Passed::Respond { reply, by } => Some(Decision::Respond { reply, by }),
        Passed::Close { by } => Some(Decision::Close { by }),
        _ => None,
    }
}
