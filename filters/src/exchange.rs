//! What a filter may see and keep while one exchange lasts.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::chain::Refusal;
use crate::connection::Connection;
use crate::context::Direction;
use crate::facts::{Established, Fact, Facts};
use crate::weight::Note;

/// Key to one filter instance's own cell in every [`Exchange`]; taken from [`Env::slot`](crate::Env::slot).
pub struct Slot<T> {
    id: u64,
    of: PhantomData<fn() -> T>,
}

impl<T> Slot<T> {
    /// Slots are told apart across the whole process, so that filters of a policy and of a tunnel never share one.
    pub(crate) fn unique() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            of: PhantomData,
        }
    }
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Slot<T> {}
impl<T> fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slot({})", self.id)
    }
}

/// One request and its response, or one flow.
///
/// Mutable while the request goes down the chain; afterwards shared behind an `Arc` by both directions, read-only.
pub struct Exchange {
    connection: Arc<Connection>,
    facts: Facts,
    slots: Vec<(u64, Box<dyn Any + Send + Sync>)>,
    /// Which filters' `when` did not match: they take no part in this exchange.
    skipped: Skipped,
    /// How many filters the response has to pass on its way up: those that let the request in, less those further
    /// in than the filter that answered itself.
    pub(crate) inward: AtomicU8,
    left: Mutex<Vec<Left>>,
    notes: Mutex<Vec<Note>>,
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
            slots: Vec::new(),
            skipped: Skipped::default(),
            // A flow without a request phase has been let in by everyone who was asked: the connect hooks.
            inward: AtomicU8::new(filters),
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
        self.slots
            .iter()
            .find(|(id, _)| *id == slot.id)
            .and_then(|(_, value)| value.downcast_ref())
    }

    /// The same, to be changed; only while the request goes down the chain.
    #[must_use]
    pub fn slot_mut<T: Send + Sync + 'static>(&mut self, slot: Slot<T>) -> Option<&mut T> {
        self.slots
            .iter_mut()
            .find(|(id, _)| *id == slot.id)
            .and_then(|(_, value)| value.downcast_mut())
    }

    /// Puts a value into this filter's slot, replacing an earlier one.
    pub fn fill<T: Send + Sync + 'static>(&mut self, slot: Slot<T>, value: T) {
        match self.slots.iter_mut().find(|(id, _)| *id == slot.id) {
            Some((_, old)) => *old = Box::new(value),
            None => self.slots.push((slot.id, Box::new(value))),
        }
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
