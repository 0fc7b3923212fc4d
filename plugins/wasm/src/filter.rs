//! A component as a filter: each phase it exports is a hook.

mod passing;

use std::sync::{Arc, Mutex, PoisonError};

use adit_filters::{
    Admission, ConnectCx, Exchange, FilterError, Hooks, Identity, LogCx, OnConnect, OnLog,
    OnRejudge, OnRequest, OnResponse, Outcome, RejudgeCx, RequestCx, ResponseCx, Revision, Stage,
    Stay, Verdict,
};
use tracing::Level;
use wasmtime::component::Resource;

use crate::bindings::exports::adit::filter::on_log;
use crate::component::Component;
use crate::convert::{self, Answer};
use crate::instance::{Instance, exchange};
use crate::output;
use crate::shared::Shared;
use crate::state::{Call, OfConnection, OfExchange};

/// A configured filter.
pub(crate) struct Filter {
    pub(crate) component: Arc<Component>,
    pub(crate) shared: Arc<Shared>,
    /// Its table, in JSON.
    pub(crate) config: String,
    pub(crate) stage: Stage,
    /// How many hooks one instance may serve.
    pub(crate) reuse: u32,
    /// Instances that wait for the next hook.
    pub(crate) ready: Mutex<Vec<Instance>>,
}

impl Filter {
    pub(crate) fn hooks(self) -> Hooks {
        let filter = Arc::new(self);
        let exports = &filter.component.code.exports;
        let mut hooks = Hooks::new().at(filter.stage);
        if exports.connect.is_some() {
            hooks = hooks.connect(Arc::clone(&filter));
        }
        // Variables are set up while the request goes down, for all phases after it.
        let later = exports.response.is_some()
            || exports.request_body.is_some()
            || exports.response_body.is_some()
            || exports.stream.is_some()
            || exports.datagram.is_some();
        if exports.request.is_some() || (later && exports.connect.is_none()) {
            hooks = hooks.request(Arc::clone(&filter));
        }
        if exports.request.is_none() && exports.connect.is_none() {
            hooks = hooks.judges_once();
        }
        if exports.response.is_some() {
            hooks = hooks.response(Arc::clone(&filter));
        }
        if exports.request_body.is_some() {
            hooks = hooks.request_body(Arc::clone(&filter));
        }
        if exports.response_body.is_some() {
            hooks = hooks.response_body(Arc::clone(&filter));
        }
        if exports.stream.is_some() {
            hooks = hooks.stream(Arc::clone(&filter));
        }
        if exports.datagram.is_some() {
            hooks = hooks.datagram(Arc::clone(&filter));
        }
        if exports.rejudge.is_some() {
            hooks = hooks.rejudge(Arc::clone(&filter));
        }
        if exports.log.is_some() {
            hooks = hooks.log(Arc::clone(&filter));
        }
        hooks
    }

    /// An instance for one hook.
    async fn instance(&self) -> Result<Instance, FilterError> {
        let ready = {
            let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
            ready.pop()
        };
        match ready {
            Some(instance) => Ok(instance),
            None => Instance::start(&self.component, &self.shared, &self.config).await,
        }
    }

    /// Keeps an instance for the next hook, if it may serve one more, and as long as others find places too.
    fn put_back(&self, instance: Instance) {
        if instance.uses < self.reuse && self.component.pool.has_room() {
            let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
            ready.push(instance);
        }
    }

    fn start_at_once(&self) -> Result<Box<Instance>, FilterError> {
        use futures_util::FutureExt as _;
        let started = Instance::start(&self.component, &self.shared, &self.config);
        started
            .now_or_never()
            .unwrap_or_else(|| {
                Err(FilterError::Plugin {
                    reason: "it waited before the first piece".to_owned(),
                })
            })
            .map(Box::new)
    }

