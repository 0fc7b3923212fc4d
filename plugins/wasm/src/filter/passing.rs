//! The phases that see bytes pass: one instance for each direction of an exchange.

use adit_filters::{
    BodyCx, DatagramCx, Direction, Exchange, FilterError, OnDatagram, OnRequestBody,
    OnResponseBody, OnStream, Passage, StreamCx,
};
use bytes::Bytes;
use http::HeaderMap;
use wasmtime::component::Resource;

use super::Filter;
use crate::bindings::adit::filter::types as wit;
use crate::convert;
use crate::handles::FieldsHandle;
use crate::instance::{Instance, exchange};
use crate::state::{Call, FieldsOf, State};

/// An instance of one direction of an exchange, from its first piece to its last.
pub(crate) enum Passing {
    /// No piece has come yet.
    NotYet,
    Running(Box<Instance>),
    /// It failed: nothing can follow.
    Over,
}

/// What a guest says of a piece: an answer, and other bytes in the piece's place.
type SaidOfPiece = Result<(wit::Passage, Option<Vec<u8>>), wit::Failure>;

impl Filter {
    /// Shows a piece to the instance of its direction.
    fn pass(
        &self,
        state: &mut Passing,
        mut call: Call,
        chunk: &mut Bytes,
        trailers: Option<&mut HeaderMap>,
        hook: impl AsyncFnOnce(
            &mut wasmtime::Store<State>,
            &wasmtime::component::Instance,
            Vec<u8>,
        ) -> wasmtime::Result<SaidOfPiece>,
    ) -> Result<Passage, FilterError> {
        if matches!(state, Passing::NotYet) {
            match self.start_at_once() {
                Ok(instance) => *state = Passing::Running(instance),
                Err(error) => {
                    *state = Passing::Over;
                    return self.tell::<Passage>(Err(error));
                }
            }
        }
        let Passing::Running(instance) = state else {
            return Err(FilterError::Trapped {
                reason: "it has failed before",
            });
        };
        let piece = chunk.to_vec();
        let mut trailers = trailers;
        call.trailers = trailers.as_deref_mut().map(std::mem::take);
        let fuel = self.shared.limits.fuel_piece;
        let (said, call) = instance.at_once(call, fuel, async |store, linked| {
            hook(store, linked, piece).await
        });
        if let (Some(theirs), Some(now)) = (trailers, call.trailers) {
            *theirs = now;
        }
        let said = said
            .and_then(|said| said.map_err(convert::failure))
            .and_then(|(passage, bytes)| {
                if let Some(bytes) = bytes {
                    *chunk = Bytes::from(bytes);
                }
                convert::passage(passage, &self.shared.limits)
            });
        if said.is_err() {
            *state = Passing::Over;
        }
        self.tell(said)
    }
}

fn trailers(there: bool) -> Option<Resource<FieldsHandle>> {
    there.then(|| Resource::new_borrow(FieldsOf::Trailers.number()))
}

macro_rules! body {
    ($trait:ident, $method:ident, $export:ident, $call:ident) => {
        impl $trait for Filter {
            type State = Passing;

            fn begin(&self, _: &Exchange) -> Passing {
                Passing::NotYet
            }

            fn $method(
                &self,
                state: &mut Passing,
                cx: &mut BodyCx<'_>,
                chunk: &mut Bytes,
            ) -> Result<Passage, FilterError> {
                let Some(phase) = &self.component.code.exports.$export else {
                    return Ok(Passage::Forward);
                };
                let (last, there) = (cx.last, cx.trailers.is_some());
                let call = self.call_of(cx.exchange);
                self.pass(
                    state,
                    call,
                    chunk,
                    cx.trailers.as_deref_mut(),
                    async |store, linked, piece| {
                        let guest = phase.load(&mut *store, linked)?;
                        guest
                            .$call(&mut *store, &piece, last, trailers(there), exchange())
                            .await
                    },
                )
            }
        }
    };
}
body!(
    OnRequestBody,
    on_request_body,
    request_body,
    call_on_request_body
);
body!(
    OnResponseBody,
    on_response_body,
    response_body,
    call_on_response_body
);

fn direction(of: Direction) -> wit::Direction {
    match of {
        Direction::ToAgent => wit::Direction::ToAgent,
        Direction::ToClient => wit::Direction::ToClient,
    }
}

impl OnStream for Filter {
    type State = Passing;

    fn begin(&self, _: &Exchange) -> Passing {
        Passing::NotYet
    }

    fn on_stream(
        &self,
        state: &mut Passing,
        cx: &mut StreamCx<'_>,
        chunk: &mut Bytes,
    ) -> Result<Passage, FilterError> {
        let Some(phase) = &self.component.code.exports.stream else {
            return Ok(Passage::Forward);
        };
        let (way, last) = (direction(cx.direction), cx.last);
        let call = self.call_of(cx.exchange);
        self.pass(state, call, chunk, None, async |store, linked, piece| {
            let guest = phase.load(&mut *store, linked)?;
            guest
                .call_on_stream(&mut *store, way, &piece, last, exchange())
                .await
        })
    }
}

impl OnDatagram for Filter {
    type State = Passing;

    fn begin(&self, _: &Exchange) -> Passing {
        Passing::NotYet
    }

    fn on_datagram(
        &self,
        state: &mut Passing,
        cx: &mut DatagramCx<'_>,
        datagram: &mut Bytes,
    ) -> Result<Passage, FilterError> {
        let Some(phase) = &self.component.code.exports.datagram else {
            return Ok(Passage::Forward);
        };
        let way = direction(cx.direction);
        let call = self.call_of(cx.exchange);
        self.pass(state, call, datagram, None, async |store, linked, piece| {
            let guest = phase.load(&mut *store, linked)?;
            guest
                .call_on_datagram(&mut *store, way, &piece, exchange())
                .await
        })
    }
}
