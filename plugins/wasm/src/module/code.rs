//! A core module, compiled with the functions of its host.

use std::marker::PhantomData;
use std::sync::Arc;

use wasmtime::{ExternType, FuncType, InstancePre, Linker, ModuleExport, Val, ValType};

use super::imports::Imports;
use super::{Kept, Params, Results};
use crate::component::{COMPONENT_BYTES_MAX, one_line, sha256};
use crate::limits::Limits;
use crate::needs::Needs;
use crate::runtime::{Pool, Runtime};

/// Why a core module cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// It is larger than [`COMPONENT_BYTES_MAX`].
    #[error("it is larger than {COMPONENT_BYTES_MAX} bytes")]
    TooLarge,
    /// It is no module that this engine can compile.
    #[error("it is no WebAssembly module: {0}")]
    Compile(String),
    /// It imports what the host does not have.
    #[error("it imports what filters are not given: {0}")]
    Imports(String),
    /// It has no memory to be read and written.
    #[error("it exports no memory")]
    NoMemory,
    /// Its memory would be larger than any instance may have.
    #[error("`limits.memory` is {asked} bytes, more than the {max} that an instance may have")]
    Memory {
        /// What was asked for.
        asked: usize,
        /// What there is.
        max: usize,
    },
}

/// A core module, compiled with the functions of its host.
pub struct Module<H: 'static> {
    pub(super) pool: Arc<Pool>,
    pub(super) pre: InstancePre<Kept<H>>,
    /// SHA-256 of its file.
    pub sha256: [u8; 32],
}

/// A function that a module exports.
pub struct Export<P, R> {
    pub(super) index: ModuleExport,
    of: PhantomData<fn(P) -> R>,
}

impl<H: Send + 'static> Module<H> {
    /// Compiles a module. Functions it imports from `elsewhere` that the host does not have are there, and answer what
    /// `otherwise` makes of their names.
    ///
    /// # Errors
    /// [`ModuleError`].
    pub fn new(
        runtime: &Runtime,
        bytes: &[u8],
        limits: &Limits,
        offer: impl FnOnce(&mut Imports<'_, H>),
        (elsewhere, otherwise): (&str, fn(&str) -> i32),
    ) -> Result<Self, ModuleError> {
        if bytes.len() > COMPONENT_BYTES_MAX {
            return Err(ModuleError::TooLarge);
        }
        let pool = runtime
            .module_pool(limits.memory, &Needs::of(bytes))
            .ok_or_else(|| ModuleError::Memory {
                asked: limits.memory,
                max: runtime.memory_max(),
            })?;
        let compiled = wasmtime::Module::new(&pool.engine, bytes)
            .map_err(|error| ModuleError::Compile(one_line(&error)))?;
        if !matches!(compiled.get_export("memory"), Some(ExternType::Memory(_))) {
            return Err(ModuleError::NoMemory);
        }
        let wrong = |error: &wasmtime::Error| ModuleError::Imports(one_line(error));
        let mut linker = Linker::new(&pool.engine);
        // What the host has comes in the place of what it has not.
        linker.allow_shadowing(true);
        for import in compiled.imports() {
            if let ExternType::Func(ty) = import.ty()
                && import.module() == elsewhere
                && answers_a_number(&ty)
            {
                let answer = otherwise(import.name());
                linker
                    .func_new(elsewhere, import.name(), ty, move |_, _, results| {
                        if let Some(result) = results.first_mut() {
                            *result = Val::I32(answer);
                        }
                        Ok(())
                    })
                    .map_err(|error| wrong(&error))?;
            }
        }
        let mut imports = Imports {
            linker: &mut linker,
            failed: None,
        };
        offer(&mut imports);
        if let Some(error) = imports.failed {
            return Err(wrong(&error));
        }
        let pre = linker
            .instantiate_pre(&compiled)
            .map_err(|error| wrong(&error))?;
        Ok(Self {
            pool: Arc::clone(pool),
            pre,
            sha256: sha256(bytes),
        })
    }

    /// Names of what it exports.
    pub fn exports(&self) -> impl Iterator<Item = &str> {
        self.pre.module().exports().map(|export| export.name())
    }

    /// Names of what it imports, each with the module it is from.
    pub fn imports(&self) -> impl Iterator<Item = (&str, &str)> {
        let imports = self.pre.module().imports();
        imports.map(|import| (import.module(), import.name()))
    }

    /// A function it exports; none if it does not.
    #[must_use]
    pub fn export<P: Params, R: Results>(&self, name: &str) -> Option<Export<P, R>> {
        let module = self.pre.module();
        let Some(ExternType::Func(_)) = module.get_export(name) else {
            return None;
        };
        let index = module.get_export_index(name)?;
        Some(Export {
            index,
            of: PhantomData,
        })
    }
}

fn answers_a_number(ty: &FuncType) -> bool {
    let mut results = ty.results();
    matches!((results.next(), results.next()), (Some(ValType::I32), None))
}
