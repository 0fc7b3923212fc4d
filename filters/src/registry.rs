//! Filter kinds by name.

use std::marker::PhantomData;
use std::sync::Arc;

use adit_config::{Problem, Section};

use crate::env::Env;
use crate::filter::Filter;
use crate::hooks::Hooks;
use crate::stage::Stage;

/// A filter kind, object-safe. Native filters get theirs from [`Registry::with`]; a kind that needs more than its
/// table brings its own.
pub trait Factory: Send + Sync {
    /// What `use = "…"` calls it.
    fn name(&self) -> &str;
    /// Where its filters stand.
    fn stage(&self) -> Stage;
    /// Builds a filter from its table.
    ///
    /// # Errors
    /// Everything that is wrong with the table, with positions.
    fn build(&self, section: &Section, env: &mut Env) -> Result<Hooks, Vec<Problem>>;
}

struct Native<F>(PhantomData<fn() -> F>);

impl<F: Filter> Factory for Native<F> {
    fn name(&self) -> &str {
        F::NAME
    }

    fn stage(&self) -> Stage {
        F::STAGE
    }

    fn build(&self, section: &Section, env: &mut Env) -> Result<Hooks, Vec<Problem>> {
        let config = section.deserialize::<F::Config>()?;
        let filter = F::new(config, env)
            .map_err(|error| vec![section.problem(error.key.as_deref(), error.message)])?;
        Ok(Arc::new(filter)
            .hooks()
            .at(F::STAGE)
            .with_slots(env.slots_taken()))
    }
}

/// Every filter kind this binary knows: a list to be read.
#[derive(Default)]
pub struct Registry(Vec<Box<dyn Factory>>);

impl Registry {
    /// Knows none yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a native filter.
    #[must_use]
    pub fn with<F: Filter>(self) -> Self {
        self.with_factory(Box::new(Native::<F>(PhantomData)))
    }

    /// Adds a kind with a factory of its own.
    #[must_use]
    pub fn with_factory(mut self, factory: Box<dyn Factory>) -> Self {
        self.0.push(factory);
        self
    }

    /// The kind of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&dyn Factory> {
        self.0
            .iter()
            .find(|factory| factory.name() == name)
            .map(|factory| &**factory)
    }

    /// Names of all kinds, in the order they were added.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|factory| factory.name())
    }
}
