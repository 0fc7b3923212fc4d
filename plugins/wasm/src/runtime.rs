//! What components run on: an engine of its own for usual ones, and one for large ones, each with a fixed number of
//! places for instances.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::Linker;
use wasmtime::{
    Cache, CacheConfig, Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig,
};

use crate::bindings::EveryPhase;
use crate::component::Code;
use crate::needs::Needs;
use crate::state::State;

/// A component that begins with more than one in so many parts of a usual instance's memory is a large one.
const LARGE_PART: usize = 4;

/// Instances keep their places beyond a hook while one in so many parts of all is free.
const ROOM_PART: usize = 4;

/// Bytes of bookkeeping that one component instance may need.
const COMPONENT_BYTES: usize = 1 << 20;

/// Tables that one component may have: its own, and one for what adapts it to the interfaces.
const TABLES: u32 = 4;

/// Memory of a used place that is put back into its first state rather than given back: mapping it anew costs more than
/// all the rest of an instance. What our own build makes fits.
///
/// Asking the system which pages were written (`pagemap_scan`) would cost less for large memories, but wasmtime 48 takes
/// a page that was swapped out meanwhile for one that was not written, and the next instance finds it as it was left.
const KEPT_BYTES: usize = 128 << 10;

/// How many instances there may be, and how large.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Instances at a time, over all usual plugins.
    pub instances: u32,
    /// Memory that a usual plugin's instance may have, in bytes. A plugin that asks for more is a large one, and one
    /// that begins with more than a quarter of it: it brings the runtime of a language along.
    pub memory: usize,
    /// Instances at a time, over all large plugins.
    pub large_instances: u32,
    /// Memory that a large plugin's instance may have, in bytes.
    pub large_memory: usize,
    /// Where compiled code is kept; without it, it is compiled at each start.
    pub cache: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            instances: 512,
            memory: 16 << 20,
            large_instances: 32,
            large_memory: 256 << 20,
            cache: None,
        }
    }
}

