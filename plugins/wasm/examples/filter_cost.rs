//! What a filter in Wasm costs a request: `cargo run --release -p adit-wasm --example filter_cost`, after `cargo build
//! --release --target wasm32-wasip2` in `plugins/examples`, or with the folder of the built examples as its argument.
//!
//! A request and its response go through a chain in this process, and through one without the filter; the difference is
//! the filter's. A second argument picks the lines that have it in them. The least and the median of many batches are printed: the least is what it costs on a machine that does
//! nothing else.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use adit_config::Section;
use adit_filters::env::fake::Fake;
use adit_filters::env::{BoxFuture, Clock};
use adit_filters::{
    Chain, Connected, Connection, ConnectionInfo, Env, Factory as _, Placed, Stage, Transport,
    TunnelInfo,
};
use adit_wasm::{Grants, Limits, Plugin, PluginSettings, Runtime, Settings};

const BATCHES: usize = 300;
const REQUESTS: u32 = 200;

/// Calls of the host in one hook, at most.
const CALLS: u32 = 10_000;

/// The machine's.
struct RealClock(Instant);

impl Clock for RealClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

fn env() -> Env {
    let mut env = Fake::default().env();
    env.clock = Arc::new(RealClock(Instant::now()));
    env
}

/// Nanoseconds of one request: least and median.
#[derive(Clone, Copy, Default)]
struct Cost(f64, f64);

impl Cost {
    async fn of(
        batches: usize,
        requests: u32,
        mut request: impl AsyncFnMut(),
    ) -> Result<Self, Box<dyn Error>> {
        let mut all = Vec::with_capacity(batches);
        for _ in 0..batches {
            let begun = Instant::now();
            for _ in 0..requests {
                request().await;
            }
            all.push(begun.elapsed().as_nanos() as f64 / f64::from(requests));
        }
        all.sort_by(f64::total_cmp);
        let least = all.first().ok_or("no batch")?;
        let median = all.get(all.len() / 2).ok_or("no batch")?;
        Ok(Self(*least, *median))
    }

    fn print(self, what: &str, less: Self) {
        let Self(least, median) = self;
        let (least, median) = ((least - less.0) / 1e3, (median - less.1) / 1e3);
        println!("{what:<44} {least:>8.2} µs {median:>8.2} µs");
    }
}

/// A chain, and a connection that it has let in.
struct Bench {
    chain: Chain,
    connection: Arc<Connection>,
}

impl Bench {
    async fn of(filters: Vec<Placed>) -> Result<Self, Box<dyn Error>> {
        let chain = Chain::compile(filters)?;
        let info = ConnectionInfo {
            id: 1,
            peer: "192.0.2.1:4000".parse()?,
            transport: Transport::Tls,
            hello: None,
            tls: None,
        };
        let connected = chain.connect(Arc::new(info), Arc::new(TunnelInfo::default()));
        match connected.await {
            Connected::Admitted(connection) => Ok(Self { chain, connection }),
            other => Err(format!("{other:?}").into()),
        }
    }

    /// One request with ten fields, and its response.
    async fn request(&self) {
        let mut request = http::Request::get("https://app.example.com/some/path?and=query");
        for name in ["user-agent", "accept", "accept-language", "referer", "dnt"] {
            request = request.header(name, "what browsers send");
        }
        let request = request
            .header("cookie", "session=0123456789; variant=a")
            .header("x-api-key", "key")
            .header("x-two", "2")
            .header("x-three", "3")
            .header("x-four", "4");
        let Ok((mut head, ())) = request.body(()).map(http::Request::into_parts) else {
            return;
        };
        let mut exchange = self.chain.exchange(Arc::clone(&self.connection));
        let decision = self.chain.request(&mut head, &mut exchange, None).await;
        std::hint::black_box(decision);
        let (mut answer, ()) = http::Response::new(()).into_parts();
        let revised = self.chain.response(&mut answer, &exchange).await;
        std::hint::black_box(revised);
    }

    async fn cost(&self) -> Result<Cost, Box<dyn Error>> {
        Cost::of(BATCHES, REQUESTS, async || self.request().await).await
    }
}

struct Guests {
    runtime: Runtime,
    folder: PathBuf,
}

impl Guests {
    async fn bench(
        &self,
        name: &str,
        table: &str,
        reuse: u32,
        host_calls: u32,
    ) -> Result<Bench, Box<dyn Error>> {
        let file = self.folder.join(name).with_extension("wasm");
        let bytes = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let settings = PluginSettings {
            name: name.to_owned(),
            stage: Stage::Policy,
            grants: Grants {
                establish_identity: true,
                ..Grants::default()
            },
            limits: Limits {
                host_calls,
                ..Limits::default()
            },
            reuse,
        };
        let plugin = Plugin::load(&self.runtime, settings, &bytes, env())?;
        let section = Section::parse("engine.toml", table).map_err(|_| "no section")?;
        let hooks = plugin
            .build(&section, &mut env())
            .map_err(|wrong| format!("{wrong:?}"))?;
        Bench::of(vec![Placed::new(format!("edge/{name}"), hooks)]).await
    }

    /// What one call of the host costs a filter that calls until it may no more.
    async fn call(&self, what: &str) -> Result<(Cost, Cost), Box<dyn Error>> {
        let table = format!("what = \"{what}\"");
        let few = self.bench("hostile", &table, 1, 1).await?;
        let many = self.bench("hostile", &table, 1, CALLS).await?;
        let few = Cost::of(100, 10, async || few.request().await).await?;
        let Cost(least, median) = Cost::of(100, 1, async || many.request().await).await?;
        let each = |of: f64| of / f64::from(CALLS);
        Ok((
            Cost(each(least), each(median)),
            Cost(each(few.0), each(few.1)),
        ))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let built = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../examples/target/wasm32-wasip2/release"
    );
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    // Only lines with this in them.
    let only = std::env::args().nth(2).unwrap_or_default();
    let guests = Guests {
        runtime: Runtime::new(&Settings::default())?,
        folder: folder.unwrap_or_else(|| Path::new(built).to_owned()),
    };
    let none = Bench::of(Vec::new()).await?.cost().await?;
    none.print("no filter", Cost::default());
    let filters = [
        (
            "one hook, one call (ws-origin)",
            "ws_origin",
            "origins = [\"https://app.example.com\"]",
        ),
        (
            "one hook, seven calls (api-key)",
            "api_key",
            concat!(
                "keys = { ada = \"2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683",
                "\" }"
            ),
        ),
        (
            "two hooks, six calls (ab-router)",
            "ab_router",
            "percent = 20",
        ),
    ];
    for (what, name, table) in filters {
        for (how, reuse) in [("fresh", 1), ("reused", u32::MAX)] {
            let line = format!("{what}, {how}");
            if line.contains(&only) {
                let bench = guests.bench(name, table, reuse, CALLS).await?;
                bench.cost().await?.print(&line, none);
            }
        }
    }
    for (what, name) in [("time", "calls"), ("a field", "read")] {
        let line = format!("one call of the host, asking for {what}");
        if line.contains(&only) {
            let (many, few) = guests.call(name).await?;
            many.print(&line, few);
        }
    }
    Ok(())
}
