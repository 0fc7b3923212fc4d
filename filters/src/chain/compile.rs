//! Filters in, chain out, or what keeps them from working together.

use std::sync::Arc;

use http::HeaderName;

use super::{
    CHAIN_FILTERS_MAX, CHAIN_SLOTS_MAX, Chain, ChainRow, Gate, Juror, Link, Logger, Placed,
};
use crate::carry::BODY_HOLD_MAX;
use crate::handshake::{Contradiction, Handshake};
use crate::hooks::Hooks;
use crate::meter::{Meter, Phase};
use crate::rejudge::{Again, Asked};
use crate::stage::Stage;
use crate::weight::Weight;
use crate::when::When;

/// Why filters cannot form a chain.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ChainError {
    /// A condition on a filter that decides before there is a request.
    #[error(
        "{origin}: `{name}` decides about connections, where nothing is requested yet; `when` cannot limit it: remove `when`"
    )]
    Conditional {
        /// The filter.
        name: Arc<str>,
        /// Its line.
        origin: String,
    },
    /// What filters demand of a handshake cannot all be had.
    #[error("{origin}: `{name}` and the filters before it cannot be met together: {contradiction}")]
    Handshake {
        /// The filter that demands one thing too many.
        name: Arc<str>,
        /// Its line.
        origin: String,
        /// What contradicts.
        contradiction: Contradiction,
    },
    /// A filter wants to hold more of a body than the chain may.
    #[error(
        "{origin}: `{name}` holds {wanted} bytes of a body; at most {BODY_HOLD_MAX} can be held"
    )]
    HoldsTooMuch {
        /// The filter.
        name: Arc<str>,
        /// Its line.
        origin: String,
        /// What it wants, in bytes.
        wanted: usize,
    },
    /// A filter at an earlier stage stands behind one at a later stage. The assembler sorts, so this is its mistake.
    #[error(
        "{origin}: `{name}` belongs to stage {stage} but follows `{after}` of stage {after_stage}"
    )]
    Misplaced {
        /// The filter.
        name: Arc<str>,
        /// Its line.
        origin: String,
        /// Its stage.
        stage: Stage,
        /// The one before it.
        after: Arc<str>,
        /// That one's stage.
        after_stage: Stage,
    },
    /// A filter leaves to later ones what none of them gives.
    #[error(
        "{origin}: `{name}` leaves requests without `{fact}` to a later filter, and none gives it always: add one, or set `missing = \"refuse\"`"
    )]
    Deferred {
        /// The filter.
        name: Arc<str>,
        /// Its line.
        origin: String,
        /// The fact.
        fact: &'static str,
    },
    /// Too many filters.
    #[error("a chain of {count} filters is too long; at most {CHAIN_FILTERS_MAX} can stand in one")]
    TooManyFilters {
        /// How many there are.
        count: usize,
    },
    /// Too many slots.
    #[error(
        "{origin}: with `{name}` the chain takes {count} slots; at most {CHAIN_SLOTS_MAX} can be taken"
    )]
    TooManySlots {
        /// The filter that took one too many.
        name: Arc<str>,
        /// Its line.
        origin: String,
        /// How many are taken.
        count: usize,
    },
    /// A fact is needed that no earlier filter gives whenever the needing one runs.
    #[error("{origin}: `{name}` needs the fact `{fact}`, {}", unmet(.late))]
    Unmet {
        /// The filter.
        name: Arc<str>,
        /// Its line.
        origin: String,
        /// The fact.
        fact: &'static str,
        /// A filter that gives it, but too late or not always, and that filter's line.
        late: Option<(Arc<str>, String)>,
    },
}

impl ChainError {
    /// The filter it is about, with its line; none if it is about all of them together.
    #[must_use]
    pub fn filter(&self) -> Option<(&Arc<str>, &str)> {
        match self {
            Self::TooManyFilters { .. } => None,
            Self::Conditional { name, origin }
            | Self::Deferred { name, origin, .. }
            | Self::Handshake { name, origin, .. }
            | Self::HoldsTooMuch { name, origin, .. }
            | Self::Misplaced { name, origin, .. }
            | Self::TooManySlots { name, origin, .. }
            | Self::Unmet { name, origin, .. } => Some((name, origin)),
        }
    }
}

fn unmet(late: &Option<(Arc<str>, String)>) -> String {
    match late {
        Some((name, origin)) => {
            format!(
                "which `{name}` at {origin} gives too late or only sometimes: put it earlier, without a narrower `when`"
            )
        }
        None => "which no filter gives: add one that does before it".to_owned(),
    }
}

