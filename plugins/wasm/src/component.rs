//! A component, compiled and ready to be instantiated.

use std::fmt::Write as _;
use std::sync::{Arc, Weak};

use adit_filters::FilterError;
use serde_json::Value;
use wasmtime::component::{Component as Compiled, InstancePre};

use crate::bindings::exports::adit::filter as exports;
use crate::inspect;
use crate::instance::Instance;
use crate::limits::Limits;
use crate::needs::Needs;
use crate::runtime::{Pool, Runtime};
use crate::shared::Shared;
use crate::state::State;

/// The largest component taken, in bytes.
pub const COMPONENT_BYTES_MAX: usize = 64 << 20;

/// The largest schema taken, in bytes.
const SCHEMA_BYTES_MAX: usize = 256 << 10;

/// Why a component cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ComponentError {
    /// It is larger than [`COMPONENT_BYTES_MAX`].
    #[error("it is larger than {COMPONENT_BYTES_MAX} bytes")]
    TooLarge,
    /// It is no component that this engine can compile.
    #[error("it is no WebAssembly component: {0}")]
    Compile(String),
    /// It imports what the host does not have.
    #[error("it imports what filters are not given: {0}")]
    Imports(String),
    /// It was made for another version of the interface.
    #[error("it speaks `{0}`, and this engine speaks `adit:filter@0.1`: build it anew")]
    Version(String),
    /// It does not export what every filter must.
    #[error("it is no filter, it does not export `adit:filter/plugin@0.1.0`")]
    NoPlugin,
    /// It exports no phase.
    #[error("it takes part in no phase: export one of {}", phases())]
    NoPhase,
    /// Its memory would be larger than any instance may have.
    #[error("`limits.memory` is {asked} bytes, more than the {max} that an instance may have")]
    Memory {
        /// What was asked for.
        asked: usize,
        /// What there is.
        max: usize,
    },
    /// Its schema cannot be had.
    #[error("its schema cannot be used: {0}")]
    Schema(String),
}

/// Each phase's name and interface.
const PHASES: [(&str, &str); 9] = [
    ("connect", "on-connect"),
    ("request", "on-request"),
    ("response", "on-response"),
    ("request-body", "on-request-body"),
    ("response-body", "on-response-body"),
    ("stream", "on-stream"),
    ("datagram", "on-datagram"),
    ("rejudge", "on-rejudge"),
    ("log", "on-log"),
];

fn phases() -> String {
    let mut text = String::new();
    for (at, (_, interface)) in PHASES.iter().enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        let _ = write!(text, "{comma}`{interface}`");
    }
    text
}

/// What it exports.
pub(crate) struct Exports {
    pub(crate) plugin: exports::plugin::GuestIndices,
    pub(crate) connect: Option<exports::on_connect::GuestIndices>,
    pub(crate) request: Option<exports::on_request::GuestIndices>,
    pub(crate) response: Option<exports::on_response::GuestIndices>,
    pub(crate) request_body: Option<exports::on_request_body::GuestIndices>,
    pub(crate) response_body: Option<exports::on_response_body::GuestIndices>,
    pub(crate) stream: Option<exports::on_stream::GuestIndices>,
    pub(crate) datagram: Option<exports::on_datagram::GuestIndices>,
    pub(crate) rejudge: Option<exports::on_rejudge::GuestIndices>,
    pub(crate) log: Option<exports::on_log::GuestIndices>,
}

impl Exports {
    /// Which phases it takes part in, in the order of [`PHASES`].
    fn taken(&self) -> [bool; PHASES.len()] {
        [
            self.connect.is_some(),
            self.request.is_some(),
            self.response.is_some(),
            self.request_body.is_some(),
            self.response_body.is_some(),
            self.stream.is_some(),
            self.datagram.is_some(),
            self.rejudge.is_some(),
            self.log.is_some(),
        ]
    }
}

/// Compiled code with what it exports.
pub(crate) struct Code {
    pub(crate) pre: InstancePre<State>,
    pub(crate) exports: Exports,
}

