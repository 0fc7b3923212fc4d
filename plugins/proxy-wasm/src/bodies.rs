//! Bodies and trailers on their way through a context. Their callbacks never wait.

use adit_filters::{BodyCx, Exchange, FilterError, OnRequestBody, OnResponseBody, Passage};
use bytes::Bytes;
use http::HeaderMap;

use crate::abi::{Map, Way};
use crate::filter::Hook;
use crate::visit::Visit;
use crate::vm::{Said, Vm};

impl Hook {
    fn pass(
        &self,
        way: Way,
        cx: &mut BodyCx<'_>,
        chunk: &mut Bytes,
    ) -> Result<Passage, FilterError> {
        let Some(visit) = cx.exchange.slot(self.slot) else {
            return Ok(Passage::Forward);
        };
        let last = cx.last;
        let trailers = cx.trailers.as_deref_mut();
        let said = visit.with(|vm| piece(vm, visit, way, chunk, last, trailers));
        // A mistake about this exchange alone: the machine works on.
        let said = said.and_then(|passage| {
            passage.ok_or_else(|| FilterError::Plugin {
                reason: "it paused the end of a body, which cannot wait".to_owned(),
            })
        });
        self.filter.tell(visit.weigh(said))
    }
}

/// Asks about a piece; none if its end was paused.
fn piece(
    vm: &mut Vm,
    visit: &Visit,
    way: Way,
    chunk: &mut Bytes,
    last: bool,
    trailers: Option<&mut HeaderMap>,
) -> Result<Option<Passage>, FilterError> {
    let at = way as usize;
    let id = visit.id;
    let context = vm.context(id)?;
    let mut told = false;
    if let Some(ended) = context.ended.get_mut(at) {
        // What follows an end after all has an end of its own.
        *ended &= chunk.is_empty();
        told = *ended;
    }
    let Some(body) = context.bodies.get_mut(at) else {
        return Ok(Some(Passage::Forward));
    };
    let held = !body.bytes.is_empty();
    body.push(chunk);
    // An end without bytes is told if nothing else tells it.
    let tells = !chunk.is_empty() || (last && trailers.is_none() && (!told || held));
    let mut said = match held {
        true => Said::Wait(Vec::new()),
        false => Said::Go,
    };
    if tells {
        context.open = Some(way);
        said = vm.body(id, way, last && trailers.is_none())?;
        vm.context(id)?.open = None;
    }
    if let (Some(trailers), Said::Go | Said::Wait(_)) = (trailers, &said) {
        let context = vm.context(id)?;
        let fields = trailers.len();
        if let Some(place) = context.trailers.get_mut(at) {
            *place = Some(std::mem::take(trailers));
        }
        context.lend(Map::Trailers(way));
        context.open = Some(way);
        let answer = vm.trailers(id, way, fields);
        let context = vm.context(id)?;
        context.keep();
        context.open = None;
        if let Some(now) = context.trailers.get(at).and_then(Option::as_ref) {
            *trailers = now.clone();
        }
        said = answer?;
    }
    let context = vm.context(id)?;
    let Some(body) = context.bodies.get_mut(at) else {
        return Ok(Some(Passage::Forward));
    };
    Ok(Some(match said {
        Said::Go => {
            let body = std::mem::take(body);
            match body.changed {
                false => Passage::Forward,
                true => {
                    *chunk = body.bytes;
                    Passage::Replace
                }
            }
        }
        Said::Wait(_) if last => return Ok(None),
        Said::Wait(_) => Passage::Hold,
        Said::Reply(reply) => Passage::Respond(reply),
        Said::Close => Passage::Close,
    }))
}

impl OnRequestBody for Hook {
    type State = ();

    fn begin(&self, _: &Exchange) {}

    fn on_request_body(
        &self,
        (): &mut (),
        cx: &mut BodyCx<'_>,
        chunk: &mut Bytes,
    ) -> Result<Passage, FilterError> {
        self.pass(Way::Request, cx, chunk)
    }
}

impl OnResponseBody for Hook {
    type State = ();

    fn begin(&self, _: &Exchange) {}

    fn on_response_body(
        &self,
        (): &mut (),
        cx: &mut BodyCx<'_>,
        chunk: &mut Bytes,
    ) -> Result<Passage, FilterError> {
        self.pass(Way::Response, cx, chunk)
    }
}
