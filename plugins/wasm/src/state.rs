//! What one instance is given for the time of one call, and what it leaves behind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_filters::{ConnectionInfo, Exchange, Fact, Facts, Identity, TunnelInfo, Upgrade};
use bytes::Bytes;
use http::{HeaderMap, request, response};
use wasmtime::{ResourceLimiter, StoreLimits, StoreLimitsBuilder};
use wasmtime_wasi::{ResourceTable, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::limits::Limits;
use crate::output::Lines;
use crate::shared::Shared;

/// Whose fields a handle stands for, by the handle's number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FieldsOf {
    Request,
    Response,
    Trailers,
}

impl FieldsOf {
    pub(crate) fn number(self) -> u32 {
        match self {
            Self::Request => 0,
            Self::Response => 1,
            Self::Trailers => 2,
        }
    }

    pub(crate) fn of(number: u32) -> Self {
        match number {
            0 => Self::Request,
            1 => Self::Response,
            _ => Self::Trailers,
        }
    }
}

/// What the current call is about. What a hook lends is moved in before the call, and out after it whatever came of
/// it.
#[derive(Default)]
pub(crate) struct Call {
    pub(crate) connection: Option<Arc<ConnectionInfo>>,
    pub(crate) tunnel: Option<Arc<TunnelInfo>>,
    /// Facts of the exchange, then those of its connection.
    pub(crate) facts: [Facts; 2],
    pub(crate) upgrade: Option<Upgrade>,
    pub(crate) request: Option<request::Parts>,
    pub(crate) response: Option<response::Parts>,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) variables: Option<Variables>,
    /// Variables of the connection, which the exchange may read.
    pub(crate) inherited: Option<Variables>,
    /// The phase may wait.
    pub(crate) waits: bool,
    /// The phase may say who the visitor is.
    pub(crate) identifies: bool,
    /// Who the filter says the visitor is.
    pub(crate) identity: Option<Identity>,
}

impl Call {
    /// About a connection that nothing is decided about yet.
    pub(crate) fn connecting(
        connection: &Arc<ConnectionInfo>,
        tunnel: &Arc<TunnelInfo>,
        facts: Facts,
    ) -> Self {
        Self {
            connection: Some(Arc::clone(connection)),
            tunnel: Some(Arc::clone(tunnel)),
            facts: [Facts::default(), facts],
            ..Self::default()
        }
    }

    /// About an exchange.
    pub(crate) fn of(exchange: &Exchange) -> Self {
        let connection = exchange.connection();
        Self {
            connection: Some(Arc::clone(connection.info())),
            tunnel: Some(Arc::clone(connection.tunnel())),
            facts: [exchange.facts().so_far(), connection.facts().so_far()],
            ..Self::default()
        }
    }
}

/// What a filter keeps for an exchange or a connection.
#[derive(Clone, Default)]
pub(crate) struct Variables(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    values: BTreeMap<String, Bytes>,
    bytes: usize,
}

impl Variables {
    pub(crate) fn get(&self, name: &str) -> Option<Bytes> {
        self.kept().values.get(name).cloned()
    }

    /// Keeps a value, unless there would be more than so many bytes.
    pub(crate) fn set(&self, name: String, value: Bytes, bytes_max: usize) -> bool {
        let mut kept = self.kept();
        let old = kept.values.get(&name).map(|old| name.len() + old.len());
        let bytes = kept.bytes - old.unwrap_or(0) + name.len() + value.len();
        if bytes > bytes_max {
            return false;
        }
        kept.bytes = bytes;
        kept.values.insert(name, value);
        true
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Every update is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all plugins keep for one connection or exchange, by the names of their filters: what a filter has kept is there
/// when another build of the same filter asks.
#[derive(Default)]
pub(crate) struct AllVariables(Mutex<BTreeMap<Arc<str>, Variables>>);

impl AllVariables {
    /// Those of a filter, which may be none yet.
    pub(crate) fn of(&self, filter: &Arc<str>) -> Variables {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(Arc::clone(filter)).or_default().clone()
    }
}

/// Kept for an exchange.
#[derive(Default)]
pub(crate) struct OfExchange(pub(crate) AllVariables);

impl Fact for OfExchange {
    const NAME: &'static str = "plugin-variables";
}

/// Kept for a connection.
#[derive(Default)]
pub(crate) struct OfConnection(pub(crate) AllVariables);

impl Fact for OfConnection {
    const NAME: &'static str = "plugin-connection-variables";
}

/// The host's side of one instance.
pub(crate) struct State {
    pub(crate) shared: Arc<Shared>,
    pub(crate) call: Call,
    /// How often the instance may still call the host in this hook.
    pub(crate) calls_left: u32,
    memory: StoreLimits,
    wasi: Option<Wasi>,
}

struct Wasi {
    ctx: WasiCtx,
    table: ResourceTable,
}

impl State {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let Limits { memory, .. } = shared.limits;
        let memory = StoreLimitsBuilder::new()
            .memory_size(memory)
            .trap_on_grow_failure(true)
            .build();
        Self {
            shared,
            call: Call::default(),
            calls_left: 0,
            memory,
            wasi: None,
        }
    }

    pub(crate) fn limiter(&mut self) -> &mut dyn ResourceLimiter {
        &mut self.memory
    }

    /// Counts one call of the host.
    pub(crate) fn called(&mut self) -> wasmtime::Result<()> {
        match self.calls_left.checked_sub(1) {
            Some(left) => {
                self.calls_left = left;
                Ok(())
            }
            None => Err(wasmtime::Error::msg(format!(
                "called the host more than {} times in one hook",
                self.shared.limits.host_calls
            ))),
        }
    }

    pub(crate) fn fields(&mut self, of: FieldsOf) -> wasmtime::Result<&mut HeaderMap> {
        let fields = match of {
            FieldsOf::Request => self.call.request.as_mut().map(|head| &mut head.headers),
            FieldsOf::Response => self.call.response.as_mut().map(|head| &mut head.headers),
            FieldsOf::Trailers => self.call.trailers.as_mut(),
        };
        fields.ok_or_else(gone)
    }
}

/// A handle that was kept from an earlier call.
pub(crate) fn gone() -> wasmtime::Error {
    wasmtime::Error::msg("used a handle after the call it was lent for")
}

impl WasiView for State {
    /// An empty world: no files, no sockets, no environment. Made only for those who ask.
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let shared = &self.shared;
        let Wasi { ctx, table } = self.wasi.get_or_insert_with(|| {
            let lines = Lines::new(Arc::clone(shared));
            let ctx = WasiCtxBuilder::new()
                .stdout(lines.clone())
                .stderr(lines)
                .allow_tcp(false)
                .allow_udp(false)
                .allow_ip_name_lookup(false)
                .build();
            Wasi {
                ctx,
                table: ResourceTable::new(),
            }
        });
        WasiCtxView { ctx, table }
    }
}
