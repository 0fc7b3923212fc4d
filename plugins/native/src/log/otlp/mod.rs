//! `otlp`: a span and a log record of each exchange for an OpenTelemetry collector, and its place in the trace for the
//! service.
//!
//! The data path copies what the signals are made of into a bounded queue; a job beside it makes and sends them. While
//! the collector is away the queue fills, and what finds no room is dropped and counted.

mod collector;
mod config;
mod context;
mod signal;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use adit_filters::env::Counter;
use adit_filters::{
    ConfigError, Env, Filter, FilterError, Hooks, LogCx, OnLog, OnRequest, RequestCx, Slot, Stage,
    Verdict,
};
use http::{HeaderName, HeaderValue};

use super::entry::Entry;
use super::writer::{check_queue, counter, dropped, failed};
use collector::Collector;
use context::{TRACEPARENT, TRACESTATE, TraceContext, TraceParent, Tracer};
use signal::Traced;

pub use collector::BATCH_BYTES_MAX;
pub use config::{Config, ENTRIES_MAX, Endpoint};

const NAME: &str = "otlp";

/// The filter.
pub struct Otlp {
    queue: async_channel::Sender<Traced>,
    dropped: Arc<dyn Counter>,
    tracer: Tracer,
    slot: Slot<TraceContext>,
    traces: bool,
    logs: bool,
    trust_incoming: bool,
}

impl OnRequest for Otlp {
    /// Tells the service its place in the trace. What a visitor says about one that is not trusted goes no further.
    async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        let headers = &mut cx.head.headers;
        let incoming = self.trust_incoming.then(|| {
            let mut fields = headers.get_all(TRACEPARENT).iter();
            match (fields.next(), fields.next()) {
                (Some(only), None) => TraceParent::parse(only.to_str().ok()?),
                _ => None,
            }
        });
        let context = self.tracer.begin(incoming.flatten());
        if context.parent.is_none() {
            headers.remove(TRACESTATE);
        }
        if let Ok(told) = HeaderValue::from_str(&context.to_string()) {
            headers.insert(TRACEPARENT, told);
        }
        cx.exchange.fill(self.slot, context);
        Ok(Verdict::Continue)
    }
}

impl OnLog for Otlp {
    fn on_log(&self, cx: &LogCx<'_>) {
        let context = self.context(cx);
        if !self.logs && !context.sampled {
            return;
        }
        let traced = Traced {
            entry: Entry::of(cx),
            context,
        };
        if self.queue.try_send(traced).is_err() {
            self.dropped.add(&[NAME], 1);
        }
    }
}

impl Otlp {
    /// The place that the service was told, or one for an exchange that no service saw. Without spans of our own what is
    /// left is the visitor's.
    fn context(&self, cx: &LogCx<'_>) -> TraceContext {
        if let Some(told) = cx.exchange.slot(self.slot) {
            return told.clone();
        }
        let incoming = self.trust_incoming.then(|| {
            let fields = cx.outcome.request.fields();
            let only = fields.only(&HeaderName::from_static(TRACEPARENT))?;
            TraceParent::parse(&only)
        });
        match (incoming.flatten(), self.traces) {
            (incoming, true) => self.tracer.begin(incoming),
            (Some(incoming), false) => incoming.itself(),
            (None, false) => TraceContext::default(),
        }
    }
}

impl Filter for Otlp {
    const NAME: &'static str = NAME;
    const STAGE: Stage = Stage::Log;
    type Config = Config;

    fn new(config: Config, env: &mut Env) -> Result<Self, ConfigError> {
        config.check()?;
        check_queue(config.queue)?;
        let collector = Collector {
            http: Arc::clone(&env.http),
            clock: Arc::clone(&env.clock),
            traces: config.traces_uri()?,
            logs: config.logs_uri()?,
            headers: config.fields()?,
            resource: config.resource(),
            lost: counter(
                env,
                "log_lost_total",
                "Log records lost because they could not be written",
            )?,
        };
        let (sender, receiver) = async_channel::bounded(config.queue);
        env.jobs
            .spawn_to_end(NAME, Box::pin(collector.run(receiver)))
            .map_err(|error| failed(&error))?;
        Ok(Self {
            queue: sender,
            dropped: dropped(env)?,
            tracer: Tracer::new(config.sample_ratio, &*env.random),
            slot: env.slot()?,
            traces: config.traces,
            logs: config.logs,
            trust_incoming: config.trust_incoming,
        })
    }

    fn hooks(self: Arc<Self>) -> Hooks {
        let hooks = Hooks::new().log(Arc::clone(&self));
        let hooks = match self.trust_incoming {
            true => {
                let names = [TRACEPARENT, TRACESTATE].map(HeaderName::from_static);
                hooks.logs_fields(names.into(), Vec::new())
            }
            false => hooks,
        };
        match self.traces {
            true => hooks.request(self).judges_once(),
            false => hooks,
        }
    }
}
