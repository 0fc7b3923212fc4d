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
        let steps = steps(&self.request_body, exchange, |link| {
            if !link.weight.is_dry_run() {
                hold = link.hook.holds().max(hold);
            }
            Body::Request(link.hook.clone().begin(exchange))
        })?;
        Some(BodyFlow::new(Direction::ToAgent, steps, hold))
    }

    /// The filters a response body passes, or none if no filter wants it. Ask after [`response`](Self::response).
    #[must_use]
    pub fn response_body(&self, exchange: &Exchange) -> Option<BodyFlow> {
        let steps = steps(&self.response_body, exchange, |link| {
            Body::Response(link.hook.clone().begin(exchange))
        })?;
        Some(BodyFlow::new(Direction::ToClient, steps, 0))
    }

    /// The filters one direction of a byte stream passes, or none if no filter wants it.
    #[must_use]
    pub fn stream(&self, exchange: &Exchange, direction: Direction) -> Option<StreamFlow> {
        let mut steps = steps(&self.stream, exchange, |link| {
            link.hook.clone().begin(exchange)
        })?;
        outwards(&mut steps, direction);
        Some(StreamFlow::new(direction, steps))
    }

    /// The filters one direction of a flow of datagrams passes, or none if no filter wants it.
    #[must_use]
    pub fn datagram(&self, exchange: &Exchange, direction: Direction) -> Option<DatagramFlow> {
        let mut steps = steps(&self.datagram, exchange, |link| {
            link.hook.clone().begin(exchange)
        })?;
        outwards(&mut steps, direction);
        Some(DatagramFlow::new(direction, steps))
    }
}

/// Begins every filter that takes part in the exchange and let it in.
fn steps<H: ?Sized, R>(
    links: &[Link<H>],
    exchange: &Exchange,
    mut begin: impl FnMut(&Link<H>) -> R,
) -> Option<Vec<Step<R>>> {
    if links.is_empty() {
        return None;
    }
    let inward = exchange.inward();
    let steps: Vec<Step<R>> = links
        .iter()
        .filter(|link| link.at < inward && !exchange.skips(link.at))
        .map(|link| Step {
            at: link.at,
            name: link.name.clone(),
            weight: link.weight.clone(),
            hook: begin(link),
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
