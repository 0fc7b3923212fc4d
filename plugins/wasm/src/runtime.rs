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
use crate::state::State;

/// Core modules that one component may be made of: what adapts it to the interfaces counts, too.
const CORES_PER_COMPONENT: u32 = 16;

/// Core instances that an instance usually takes. Places are kept for so many of each.
const CORES_USUAL: u32 = 4;

/// Elements a table may have: so many functions may be called indirectly.
const TABLE_ELEMENTS: usize = 20_000;

/// Bytes of bookkeeping that one component instance may need.
const COMPONENT_BYTES: usize = 1 << 20;

/// Stack of a component's own code, in bytes.
const STACK_BYTES: usize = 512 << 10;

/// The same with room for the host's functions it calls.
const STACK_BYTES_WITH_HOST: usize = 1 << 20;

/// Memory of a used place that is zeroed rather than given back: mapping it anew costs more.
const KEPT_BYTES: usize = 128 << 10;

/// How many instances there may be, and how large.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Instances at a time, over all usual plugins.
    pub instances: u32,
    /// Memory that a usual plugin's instance may have, in bytes; a plugin that asks for more is a large one.
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
}

/// An engine with its places.
pub(crate) struct Pool {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<State>,
    pub(crate) memory: usize,
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
        let pool = |instances, memory| Pool::new(instances, memory, cache.clone()).map(Arc::new);
        Ok(Self {
            usual: pool(settings.instances, settings.memory)?,
            large: pool(settings.large_instances, settings.large_memory)?,
        })
    }

    /// Where an instance with so much memory runs; none if that is too much for any.
    pub(crate) fn pool(&self, memory: usize) -> Option<&Arc<Pool>> {
        [&self.usual, &self.large]
            .into_iter()
            .find(|pool| memory <= pool.memory)
    }

    /// Memory that an instance may have at most, in bytes.
    #[must_use]
    pub fn memory_max(&self) -> usize {
        self.large.memory.max(self.usual.memory)
    }
}

impl Pool {
    fn new(instances: u32, memory: usize, cache: Option<Cache>) -> Result<Self, RuntimeError> {
        let failed = |source: wasmtime::Error| RuntimeError::Pool {
            instances,
            memory,
            source: source.into_boxed_dyn_error(),
        };
        let mut pooling = PoolingAllocationConfig::new();
        pooling
            .total_component_instances(instances)
            .total_core_instances(instances.saturating_mul(CORES_USUAL))
            .total_memories(instances)
            .total_tables(instances.saturating_mul(CORES_USUAL))
            .total_stacks(instances)
            .max_core_instances_per_component(CORES_PER_COMPONENT)
            .max_memories_per_component(1)
            .max_component_instance_size(COMPONENT_BYTES)
            .max_core_instance_size(COMPONENT_BYTES)
            .table_elements(TABLE_ELEMENTS)
            .max_memory_size(memory)
            .linear_memory_keep_resident(KEPT_BYTES)
            .async_stack_keep_resident(KEPT_BYTES)
            .table_keep_resident(KEPT_BYTES);
        let mut config = Config::new();
        config
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pooling))
            .consume_fuel(true)
            // Nobody can read one: what is handed in has no names.
            .wasm_backtrace_max_frames(None)
            .wasm_component_model(true)
            .max_wasm_stack(STACK_BYTES)
            .async_stack_size(STACK_BYTES_WITH_HOST)
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
            memory,
            compiled: Mutex::default(),
            places: Arc::new(Semaphore::new(instances as usize)),
            count: instances,
        })
    }

    pub(crate) fn compiled(&self) -> MutexGuard<'_, HashMap<[u8; 32], Weak<Code>>> {
        // Every update is whole before anything can panic.
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for an instance; else how many there are, all of them taken.
    pub(crate) fn place(&self) -> Result<OwnedSemaphorePermit, usize> {
        Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| self.count as usize)
    }
}
