//! What a case expected, held against what came of it.

use adit_config::Span;
use http::HeaderMap;
use serde::Serialize;

use super::cases::{Case, Expect, Fields, Got, Sent, VerdictName};
use super::run::{Answer, Came, Verdict};
use crate::plugin::grouped;

/// What nothing is called.
const NOTHING: &str = "(none)";

/// Where it was otherwise than expected.
#[derive(Debug, Serialize)]
pub(super) struct Difference {
    what: String,
    expected: String,
    got: String,
}

impl Difference {
    /// As lines of a diff.
    pub(super) fn lines(&self) -> [String; 2] {
        let Self {
            what,
            expected,
            got,
        } = self;
        [format!("- {what}: {expected}"), format!("+ {what}: {got}")]
    }
}

/// Everything that came otherwise.
#[derive(Default)]
pub(super) struct Judge(pub(super) Vec<Difference>);

impl Judge {
    /// Something that should not have happened at all.
    pub(super) fn unexpected(&mut self, what: &str, got: impl Into<String>) {
        self.differ(what, NOTHING, got);
    }

    fn differ(&mut self, what: &str, expected: impl Into<String>, got: impl Into<String>) {
        self.0.push(Difference {
            what: what.to_owned(),
            expected: expected.into(),
            got: got.into(),
        });
    }

    fn same(&mut self, what: &str, expected: Option<&str>, got: Option<&str>) {
        if let Some(expected) = expected
            && got != Some(expected)
        {
            self.differ(what, expected, got.unwrap_or(NOTHING));
        }
    }

    fn contains(&mut self, what: &str, part: Option<&str>, got: Option<&str>) {
        if let Some(part) = part
            && !got.is_some_and(|got| got.contains(part))
        {
            self.differ(what, format!("…{part}…"), got.unwrap_or(NOTHING));
        }
    }

    fn headers(&mut self, what: &str, expected: &Fields, got: Option<&HeaderMap>) {
        for (name, values) in expected {
            let found: Vec<String> = got
                .into_iter()
                .flat_map(|got| got.get_all(name.to_ascii_lowercase()))
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                .collect();
            if found != values.0 {
                self.differ(&format!("{what} `{name}`"), all(&values.0), all(&found));
            }
        }
    }

    /// Holds a case against what came of it.
    pub(super) fn case(&mut self, case: &Case, came: &Came, log: &[String]) {
        let Expect {
            verdict,
            reason,
            status,
            location,
            headers,
            body,
            body_contains,
            says,
            request,
            response,
            identity,
            log: logged,
        } = &case.expect;
        self.verdict(
            *verdict,
            reason.map(|reason| reason.0.as_str()),
            &came.verdict,
        );
        let of_verdict = match &came.verdict {
            Verdict::Respond(answer) => Some(&**answer),
            _ => None,
        };
        let status_got = match &came.verdict {
            Verdict::Respond(answer) => Some(answer.status),
            Verdict::Redirect { status, .. } => Some(*status),
            Verdict::Refuse(refusal) => Some(adit_proxy::render::status_of(refusal.reason)),
            _ => None,
        };
        self.same(
            "status",
            status
                .map(|status| status.0.as_u16().to_string())
                .as_deref(),
            status_got
                .map(|status| status.as_u16().to_string())
                .as_deref(),
        );
        let location_got = match &came.verdict {
            Verdict::Redirect { location, .. } => Some(location.as_str()),
            _ => None,
        };
        self.same("location", location.as_deref(), location_got);
        self.headers("header", headers, of_verdict.map(|answer| &answer.headers));
        let body_got = of_verdict.map(text);
        self.same("body", body.as_deref(), body_got.as_deref());
        self.contains("body", body_contains.as_deref(), body_got.as_deref());
        let said = match &came.verdict {
            Verdict::Misconfigured(problems) => Some(
                problems
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join("\n"),
            ),
            _ => None,
        };
        self.contains("says", says.as_deref(), said.as_deref());
        if let Some(expected) = request {
            self.request(expected, came);
        }
        if let Some(expected) = response {
            self.response(expected, came.response.as_ref());
        }
        self.same("identity", identity.as_deref(), came.identity.as_deref());
        for part in logged {
            if !log.iter().any(|line| line.contains(part)) {
                self.differ("log", format!("…{part}…"), all(log));
            }
        }
        if let Some(Span(max)) = case.max_time
            && came.time > max
        {
            self.differ(
                "time",
                format!("{max:?} at most"),
                format!("{:?}", came.time),
            );
        }
    }

    /// Holds the fuel against what the case allows.
    pub(super) fn fuel(&mut self, max: Option<u64>, fuel: u64) {
        if let Some(max) = max
            && fuel > max
        {
            self.differ("fuel", format!("{} at most", grouped(max)), grouped(fuel));
        }
    }

    fn verdict(&mut self, expected: VerdictName, reason: Option<&str>, got: &Verdict) {
        let (name, why, detail) = match got {
            Verdict::Continue => (VerdictName::Continue, None, None),
            Verdict::Upgrade => (VerdictName::Upgrade, None, None),
            Verdict::Respond(_) => (VerdictName::Respond, None, None),
            Verdict::Redirect { .. } => (VerdictName::Redirect, None, None),
            Verdict::Refuse(refusal) => {
                let why = refusal.reason.as_str();
                (VerdictName::Refuse, Some(why), refusal.detail.clone())
            }
            Verdict::Close => (VerdictName::Close, None, None),
            Verdict::Misconfigured(problems) => {
                let first = problems.first().map(ToString::to_string);
                (VerdictName::Misconfigured, None, first)
            }
        };
        if name == expected && reason.is_none_or(|reason| Some(reason) == why) {
            return;
        }
        let shown = |name: VerdictName, why: Option<&str>, detail: Option<String>| {
            let why = why.map_or_else(String::new, |why| format!(", {why}"));
            let detail = detail.map_or_else(String::new, |detail| format!(" ({detail})"));
            format!("{}{why}{detail}", name.as_str())
        };
        self.differ(
            "verdict",
            shown(expected, reason, None),
            shown(name, why, detail),
        );
    }

    fn request(&mut self, expected: &Sent, came: &Came) {
        let got = came.request.as_ref();
        let path = got.map(|(head, _)| {
            let target = head.uri.path_and_query();
            target.map_or_else(String::new, ToString::to_string)
        });
        self.same("request path", expected.path.as_deref(), path.as_deref());
        let headers = got.map(|(head, _)| &head.headers);
        self.headers("request header", &expected.headers, headers);
        let body = got.map(|(_, body)| String::from_utf8_lossy(body).into_owned());
        self.same("request body", expected.body.as_deref(), body.as_deref());
    }

    fn response(&mut self, expected: &Got, got: Option<&Answer>) {
        let status = got.map(|answer| answer.status.as_u16().to_string());
        let wanted = expected.status.map(|status| status.0.as_u16().to_string());
        self.same("response status", wanted.as_deref(), status.as_deref());
        self.headers(
            "response header",
            &expected.headers,
            got.map(|answer| &answer.headers),
        );
        let body = got.map(text);
        self.same("response body", expected.body.as_deref(), body.as_deref());
        self.contains(
            "response body",
            expected.body_contains.as_deref(),
            body.as_deref(),
        );
    }
}

fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

fn all(texts: &[String]) -> String {
    match texts {
        [] => NOTHING.to_owned(),
        texts => texts.join(" | "),
    }
}