    /// Writes down why the filter said what it said, and what failed.
    fn tell<A>(&self, said: Result<Answer<A>, FilterError>) -> Result<A, FilterError> {
        match said {
            Ok(Answer { answer, detail }) => {
                if let Some(detail) = detail {
                    output::line(&self.shared, Level::INFO, &detail);
                }
                Ok(answer)
            }
            Err(error) => {
                if let Some(spent) = &self.shared.spent {
                    spent.failed(error.detail());
                }
                if let Some(total) = self.shared.failed() {
                    let filter = &*self.shared.env.name;
                    tracing::warn!(filter, total, error = %error.detail(), "a plugin failed");
                }
                Err(error)
            }
        }
    }

    fn call_of(&self, exchange: &Exchange) -> Call {
        let name = &self.shared.env.name;
        let known = exchange.fact::<OfExchange>();
        let inherited = exchange.fact::<OfConnection>();
        Call {
            // Where nothing was set up while the request came, what is kept lasts for the call.
            variables: Some(
                known
                    .map(|OfExchange(all)| all.of(name))
                    .unwrap_or_default(),
            ),
            inherited: inherited.map(|OfConnection(all)| all.of(name)),
            ..Call::of(exchange)
        }
    }
}

impl OnConnect for Filter {
    async fn on_connect(&self, cx: &mut ConnectCx<'_>) -> Result<Admission, FilterError> {
        let Some(phase) = &self.component.code.exports.connect else {
            return Ok(Admission::Admit);
        };
        if cx.facts.get::<OfConnection>().is_none() {
            let _is_new = cx.facts.establish(OfConnection::default());
        }
        let mut call = Call::connecting(cx.connection, cx.tunnel, cx.facts.so_far());
        let known = cx.facts.get::<OfConnection>();
        call.variables = known.map(|OfConnection(all)| all.of(&self.shared.env.name));
        let said = async {
            let mut instance = self.instance().await?;
            let fuel = self.shared.limits.fuel_decide;
            let (said, _) = instance
                .wait_for(call, fuel, async |store, linked| {
                    let guest = phase.load(&mut *store, linked)?;
                    guest.call_on_connect(&mut *store, exchange()).await
                })
                .await;
            let said = said?.map_err(convert::failure)?;
            self.put_back(instance);
            Ok(convert::admission(said))
        };
        self.tell(said.await)
    }
}

impl OnRequest for Filter {
    async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        if cx.exchange.fact::<OfExchange>().is_none() {
            let _is_new = cx.exchange.establish(OfExchange::default());
        }
        let Some(phase) = &self.component.code.exports.request else {
            return Ok(Verdict::Continue);
        };
        let mut instance = match self.instance().await {
            Ok(instance) => instance,
            Err(error) => return self.tell(Err(error)),
        };
        let mut call = self.call_of(cx.exchange);
        call.upgrade = cx.upgrade;
        call.identifies = true;
        call.request = Some(std::mem::replace(cx.head, nothing()));
        let fuel = self.shared.limits.fuel_decide;
        let (said, call) = instance
            .wait_for(call, fuel, async |store, linked| {
                let guest = phase.load(&mut *store, linked)?;
                let head = Resource::new_borrow(0);
                guest.call_on_request(&mut *store, head, exchange()).await
            })
            .await;
        if let Some(head) = call.request {
            *cx.head = head;
        }
        let said = said
            .and_then(|said| said.map_err(convert::failure))
            .and_then(|said| convert::verdict(said, &self.shared.limits));
        if said.is_ok() {
            self.put_back(instance);
        }
        let said = self.tell(said)?;
        if let Some(identity) = call.identity {
            establish(cx.exchange, identity)?;
        }
        Ok(said)
    }
}

fn establish(exchange: &mut Exchange, identity: Identity) -> Result<(), FilterError> {
    exchange
        .establish(identity)
        .map_err(|_| FilterError::Trapped {
            reason: "somebody was identified twice",
        })
}