/// What keeps components from being run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The folder for compiled code cannot be used.
    #[error("compiled plugins cannot be kept in `{}`", path.display())]
    Cache {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The machine does not have what is asked for.
    #[error("there is no room for {instances} instances of {memory} bytes")]
    Pool {
        /// How many were to be.
        instances: u32,
        /// How large each.
        memory: usize,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What components run on.
#[derive(Clone)]
pub struct Runtime {
    usual: Arc<Pool>,
    large: Arc<Pool>,
    /// Where large core modules run. Its places are those of `large`.
    modules: Arc<Pool>,
}

/// What one instance in a pool may be made of.
#[derive(Clone, Copy)]
struct Shape {
    /// Memory, in bytes.
    memory: usize,
    /// Core modules, what adapts them to the interfaces included.
    cores: u32,
    /// Elements of a table: so many functions may be called indirectly.
    table: usize,
    /// Stack of the component's own code, in bytes; the functions of the host that it calls have as much again.
    stack: usize,
}

impl Shape {
    const fn usual(memory: usize) -> Self {
        Self {
            memory,
            cores: 16,
            table: 20_000,
            stack: 512 << 10,
        }
    }

    /// An interpreter goes a long way down for one step of what it interprets, and has libraries.
    const fn large(memory: usize) -> Self {
        Self {
            memory,
            cores: 64,
            table: 100_000,
            stack: 2 << 20,
        }
    }

    /// Core modules run on the stack of the thread that calls them, and not on one of their own: what they may use of it
    /// has to leave room for the rest.
    const fn module(memory: usize) -> Self {
        Self {
            stack: Self::usual(memory).stack,
            ..Self::large(memory)
        }
    }

    fn holds(&self, needs: &Needs) -> bool {
        needs.memory <= self.memory && needs.cores <= self.cores && needs.table <= self.table
    }
}

/// An engine with its places.
pub(crate) struct Pool {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<State>,
    shape: Shape,
    /// What has been compiled and is still in use, by the SHA-256 of its file: a reload compiles what is new alone.
    compiled: Mutex<HashMap<[u8; 32], Weak<Code>>>,
    places: Arc<Semaphore>,
    count: u32,
}

impl Runtime {
    /// A runtime with these settings.
    ///
    /// # Errors
    /// [`RuntimeError`].
    pub fn new(settings: &Settings) -> Result<Self, RuntimeError> {
        let cache = settings.cache.as_ref().map(|path| {
            let failed = |source: wasmtime::Error| RuntimeError::Cache {
                path: path.clone(),
                source: source.into_boxed_dyn_error(),
            };
            std::fs::create_dir_all(path).map_err(|error| failed(error.into()))?;
            let whole = path.canonicalize().map_err(|error| failed(error.into()))?;
            let mut config = CacheConfig::new();
            config.with_directory(whole);
            Cache::new(config).map_err(failed)
        });
        let cache = cache.transpose()?;
        let pool = |instances: u32, shape| {
            let places = Arc::new(Semaphore::new(instances as usize));
            Pool::new(instances, places, shape, cache.clone())
        };
        let large = pool(
            settings.large_instances,
            Shape::large(settings.large_memory),
        )?;
        let modules = Pool::new(
            settings.large_instances,
            Arc::clone(&large.places),
            Shape::module(settings.large_memory),
            cache.clone(),
        )?;
        Ok(Self {
            usual: Arc::new(pool(settings.instances, Shape::usual(settings.memory))?),
            large: Arc::new(large),
            modules: Arc::new(modules),
        })
    }

    /// Where instances of a core module run that may have so much memory; none if that is too much for any.
    pub(crate) fn module_pool(&self, memory: usize, needs: &Needs) -> Option<&Arc<Pool>> {
        let pool = self.pool(memory, needs)?;
        Some(match Arc::ptr_eq(pool, &self.large) {
            true => &self.modules,
            false => pool,
        })
    }

    /// Where instances of a component run that may have so much memory; none if that is too much for any.
    pub(crate) fn pool(&self, memory: usize, needs: &Needs) -> Option<&Arc<Pool>> {
        let usual = memory <= self.usual.shape.memory && !self.is_large(needs);
        let pool = if usual { &self.usual } else { &self.large };
        (memory <= pool.shape.memory).then_some(pool)
    }

    /// Memory that an instance of this component may have unless its operator says otherwise, in bytes: what usual
    /// plugins have, or large ones.
    #[must_use]
    pub fn memory_of(&self, component: &[u8]) -> usize {
        let large = self.is_large(&Needs::of(component));
        let pool = if large { &self.large } else { &self.usual };
        pool.shape.memory
    }

    fn is_large(&self, needs: &Needs) -> bool {
        let usual = &self.usual.shape;
        !usual.holds(needs) || needs.memory > usual.memory / LARGE_PART
    }

    /// Memory that an instance may have at most, in bytes.
    #[must_use]
    pub fn memory_max(&self) -> usize {
        self.large.shape.memory.max(self.usual.shape.memory)
    }
}

impl Pool {
    fn new(
        instances: u32,
        places: Arc<Semaphore>,
        shape: Shape,
        cache: Option<Cache>,
    ) -> Result<Self, RuntimeError> {
        let failed = |source: wasmtime::Error| RuntimeError::Pool {
            instances,
            memory: shape.memory,
            source: source.into_boxed_dyn_error(),
        };
        let mut pooling = PoolingAllocationConfig::new();
        pooling
            .total_component_instances(instances)
            // A count alone, nothing is set aside for it.
            .total_core_instances(instances.saturating_mul(shape.cores))
            .total_memories(instances)
            .total_tables(instances.saturating_mul(TABLES))
            .total_stacks(instances)
            .max_core_instances_per_component(shape.cores)
            .max_memories_per_component(1)
            .max_tables_per_component(TABLES)
            .max_component_instance_size(COMPONENT_BYTES)
            .max_core_instance_size(COMPONENT_BYTES)
            .table_elements(shape.table)
            .max_memory_size(shape.memory)
            .linear_memory_keep_resident(KEPT_BYTES)
            .table_keep_resident(KEPT_BYTES);
        let mut config = Config::new();
        config
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pooling))
            .consume_fuel(true)
            // Nobody can read one: what is handed in has no names.
            .wasm_backtrace_max_frames(None)
            .wasm_component_model(true)
            .max_wasm_stack(shape.stack)
            .async_stack_size(shape.stack.saturating_mul(2))
            .cache(cache);
        let engine = Engine::new(&config).map_err(failed)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)
            .and_then(|()| {
                EveryPhase::add_to_linker::<_, wasmtime::component::HasSelf<_>>(
                    &mut linker,
                    |state| state,
                )
            })
            .map_err(failed)?;
        Ok(Self {
            engine,
            linker,
            shape,
            compiled: Mutex::default(),
            places,
            count: instances,
        })
    }

    pub(crate) fn compiled(&self) -> MutexGuard<'_, HashMap<[u8; 32], Weak<Code>>> {
        // Every update is whole before anything can panic.
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether so many places are free that instances may keep theirs while they have nothing to do.
    pub(crate) fn has_room(&self) -> bool {
        self.places.available_permits() >= self.count as usize / ROOM_PART
    }

    /// A place for an instance; else how many there are, all of them taken.
    pub(crate) fn place(&self) -> Result<OwnedSemaphorePermit, usize> {
        Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| self.count as usize)
    }
}
