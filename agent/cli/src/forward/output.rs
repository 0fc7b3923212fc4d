//! What `forward` writes: results to stdout, the rest to stderr.

use std::net::IpAddr;
use std::time::SystemTime;

use adit_agent::ServerDetails;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::{Event, Output};
use crate::lines::print;
use crate::terminal::clean;

/// UTC with milliseconds, which is RFC 3339 as well.
const DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// How the tunnel is doing, as it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Shown {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    update: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    pub(super) status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tunnel_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) forwarding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) forwarded: Option<String>,
}

impl Shown {
    pub(super) fn new(status: impl Into<String>) -> Self {
        Self {
            status: status.into(),
            ..Self::default()
        }
    }

    pub(super) fn with_server(self, server: &ServerDetails) -> Self {
        let known = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Self {
            version: known(&server.version),
            update: known(&server.update),
            plan: known(&server.plan),
            provider: known(&server.provider),
            region: known(&server.region),
            ..self
        }
    }

    fn rows(&self) -> String {
        let mut text = "tunnel status\n".to_owned();
        let status = Some(self.status.clone());
        for (name, value) in [
            ("version", &self.version),
            ("update", &self.update),
            ("plan", &self.plan),
            ("provider", &self.provider),
            ("region", &self.region),
            ("status", &status),
            ("tunnel ID", &self.tunnel_id),
            ("forwarding", &self.forwarding),
            ("forwarded", &self.forwarded),
        ] {
            let value = value.as_deref().map_or_else(|| "-".to_owned(), clean);
            text.push_str(&format!("  {name:<12}{value}\n"));
        }
        text
    }
}

/// Writes results to stdout, whole lines at a time.
pub(super) struct Printer {
    output: Output,
}

impl Printer {
    pub(super) const fn new(output: Output) -> Self {
        Self { output }
    }

    pub(super) fn status(&self, shown: &Shown) {
        match self.output {
            Output::Text => print(shown.rows()),
            Output::Json => print_json(shown),
            Output::None => {}
        }
    }

    pub(super) fn connection(&self, event: &Event) {
        match (self.output, event) {
            (
                Output::Text,
                Event::Opened {
                    stream_id, source, ..
                },
            ) => {
                let source = source.map_or_else(|| "-".to_owned(), |ip| ip.to_string());
                print(format!(
                    "incoming connection: date={} stream_id={} source_ip={source} active=true\n",
                    date(SystemTime::now()),
                    clean(stream_id),
                ));
            }
            (
                Output::Json,
                Event::Opened {
                    index,
                    stream_id,
                    source,
                },
            ) => print_json(&Opened {
                active: true,
                date: date(SystemTime::now()),
                idx: *index,
                stream_id: Some(stream_id.as_str()).filter(|id| !id.is_empty()),
                source_ip: *source,
            }),
            (Output::Json, Event::Closed { index }) => print_json(&Closed {
                event: "connection_closed",
                idx: *index,
            }),
            _ => {}
        }
    }
}

#[derive(Serialize)]
struct Opened<'a> {
    active: bool,
    date: String,
    idx: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_ip: Option<IpAddr>,
}

#[derive(Serialize)]
struct Closed {
    event: &'static str,
    idx: u64,
}

fn print_json(value: &impl Serialize) {
    if let Ok(line) = serde_json::to_string(value) {
        print(format!("{line}\n"));
    }
}

fn date(now: SystemTime) -> String {
    OffsetDateTime::from(now).format(DATE).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn the_status_is_a_heading_and_nine_rows() {
        let mut shown = Shown::new("online").with_server(&ServerDetails {
            version: Some("1.2.3".to_owned()),
            region: Some(String::new()),
            ..ServerDetails::default()
        });
        shown.forwarding = Some("https://a.b\u{1b}[2J".to_owned());
        let text = shown.rows();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 10);
        assert_eq!(lines.first(), Some(&"tunnel status"));
        assert!(lines.contains(&"  version     1.2.3"));
        assert!(lines.contains(&"  region      -"));
        assert!(lines.contains(&"  forwarding  https://a.b[2J"));
    }

    #[test]
    fn json_leaves_out_what_is_not_known() {
        let shown = Shown::new("connecting");
        assert_eq!(
            serde_json::to_string(&shown).unwrap(),
            "{\"status\":\"connecting\"}"
        );
    }

    #[test]
    fn dates_are_utc_with_milliseconds() {
        let moment = UNIX_EPOCH + Duration::from_millis(1_700_000_000_007);
        assert_eq!(date(moment), "2023-11-14T22:13:20.007Z");
    }
}
