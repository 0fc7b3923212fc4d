//! One machine: a module started, with its root context and those of exchanges.

use std::sync::Arc;
use std::time::Duration;

use adit_filters::env::HttpResponse;
use adit_filters::{FilterError, Outcome, Reply};
use adit_wasm::module::{Export, Instance, Params, Results};

use crate::abi::{Action, Way};
use crate::code::Code;
use crate::common::{Common, Event, Which};
use crate::context::Context;
use crate::host::{Host, ROOT};
use crate::under_way::{Call, Outgoing};

/// How many machines one configured filter may have.
pub const VMS_MAX: usize = 4;

/// How many contexts may ask for time after their exchange.
const DEFERRED_MAX: usize = 256;

/// A machine that lives.
pub(crate) struct Vm {
    pub(crate) instance: Instance<Host>,
    pub(crate) code: Arc<Code>,
    pub(crate) common: Arc<Common>,
    pub(crate) which: Which,
    /// When its timer is next due, by the monotonic clock.
    pub(crate) due: Option<Duration>,
    next: u32,
}

/// Why a machine did not start.
pub(crate) enum NotStarted {
    /// It failed.
    Failed(FilterError),
    /// It does not take what it was given.
    Rejected(&'static str),
}

impl From<FilterError> for NotStarted {
    fn from(error: FilterError) -> Self {
        Self::Failed(error)
    }
}

/// What is to be done after a callback.
pub(crate) enum Said {
    Go,
    /// Not before one of these, or somebody else, wakes the context.
    Wait(Vec<Outgoing>),
    Reply(Box<Reply>),
    Close,
}

fn length(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

impl Vm {
    /// Starts a machine and tells it its configuration.
    pub(crate) fn start(
        code: &Arc<Code>,
        common: &Arc<Common>,
        which: Which,
    ) -> Result<Self, NotStarted> {
        let limits = *common.services.limits();
        let mut host = Host::new(Arc::clone(common), Arc::clone(&code.exports), which);
        host.calls_left = limits.host_calls;
        let instance = Instance::start(&code.module, &limits, host)?;
        let mut vm = Self {
            instance,
            code: Arc::clone(code),
            common: Arc::clone(common),
            which,
            due: None,
            next: ROOT,
        };
        let fuel = limits.fuel_start;
        let exports = Arc::clone(&code.exports);
        match &exports.initialize {
            Some(_) => {
                vm.call(ROOT, &exports.initialize, fuel, ())?;
                vm.call(ROOT, &exports.main, fuel, (0, 0))?;
            }
            None => {
                vm.call(ROOT, &exports.start, fuel, ())?;
            }
        }
        vm.call(ROOT, &exports.context_create, fuel, (ROOT, 0))?;
        let settings = &common.settings;
        for (export, given, what) in [
            (&exports.vm_start, &settings.vm, "`proxy_on_vm_start`"),
            (&exports.configure, &settings.plugin, "`proxy_on_configure`"),
        ] {
            if vm.call(ROOT, export, fuel, (ROOT, length(given.len())))? == Some(0) {
                return Err(NotStarted::Rejected(what));
            }
        }
        vm.tidy()?;
        Ok(vm)
    }

    pub(crate) fn host(&mut self) -> &mut Host {
        self.instance.host()
    }

    /// Calls one of its functions, if it has it.
    fn call<P: Params, R: Results>(
        &mut self,
        context: u32,
        export: &Option<Export<P, R>>,
        fuel: u64,
        params: P,
    ) -> Result<Option<R>, FilterError> {
        let Some(export) = export else {
            return Ok(None);
        };
        let calls = self.common.services.limits().host_calls;
        let host = self.host();
        host.effective = context;
        host.calls_left = calls;
        self.instance.call(export, fuel, params).map(Some)
    }

    /// Sees to what a callback has left behind.
    pub(crate) fn tidy(&mut self) -> Result<(), FilterError> {
        let now = self.common.services.env().clock.monotonic();
        let host = self.host();
        if std::mem::take(&mut host.tick_is_new) {
            let tick = host.tick;
            self.due = tick.map(|tick| now.saturating_add(tick));
            self.common.wake.notify_one();
        }
        let which = self.which;
        for call in std::mem::take(&mut self.host().outgoing) {
            let call = Call::new(&self.common, which, call);
            self.common.tell(Event::Call(call));
        }
        for id in std::mem::take(&mut self.host().done) {
            self.delete(id)?;
        }
        Ok(())
    }

    /// A context for an exchange.
    pub(crate) fn create(&mut self, context: Context) -> Result<u32, FilterError> {
        let id = loop {
            self.next = self.next.wrapping_add(1);
            let taken = self.next <= ROOT || {
                let next = self.next;
                self.host().contexts.contains_key(&next)
            };
            if !taken {
                break self.next;
            }
        };
        self.host().contexts.insert(id, context);
        let fuel = self.common.services.limits().fuel_decide;
        let exports = Arc::clone(&self.code.exports);
        self.call(id, &exports.context_create, fuel, (id, ROOT))?;
        Ok(id)
    }

    /// The context of an exchange. It is there as long as the exchange is.
    pub(crate) fn context(&mut self, id: u32) -> Result<&mut Context, FilterError> {
        let contexts = &mut self.host().contexts;
        contexts.get_mut(&id).ok_or(FilterError::Trapped {
            reason: "its context is gone",
        })
    }

    /// The context of an exchange before one of its callbacks for this direction. Nothing is resumed by what came before.
    fn about_to(&mut self, id: u32, way: Way) -> Result<&mut Context, FilterError> {
        let context = self.context(id)?;
        if let Some(resumed) = context.resumed.get_mut(way as usize) {
            *resumed = false;
        }
        Ok(context)
    }

    /// Asks about a head; its callback is given the number of fields.
    pub(crate) fn headers(
        &mut self,
        id: u32,
        way: Way,
        fields: usize,
    ) -> Result<Said, FilterError> {
        let fuel = self.common.services.limits().fuel_decide;
        let exports = Arc::clone(&self.code.exports);
        let ended = self.about_to(id, way)?.ended;
        let [request, response] = &exports.headers;
        let (export, ended) = match (way, ended) {
            (Way::Request, [ended, _]) => (request, ended),
            (Way::Response, [_, ended]) => (response, ended),
        };
        let params = (id, length(fields), u32::from(ended));
        let action = self.call(id, export, fuel, params)?;
        self.said(id, way, action)
    }

    pub(crate) fn body(&mut self, id: u32, way: Way, last: bool) -> Result<Said, FilterError> {
        let fuel = self.common.services.limits().fuel_piece;
        let exports = Arc::clone(&self.code.exports);
        let [request, response] = &exports.body;
        let export = match way {
            Way::Request => request,
            Way::Response => response,
        };
        let context = self.about_to(id, way)?;
        let [of_request, of_response] = &context.bodies;
        let bytes = match way {
            Way::Request => of_request.bytes.len(),
            Way::Response => of_response.bytes.len(),
        };
        let action = self.call(id, export, fuel, (id, length(bytes), u32::from(last)))?;
        self.said_at_once(id, way, action)
    }

    pub(crate) fn trailers(
        &mut self,
        id: u32,
        way: Way,
        fields: usize,
    ) -> Result<Said, FilterError> {
        let fuel = self.common.services.limits().fuel_piece;
        let exports = Arc::clone(&self.code.exports);
        let [request, response] = &exports.trailers;
        let export = match way {
            Way::Request => request,
            Way::Response => response,
        };
        self.about_to(id, way)?;
        let action = self.call(id, export, fuel, (id, length(fields)))?;
        self.said_at_once(id, way, action)
    }

    /// What is to be done after a callback that answered this, or no answer.
    fn said(&mut self, id: u32, way: Way, action: Option<u32>) -> Result<Said, FilterError> {
        let action = action.map_or(Action::Continue, Action::of);
        self.outcome(id, way, action)
    }

    /// The same where nobody waits for calls: the driver sees to them.
    fn said_at_once(
        &mut self,
        id: u32,
        way: Way,
        action: Option<u32>,
    ) -> Result<Said, FilterError> {
        let mut said = self.said(id, way, action)?;
        if let Said::Wait(own) = &mut said {
            self.host().outgoing.append(own);
        }
        Ok(said)
    }

    /// What is to be done now with a context whose last answer was this.
    pub(crate) fn outcome(
        &mut self,
        id: u32,
        way: Way,
        action: Action,
    ) -> Result<Said, FilterError> {
        let context = self.context(id)?;
        if let Some(reply) = context.reply.take() {
            return Ok(Said::Reply(reply));
        }
        if context.closed {
            return Ok(Said::Close);
        }
        let resumed = context
            .resumed
            .get_mut(way as usize)
            .is_some_and(std::mem::take);
        if action == Action::Continue || resumed {
            return Ok(Said::Go);
        }
        let all = std::mem::take(&mut self.host().outgoing);
        let (own, others) = all.into_iter().partition(|call| call.context == id);
        self.host().outgoing = others;
        Ok(Said::Wait(own))
    }

    /// Delivers the answer to a call, or that there is none.
    pub(crate) fn deliver(
        &mut self,
        id: u32,
        token: u32,
        answer: Option<HttpResponse>,
    ) -> Result<(), FilterError> {
        if id == ROOT {
            let host = self.host();
            host.root_calls = host.root_calls.saturating_sub(1);
        } else if let Some(context) = self.host().contexts.get_mut(&id) {
            context.calls = context.calls.saturating_sub(1);
        } else {
            // Its exchange is over.
            return Ok(());
        }
        let fuel = self.common.services.limits().fuel_decide;
        let exports = Arc::clone(&self.code.exports);
        let (fields, bytes) = answer.as_ref().map_or((0, 0), |answer| {
            (answer.headers.len() + 1, answer.body.len())
        });
        self.host().answer = answer;
        let params = (id, token, length(fields), length(bytes), 0);
        let called = self.call(id, &exports.call_response, fuel, params);
        self.host().answer = None;
        called.map(|_| ())
    }

    pub(crate) fn tick(&mut self) -> Result<(), FilterError> {
        let fuel = self.common.services.limits().fuel_decide;
        let exports = Arc::clone(&self.code.exports);
        self.call(ROOT, &exports.tick, fuel, ROOT)?;
        self.tidy()
    }

    pub(crate) fn queue_ready(&mut self, queue: u32) -> Result<(), FilterError> {
        let fuel = self.common.services.limits().fuel_decide;
        let exports = Arc::clone(&self.code.exports);
        self.call(ROOT, &exports.queue_ready, fuel, (ROOT, queue))?;
        self.tidy()
    }

    /// Whether anything may wake a context: a call of its own too that somebody else sees to.
    pub(crate) fn may_wake(&mut self, id: u32) -> bool {
        let host = self.host();
        let own = host.contexts.get(&id).map_or(0, |context| context.calls);
        host.tick.is_some() || host.root_calls > 0 || own > 0 || host.common.has_queues()
    }

    /// Tells a context that its exchange is over.
    pub(crate) fn end(
        &mut self,
        id: u32,
        outcome: Option<Arc<Outcome>>,
    ) -> Result<(), FilterError> {
        let Ok(context) = self.context(id) else {
            return Ok(());
        };
        context.outcome = outcome;
        context.may_reply = false;
        let fuel = self.common.services.limits().fuel_piece;
        let exports = Arc::clone(&self.code.exports);
        let done = self.call(id, &exports.done, fuel, id)?;
        let deferred = {
            let contexts = self.host().contexts.values();
            contexts.filter(|context| context.deferred).count()
        };
        if done == Some(0) && deferred < DEFERRED_MAX {
            self.context(id)?.deferred = true;
            return Ok(());
        }
        self.delete(id)
    }

    fn delete(&mut self, id: u32) -> Result<(), FilterError> {
        let fuel = self.common.services.limits().fuel_piece;
        let exports = Arc::clone(&self.code.exports);
        self.call(id, &exports.log, fuel, id)?;
        self.call(id, &exports.delete, fuel, id)?;
        self.host().contexts.remove(&id);
        Ok(())
    }
}
