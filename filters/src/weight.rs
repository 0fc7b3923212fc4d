//! What a filter said, and what its word counts for.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use crate::chain::Refusal;
use crate::meter::{Answered, Ear, Tally};
use crate::redact;
use crate::rejudge::Stay;
use crate::verdict::{Admission, FilterError, Passage, Reason, Revision, Upgrade, Verdict};

/// How often each filter on trial is quoted in the log; afterwards, whenever the number has doubled.
const QUOTED_MAX: u64 = 100;

/// What a filter said, whatever the phase.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Said {
    /// Nothing against it.
    Pass,
    /// It may leave HTTP in this way.
    Upgrade(Upgrade),
    /// It is answered with this status in the service's place.
    Respond(StatusCode),
    /// The visitor is sent elsewhere.
    Redirect(StatusCode, HeaderValue),
    /// No, and for how long if the filter can tell.
    Refuse(Reason, Option<Duration>),
    /// It is closed without a word.
    Close,
    /// The filter could not decide.
    Fail(Reason, String),
}

impl Said {
    /// As a refusal by this filter, if it keeps the exchange from passing.
    pub(crate) fn refusal(self, by: &Arc<str>) -> Option<Refusal> {
        let because = |detail: String| Refusal::new(Reason::Policy, by, Some(detail));
        Some(match self {
            Self::Pass | Self::Upgrade(_) => return None,
            Self::Refuse(reason, None) => Refusal::new(reason, by, None),
            Self::Refuse(reason, Some(wait)) => Refusal::new(reason, by, None).retry_after(wait),
            Self::Fail(reason, detail) => Refusal::new(reason, by, Some(detail)),
            other => because(other.to_string()),
        })
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("passes"),
            Self::Upgrade(upgrade) => write!(f, "grants {}", upgrade.as_str()),
            Self::Respond(status) => write!(f, "answers {} itself", status.as_u16()),
            Self::Redirect(status, to) => {
                let to = String::from_utf8_lossy(to.as_bytes());
                write!(f, "redirects with {} to {to}", status.as_u16())
            }
            Self::Refuse(reason, None) => write!(f, "refuses: {reason}"),
            Self::Refuse(reason, Some(wait)) => {
                write!(f, "refuses: {reason}, for {}s", wait.as_secs_f32().ceil())
            }
            Self::Close => f.write_str("closes without a word"),
            Self::Fail(_, detail) => write!(f, "cannot decide: {detail}"),
        }
    }
}

/// The answer of one phase.
pub(crate) trait Answer {
    fn said(&self) -> Said;
}

/// What a filter said in a phase, answer or error.
pub(crate) fn said<A: Answer>(answer: &Result<A, FilterError>) -> Said {
    match answer {
        Ok(answer) => answer.said(),
        Err(error) => Said::Fail(error.reason(), error.detail()),
    }
}

impl Answer for Admission {
    fn said(&self) -> Said {
        match self {
            Self::Admit => Said::Pass,
            Self::Refuse(reason) => Said::Refuse(*reason, None),
            Self::RefuseFor(reason, wait) => Said::Refuse(*reason, Some(*wait)),
            Self::Close => Said::Close,
        }
    }
}

impl Answer for Verdict {
    fn said(&self) -> Said {
        match self {
            Self::Continue => Said::Pass,
            Self::Upgrade(upgrade) => Said::Upgrade(*upgrade),
            Self::Respond(reply) => Said::Respond(reply.status),
            Self::Redirect(to) => Said::Redirect(to.status, to.location.clone()),
            Self::Refuse(reason) => Said::Refuse(*reason, None),
            Self::RefuseFor(reason, wait) => Said::Refuse(*reason, Some(*wait)),
            Self::Close => Said::Close,
        }
    }
}

impl Answer for Revision {
    fn said(&self) -> Said {
        match self {
            Self::Keep => Said::Pass,
            Self::Replace(reply) => Said::Respond(reply.status),
            Self::Close => Said::Close,
        }
    }
}

impl Answer for Stay {
    fn said(&self) -> Said {
        match self {
            Self::Yes | Self::Upgraded => Said::Pass,
            Self::No(reason) => Said::Refuse(*reason, None),
        }
    }
}

impl Answer for Passage {
    fn said(&self) -> Said {
        match self {
            Self::Forward | Self::Replace | Self::Pace(_) | Self::Hold | Self::Discard => {
                Said::Pass
            }
            Self::Refuse(reason) => Said::Refuse(*reason, None),
            Self::Respond(reply) => Said::Respond(reply.status),
            Self::Close => Said::Close,
        }
    }
}

/// What a filter's word counts for, and where it is counted.
#[derive(Clone)]
pub(crate) struct Weight {
    at: u8,
    force: Force,
    tally: Option<Arc<dyn Tally>>,
}