impl OnResponse for Filter {
    async fn on_response(&self, cx: &mut ResponseCx<'_>) -> Result<Revision, FilterError> {
        let Some(phase) = &self.component.code.exports.response else {
            return Ok(Revision::Keep);
        };
        let mut instance = match self.instance().await {
            Ok(instance) => instance,
            Err(error) => return self.tell(Err(error)),
        };
        let mut call = self.call_of(cx.exchange);
        let (nothing, ()) = http::Response::new(()).into_parts();
        call.response = Some(std::mem::replace(cx.head, nothing));
        let fuel = self.shared.limits.fuel_decide;
        let (said, call) = instance
            .wait_for(call, fuel, async |store, linked| {
                let guest = phase.load(&mut *store, linked)?;
                let head = Resource::new_borrow(0);
                guest.call_on_response(&mut *store, head, exchange()).await
            })
            .await;
        if let Some(head) = call.response {
            *cx.head = head;
        }
        let said = said
            .and_then(|said| said.map_err(convert::failure))
            .and_then(|said| convert::revision(said, &self.shared.limits));
        if said.is_ok() {
            self.put_back(instance);
        }
        self.tell(said.map(Answer::from))
    }
}

impl OnRejudge for Filter {
    fn on_rejudge(&self, cx: &mut RejudgeCx<'_>) -> Result<Stay, FilterError> {
        let Some(phase) = &self.component.code.exports.rejudge else {
            return Ok(Stay::Yes);
        };
        let mut call = self.call_of(cx.exchange);
        call.upgrade = cx.upgrade;
        let said = self.start_at_once().and_then(|mut instance| {
            let fuel = self.shared.limits.fuel_decide;
            let (said, _) = instance.at_once(call, fuel, async |store, linked| {
                let guest = phase.load(&mut *store, linked)?;
                guest.call_on_rejudge(&mut *store, exchange()).await
            });
            said
        });
        let said = said
            .and_then(|said| said.map_err(convert::failure))
            .map(|said| convert::stay(said).into());
        let said = self.tell(said)?;
        let known = cx.exchange.fact::<Identity>();
        if let Some(identity) = known
            && !matches!(said, Stay::No(_))
            && self.shared.grants.establish_identity
        {
            let _first = cx.facts.establish(identity.clone());
        }
        Ok(said)
    }
}

impl OnLog for Filter {
    fn on_log(&self, cx: &LogCx<'_>) {
        let Some(phase) = &self.component.code.exports.log else {
            return;
        };
        let outcome = outcome(cx.outcome);
        let call = self.call_of(cx.exchange);
        let said = self.start_at_once().and_then(|mut instance| {
            let fuel = self.shared.limits.fuel_piece;
            let (said, _) = instance.at_once(call, fuel, async |store, linked| {
                let guest = phase.load(&mut *store, linked)?;
                guest.call_on_log(&mut *store, exchange(), &outcome).await
            });
            said
        });
        let _told = self.tell(said.map(Answer::from));
    }
}

fn outcome(of: &Outcome) -> on_log::Outcome {
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let since = of.started.duration_since(std::time::SystemTime::UNIX_EPOCH);
    let decided = of
        .refusal
        .as_ref()
        .and_then(|refusal| refusal.by.clone())
        .or_else(|| of.settled.as_ref().map(|settled| settled.by.clone()));
    on_log::Outcome {
        request_id: of.request_id.to_string(),
        method: of.request.method().to_string(),
        path: of.request.path().into_owned(),
        started_ms: micros(since.unwrap_or_default()) / 1000,
        duration_us: micros(of.duration),
        status: of.status,
        bytes_up: of.bytes_up,
        bytes_down: of.bytes_down,
        decided_by: decided.map(|by| by.to_string()),
        refused_for: of
            .refusal
            .as_ref()
            .map(|refusal| refusal.reason.as_str().to_owned()),
    }
}

/// A head in the place of one that is lent.
fn nothing() -> http::request::Parts {
    http::Request::new(()).into_parts().0
}
