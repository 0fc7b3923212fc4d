//! The functions a host offers.

use wasmtime::{Caller, Linker, WasmRet, WasmTy};

use super::Kept;
use super::guest::{Guest, Stop};

/// The functions a host offers, as they are gathered.
pub struct Imports<'a, H: 'static> {
    pub(super) linker: &'a mut Linker<Kept<H>>,
    pub(super) failed: Option<wasmtime::Error>,
}

impl<H: Send + 'static> Imports<'_, H> {
    /// Offers one function.
    pub fn add<A>(&mut self, module: &str, name: &str, function: impl Function<H, A>) -> &mut Self {
        let linked = function.link(self.linker, module, name);
        if let Err(error) = linked {
            self.failed.get_or_insert(error);
        }
        self
    }
}

/// A function of the host: it is given the instance that calls it and numbers, and answers a number or nothing.
pub trait Function<H: 'static, A>: sealed::Function<H, A> {}
impl<H: 'static, A, F: sealed::Function<H, A>> Function<H, A> for F {}

#[allow(
    private_interfaces,
    unnameable_types,
    reason = "sealed: only what is here implements it, and nobody else calls it"
)]
mod sealed {
    pub trait Function<H: 'static, A> {
        fn link(
            self,
            linker: &mut super::Linker<super::Kept<H>>,
            module: &str,
            name: &str,
        ) -> wasmtime::Result<()>;
    }
}

macro_rules! function {
    ($($param:ident),*) => {
        impl<H, F, R, $($param),*> sealed::Function<H, ($($param,)*)> for F
        where
            H: Send + 'static,
            F: Fn(&mut Guest<'_, H>, $($param),*) -> Result<R, Stop> + Send + Sync + 'static,
            R: 'static,
            wasmtime::Result<R>: WasmRet,
            $($param: WasmTy,)*
        {
            #[allow(non_snake_case, private_interfaces, reason = "sealed, and a parameter is called as its type")]
            fn link(
                self,
                linker: &mut Linker<Kept<H>>,
                module: &str,
                name: &str,
            ) -> wasmtime::Result<()> {
                let called = move |caller: Caller<'_, Kept<H>>, $($param: $param),*| {
                    self(&mut Guest { caller }, $($param),*).map_err(|Stop(error)| error)
                };
                linker.func_wrap(module, name, called).map(|_| ())
            }
        }
    };
}
function!();
function!(A);
function!(A, B);
function!(A, B, C);
function!(A, B, C, D);
function!(A, B, C, D, E);
function!(A, B, C, D, E, G);
function!(A, B, C, D, E, G, I);
function!(A, B, C, D, E, G, I, J);
function!(A, B, C, D, E, G, I, J, K);
function!(A, B, C, D, E, G, I, J, K, L);
function!(A, B, C, D, E, G, I, J, K, L, M);
function!(A, B, C, D, E, G, I, J, K, L, M, N);
