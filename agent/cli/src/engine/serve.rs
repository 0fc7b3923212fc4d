//! A running engine: signals in, log out.

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use adit_config::Config;
use adit_proxy::engine::{Engine, Options};

use super::logs::Logs;
use super::{ConfigArgs, load};
use crate::process::Stop;

/// Runs until SIGTERM, SIGINT or the operator's word, then drains; a second signal ends it at once.
pub(super) fn run(args: &ConfigArgs) -> anyhow::Result<()> {
    let config = args.load()?;
    let logs = Logs::start(config.engine.log_level);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = runtime(config.engine.threads)?;
    let outcome = runtime.block_on(serve(config, args, logs));
    runtime.shutdown_background();
    outcome
}

fn runtime(threads: usize) -> anyhow::Result<Runtime> {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        threads => threads,
    };
    // With one thread, a scheduler that hands tasks between threads is only overhead.
    let mut builder = match threads {
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    builder
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

async fn serve(config: Config, args: &ConfigArgs, logs: Logs) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot catch signals")?;
    let host = config.engine.host.clone();
    let path = args.config.clone();
    let options = Options {
        loader: Some(Box::new(move || load(&path))),
        watch: Some(args.config.clone()),
        reloaded: Some(Box::new(move |config| logs.set(config.engine.log_level))),
        ..Options::default()
    };
    let engine = Engine::start(config, options).await?;
    let addresses = engine.addresses();
    tracing::info!(host, https = %addresses.https, version = env!("CARGO_PKG_VERSION"), "the engine listens");
    if let Some(http) = addresses.http {
        tracing::info!(%http, "plain HTTP is redirected");
    }
    if let Some(metrics) = addresses.metrics {
        tracing::info!(%metrics, "metrics are served");
    }
    loop {
        tokio::select! {
            _ = hangup.recv() => engine.reload_and_log("the engine was told to reload").await,
            () = stop.wanted() => break,
            () = engine.asked_to_stop() => break,
        }
    }
    tracing::info!("draining; another signal stops at once");
    tokio::select! {
        drained = engine.drain() => {
            tracing::info!(cut = drained.cut, "stopped");
        }
        () = stop.wanted() => tracing::info!("stopped before everything was finished"),
    }
    Ok(())
}