/// A component, compiled and ready to be instantiated.
pub struct Component {
    pub(crate) pool: Arc<Pool>,
    pub(crate) code: Arc<Code>,
    /// SHA-256 of its file.
    pub sha256: [u8; 32],
}

impl Component {
    /// Compiles a component, unless that has been done before.
    ///
    /// # Errors
    /// [`ComponentError`].
    pub fn new(runtime: &Runtime, bytes: &[u8], limits: &Limits) -> Result<Self, ComponentError> {
        if bytes.len() > COMPONENT_BYTES_MAX {
            return Err(ComponentError::TooLarge);
        }
        let pool = runtime
            .pool(limits.memory, &Needs::of(bytes))
            .ok_or_else(|| ComponentError::Memory {
                asked: limits.memory,
                max: runtime.memory_max(),
            })?;
        let sha256 = sha256(bytes);
        let known = pool.compiled().get(&sha256).and_then(Weak::upgrade);
        let code = match known {
            Some(code) => code,
            None => {
                let code = Arc::new(Code::new(pool, bytes)?);
                let mut compiled = pool.compiled();
                compiled.retain(|_, code| code.strong_count() > 0);
                compiled.insert(sha256, Arc::downgrade(&code));
                code
            }
        };
        Ok(Self {
            pool: Arc::clone(pool),
            code,
            sha256,
        })
    }

    /// Names of the phases it takes part in.
    #[must_use]
    pub fn phases(&self) -> Vec<&'static str> {
        let all = PHASES.iter().zip(self.code.exports.taken());
        all.filter(|(_, taken)| *taken)
            .map(|((name, _), _)| *name)
            .collect()
    }

    /// The JSON Schema of a filter's table.
    ///
    /// # Errors
    /// [`ComponentError::Schema`].
    pub(crate) async fn schema(&self, shared: &Arc<Shared>) -> Result<Value, ComponentError> {
        let wrong = |text: String| ComponentError::Schema(text);
        let asked = async {
            let mut instance = Instance::bare(self, shared).await?;
            instance.schema(self).await
        };
        let text = asked
            .await
            .map_err(|error: FilterError| wrong(error.detail()))?;
        if text.len() > SCHEMA_BYTES_MAX {
            return Err(wrong(format!("it is larger than {SCHEMA_BYTES_MAX} bytes")));
        }
        serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))
    }
}

impl Code {
    fn new(pool: &Pool, bytes: &[u8]) -> Result<Self, ComponentError> {
        if let Some(what) = inspect::not_a_component(bytes) {
            return Err(ComponentError::Compile(what.to_owned()));
        }
        let compiled = Compiled::new(&pool.engine, bytes)
            .map_err(|error| ComponentError::Compile(one_line(&error)))?;
        if let Some(name) = inspect::other_version(&pool.engine, &compiled) {
            return Err(ComponentError::Version(name));
        }
        let pre = pool
            .linker
            .instantiate_pre(&compiled)
            .map_err(|error| ComponentError::Imports(one_line(&error)))?;
        let plugin = exports::plugin::GuestIndices::new(&pre);
        macro_rules! phase {
            ($module:ident) => {
                exports::$module::GuestIndices::new(&pre).ok()
            };
        }
        let exports = Exports {
            plugin: plugin.map_err(|_| ComponentError::NoPlugin)?,
            connect: phase!(on_connect),
            request: phase!(on_request),
            response: phase!(on_response),
            request_body: phase!(on_request_body),
            response_body: phase!(on_response_body),
            stream: phase!(on_stream),
            datagram: phase!(on_datagram),
            rejudge: phase!(on_rejudge),
            log: phase!(on_log),
        };
        match exports.taken().contains(&true) {
            true => Ok(Self { pre, exports }),
            false => Err(ComponentError::NoPhase),
        }
    }
}

/// An error of the library with its causes.
pub(crate) fn one_line(error: &wasmtime::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        // Whoever says the same as the one before has nothing to add.
        if text.ends_with(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(cause.trim());
    }
    text.replace('\n', " ")
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().unwrap_or_default()
}
