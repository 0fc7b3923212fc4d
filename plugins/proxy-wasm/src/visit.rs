//! One exchange at a filter: its context on a machine, and the heads that are lent to it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use adit_filters::{Exchange, FilterError, Outcome, Revision, Verdict};
use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http::{Method, StatusCode, header, request, response};
use tokio::sync::Notify;

use crate::abi::{Action, Map, Way};
use crate::common::{Event, Which};
use crate::context::Context;
use crate::filter::Filter;
use crate::under_way::Call;
use crate::vm::{Said, Vm};

/// One exchange at a filter. Its context goes with it.
pub(crate) struct Visit {
    pub(crate) filter: Arc<Filter>,
    pub(crate) which: Which,
    pub(crate) id: u32,
    wake: Arc<Notify>,
    /// Something of it has failed: nothing can follow.
    failed: AtomicBool,
    ended: AtomicBool,
}

/// A head that is lent to a machine while it works, and comes back whatever comes of that.
trait Lent {
    const WAY: Way;
    /// Puts the head into the context, and says how many fields it has.
    fn lend(&mut self, context: &mut Context) -> usize;
    fn take_back(&mut self, context: &mut Context);
    /// Leaves a copy, to be read from now on.
    fn leave(&self, context: &mut Context);
}

impl Lent for request::Parts {
    const WAY: Way = Way::Request;

    fn lend(&mut self, context: &mut Context) -> usize {
        let nothing = http::Request::new(()).into_parts().0;
        context.request = Some(std::mem::replace(self, nothing));
        context.count(Map::Headers(Way::Request))
    }

    fn take_back(&mut self, context: &mut Context) {
        if let Some(head) = context.request.take() {
            *self = head;
        }
    }

    fn leave(&self, context: &mut Context) {
        let (mut copy, ()) = http::Request::new(()).into_parts();
        copy.method = self.method.clone();
        copy.uri = self.uri.clone();
        copy.version = self.version;
        copy.headers = self.headers.clone();
        context.request = Some(copy);
    }
}

impl Lent for response::Parts {
    const WAY: Way = Way::Response;

    fn lend(&mut self, context: &mut Context) -> usize {
        let nothing = http::Response::new(()).into_parts().0;
        context.response = Some(std::mem::replace(self, nothing));
        context.count(Map::Headers(Way::Response))
    }

    fn take_back(&mut self, context: &mut Context) {
        if let Some(head) = context.response.take() {
            *self = head;
        }
    }

    fn leave(&self, context: &mut Context) {
        let (mut copy, ()) = http::Response::new(()).into_parts();
        copy.status = self.status;
        copy.version = self.version;
        copy.headers = self.headers.clone();
        context.response = Some(copy);
    }
}

impl Visit {
    /// Makes a context for an exchange.
    pub(crate) fn begin(filter: &Arc<Filter>, exchange: &Exchange) -> Result<Self, FilterError> {
        let now = filter.common.services.env().clock.now();
        let context = Context::new(exchange, now);
        let wake = Arc::clone(&context.wake);
        let (which, id) = filter.admit(context)?;
        Ok(Self {
            filter: Arc::clone(filter),
            which,
            id,
            wake,
            failed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        })
    }

    /// Works on the machine of this exchange.
    pub(crate) fn with<R>(
        &self,
        work: impl FnOnce(&mut Vm) -> Result<R, FilterError>,
    ) -> Result<R, FilterError> {
        if self.failed.load(Ordering::Relaxed) {
            return Err(FilterError::Trapped {
                reason: "it has failed before",
            });
        }
        self.filter.with(self.which, work)
    }

    /// After a failure nothing can follow.
    pub(crate) fn weigh<R>(&self, said: Result<R, FilterError>) -> Result<R, FilterError> {
        said.inspect_err(|_| self.failed.store(true, Ordering::Relaxed))
    }

    /// Works on the machine with a head lent to the context.
    fn lending<H: Lent>(
        &self,
        head: &mut H,
        work: impl FnOnce(&mut Vm, usize) -> Result<Said, FilterError>,
    ) -> Result<Said, FilterError> {
        self.with(|vm| {
            let context = vm.context(self.id)?;
            let fields = head.lend(context);
            context.lend(Map::Headers(H::WAY));
            let said = work(vm, fields);
            if let Ok(context) = vm.context(self.id) {
                context.keep();
                head.take_back(context);
                if !matches!(said, Ok(Said::Wait(_))) {
                    head.leave(context);
                }
            }
            said
        })
    }

