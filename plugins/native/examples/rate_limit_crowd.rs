//! What a crowd of addresses costs `rate-limit`, and whom else: `cargo run --release -p adit-plugins --example
//! rate_limit_crowd`.
//!
//! A million addresses come once each. Among them a few come often and stay within their limit; how many of those visits
//! are refused all the same is counted.

use std::error::Error;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_config::Section;
use adit_filters::env::fake::Fake;
use adit_filters::{Chain, Connected, ConnectionInfo, Factory as _, Placed, Transport, TunnelInfo};
use adit_plugins::network::rate_limit::RateLimitFactory;

/// Addresses that come once.
const CROWD: u32 = 1_000_000;

/// Addresses that come often.
const REGULARS: u32 = 1_000;

/// Visits of the regulars in all.
const VISITS: u32 = 100_000;

/// Time between two strangers: all come within a second, so that none is forgotten. In it each regular comes a hundred
/// times, as often as it may.
const BETWEEN: Duration = Duration::from_micros(1);

fn resident() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.ok_or("no VmRSS")?.parse()?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let fake = Fake::default();
    let section = Section::parse(
        "engine.toml",
        "connections = 3600\nwindow = \"1h\"\nburst = 100",
    )
    .map_err(|_| "no section")?;
    let hooks = RateLimitFactory
        .build(&section, &mut fake.env())
        .map_err(|_| "no filter")?;
    let chain = Chain::compile(vec![Placed::new("edge/rate-limit", hooks)])?;
    let tunnel = Arc::new(TunnelInfo::default());
    let visit = async |address: u32| {
        let info = ConnectionInfo {
            id: 1,
            peer: SocketAddr::new(IpAddr::V4(Ipv4Addr::from(address)), 4000),
            transport: Transport::Tls,
            hello: None,
            tls: None,
        };
        let connected = chain.connect(Arc::new(info), Arc::clone(&tunnel)).await;
        matches!(connected, Connected::Admitted(_))
    };
    let (before, begun) = (resident()?, Instant::now());
    let (mut strangers_refused, mut refused, mut visits) = (0, 0, 0);
    for stranger in 0..CROWD {
        strangers_refused += u32::from(!visit(0x0a00_0000 + stranger).await);
        fake.clock.advance(BETWEEN);
        if stranger % (CROWD / VISITS) == 0 {
            let regular = visits % REGULARS;
            visits += 1;
            refused += u32::from(!visit(0xc000_0200 + regular).await);
        }
    }
    let took = begun.elapsed().as_nanos() / u128::from(CROWD + visits);
    let grown = resident()?.saturating_sub(before);
    println!("{CROWD} addresses: {grown} KiB, {took} ns each, {strangers_refused} refused");
    println!("{visits} visits within their limit: {refused} refused");
    Ok(())
}
