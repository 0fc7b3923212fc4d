//! Bytes on their way through the filters of one direction.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use crate::chain::Refusal;
use crate::context::{BodyCx, DatagramCx, Direction, StreamCx};
use crate::exchange::{Exchange, Left};
use crate::hooks::{RunningDatagram, RunningRequestBody, RunningResponseBody, RunningStream};
use crate::meter::Ear;
use crate::verdict::{FilterError, Passage, Reason, Reply};
use crate::weight::{Weighed, Weight};

/// How many bytes the filters of one direction may hold together, in bytes. Enough for a webhook's body; what needs
/// more is not judged by holding it.
pub const BODY_HOLD_MAX: usize = 1024 * 1024;

/// What became of a piece.
#[derive(Debug)]
pub enum Passed {
    /// Send this on. It may begin with bytes held before.
    Forward(Bytes),
    /// Send this on after this wait, and ask for nothing more until then.
    Pace(Bytes, Duration),
    /// Nothing to send on now.
    Held,
    /// Stop the exchange.
    Refuse(Refusal),
    /// Stop the exchange and answer this, if nothing has been answered yet.
    Respond {
        /// The answer.
        reply: Box<Reply>,
        /// The filter that gave it.
        by: Arc<str>,
    },
    /// Close without a word.
    Close {
        /// The filter that said so.
        by: Arc<str>,
    },
}

/// One direction of a body. Give it every piece in order, then [`finish`](Self::finish) it.
pub struct BodyFlow(Flow<Body>);

/// One direction of a byte stream. Give it every piece in order, then [`finish`](Self::finish) it.
pub struct StreamFlow(Flow<Box<dyn RunningStream>>);

/// One direction of a flow of datagrams. Give it each in turn, then [`finish`](Self::finish) it.
pub struct DatagramFlow(Flow<Box<dyn RunningDatagram>>);

impl BodyFlow {
    pub(crate) fn new(
        direction: Direction,
        steps: Vec<Step<Body>>,
        hold: usize,
        piece_max: usize,
    ) -> Self {
        Self(Flow::new(direction, steps, hold, piece_max))
    }

    /// Bytes the other leg must wait for before it may start, for this exchange.
    #[must_use]
    pub fn hold(&self) -> usize {
        self.0.hold
    }

    /// The largest piece that may be given at once, in bytes.
    #[must_use]
    pub fn piece_max(&self) -> usize {
        self.0.piece_max
    }

    /// Whether a filter may change the bytes, so that their number is not known.
    #[must_use]
    pub fn may_change(&self) -> bool {
        let mut steps = self.0.steps.iter();
        steps.any(|running| !running.step.keeps_bytes)
    }

    /// Sends one piece through the filters; `trailers` come with the last.
    pub fn pass(
        &mut self,
        exchange: &Exchange,
        chunk: Bytes,
        last: bool,
        trailers: Option<&mut HeaderMap>,
    ) -> Passed {
        let mut ear = self.0.ear();
        self.pass_heard(exchange, chunk, last, trailers, &mut ear)
    }

    pub(crate) fn pass_heard(
        &mut self,
        exchange: &Exchange,
        chunk: Bytes,
        last: bool,
        mut trailers: Option<&mut HeaderMap>,
        ear: &mut Ear<'_>,
    ) -> Passed {
        let direction = self.0.direction;
        self.0.pass(exchange, chunk, last, ear, |step, chunk| {
            let dry_run = step.weight.is_dry_run();
            let mut copy = trailers.as_deref().filter(|_| dry_run).cloned();
            let trailers = match dry_run {
                true => copy.as_mut(),
                false => trailers.as_deref_mut(),
            };
            let mut cx = BodyCx {
                direction,
                last,
                trailers,
                exchange,
            };
            match &mut step.hook {
                Body::Request(hook) => hook.pass(&mut cx, chunk),
                Body::Response(hook) => hook.pass(&mut cx, chunk),
            }
        })
    }

    /// Leaves every filter's state in the exchange, for its log hook.
    pub fn finish(self, exchange: &Exchange) {
        self.0.finish(exchange, |hook| match hook {
            Body::Request(hook) => hook.leave(),
            Body::Response(hook) => hook.leave(),
        });
    }
}

