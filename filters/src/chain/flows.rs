//! The carrying phases: one flow per exchange and direction, with the states of the filters in it.

use super::{Chain, Link};
use crate::carry::{Body, BodyFlow, DatagramFlow, Step, StreamFlow};
use crate::context::Direction;
use crate::exchange::Exchange;

impl Chain {
    /// The filters a request body passes, or none if no filter wants it.
    #[must_use]
    pub fn request_body(&self, exchange: &Exchange) -> Option<BodyFlow> {
        let mut hold = 0;
        let mut piece_max = usize::MAX;
        let steps = steps(&self.request_body, exchange, |link| {
            if !link.weight.is_dry_run() {
                hold = link.hook.holds().max(hold);
                piece_max = link.hook.piece_max().min(piece_max);
            }
            let hook = Body::Request(link.hook.clone().begin(exchange));
            (hook, link.hook.keeps_bytes())
        })?;
        let direction = Direction::ToAgent;
        Some(BodyFlow::new(direction, steps, hold, piece_max))
    }

    /// The filters a response body passes, or none if no filter wants it. Ask after [`response`](Self::response).
    #[must_use]
    pub fn response_body(&self, exchange: &Exchange) -> Option<BodyFlow> {
        let mut piece_max = usize::MAX;
        let steps = steps(&self.response_body, exchange, |link| {
            if !link.weight.is_dry_run() {
                piece_max = link.hook.piece_max().min(piece_max);
            }
            let hook = Body::Response(link.hook.clone().begin(exchange));
            (hook, link.hook.keeps_bytes())
        })?;
        Some(BodyFlow::new(Direction::ToClient, steps, 0, piece_max))
    }

    /// The filters one direction of a byte stream passes, or none if no filter wants it.
    #[must_use]
    pub fn stream(&self, exchange: &Exchange, direction: Direction) -> Option<StreamFlow> {
        let mut piece_max = usize::MAX;
        let mut steps = steps(&self.stream, exchange, |link| {
            if !link.weight.is_dry_run() {
                piece_max = link.hook.piece_max(direction).min(piece_max);
            }
            (link.hook.clone().begin(exchange), false)
        })?;
        outwards(&mut steps, direction);
        Some(StreamFlow::new(direction, steps, piece_max))
    }

    /// The filters one direction of a flow of datagrams passes, or none if no filter wants it.
    #[must_use]
    pub fn datagram(&self, exchange: &Exchange, direction: Direction) -> Option<DatagramFlow> {
        let mut steps = steps(&self.datagram, exchange, |link| {
            (link.hook.clone().begin(exchange), false)
        })?;
        outwards(&mut steps, direction);
        Some(DatagramFlow::new(direction, steps))
    }
}

/// Begins every filter that takes part in the exchange and let it in. With the hook comes whether it keeps the bytes.
fn steps<H: ?Sized, R>(
    links: &[Link<H>],
    exchange: &Exchange,
    mut begin: impl FnMut(&Link<H>) -> (R, bool),
) -> Option<Vec<Step<R>>> {
    if links.is_empty() {
        return None;
    }
    let inward = exchange.inward();
    let steps: Vec<Step<R>> = links
        .iter()
        .filter(|link| link.at < inward && !exchange.skips(link.at))
        .map(|link| {
            let (hook, keeps_bytes) = begin(link);
            Step {
                at: link.at,
                name: link.name.clone(),
                weight: link.weight.clone(),
                // What a filter on trial does to them is undone.
                keeps_bytes: keeps_bytes || link.weight.is_dry_run(),
                hook,
            }
        })
        .collect();
    (!steps.is_empty()).then_some(steps)
}

/// Bytes to the client meet the innermost filter first.
fn outwards<R>(steps: &mut [Step<R>], direction: Direction) {
    if direction == Direction::ToClient {
        steps.reverse();
    }
}
