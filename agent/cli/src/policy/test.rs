//! `adit policy test`.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use adit_proxy::admin::{Reply, Request};
use adit_proxy::engine::{TrialLine, TrialReport, TrialRequest};
use anyhow::{Context, bail};
use clap::Args;

use crate::engine::ask::{AskArgs, unexpected};
use crate::terminal::{clean, table};

/// Longest file of a request, in bytes: what the engine's socket takes.
const FILE_BYTES_MAX: u64 = 512 << 10;

/// Exit status where the request would not reach the service.
const REFUSED: u8 = 2;

/// Show what each filter would say to a request that nobody makes
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing is sent to the service, counted or logged.

Exit status: 0 if the request would reach the service, 2 if it would not, 1 if nothing could be told.

Examples:
  adit policy test --host app.t.edge.example.com --from 203.0.113.7
  adit policy test --host app.t.edge.example.com --path /admin/ --header 'Authorization: Bearer …'
  adit policy test --request request.http       a request as HTTP/1.1 writes it, with its Host
  adit policy test --project default --host new.t.edge.example.com --label tier=public
                                                the project's policies alone, for a tunnel yet to come")]
pub(super) struct TestArgs {
    /// The host asked for [default: that of --request]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Path and query
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Method
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// A header field; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = field)]
    headers: Vec<(String, String)>,
    /// A file with the whole request, which flags add to or replace
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// The visitor's address
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    from: IpAddr,
    /// SHA-256 of the visitor's certificate, in hexadecimal
    #[arg(long, value_name = "HEX")]
    cert_sha256: Option<String>,
    /// The visitor's TLS version
    #[arg(long, value_name = "VERSION", default_value = "1.3", value_parser = ["1.2", "1.3"])]
    tls: String,
    /// Ask this project's policies alone, for a tunnel that need not be live
    #[arg(long, value_name = "PROJECT")]
    project: Option<String>,
    /// Name of the tunnel that need not be live
    #[arg(long, value_name = "NAME", requires = "project")]
    name: Option<String>,
    /// A label of the tunnel that need not be live; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", requires = "project", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: AskArgs,
}

fn field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it as `Name: value`")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as `key=value`")?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(super) fn test(args: &TestArgs) -> anyhow::Result<ExitCode> {
    let request = imagine(args)?;
    let report = match args.engine.ask(&Request::PolicyTest(request))? {
        Reply::Tested(report) => report,
        other => return unexpected(&other).map(|()| ExitCode::FAILURE),
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", shown(&report));
    }
    Ok(match report.passes {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(REFUSED),
    })
}

fn imagine(args: &TestArgs) -> anyhow::Result<TrialRequest> {
    let mut written = match &args.request {
        Some(path) => Written::read(path)?,
        None => Written::default(),
    };
    for (name, value) in &args.headers {
        written
            .fields
            .retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        written.fields.push((name.clone(), value.clone()));
    }
    let named = |(name, _): &&(String, String)| name.eq_ignore_ascii_case("host");
    let in_fields = written
        .fields
        .iter()
        .find(named)
        .map(|(_, host)| host.clone());
    let host = args
        .host
        .clone()
        .or(in_fields)
        .context("which host? name it with --host, or in the `Host` of the request's file")?;
    if args.host.is_some() {
        written.fields.retain(|field| !named(&field));
    }
    Ok(TrialRequest {
        project: args.project.clone(),
        host,
        name: args.name.clone(),
        labels: args.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
        method: args.method.clone().unwrap_or(written.method),
        target: args.path.clone().unwrap_or(written.target),
        fields: written.fields,
        body: written.body,
        from: args.from,
        tls13: args.tls == "1.3",
        certificate_sha256: args.cert_sha256.clone(),
    })
}

/// A request in a file, as HTTP/1.1 writes it (RFC 9112 §2.1); lines may end without CR.
#[derive(Debug, PartialEq, Eq)]
struct Written {
    method: String,
    target: String,
    fields: Vec<(String, String)>,
    body: Option<String>,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            method: "GET".to_owned(),
            target: "/".to_owned(),
            fields: Vec::new(),
            body: None,
        }
    }
}

impl Written {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let length = fs::metadata(path)
            .with_context(|| format!("cannot read `{shown}`"))?
            .len();
        if length > FILE_BYTES_MAX {
            bail!("`{shown}` has {length} bytes, at most {FILE_BYTES_MAX} can be tried");
        }
        let text = fs::read_to_string(path).with_context(|| format!("cannot read `{shown}`"))?;
        Self::parse(&text).with_context(|| format!("`{shown}` is not a request"))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let text = text.replace("\r\n", "\n");
        let (head, body) = match text.split_once("\n\n") {
            Some((head, body)) => (head, Some(body.to_owned())),
            None => (text.trim_end_matches('\n'), None),
        };
        let mut lines = head.lines();
        let first = lines.next().unwrap_or_default();
        let mut words = first.split(' ');
        let (Some(method), Some(target), version, None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            bail!("line 1 must be `METHOD /path HTTP/1.1`");
        };
        if !version.is_none_or(|version| version.starts_with("HTTP/")) {
            bail!("line 1 must be `METHOD /path HTTP/1.1`");
        }
        let fields = lines
            .enumerate()
            .map(|(at, line)| field(line).map_err(|why| anyhow::anyhow!("line {}: {why}", at + 2)));
        Ok(Self {
            method: method.to_owned(),
            target: target.to_owned(),
            fields: fields.collect::<anyhow::Result<_>>()?,
            body: body.filter(|body| !body.is_empty()),
        })
    }
}

fn shown(report: &TrialReport) -> String {
    let mut text = format!("asked: {}\n\n", report.asked);
    let rows: Vec<Vec<String>> = (1..)
        .zip(&report.lines)
        .map(|(number, line): (usize, &TrialLine)| {
            let TrialLine {
                filter,
                phase,
                said,
                origin,
            } = line.clone();
            vec![number.to_string(), filter, phase, said, origin]
        })
        .collect();
    if !rows.is_empty() {
        text.push_str(&table(&["#", "FILTER", "PHASE", "SAYS", "FROM"], &rows));
        text.push('\n');
    }
    text.push_str(&clean(&format!("the request {}", report.outcome)));
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_file_is_read_as_people_write_requests() {
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let read =
            Written::parse("POST /a?b HTTP/1.1\r\nHost: x\r\nAccept:*/*\r\n\r\na\nb").unwrap();
        assert_eq!((&*read.method, &*read.target), ("POST", "/a?b"));
        assert_eq!(read.fields, [field("Host", "x"), field("Accept", "*/*")]);
        assert_eq!(read.body.as_deref(), Some("a\nb"));
        let read = Written::parse("GET /\nHost: x\n\n").unwrap();
        assert_eq!((read.fields.len(), read.body), (1, None));
        for (wrong, why) in [
            ("", "line 1 must be"),
            ("GET", "line 1 must be"),
            ("GET / now HTTP/1.1", "line 1 must be"),
            ("GET / HTTP/1.1\nHost", "line 2: write it as `Name: value`"),
        ] {
            let error = Written::parse(wrong).unwrap_err().to_string();
            assert!(error.starts_with(why), "{wrong}: {error}");
        }
    }
}
