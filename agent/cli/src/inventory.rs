//! `adit tunnel list` and `adit client list`: what the engine has.

mod api;
mod discovery;
mod filter;

use std::io::Write;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use crate::connection::{self, ConnectionArgs};
use crate::terminal::{clean, table};

/// Tunnels of the engine
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct TunnelArgs {
    #[command(subcommand)]
    command: TunnelCommand,
}

#[derive(Debug, Subcommand)]
enum TunnelCommand {
    /// List the tunnels that are open, newest first
    #[command(visible_alias = "ls", after_help = tunnel_examples())]
    List(ListArgs),
}

/// Agents connected to the engine
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct ClientArgs {
    #[command(subcommand)]
    command: ClientCommand,
}

#[derive(Debug, Subcommand)]
enum ClientCommand {
    /// List the agents that are connected
    #[command(visible_alias = "ls", after_help = client_examples())]
    List(ListArgs),
}

/// How to list.
#[derive(Debug, Args)]
struct ListArgs {
    /// Only those for which all of it holds; `labels.KEY=` asks for a label with any value.
    #[arg(long, value_name = "KEY=VALUE,...")]
    filter: Option<String>,

    /// How to show them.
    #[arg(
        short,
        long,
        value_name = "FORMAT",
        default_value = "table",
        conflicts_with = "quiet"
    )]
    output: Format,

    /// Print ids alone.
    #[arg(short, long)]
    quiet: bool,

    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
}

fn tunnel_examples() -> String {
    format!(
        "\
Examples:
  adit tunnel list
  adit tunnel list --filter name=shop,publish=true -o json
  adit tunnel list --filter labels.team=web -q

{}",
        connection::HELP
    )
}

fn client_examples() -> String {
    format!(
        "\
Examples:
  adit client list
  adit client list --filter os=linux -o json

{}",
        connection::HELP
    )
}

/// Runs `adit tunnel`.
pub(crate) async fn tunnels(args: TunnelArgs) -> anyhow::Result<()> {
    let TunnelCommand::List(args) = args.command;
    list(args, &TUNNELS).await
}

/// Runs `adit client`.
pub(crate) async fn clients(args: ClientArgs) -> anyhow::Result<()> {
    let ClientCommand::List(args) = args.command;
    list(args, &CLIENTS).await
}

/// One kind of thing the engine lists.
struct Kind {
    path: &'static str,
    filters: &'static [&'static str],
    /// Heading and the field, or the fields of which the first one there is shown.
    columns: &'static [(&'static str, &'static [&'static str])],
}

const TUNNELS: Kind = Kind {
    path: "/api/tunnels",
    filters: &[
        "id",
        "name",
        "type",
        "status",
        "client_id",
        "user_id",
        "protocol",
        "hostname",
        "http_version",
        "publish",
    ],
    columns: &[
        ("ID", &["id"]),
        ("NAME", &["name"]),
        ("TYPE", &["type"]),
        ("PROTOCOL", &["protocol"]),
        ("PUBLISH", &["publish"]),
        ("DOMAIN/HOST", &["hostname", "host"]),
        ("HTTP_VERSION", &["http_version"]),
        ("UPSTREAM_TLS", &["upstream_tls"]),
    ],
};

const CLIENTS: Kind = Kind {
    path: "/api/clients",
    filters: &[
        "id",
        "status",
        "user_id",
        "agent",
        "channel",
        "version",
        "os",
        "arch",
        "protocol_version",
    ],
    columns: &[
        ("ID", &["id"]),
        ("STATUS", &["status"]),
        ("USER", &["user_id"]),
        ("AGENT", &["agent"]),
        ("VERSION", &["version"]),
        ("OS", &["os"]),
        ("ARCH", &["arch"]),
        ("PROTOCOL", &["protocol_version"]),
    ],
};

async fn list(args: ListArgs, kind: &Kind) -> anyhow::Result<()> {
    let params = match &args.filter {
        None => None,
        Some(filter) => Some(filter::params(filter, kind.filters)?),
    };
    let connection = args.connection.resolve()?;
    let mut items = api::list(&connection, kind.path, params.as_ref()).await?;
    sort(&mut items);
    let text = if args.quiet {
        items
            .iter()
            .map(|item| format!("{}\n", clean(&cell(item, &["id"]))))
            .collect()
    } else if args.output == Format::Json {
        let mut text = serde_json::to_string_pretty(&items).context("cannot write JSON")?;
        text.push('\n');
        text
    } else {
        let heading: Vec<&str> = kind.columns.iter().map(|(heading, _)| *heading).collect();
        let rows: Vec<Vec<String>> = items
            .iter()
            .map(|item| kind.columns.iter().map(|(_, f)| cell(item, f)).collect())
            .collect();
        table(&heading, &rows)
    };
    let mut stdout = std::io::stdout().lock();
    // A reader such as `head` may have left.
    let _ = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    Ok(())
}

/// Newest first, then by id. RFC 3339 in UTC sorts as text.
fn sort(items: &mut [Value]) {
    let text = |item: &Value, key: &str| {
        item.get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    items.sort_by(|a, b| {
        text(b, "creation_date")
            .cmp(&text(a, "creation_date"))
            .then_with(|| text(a, "id").cmp(&text(b, "id")))
    });
}

fn cell(item: &Value, fields: &[&str]) -> String {
    let value = fields.iter().find_map(|field| item.get(*field));
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_newest_comes_first_and_equals_by_id() {
        let mut items = vec![
            json!({"id": "b", "creation_date": "2026-01-01T00:00:00Z"}),
            json!({"id": "c"}),
            json!({"id": "a", "creation_date": "2026-01-01T00:00:00Z"}),
            json!({"id": "d", "creation_date": "2026-02-01T00:00:00Z"}),
        ];
        sort(&mut items);
        let ids: Vec<String> = items.iter().map(|item| cell(item, &["id"])).collect();
        assert_eq!(ids, ["d", "a", "b", "c"]);
    }

    #[test]
    fn a_cell_shows_the_first_field_that_is_there() {
        let item = json!({"host": "old", "publish": true, "name": ""});
        for (fields, expected) in [
            (&["hostname", "host"][..], "old"),
            (&["publish"], "true"),
            (&["name"], "-"),
            (&["none"], "-"),
        ] {
            assert_eq!(cell(&item, fields), expected);
        }
    }
}