impl StreamFlow {
    pub(crate) fn new(
        direction: Direction,
        steps: Vec<Step<Box<dyn RunningStream>>>,
        piece_max: usize,
    ) -> Self {
        Self(Flow::new(direction, steps, 0, piece_max))
    }

    /// The largest piece that may be given at once, in bytes.
    #[must_use]
    pub fn piece_max(&self) -> usize {
        self.0.piece_max
    }

    /// Sends one piece through the filters.
    pub fn pass(&mut self, exchange: &Exchange, chunk: Bytes, last: bool) -> Passed {
        let direction = self.0.direction;
        let mut ear = self.0.ear();
        self.0.pass(exchange, chunk, last, &mut ear, |step, chunk| {
            step.hook.pass(
                &mut StreamCx {
                    direction,
                    last,
                    exchange,
                },
                chunk,
            )
        })
    }

    /// Leaves every filter's state in the exchange, for its log hook.
    pub fn finish(self, exchange: &Exchange) {
        self.0.finish(exchange, RunningStream::leave);
    }
}

impl DatagramFlow {
    pub(crate) fn new(direction: Direction, steps: Vec<Step<Box<dyn RunningDatagram>>>) -> Self {
        Self(Flow::new(direction, steps, 0, usize::MAX))
    }

    /// Sends one datagram through the filters. [`Passed::Held`] says that it was discarded: boundaries would be lost
    /// by holding, so a filter that wants to hold one has failed.
    pub fn pass(&mut self, exchange: &Exchange, datagram: Bytes) -> Passed {
        let direction = self.0.direction;
        let mut ear = self.0.ear();
        self.0.pass(
            exchange,
            datagram,
            false,
            &mut ear,
            |step, datagram| match step.hook.pass(
                &mut DatagramCx {
                    direction,
                    exchange,
                },
                datagram,
            )? {
                Passage::Hold | Passage::Pace(_) | Passage::Replace => Err(FilterError::Trapped {
                    reason: "a datagram cannot be held",
                }),
                other => Ok(other),
            },
        )
    }

    /// Leaves every filter's state in the exchange, for its log hook.
    pub fn finish(self, exchange: &Exchange) {
        self.0.finish(exchange, RunningDatagram::leave);
    }
}

pub(crate) enum Body {
    Request(Box<dyn RunningRequestBody>),
    Response(Box<dyn RunningResponseBody>),
}

/// One filter's place in a flow.
pub(crate) struct Step<R> {
    pub(crate) at: u8,
    pub(crate) name: Arc<str>,
    pub(crate) weight: Weight,
    /// It leaves the bytes as they are, or what it does to them is undone.
    pub(crate) keeps_bytes: bool,
    pub(crate) hook: R,
}

impl<R> Step<R> {
    /// Whether it did to the bytes what it said it would not: lengths announced before would be wrong.
    fn breaks_its_word(&self, passage: &Passage, before: usize, after: usize) -> bool {
        let kept = before == after && !matches!(passage, Passage::Discard | Passage::Replace);
        self.keeps_bytes && !self.weight.is_dry_run() && !kept
    }
}

struct Flow<R> {
    direction: Direction,
    steps: Vec<Running<R>>,
    hold: usize,
    piece_max: usize,
    /// Bytes held by all steps together, never above [`BODY_HOLD_MAX`].
    held: usize,
    /// A filter stopped the exchange: nothing may pass any more.
    stopped: Option<Arc<str>>,
}

struct Running<R> {
    step: Step<R>,
    held: BytesMut,
    /// An observer that failed, or a filter on trial that would have refused: it is not asked again.
    lapsed: bool,
}

impl<R> Flow<R> {
    fn new(direction: Direction, steps: Vec<Step<R>>, hold: usize, piece_max: usize) -> Self {
        let steps = steps
            .into_iter()
            .map(|step| Running {
                step,
                held: BytesMut::new(),
                lapsed: false,
            })
            .collect();
        Self {
            direction,
            steps,
            hold,
            // A filter that wants no bytes at a time would never see the end.
            piece_max: piece_max.max(1),
            held: 0,
            stopped: None,
        }
    }

