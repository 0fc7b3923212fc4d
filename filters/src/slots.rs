//! Cells in which one filter instance keeps what is its own.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

/// Key to one filter instance's own cell in every [`Connection`](crate::Connection) and every
/// [`Exchange`](crate::Exchange); taken from [`Env::slot`](crate::Env::slot).
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

/// The cells of one connection or exchange.
#[derive(Default)]
pub(crate) struct Slots(Vec<(u64, Box<dyn Any + Send + Sync>)>);

impl Slots {
    pub(crate) fn get<T: Send + Sync + 'static>(&self, slot: Slot<T>) -> Option<&T> {
        self.0
            .iter()
            .find(|(id, _)| *id == slot.id)
            .and_then(|(_, value)| value.downcast_ref())
    }

    pub(crate) fn get_mut<T: Send + Sync + 'static>(&mut self, slot: Slot<T>) -> Option<&mut T> {
        self.0
            .iter_mut()
            .find(|(id, _)| *id == slot.id)
            .and_then(|(_, value)| value.downcast_mut())
    }

    pub(crate) fn fill<T: Send + Sync + 'static>(&mut self, slot: Slot<T>, value: T) {
        match self.0.iter_mut().find(|(id, _)| *id == slot.id) {
            Some((_, old)) => *old = Box::new(value),
            None => self.0.push((slot.id, Box::new(value))),
        }
    }
}
