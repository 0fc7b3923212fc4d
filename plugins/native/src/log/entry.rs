//! What is kept of an exchange until it is written down.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit_filters::{Connection, Identity, Location, LogCx, Outcome, Refusal, redact};
use http::Version;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::identity::token::TokenProof;

/// The longest detail of a decision that is written down: filters quote visitors and services, who are not brief.
pub(super) const DETAIL_BYTES_MAX: usize = 512;

/// Stands for the rest of a detail.
const CUT: &str = "…";

/// One exchange that is over. The data path makes it of copies and neither formats nor waits.
pub(super) struct Entry {
    pub(super) connection: Arc<Connection>,
    pub(super) outcome: Arc<Outcome>,
    pub(super) proof: Option<TokenProof>,
    pub(super) who: Option<Who>,
    /// Observers that failed and were passed over.
    pub(super) lapses: Vec<Refusal>,
    /// What filters on trial would have refused.
    pub(super) trials: Vec<Refusal>,
}

/// Whoever the visitor has proved to be.
pub(super) struct Who {
    pub(super) subject: String,
    pub(super) method: &'static str,
}

impl Entry {
    pub(super) fn of(cx: &LogCx<'_>) -> Self {
        let exchange = cx.exchange;
        Self {
            connection: Arc::clone(exchange.connection()),
            outcome: Arc::clone(cx.outcome),
            proof: exchange.fact::<TokenProof>().copied(),
            who: exchange.fact::<Identity>().map(|identity| Who {
                subject: identity.subject.clone(),
                method: identity.method,
            }),
            lapses: exchange.lapses(),
            trials: exchange.dry_refusals(),
        }
    }

    /// The visitor's address.
    pub(super) fn ip(&self) -> String {
        let peer = self.connection.info().peer.ip();
        peer.to_canonical().to_string()
    }

    /// Who decided that the service is not reached, and why: a filter, or the edge.
    pub(super) fn decision(&self) -> Option<Decision<'_>> {
        let outcome = &*self.outcome;
        if let Some(refusal) = &outcome.refusal {
            return Some(Decision::of(refusal));
        }
        if let Some(settled) = &outcome.settled {
            return Some(Decision {
                by: Some(&settled.by),
                reason: settled.how.as_str(),
                detail: None,
            });
        }
        outcome.failure.as_ref().map(|failure| Decision {
            by: None,
            reason: super::failure::word(failure.kind),
            detail: Some(worded(&failure.detail)),
        })
    }
}

/// Who decided, and why.
pub(super) struct Decision<'a> {
    /// The filter; none where it was the edge.
    pub(super) by: Option<&'a str>,
    pub(super) reason: &'a str,
    /// More, without secrets: filters may quote the visitor.
    pub(super) detail: Option<Cow<'a, str>>,
}

impl<'a> Decision<'a> {
    pub(super) fn of(refusal: &'a Refusal) -> Self {
        Self {
            by: refusal.by.as_deref(),
            reason: refusal.reason.as_str(),
            detail: refusal.detail.as_deref().map(worded),
        }
    }

    /// All of it in one line.
    pub(super) fn message(&self) -> String {
        let mut message = self.reason.to_owned();
        for (before, part) in [(" by ", self.by), (": ", self.detail.as_deref())] {
            if let Some(part) = part {
                message.push_str(before);
                message.push_str(part);
            }
        }
        message
    }
}

/// Without secrets, which are known only while they are whole, and then no longer than it may be.
fn worded(detail: &str) -> Cow<'_, str> {
    let mut shown = redact::field(detail);
    if shown.len() > DETAIL_BYTES_MAX {
        let kept = shown.floor_char_boundary(DETAIL_BYTES_MAX - CUT.len());
        let kept = shown.get(..kept).unwrap_or_default();
        shown = Cow::Owned(format!("{kept}{CUT}"));
    }
    shown
}

/// The HTTP version in ALPN's words.
pub(super) fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "h2",
        Version::HTTP_3 => "h3",
        Version::HTTP_10 => "http/1.0",
        _ => "http/1.1",
    }
}

/// Fields that must not be empty are left out instead.
pub(super) fn text(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// To the microsecond: more digits are noise.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// The calendar's time to the microsecond.
pub(super) fn rfc3339(time: SystemTime) -> Option<String> {
    let time = OffsetDateTime::from(time);
    let rounded = time.replace_nanosecond(time.nanosecond() / 1000 * 1000);
    rounded.ok()?.format(&Rfc3339).ok()
}

/// The country an address is in, where a filter before has looked it up.
pub(super) fn country(connection: &Connection) -> Option<Cow<'_, str>> {
    let location = connection.fact::<Location>()?;
    location.country.as_deref().map(Cow::Borrowed)
}

/// The region of that country, where the database has regions.
pub(super) fn region(connection: &Connection) -> Option<&str> {
    connection.fact::<Location>()?.region.as_deref()
}
