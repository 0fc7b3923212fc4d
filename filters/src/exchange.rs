//! What a filter may see and keep while one exchange lasts.

use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::uri::PathAndQuery;

use crate::chain::Refusal;
use crate::connection::Connection;
use crate::context::Direction;
use crate::facts::{Established, Fact, Facts};
use crate::slots::{Slot, Slots};
use crate::verdict::Reason;
use crate::weight::Note;

/// One request and its response, or one flow.
///
/// Mutable while the request goes down the chain; afterwards shared behind an `Arc` by both directions, read-only.
pub struct Exchange {
    connection: Arc<Connection>,
    facts: Facts,
    slots: Slots,
    /// Which filters' `when` did not match: they take no part in this exchange.
    skipped: Skipped,
    /// What was asked for, as received: conditions of filters that judge the exchange later are held against it.
    target: Option<PathAndQuery>,
    /// The head of the request was known to be all of it.
    bodiless: bool,
    /// What the service was asked for, where filters have changed it.
    rewritten: Option<PathAndQuery>,
    /// How many filters the response has to pass on its way up: those that let the request in, less those further
    /// in than the filter that answered itself.
    pub(crate) inward: AtomicU8,
    deadline: Option<Deadline>,
    left: Mutex<Vec<Left>>,
    notes: Mutex<Vec<Note>>,
}

/// When an exchange ends, whatever it is doing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Deadline {
    /// How long after the filter said so.
    pub after: Duration,
    /// As what it is then logged, and answered if nothing has been.
    pub refusal: Refusal,
}

/// A byte hook's state after its direction ended, for the log.
pub(crate) struct Left {
    pub(crate) at: u8,
    pub(crate) direction: Direction,
    pub(crate) state: Box<dyn Any + Send>,
}

impl Exchange {
    pub(crate) fn new(connection: Arc<Connection>, filters: u8) -> Self {
        Self {
            connection,
            facts: Facts::default(),
            slots: Slots::default(),
            skipped: Skipped::default(),
            target: None,
            bodiless: false,
            rewritten: None,
            // A flow without a request phase has been let in by everyone who was asked: the connect hooks.
            inward: AtomicU8::new(filters),
            deadline: None,
            left: Mutex::default(),
            notes: Mutex::default(),
        }
    }

    /// The (connection, tunnel) this exchange runs on.
    #[must_use]
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// A fact of this exchange, else of its connection.
    #[must_use]
    pub fn fact<F: Fact>(&self) -> Option<&F> {
        self.facts.get().or_else(|| self.connection.fact())
    }

    /// What was established for this exchange itself.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Establishes a fact for this exchange.
    ///
    /// # Errors
    /// [`Established`] if the exchange or its connection already has it.
    pub fn establish<F: Fact>(&mut self, fact: F) -> Result<(), Established> {
        if self.connection.fact::<F>().is_some() {
            return Err(Established { fact: F::NAME });
        }
        self.facts.establish(fact)
    }

