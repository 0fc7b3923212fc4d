//! Why an exchange did not reach its service, in the words of a `stream.summary` (engine-api §11).

use adit_filters::{Cause, FailureKind, Reason, Refusal, Settlement};
use serde_json::{Value, json};

use super::entry::{Decision, Entry};
use crate::identity::token::TokenSource;

/// A kind of failure as the access log writes it.
pub(super) fn word(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Offline => "offline",
        FailureKind::Capacity => "capacity",
        FailureKind::Timeout(_) => "timeout",
        FailureKind::Unsupported => "unsupported",
        FailureKind::Io => "upstream-error",
    }
}

/// The firewall's part: what let the exchange in, or kept it out.
pub(super) fn firewall(entry: &Entry) -> Value {
    let failure = denied(entry).then(|| failure(entry));
    json!({
        "decision": if failure.is_some() { "denied" } else { "allowed" },
        "rule": rule(entry),
        "failure": failure,
        "filter": entry.decision().and_then(|decision| decision.by),
        "dryRun": trials(entry),
    })
}

/// What filters on trial would have refused. Like the filter's name, rstream's records have no such thing.
fn trials(entry: &Entry) -> Option<Vec<Value>> {
    let trials = entry.trials.iter().map(|refusal| {
        let Decision { by, reason, detail } = Decision::of(refusal);
        json!({ "filter": by, "reason": reason, "message": detail })
    });
    (!entry.trials.is_empty()).then(|| trials.collect())
}

/// Whether a filter kept the exchange from its service. One that answered in the service's place did not.
fn denied(entry: &Entry) -> bool {
    let outcome = &*entry.outcome;
    match (&outcome.refusal, &outcome.settled) {
        (Some(refusal), _) => refusal.by.is_some(),
        (None, Some(settled)) => settled.how == Settlement::Closed,
        (None, None) => false,
    }
}

/// The rule that decided: the one that refused, else the one that said who the visitor is.
fn rule(entry: &Entry) -> Value {
    let refused = entry.outcome.refusal.as_ref();
    match refused.map(|refusal| refusal.reason) {
        Some(
            Reason::MissingToken
            | Reason::InvalidToken
            | Reason::ExpiredToken
            | Reason::InsufficientScope
            | Reason::AmbiguousCredentials,
        ) => token(entry),
        Some(Reason::Login) => login(),
        Some(Reason::Mtls) => json!({ "kind": "mtls" }),
        _ => match entry.who.as_ref().map(|who| who.method) {
            Some("mtls") => json!({ "kind": "mtls" }),
            Some("rstream-auth") => login(),
            _ if entry.proof.is_some() => token(entry),
            _ => json!({ "kind": "none" }),
        },
    }
}

fn login() -> Value {
    json!({ "kind": "rstream_auth", "source": "rstream_auth" })
}

fn token(entry: &Entry) -> Value {
    let kind = entry.proof.and_then(|proof| proof.kind);
    json!({
        "kind": "token",
        "source": source(entry),
        "tokenType": kind.map_or("unknown", |kind| kind.as_str()),
    })
}

fn source(entry: &Entry) -> &'static str {
    let source = entry.proof.map(|proof| proof.source);
    source.unwrap_or(TokenSource::Unknown).as_str()
}

/// Why the service was not reached.
pub(super) fn failure(entry: &Entry) -> Value {
    let outcome = &*entry.outcome;
    let message = entry.decision().map(|decision| decision.message());
    if let Some(refusal) = &outcome.refusal {
        return of_refusal(entry, refusal, message);
    }
    if let Some(settled) = &outcome.settled {
        let reason = match settled.how {
            Settlement::Closed => "policy",
            Settlement::Answered | Settlement::Redirected => "other",
        };
        return refused(reason, message);
    }
    match outcome.failure.as_ref().map(|failure| failure.kind) {
        Some(FailureKind::Offline) => not_found("client", message),
        Some(FailureKind::Capacity) => refused("capacity", message),
        Some(FailureKind::Unsupported) => refused("unsupported", message),
        Some(FailureKind::Io) => json!({ "kind": "io", "message": message }),
        Some(FailureKind::Timeout(limit)) => {
            let limit = u64::try_from(limit.as_millis()).ok();
            json!({ "kind": "timeout", "timeoutMs": limit, "message": message })
        }
        None => unnamed(entry),
    }
}

fn of_refusal(entry: &Entry, refusal: &Refusal, message: Option<String>) -> Value {
    let unauthorized =
        |why: Value| json!({ "kind": "unauthorized", "why": why, "message": message });
    let token = |reason: &str| unauthorized(json!({ "reason": reason, "source": source(entry) }));
    let denied = |policy: &str, value: Option<&str>| {
        unauthorized(json!({
            "reason": "policy_denied", "policy": policy, "value": value, "source": source(entry),
        }))
    };
    match refusal.reason {
        Reason::MissingToken => token("missing_token"),
        Reason::Login => {
            unauthorized(json!({ "reason": "missing_token", "source": "rstream_auth" }))
        }
        Reason::InvalidToken => token("invalid_token"),
        Reason::ExpiredToken => token("expired_token"),
        Reason::InsufficientScope => token("insufficient_scope"),
        Reason::Ip => denied("ip", Some(&entry.ip())),
        Reason::Country => denied("geo", super::entry::country(&entry.connection).as_deref()),
        Reason::Mtls => denied("mtls", None),
        Reason::Challenge => denied("challenge", None),
        Reason::AmbiguousCredentials | Reason::Origin => {
            denied("other", Some(refusal.reason.as_str()))
        }
        Reason::Capacity | Reason::RateLimited | Reason::TimeLimit => refused("capacity", message),
        Reason::Policy | Reason::Misdirected => refused("policy", message),
        Reason::Unsupported => refused("unsupported", message),
        Reason::NotFound => not_found("route", message),
        Reason::Unavailable => json!({ "kind": "io", "message": message }),
        Reason::Plugin => json!({ "kind": "internal", "message": message }),
        _ => refused("other", message),
    }
}

/// Nobody refused and nothing failed, and yet nothing was reached: the exchange ended before.
fn unnamed(entry: &Entry) -> Value {
    let message = entry.outcome.termination.detail.as_deref();
    match entry.outcome.termination.cause {
        Cause::Timeout => json!({ "kind": "timeout", "message": message }),
        Cause::Reset | Cause::Error => json!({ "kind": "io", "message": message }),
        Cause::Closed | Cause::Unknown => refused(
            "other",
            Some(
                message
                    .unwrap_or("ended before the service was reached")
                    .to_owned(),
            ),
        ),
    }
}

fn refused(reason: &str, message: Option<String>) -> Value {
    json!({ "kind": "refused", "reason": reason, "message": message })
}

fn not_found(resource: &str, message: Option<String>) -> Value {
    json!({ "kind": "not_found", "resource": resource, "message": message })
}
