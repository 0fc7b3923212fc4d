//! What counting and timing the filters of a chain costs: `cargo run --release -p adit-proxy --example meter_cost`.
//!
//! The same chain of filters that do nothing is asked with a meter and without; the difference, for each filter, is
//! what one answer costs to be heard.
#![allow(clippy::unwrap_used, clippy::panic, reason = "an example")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_filters::{
    Chain, Connected, ConnectionInfo, FilterError, Hooks, Meter, OnRequest, Placed, RequestCx,
    Transport, TunnelInfo, Verdict,
};
use adit_proxy::metrics::FilterMeter;

/// Filters in the chain.
const FILTERS: u32 = 10;
/// Requests of one round; rounds alternate between the two chains.
const REQUESTS: u32 = 20_000;
const ROUNDS: usize = 21;

struct Nothing;
impl OnRequest for Nothing {
    async fn on_request(&self, _: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        Ok(Verdict::Continue)
    }
}

fn chain(meter: Option<&dyn Meter>) -> Chain {
    let filters = (0..FILTERS).map(|n| {
        let hooks = Hooks::new().request(Arc::new(Nothing));
        Placed::new(format!("cost/{n}"), hooks)
    });
    Chain::measured(filters.collect(), meter).unwrap()
}

async fn round(chain: &Chain) -> Duration {
    let peer: SocketAddr = "192.0.2.1:1".parse().unwrap();
    let info = ConnectionInfo {
        id: 1,
        peer,
        transport: Transport::Tls,
        hello: None,
        tls: None,
    };
    let connected = chain.connect(Arc::new(info), Arc::new(TunnelInfo::default()));
    let Connected::Admitted(connection) = connected.await else {
        panic!("refused")
    };
    let request = http::Request::get("https://a.example/").body(()).unwrap();
    let mut head = request.into_parts().0;
    let began = Instant::now();
    for _ in 0..REQUESTS {
        let mut exchange = chain.exchange(Arc::clone(&connection));
        std::hint::black_box(chain.request(&mut head, &mut exchange, None).await);
    }
    began.elapsed()
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let meter = FilterMeter::register(&prometheus::Registry::new()).unwrap();
    let (plain, measured) = (chain(None), chain(Some(&meter)));
    let mut taken = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (chain, taken) in [&plain, &measured].into_iter().zip(&mut taken) {
            taken.push(round(chain).await);
        }
    }
    let median = taken.map(|mut rounds| {
        rounds.sort();
        rounds.get(ROUNDS / 2).map_or(0, Duration::as_nanos) as f64 / f64::from(REQUESTS)
    });
    let [plain, measured] = median;
    println!(
        "{FILTERS} filters, nanoseconds a request: {plain:.0} without a meter, {measured:.0} with"
    );
    println!(
        "{:.1} ns for each answer",
        (measured - plain) / f64::from(FILTERS)
    );
}