impl Chain {
    /// Compiles filters that already stand in order.
    ///
    /// # Errors
    /// [`ChainError`]; nothing is reordered or left out.
    pub fn compile(filters: Vec<Placed>) -> Result<Self, ChainError> {
        Self::measured(filters, None)
    }

    /// The same; what the filters answer is measured, if there is a `meter`.
    ///
    /// # Errors
    /// [`ChainError`]; nothing is reordered or left out.
    pub fn measured(filters: Vec<Placed>, meter: Option<&dyn Meter>) -> Result<Self, ChainError> {
        let count = filters.len();
        let len = u8::try_from(count)
            .ok()
            .filter(|_| count <= CHAIN_FILTERS_MAX)
            .ok_or(ChainError::TooManyFilters { count })?;
        check_order(&filters)?;
        check_facts(&filters)?;
        check_deferred(&filters)?;
        let mut slots = 0usize;
        let mut hold = 0usize;
        for placed in &filters {
            check_alone(placed, &mut slots, &mut hold)?;
        }
        let handshake = handshake(&filters)?;
        Ok(Self {
            handshake,
            len,
            hold,
            ..lists(filters, meter)
        })
    }
}

/// What they demand together. A filter on trial demands nothing.
fn handshake(filters: &[Placed]) -> Result<Option<Handshake>, ChainError> {
    let mut sum: Option<Handshake> = None;
    for placed in filters.iter().filter(|placed| !placed.dry_run) {
        let Some(demand) = placed.hooks.demands() else {
            continue;
        };
        let sum = sum.get_or_insert_default();
        sum.tighten(demand)
            .map_err(|contradiction| ChainError::Handshake {
                name: placed.name.clone(),
                origin: placed.origin.clone(),
                contradiction,
            })?;
    }
    Ok(sum)
}

fn check_order(filters: &[Placed]) -> Result<(), ChainError> {
    for (before, placed) in filters.iter().zip(filters.iter().skip(1)) {
        if placed.hooks.place() < before.hooks.place() {
            return Err(ChainError::Misplaced {
                name: placed.name.clone(),
                origin: placed.origin.clone(),
                stage: placed.hooks.stage,
                after: before.name.clone(),
                after_stage: before.hooks.stage,
            });
        }
    }
    Ok(())
}

fn check_facts(filters: &[Placed]) -> Result<(), ChainError> {
    for (at, placed) in filters.iter().enumerate() {
        for &fact in &placed.hooks.needs {
            let gives = |other: &&Placed| other.hooks.gives.contains(&fact);
            if !filters
                .iter()
                .take(at)
                .filter(gives)
                .any(|giver| always_before(giver, placed))
            {
                let late = filters
                    .iter()
                    .enumerate()
                    .filter(|(other, _)| *other != at)
                    .map(|(_, other)| other)
                    .find(gives)
                    .map(|other| (other.name.clone(), other.origin.clone()));
                return Err(ChainError::Unmet {
                    name: placed.name.clone(),
                    origin: placed.origin.clone(),
                    fact,
                    late,
                });
            }
        }
    }
    Ok(())
}

fn check_deferred(filters: &[Placed]) -> Result<(), ChainError> {
    // A filter on trial leaves nothing to others: it lets everything pass.
    let enforced = filters.iter().enumerate().filter(|(_, one)| !one.dry_run);
    for (at, placed) in enforced {
        for &fact in &placed.hooks.defers {
            let mut later = filters.iter().skip(at + 1);
            if !later.any(|other| other.hooks.gives.contains(&fact) && always_before(other, placed))
            {
                return Err(ChainError::Deferred {
                    name: placed.name.clone(),
                    origin: placed.origin.clone(),
                    fact,
                });
            }
        }
    }
    Ok(())
}

/// An observer may fail and still be passed over, a filter on trial gives nothing; a conditional filter gives only where its condition holds.
fn always_before(giver: &Placed, needer: &Placed) -> bool {
    !giver.observer
        && !giver.dry_run
        && (is_unconditional(&giver.when) || giver.when == needer.when)
}

fn is_unconditional(when: &Option<When>) -> bool {
    when.as_ref().is_none_or(|when| *when == When::default())
}