    fn ear(&self) -> Ear<'static> {
        Weight::ear(self.steps.first().map(|running| &running.step.weight))
    }

    fn pass(
        &mut self,
        exchange: &Exchange,
        mut chunk: Bytes,
        last: bool,
        ear: &mut Ear<'_>,
        mut ask: impl FnMut(&mut Step<R>, &mut Bytes) -> Result<Passage, FilterError>,
    ) -> Passed {
        if let Some(by) = &self.stopped {
            return Passed::Close { by: by.clone() };
        }
        let mut wait = Duration::ZERO;
        for running in &mut self.steps {
            if running.lapsed {
                continue;
            }
            // `Bytes` clones by reference.
            let original = running.step.weight.may_undo().then(|| chunk.clone());
            let length = chunk.len();
            let answer = ask(&mut running.step, &mut chunk).and_then(|passage| match passage {
                Passage::Hold if last => Err(FilterError::Trapped {
                    reason: "held the last piece",
                }),
                passage if running.step.breaks_its_word(&passage, length, chunk.len()) => {
                    Err(FilterError::Trapped {
                        reason: "changed bytes it said to leave alone",
                    })
                }
                other => Ok(other),
            });
            let answer = match running.step.weight.weigh(answer, &running.step.name, ear) {
                Weighed::Counts(answer) => answer,
                Weighed::Undone(note) => {
                    if let Some(note) = note {
                        exchange.note(note);
                        running.lapsed = true;
                    }
                    chunk = original.unwrap_or(chunk);
                    running.release(&mut chunk, &mut self.held);
                    continue;
                }
            };
            let stop = match answer {
                Ok(Passage::Forward) => {
                    running.release(&mut chunk, &mut self.held);
                    None
                }
                Ok(Passage::Pace(asked)) => {
                    wait = wait.max(asked);
                    running.release(&mut chunk, &mut self.held);
                    None
                }
                Ok(Passage::Hold) => match self.held.checked_add(chunk.len()) {
                    Some(held) if held <= BODY_HOLD_MAX => {
                        self.held = held;
                        running.held.extend_from_slice(&chunk);
                        return Passed::Held;
                    }
                    _ => {
                        let detail = format!("would hold more than {BODY_HOLD_MAX} bytes");
                        Some(Passed::Refuse(Refusal::new(
                            Reason::TooLarge,
                            &running.step.name,
                            Some(detail),
                        )))
                    }
                },
                Ok(Passage::Replace) => {
                    self.held = self.held.saturating_sub(running.held.len());
                    running.held.clear();
                    None
                }
                Ok(Passage::Discard) => {
                    self.held = self.held.saturating_sub(running.held.len());
                    running.held.clear();
                    chunk = Bytes::new();
                    None
                }
                Ok(Passage::Refuse(reason)) => Some(Passed::Refuse(Refusal::new(
                    reason,
                    &running.step.name,
                    None,
                ))),
                Ok(Passage::Respond(reply)) => Some(Passed::Respond {
                    reply,
                    by: running.step.name.clone(),
                }),
                Ok(Passage::Close) => Some(Passed::Close {
                    by: running.step.name.clone(),
                }),
                Err(error) => {
                    let (reason, detail) = (error.reason(), error.detail());
                    let refusal = Refusal::new(reason, &running.step.name, Some(detail));
                    Some(Passed::Refuse(refusal))
                }
            };
            if let Some(stop) = stop {
                self.stopped = Some(running.step.name.clone());
                return stop;
            }
            if chunk.is_empty() && !last {
                return Passed::Held;
            }
        }
        match wait.is_zero() {
            true => Passed::Forward(chunk),
            false => Passed::Pace(chunk, wait),
        }
    }

    fn finish(self, exchange: &Exchange, leave: impl Fn(R) -> Box<dyn Any + Send>) {
        for Running { step, .. } in self.steps {
            exchange.leave(Left {
                at: step.at,
                direction: self.direction,
                state: leave(step.hook),
            });
        }
    }
}

impl<R> Running<R> {
    fn release(&mut self, chunk: &mut Bytes, held: &mut usize) {
        if self.held.is_empty() {
            return;
        }
        *held = held.saturating_sub(self.held.len());
        let mut whole = std::mem::take(&mut self.held);
        whole.extend_from_slice(chunk);
        *chunk = whole.freeze();
    }
}
