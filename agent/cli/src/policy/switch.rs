//! `adit policy off`, `on` and `reset`.

use adit_proxy::admin::{Reply, Request};
use adit_proxy::assemble::{Position, SwitchKey};
use adit_proxy::engine::{Switched, forget_switch};
use anyhow::Context;
use clap::Args;

use super::FilterArgs;
use super::show::sentence;
use crate::engine::ask::{AskArgs, unexpected};

/// Switch a filter off, whatever the file says
#[derive(Debug, Args)]
pub(super) struct OffArgs {
    #[command(flatten)]
    switch: SwitchArgs,
}

/// Switch a filter on, whatever the file says
#[derive(Debug, Args)]
pub(super) struct OnArgs {
    #[command(flatten)]
    switch: SwitchArgs,
}

#[derive(Debug, Args)]
struct SwitchArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Why, for those who come after you
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    engine: AskArgs,
}

/// Forget how a filter was switched: it is as the file says again. Works on an engine that is stopped, too
#[derive(Debug, Args)]
pub(super) struct ResetArgs {
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    engine: AskArgs,
}

pub(super) fn off(args: &OffArgs) -> anyhow::Result<()> {
    switch(&args.switch, Position::Off)
}

pub(super) fn on(args: &OnArgs) -> anyhow::Result<()> {
    switch(&args.switch, Position::On)
}

fn switch(args: &SwitchArgs, to: Position) -> anyhow::Result<()> {
    let reply = args.engine.ask(&Request::PolicySwitch {
        project: args.filter.project.clone(),
        filter: args.filter.filter.clone(),
        to,
        reason: args.reason.clone(),
    })?;
    told(reply)
}

pub(super) fn reset(args: &ResetArgs) -> anyhow::Result<()> {
    let FilterArgs { project, filter } = &args.filter;
    let asked = args.engine.ask(&Request::PolicyReset {
        project: project.clone(),
        filter: filter.clone(),
    });
    let nobody = match asked {
        Ok(reply) => return told(reply),
        Err(nobody) => nobody,
    };
    // A switch that keeps the engine from starting is undone without it. The store knows whether it runs.
    let config = args.engine.config();
    let Some(folder) = config.ok().and_then(|config| config.engine.state_dir) else {
        return Err(nobody);
    };
    let key = SwitchKey::parse(project, filter)
        .with_context(|| format!("`{filter}` does not name a filter, use `policy/filter`"))?;
    match forget_switch(&folder, &key)? {
        true => {
            println!("{filter} of project {project} is as the file says once the engine starts")
        }
        false => anyhow::bail!("`{filter}` of project `{project}` is not switched"),
    }
    Ok(())
}

fn told(reply: Reply) -> anyhow::Result<()> {
    let Switched { filters, tunnels } = match reply {
        Reply::Switched(switched) => switched,
        other => return unexpected(&other),
    };
    if filters.is_empty() {
        println!("forgotten; no filter of that name is configured");
    }
    for filter in &filters {
        println!("{}", sentence(filter));
    }
    let tunnels = match tunnels {
        0 => "no tunnel is open now".to_owned(),
        1 => "new requests of 1 open tunnel go by it from now on".to_owned(),
        count => format!("new requests of {count} open tunnels go by it from now on"),
    };
    println!("{tunnels}; it stays so after a reload and a restart");
    Ok(())
}