    /// What this filter put into its slot.
    #[must_use]
    pub fn slot<T: Send + Sync + 'static>(&self, slot: Slot<T>) -> Option<&T> {
        self.slots.get(slot)
    }

    /// The same, to be changed; only while the request goes down the chain.
    #[must_use]
    pub fn slot_mut<T: Send + Sync + 'static>(&mut self, slot: Slot<T>) -> Option<&mut T> {
        self.slots.get_mut(slot)
    }

    /// Puts a value into this filter's slot, replacing an earlier one.
    pub fn fill<T: Send + Sync + 'static>(&mut self, slot: Slot<T>, value: T) {
        self.slots.fill(slot, value);
    }

    /// Whether the head of the request was known to be all of it. If not, a body may follow, or an end alone. How it is
    /// framed cannot be seen in the head.
    #[must_use]
    pub fn is_bodiless(&self) -> bool {
        self.bodiless
    }

    /// Says that the head of the request is all of it; for whoever has received it.
    pub fn set_bodiless(&mut self, bodiless: bool) {
        self.bodiless = bodiless;
    }

    /// Ends the exchange after this time, idle or not, for this reason. Of several ends the first counts. Only while
    /// the request goes down the chain.
    pub fn end_after(&mut self, after: Duration, reason: Reason) {
        let known = self.deadline.as_ref().map(|deadline| deadline.after);
        if known.is_none_or(|known| after < known) {
            let refusal = Refusal::edge(reason);
            self.deadline = Some(Deadline { after, refusal });
        }
    }

    /// When the exchange has to end, if a filter said so.
    #[must_use]
    pub fn deadline(&self) -> Option<&Deadline> {
        self.deadline.as_ref()
    }

    /// Says who has set the deadline, if that is not known yet.
    pub(crate) fn sign_deadline(&mut self, by: &Arc<str>) {
        if let Some(deadline) = &mut self.deadline {
            let allowed = deadline.after;
            let refusal = &mut deadline.refusal;
            refusal.by.get_or_insert_with(|| {
                refusal.detail = Some(format!("not over after {allowed:?}"));
                by.clone()
            });
        }
    }

    pub(crate) fn set_deadline(&mut self, deadline: Option<Deadline>) {
        self.deadline = deadline;
    }

    /// Observers that failed and were passed over, on the connection and on this exchange.
    #[must_use]
    pub fn lapses(&self) -> Vec<Refusal> {
        self.noted(|note| match note {
            Note::Lapse(refusal) => Some(refusal.clone()),
            Note::DryRun(_) => None,
        })
    }

    /// What filters on trial would have refused, of the connection and of this exchange.
    #[must_use]
    pub fn dry_refusals(&self) -> Vec<Refusal> {
        self.noted(|note| match note {
            Note::DryRun(refusal) => Some(refusal.clone()),
            Note::Lapse(_) => None,
        })
    }

    fn noted(&self, of: impl Fn(&Note) -> Option<Refusal>) -> Vec<Refusal> {
        let own = lock(&self.notes);
        self.connection
            .notes()
            .iter()
            .chain(own.iter())
            .filter_map(of)
            .collect()
    }

    pub(crate) fn note(&self, note: Note) {
        lock(&self.notes).push(note);
    }

    pub(crate) fn leave(&self, left: Left) {
        lock(&self.left).push(left);
    }

    pub(crate) fn left(&self) -> MutexGuard<'_, Vec<Left>> {
        lock(&self.left)
    }

    pub(crate) fn set_target(&mut self, target: Option<PathAndQuery>) {
        self.target = target;
    }

    pub(crate) fn set_rewritten(&mut self, target: Option<&PathAndQuery>) {
        self.rewritten = target
            .filter(|now| Some(*now) != self.target.as_ref())
            .cloned();
    }

    /// The paths that were asked for, by the visitor and in the end; `/` where none was.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        let target = self.target.as_ref().map_or("/", PathAndQuery::path);
        let rewritten = self.rewritten.as_ref().map(PathAndQuery::path);
        std::iter::once(target).chain(rewritten)
    }

    pub(crate) fn skip(&mut self, at: u8) {
        self.skipped.set(at);
    }

    pub(crate) fn skips(&self, at: u8) -> bool {
        self.skipped.has(at)
    }

    pub(crate) fn facts_mut(&mut self) -> &mut Facts {
        &mut self.facts
    }

    pub(crate) fn inward(&self) -> u8 {
        self.inward.load(Ordering::Acquire)
    }

    pub(crate) fn set_inward(&self, at: u8) {
        self.inward.store(at, Ordering::Release);
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("connection", &self.connection.info().id)
            .field("tunnel", &self.connection.tunnel().id)
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

/// One bit per position in a chain.
#[derive(Clone, Copy, Debug, Default)]
struct Skipped([u64; 4]);

impl Skipped {
    fn set(&mut self, at: u8) {
        if let Some(word) = self.0.get_mut(usize::from(at / 64)) {
            *word |= 1 << (at % 64);
        }
    }

    fn has(&self, at: u8) -> bool {
        self.0
            .get(usize::from(at / 64))
            .is_some_and(|word| word & (1 << (at % 64)) != 0)
    }
}

/// Data behind these locks stays whole when a holder panics: every update is one push.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