    /// Asks about a head, and waits as long as the filter pauses it and may.
    async fn ask<H: Lent>(&self, head: &mut H) -> Result<Said, FilterError> {
        let services = &self.filter.common.services;
        let limit = services.limits().wait;
        let mut over = services.env().clock.sleep(limit);
        let mut said = self.lending(head, |vm, fields| vm.headers(self.id, H::WAY, fields))?;
        let mut calls: FuturesUnordered<Call> = FuturesUnordered::new();
        loop {
            let common = &self.filter.common;
            let Said::Wait(own) = said else {
                // What is still under way is answered beside the exchange.
                calls
                    .into_iter()
                    .for_each(|call| common.tell(Event::Call(call)));
                return Ok(said);
            };
            calls.extend(
                own.into_iter()
                    .map(|call| Call::new(common, self.which, call)),
            );
            if calls.is_empty() && !self.with(|vm| Ok(vm.may_wake(self.id)))? {
                return Err(FilterError::Plugin {
                    reason: "it paused a head, and nothing is under way that could wake it"
                        .to_owned(),
                });
            }
            let arrived = async {
                match calls.next().await {
                    Some(arrived) => arrived,
                    None => std::future::pending().await,
                }
            };
            let arrived = pin!(arrived);
            let notified = pin!(self.wake.notified());
            let woken = select(arrived, notified);
            let came = match select(woken, &mut over).await {
                Either::Left((Either::Left((arrived, _)), _)) => Some(arrived),
                Either::Left((Either::Right(_), _)) => None,
                Either::Right(_) => {
                    return Err(FilterError::Plugin {
                        reason: format!("it did not answer within {limit:?}"),
                    });
                }
            };
            said = self.lending(head, |vm, _| {
                if let Some((_, _, token, answer)) = came {
                    vm.deliver(self.id, token, answer)?;
                }
                vm.outcome(self.id, H::WAY, Action::Pause)
            })?;
        }
    }

    pub(crate) async fn request(
        &self,
        head: &mut request::Parts,
        ended: bool,
    ) -> Result<Verdict, FilterError> {
        self.with(|vm| {
            let [request, _] = &mut vm.context(self.id)?.ended;
            *request = ended;
            Ok(())
        })?;
        Ok(match self.ask(head).await? {
            Said::Reply(reply) => Verdict::Respond(reply),
            Said::Close => Verdict::Close,
            Said::Go | Said::Wait(_) => Verdict::Continue,
        })
    }

    pub(crate) async fn response(
        &self,
        head: &mut response::Parts,
    ) -> Result<Revision, FilterError> {
        let bare = matches!(
            head.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        ) || head
            .headers
            .get(header::CONTENT_LENGTH)
            .is_some_and(|length| length == "0");
        self.with(|vm| {
            let context = vm.context(self.id)?;
            let of_head = context
                .request
                .as_ref()
                .is_some_and(|head| head.method == Method::HEAD);
            let [_, response] = &mut context.ended;
            *response = bare || of_head;
            Ok(())
        })?;
        let said = self.ask(head).await?;
        self.with(|vm| {
            vm.context(self.id)?.may_reply = false;
            Ok(())
        })?;
        Ok(match said {
            Said::Reply(reply) => Revision::Replace(reply),
            Said::Close => Revision::Close,
            Said::Go | Said::Wait(_) => Revision::Keep,
        })
    }

    /// The exchange is over; without an outcome it never was one.
    pub(crate) fn end(&self, outcome: Option<&Arc<Outcome>>) -> Result<(), FilterError> {
        if self.ended.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let gone = |vm: &Vm| vm.which != self.which;
        let slot = self.filter.vms.get(self.which.vm);
        let lost = slot.is_none_or(|slot| {
            let slot = crate::common::lock(slot);
            slot.as_ref().is_none_or(gone)
        });
        if lost {
            return Ok(());
        }
        let outcome = outcome.cloned();
        self.filter.with(self.which, |vm| vm.end(self.id, outcome))
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let _told = self.filter.tell(self.end(None));
    }
}
