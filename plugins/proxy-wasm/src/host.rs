//! The host's side of one machine.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use adit_filters::env::HttpResponse;
use tracing::Level;

use crate::code::Exports;
use crate::common::{Common, Which};
use crate::context::Context;
use crate::under_way::{CallPlace, Outgoing};

/// The one root context of a machine.
pub(crate) const ROOT: u32 = 1;

/// How many calls a machine may have dispatched in one callback, and how many of one context may be under way.
const CALLS_MAX: usize = 16;

/// The host's side of one machine.
pub(crate) struct Host {
    pub(crate) common: Arc<Common>,
    pub(crate) exports: Arc<Exports>,
    pub(crate) which: Which,
    pub(crate) contexts: HashMap<u32, Context>,
    /// The context that functions are about.
    pub(crate) effective: u32,
    /// How often the machine may still call the host in this callback.
    pub(crate) calls_left: u32,
    /// Calls dispatched since somebody last saw to them.
    pub(crate) outgoing: Vec<Outgoing>,
    pub(crate) tokens: u32,
    /// Calls of the root context that are under way.
    pub(crate) root_calls: usize,
    /// The answer that is being delivered.
    pub(crate) answer: Option<HttpResponse>,
    /// How often the root context wants to be called.
    pub(crate) tick: Option<Duration>,
    /// That has just been said.
    pub(crate) tick_is_new: bool,
    /// Contexts that have said they are done after they had asked for time.
    pub(crate) done: Vec<u32>,
    /// A line that has begun on standard output or error.
    line: Vec<u8>,
}

impl Host {
    pub(crate) fn new(common: Arc<Common>, exports: Arc<Exports>, which: Which) -> Self {
        Self {
            common,
            exports,
            which,
            contexts: HashMap::new(),
            effective: ROOT,
            calls_left: 0,
            outgoing: Vec::new(),
            tokens: 0,
            root_calls: 0,
            answer: None,
            tick: None,
            tick_is_new: false,
            done: Vec::new(),
            line: Vec::new(),
        }
    }

    /// The context that functions are about, if it is an exchange's.
    pub(crate) fn context(&mut self) -> Option<&mut Context> {
        self.contexts.get_mut(&self.effective)
    }

    pub(crate) fn log(&self, level: Level, text: &str) {
        self.common.services.log(level, text);
    }

    /// How many calls of the context are under way that functions are about.
    fn calls(&mut self) -> Option<&mut usize> {
        match self.effective {
            ROOT => Some(&mut self.root_calls),
            _ => self.context().map(|context| &mut context.calls),
        }
    }

    /// A place for one more call with so large a body, if it may be dispatched.
    pub(crate) fn call_place(&mut self, bytes: usize) -> Option<CallPlace> {
        let under_way = self.calls().map(|calls| *calls)?;
        if self.outgoing.len() >= CALLS_MAX || under_way >= CALLS_MAX {
            return None;
        }
        self.common.under_way.place(bytes)
    }

    /// Takes a call to be dispatched.
    pub(crate) fn dispatch(&mut self, call: Outgoing) {
        if let Some(calls) = self.calls() {
            *calls += 1;
        }
        self.outgoing.push(call);
    }

    /// Takes what was written to standard output or error, line by line.
    pub(crate) fn written(&mut self, bytes: &[u8], level: Level) {
        let max = self.common.services.limits().log_line_bytes;
        for part in bytes.split_inclusive(|octet| *octet == b'\n') {
            let room = max.saturating_sub(self.line.len());
            self.line
                .extend_from_slice(part.get(..room).unwrap_or(part));
            if part.ends_with(b"\n") {
                let text = std::mem::take(&mut self.line);
                let text = String::from_utf8_lossy(&text);
                self.log(level, text.trim_end());
            }
        }
    }
}
