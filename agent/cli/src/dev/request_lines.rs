//! One line a request on the terminal, as a filter of the log stage.

use std::io::IsTerminal as _;
use std::sync::Arc;

use adit_filters::{ConfigError, Env, Filter, Hooks, LogCx, OnLog, Outcome, Stage};
use time::OffsetDateTime;

use crate::lines::print;

/// Longest path shown, in characters.
const PATH_CHARS_MAX: usize = 60;

/// Prints each exchange when it is over.
pub(super) struct RequestLines {
    color: bool,
}

/// It has no settings.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoSettings {}

impl Filter for RequestLines {
    const NAME: &'static str = "request-lines";
    const STAGE: Stage = Stage::Log;
    type Config = NoSettings;

    fn new(_: NoSettings, _: &mut Env) -> Result<Self, ConfigError> {
        Ok(Self {
            color: std::io::stdout().is_terminal(),
        })
    }

    fn hooks(self: Arc<Self>) -> Hooks {
        Hooks::new().log(self)
    }
}

impl OnLog for RequestLines {
    fn on_log(&self, cx: &LogCx<'_>) {
        print(line(cx.outcome, self.color) + "\n");
    }
}

fn line(outcome: &Outcome, color: bool) -> String {
    let at = OffsetDateTime::from(outcome.started);
    let (hour, minute, second) = at.to_hms();
    let status = match outcome.status {
        Some(status) if color => format!("\x1b[{}m{status}\x1b[0m", color_of(status)),
        Some(status) => status.to_string(),
        None => "---".to_owned(),
    };
    // Control characters of a path must not reach the terminal.
    let path: String = outcome
        .request
        .path()
        .chars()
        .filter(|character| !character.is_control())
        .take(PATH_CHARS_MAX)
        .collect();
    let refused = outcome.refusal.as_ref().map(|refusal| {
        let by = refusal.by.as_deref().unwrap_or("the edge");
        format!("  refused by {by}: {}", refusal.reason)
    });
    format!(
        "{hour:02}:{minute:02}:{second:02}  {method:<7} {path:<30} {status}  {millis:>8.1} ms  {bytes} B{refused}",
        refused = refused.unwrap_or_default(),
        method = outcome.request.method().as_str(),
        millis = outcome.duration.as_secs_f64() * 1000.0,
        bytes = outcome.bytes_down,
    )
}

fn color_of(status: u16) -> u8 {
    match status {
        0..400 => 32,
        400..500 => 33,
        _ => 31,
    }
}