fn check_alone(placed: &Placed, slots: &mut usize, hold: &mut usize) -> Result<(), ChainError> {
    let Placed {
        name,
        hooks,
        origin,
        ..
    } = placed;
    let early =
        hooks.handshake.is_some() || hooks.connect.is_some() || hooks.stage == Stage::Network;
    if early && !is_unconditional(&placed.when) {
        return Err(ChainError::Conditional {
            name: name.clone(),
            origin: origin.clone(),
        });
    }
    *slots = slots.saturating_add(hooks.slots);
    if *slots > CHAIN_SLOTS_MAX {
        return Err(ChainError::TooManySlots {
            name: name.clone(),
            origin: origin.clone(),
            count: *slots,
        });
    }
    if let Some(hook) = &hooks.request_body {
        let wanted = hook.holds();
        if wanted > BODY_HOLD_MAX {
            return Err(ChainError::HoldsTooMuch {
                name: name.clone(),
                origin: origin.clone(),
                wanted,
            });
        }
        if !placed.dry_run {
            *hold = wanted.max(*hold);
        }
    }
    Ok(())
}

fn lists(filters: Vec<Placed>, meter: Option<&dyn Meter>) -> Chain {
    let mut rows = Vec::with_capacity(filters.len());
    let (mut connect, mut request, mut response, mut log) = (vec![], vec![], vec![], vec![]);
    let (mut request_body, mut response_body, mut stream, mut datagram) =
        (vec![], vec![], vec![], vec![]);
    let mut jurors = Vec::new();
    let mut conditional = false;
    let mut logged = [vec![], vec![]];
    for (at, placed) in (0u8..).zip(filters) {
        let Placed {
            name,
            hooks,
            observer,
            dry_run,
            when,
            origin,
            optional,
        } = placed;
        let when = when.filter(|when| *when != When::default());
        conditional |= when.is_some() && !dry_run;
        let weight = Weight::new(at, observer, dry_run);
        let weight_in = |phase| weight.counted(meter.map(|meter| meter.tally(&name, phase)));
        rows.push(ChainRow {
            name: name.clone(),
            stage: hooks.stage,
            origin,
            phases: hooks.phases(),
            when: when.as_ref().map(ToString::to_string),
            optional,
            observer,
            dry_run,
        });
        if !dry_run {
            let juror = |asked| Juror {
                name: name.clone(),
                weight: weight.clone(),
                when: when.clone(),
                asked,
            };
            jurors.extend(asked_again(&hooks, observer).into_iter().map(juror));
        }
        for (all, asked) in logged.iter_mut().zip(hooks.logged) {
            all.extend(asked);
        }
        macro_rules! link {
            ($($list:ident: $phase:ident),* $(,)?) => {
                $($list.extend(hooks.$list.map(|hook| Link {
                    at,
                    name: name.clone(),
                    weight: weight_in(Phase::$phase),
                    hook,
                }));)*
            };
        }
        link!(
            connect: Connect,
            response: Response,
            request_body: RequestBody,
            response_body: ResponseBody,
            stream: Stream,
            datagram: Datagram,
        );
        log.extend(hooks.log.map(|hook| Logger {
            at,
            when: when.clone(),
            hook,
        }));
        if hooks.request.is_some() || when.is_some() {
            let weight = match &hooks.request {
                Some(_) => weight_in(Phase::Request),
                None => weight,
            };
            request.push(Gate {
                at,
                name,
                weight,
                when,
                hook: hooks.request,
            });
        }
    }
    // Answers travel outwards: the innermost filter sees them first.
    response.reverse();
    response_body.reverse();
    Chain {
        connect: connect.into(),
        request: request.into(),
        response: response.into(),
        request_body: request_body.into(),
        response_body: response_body.into(),
        stream: stream.into(),
        datagram: datagram.into(),
        log: log.into(),
        jurors: jurors.into(),
        rows: rows.into(),
        logged: logged.map(|mut names: Vec<HeaderName>| {
            names.sort_by(|one, other| one.as_str().cmp(other.as_str()));
            names.dedup();
            names.into()
        }),
        conditional,
        ..Chain::default()
    }
}

/// In what ways a filter is asked about open exchanges. An observer that cannot be asked is passed over.
fn asked_again(hooks: &Hooks, observer: bool) -> Vec<Asked> {
    match &hooks.rejudge {
        Again::Never => Vec::new(),
        Again::Hook(hook) => vec![Asked::Hook(Arc::clone(hook))],
        Again::ByPhase => {
            let grants = hooks.stage == Stage::Upgrade;
            let connect = hooks.connect.clone().map(Asked::Connect);
            let request = (hooks.request.is_some() && (grants || !observer))
                .then_some(Asked::Stands { grants });
            connect.into_iter().chain(request).collect()
        }
    }
}
