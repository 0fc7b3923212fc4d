//! `adit policy ls` and `show`, and what `adit engine explain` says about switches.

use std::fmt::Write as _;

use adit_proxy::admin::{Reply, Request};
use adit_proxy::assemble::{FilterState, IdleSwitch, Switch};
use clap::Args;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::FilterArgs;
use crate::engine::ask::{AskArgs, unexpected};
use crate::terminal::{clean, table};

/// List the filters of one project, or of all
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// The project; all of them without it
    project: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: AskArgs,
}

/// Show one filter: what the file says, and who switched it when
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: AskArgs,
}

pub(super) fn list(args: &ListArgs) -> anyhow::Result<()> {
    let project = args.project.clone();
    let (filters, idle) = match args.engine.ask(&Request::PolicyList { project })? {
        Reply::Filters { filters, idle } => (filters, idle),
        other => return unexpected(&other),
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&filters)?);
        return Ok(());
    }
    if filters.is_empty() {
        println!("no filters: the configuration has no policy on a project");
    } else {
        let heading = [
            "PROJECT", "FILTER", "IS", "FILE", "SWITCHED", "TUNNELS", "FROM",
        ];
        print!(
            "{}",
            table(&heading, &filters.iter().map(row).collect::<Vec<_>>())
        );
    }
    for IdleSwitch {
        project,
        filter,
        switch,
        why,
    } in idle
    {
        println!(
            "without effect: {filter} of project {project}, switched {}: {why}",
            switched(&switch)
        );
    }
    Ok(())
}

fn row(filter: &FilterState) -> Vec<String> {
    let marks = [
        (filter.optional, "optional"),
        (filter.dry_run, "dry-run"),
        (filter.passes_on_error, "on-error pass"),
    ];
    let marks: Vec<&str> = marks
        .iter()
        .filter(|(is, _)| *is)
        .map(|(_, mark)| *mark)
        .collect();
    let name = match marks.is_empty() {
        true => filter.filter.clone(),
        false => format!("{} ({})", filter.filter, marks.join(", ")),
    };
    vec![
        filter.project.clone(),
        name,
        filter.position.to_string(),
        filter.written.to_string(),
        filter
            .switch
            .as_ref()
            .map_or_else(|| "-".to_owned(), switched),
        filter.tunnels.clone().unwrap_or_else(|| "all".to_owned()),
        filter.origin.clone(),
    ]
}

pub(super) fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let FilterArgs { project, filter } = &args.filter;
    let reply = args.engine.ask(&Request::PolicyShow {
        project: project.clone(),
        filter: filter.clone(),
    })?;
    let filters = match reply {
        Reply::Filters { filters, .. } => filters,
        other => return unexpected(&other),
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&filters)?);
        return Ok(());
    }
    for (number, filter) in filters.iter().enumerate() {
        if number > 0 {
            println!();
        }
        print!("{}", details(filter));
    }
    Ok(())
}

fn details(filter: &FilterState) -> String {
    let all = |text: &Option<String>, all: &str| text.clone().unwrap_or_else(|| all.to_owned());
    let yes = |is: bool| if is { "yes" } else { "no" };
    let switch = match &filter.switch {
        Some(switch) => switched(switch),
        None => "no".to_owned(),
    };
    let lines = [
        ("is", filter.position.to_string()),
        ("file", format!("{}, at {}", filter.written, filter.origin)),
        ("switched", switch),
        ("kind", format!("{}, stage {}", filter.kind, filter.stage)),
        ("phases", filter.phases.join(" ")),
        ("requests", all(&filter.when, "all")),
        ("tunnels", all(&filter.tunnels, "all of the project")),
        ("optional", yes(filter.optional).to_owned()),
        ("dry-run", yes(filter.dry_run).to_owned()),
        (
            "on-error",
            if filter.passes_on_error {
                "pass"
            } else {
                "refuse"
            }
            .to_owned(),
        ),
    ];
    let mut text = format!("{} of project {}\n", filter.filter, filter.project);
    for (name, value) in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<9} {}", clean(&value));
    }
    text
}

/// How a filter was switched, by whom, when and why.
fn switched(switch: &Switch) -> String {
    let at = i64::try_from(switch.at)
        .ok()
        .and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok())
        .and_then(|at| at.format(&Rfc3339).ok());
    let mut text = format!("{} by {}", switch.to, switch.by);
    if let Some(at) = at {
        let _ = write!(text, " at {at}");
    }
    if let Some(reason) = &switch.reason {
        let _ = write!(text, ": {reason}");
    }
    clean(&text)
}

/// Where a filter is, on one line.
pub(super) fn sentence(filter: &FilterState) -> String {
    let tunnels = match &filter.tunnels {
        Some(tunnels) => format!(", for the tunnels {tunnels}"),
        None => String::new(),
    };
    let why = match &filter.switch {
        Some(switch) => format!(
            "switched {}; the file says {}",
            switched(switch),
            filter.written
        ),
        None => "as in the file".to_owned(),
    };
    let FilterState {
        filter: name,
        project,
        position,
        origin,
        ..
    } = filter;
    clean(&format!(
        "{name} of project {project} is {position}{tunnels} ({why}, {origin})"
    ))
}

/// What of a tunnel's filters is off or was switched, for the end of its chain.
pub(crate) fn off_and_switched(filters: &[FilterState]) -> String {
    let mut text = String::new();
    for filter in filters {
        if text.is_empty() {
            text.push('\n');
        }
        let _ = writeln!(text, "{}", sentence(filter));
    }
    text
}
