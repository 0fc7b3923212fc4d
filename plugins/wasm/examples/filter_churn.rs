//! What stays of filters in Wasm that come, go and trap: `cargo run --release -p adit-wasm --example filter_churn`, after
//! `cargo build --release --target wasm32-wasip2` in `plugins/examples`, or with the folder of the built examples as its
//! argument.
//!
//! A thousand times another component takes a filter's place, and a hundred thousand requests make one trap. The memory of
//! the process is printed as it goes on: it must not grow.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adit_config::Section;
use adit_filters::env::fake::Fake;
use adit_filters::{
    Chain, Connected, ConnectionInfo, Decision, Factory as _, Placed, Stage, Transport, TunnelInfo,
};
use adit_wasm::{Grants, Limits, Plugin, PluginSettings, Runtime, Settings};

const SWAPS: usize = 1_000;
const TRAPS: usize = 100_000;

/// How often memory is printed.
const LINES: usize = 10;

fn resident() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.ok_or("no VmRSS")?.parse()?)
}

/// A chain of one filter from this component.
fn chain(runtime: &Runtime, bytes: &[u8], what: &str) -> Result<Chain, Box<dyn Error>> {
    let settings = PluginSettings {
        name: "hostile".to_owned(),
        stage: Stage::Policy,
        grants: Grants::default(),
        limits: Limits::default(),
        reuse: 1,
    };
    let mut env = Fake::default().env();
    let plugin = Plugin::load(runtime, settings, bytes, env.clone())?;
    let section = Section::parse("engine.toml", &format!("what = {what:?}"));
    let section = section.map_err(|_| "no section")?;
    let hooks = plugin
        .build(&section, &mut env)
        .map_err(|wrong| format!("{wrong:?}"))?;
    Ok(Chain::compile(vec![Placed::new("edge/hostile", hooks)])?)
}

/// One request; whether it passes.
async fn passes(chain: &Chain) -> Result<bool, Box<dyn Error>> {
    let info = ConnectionInfo {
        id: 1,
        peer: "192.0.2.1:4000".parse()?,
        transport: Transport::Tls,
        hello: None,
        tls: None,
    };
    let connected = chain.connect(Arc::new(info), Arc::new(TunnelInfo::default()));
    let Connected::Admitted(connection) = connected.await else {
        return Err("not admitted".into());
    };
    let request = http::Request::get("https://app.example.com/").body(())?;
    let (mut head, ()) = request.into_parts();
    let mut exchange = chain.exchange(connection);
    let decision = chain.request(&mut head, &mut exchange, None).await;
    Ok(matches!(decision, Decision::Pass { .. }))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let built = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../examples/target/wasm32-wasip2/release"
    );
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| Path::new(built).to_owned());
    let bytes = fs::read(folder.join("hostile.wasm"))?;
    // Compiled code is kept on disk, as by the engine.
    let cache = tempfile::tempdir()?;
    let runtime = Runtime::new(&Settings {
        cache: Some(cache.path().to_owned()),
        ..Settings::default()
    })?;
    for swap in 0..SWAPS {
        // Each is another file: it ends in an empty custom section with a name of its own, of one letter.
        let letter = b"abcdefgh".get(swap % 8).copied().ok_or("no letter")?;
        let version = [&bytes, &[0, 2, 1, letter][..]].concat();
        let chain = chain(&runtime, &version, "nothing")?;
        if !passes(&chain).await? {
            return Err("it does not pass".into());
        }
        if (swap + 1) % (SWAPS / LINES) == 0 {
            println!("{:>6} swaps: {:>8} KiB", swap + 1, resident()?);
        }
    }
    let chain = chain(&runtime, &bytes, "panic")?;
    for trap in 0..TRAPS {
        if passes(&chain).await? {
            return Err("it does not trap".into());
        }
        if (trap + 1) % (TRAPS / LINES) == 0 {
            println!("{:>6} traps: {:>8} KiB", trap + 1, resident()?);
        }
    }
    Ok(())
}