#[derive(Clone)]
enum Force {
    /// It decides, and its failure to decide refuses.
    Full,
    /// It decides; its failure to is noted, undone and passed over.
    Observer,
    /// It is on trial: whatever it does is undone, and what it would have refused is noted.
    DryRun(Arc<AtomicU64>),
}

/// What comes of a filter's word.
pub(crate) enum Weighed<A> {
    /// It counts.
    Counts(Result<A, FilterError>),
    /// It does not: what the filter changed is undone. The note, if there is anything to tell, is in the log already.
    Undone(Option<Note>),
}

/// A word that did not count.
#[derive(Clone, Debug)]
pub(crate) enum Note {
    /// An observer failed.
    Lapse(Refusal),
    /// A filter on trial would have refused.
    DryRun(Refusal),
}

impl Weight {
    pub(crate) fn new(at: u8, observer: bool, dry_run: bool) -> Self {
        let force = match (observer, dry_run) {
            (_, true) => Force::DryRun(Arc::default()),
            (true, false) => Force::Observer,
            (false, false) => Force::Full,
        };
        Self {
            at,
            force,
            tally: None,
        }
    }

    /// The same, its words counted there.
    pub(crate) fn counted(&self, tally: Option<Arc<dyn Tally>>) -> Self {
        Self {
            tally,
            ..self.clone()
        }
    }

    /// Whether what the filter changes may have to be undone.
    pub(crate) fn may_undo(&self) -> bool {
        !matches!(self.force, Force::Full)
    }

    pub(crate) fn is_dry_run(&self) -> bool {
        matches!(self.force, Force::DryRun(_))
    }

    /// An ear for this filter and those after it.
    pub(crate) fn ear(first: Option<&Self>) -> Ear<'static> {
        Ear::measuring(first.and_then(|weight| weight.tally.as_ref()))
    }

    /// Hears the answer of a filter whose word counts.
    pub(crate) fn weigh_full<A: Answer>(
        &self,
        answer: Result<A, FilterError>,
        ear: &mut Ear<'_>,
    ) -> Result<A, FilterError> {
        let said = said(&answer);
        ear.heard(self.at, self.tally.as_ref(), Answered::from(&said), said);
        answer
    }

    pub(crate) fn weigh<A: Answer>(
        &self,
        answer: Result<A, FilterError>,
        by: &Arc<str>,
        ear: &mut Ear<'_>,
    ) -> Weighed<A> {
        let said = said(&answer);
        let (weighed, answered) = match (&self.force, &answer) {
            (Force::Full, _) | (Force::Observer, Ok(_)) => {
                (Weighed::Counts(answer), Answered::from(&said))
            }
            (Force::Observer, Err(error)) => {
                let refusal = Refusal::new(error.reason(), by, Some(error.detail()));
                if !ear.is_of_a_trial() {
                    report_lapse(&refusal);
                }
                let note = Some(Note::Lapse(refusal));
                (Weighed::Undone(note), Answered::PassedOver)
            }
            (Force::DryRun(count), _) => match said.clone().refusal(by) {
                None => (Weighed::Undone(None), Answered::Pass),
                Some(refusal) => {
                    if !ear.is_of_a_trial() {
                        report_trial(&refusal, count);
                    }
                    let note = Some(Note::DryRun(refusal));
                    (Weighed::Undone(note), Answered::WouldRefuse)
                }
            },
        };
        ear.heard(self.at, self.tally.as_ref(), answered, said);
        weighed
    }
}

/// Tells the operator that an observer failed. It may do so for every request: the first time, and each time the
/// number of failures has doubled, is a warning.
fn report_lapse(refusal: &Refusal) {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let total = COUNT.fetch_add(1, Ordering::Relaxed).saturating_add(1);
    let filter = refusal.by.as_deref().unwrap_or_default();
    // It may quote what a visitor sent.
    let detail = redact::field(refusal.detail.as_deref().unwrap_or_default());
    let detail = &*detail;
    if total.is_power_of_two() {
        tracing::warn!(
            filter,
            detail,
            total,
            "an observer could not decide and was passed over"
        );
    } else {
        tracing::debug!(
            filter,
            detail,
            total,
            "an observer could not decide and was passed over"
        );
    }
}

/// Tells the operator what a filter on trial would have refused. Every one is in the exchange, for filters of the
/// log; the engine's own log must not grow with what visitors do.
fn report_trial(refusal: &Refusal, count: &AtomicU64) {
    let total = count.fetch_add(1, Ordering::Relaxed).saturating_add(1);
    let filter = refusal.by.as_deref().unwrap_or_default();
    // It may quote what a visitor sent.
    let detail = redact::field(refusal.detail.as_deref().unwrap_or_default());
    let detail = &*detail;
    let reason = refusal.reason.as_str();
    if total <= QUOTED_MAX || total.is_power_of_two() {
        tracing::info!(filter, reason, detail, total, "dry-run: would be refused");
    } else {
        tracing::debug!(filter, reason, detail, total, "dry-run: would be refused");
    }
}
