//! `rstream-auth`: only users who have signed in with a browser, on the engine's own host.

use std::sync::Arc;

use adit_config::{Problem, Section};
use adit_filters::{
    Env, Fact, Factory, FilterError, Hooks, Identity, OnRejudge, OnRequest, Reason, RejudgeCx,
    RequestCx, Stage, Stay, Verdict,
};
use http::header::ACCEPT;
use http::{HeaderMap, Method};
use serde::Deserialize;

use super::desk::{Desk, Visitor};
use super::session::Session;
use super::user::{Allow, User};

/// What `use = "…"` calls the filter.
pub const NAME: &str = "rstream-auth";

/// The facts' names.
const SIGNED_IN: &str = "signed-in";
const STAYS_SIGNED_IN: &str = "stays-signed-in";

/// The last of all methods, behind a challenge too (edge-behaviour §4, F11).
const RANK: u8 = 2;

/// The filter's table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Who may enter, of those who may sign in and whom the project names.
    allow: Option<Allow>,
}

/// Makes `rstream-auth` filters that share one desk.
#[derive(Debug)]
pub struct RstreamAuthFactory {
    desk: Option<Arc<Desk>>,
}

impl RstreamAuthFactory {
    /// Users sign in at this desk.
    #[must_use]
    pub fn new(desk: Option<Arc<Desk>>) -> Self {
        Self { desk }
    }
}

impl Factory for RstreamAuthFactory {
    fn name(&self) -> &str {
        NAME
    }

    fn stage(&self) -> Stage {
        Stage::Identity
    }

    fn build(&self, section: &Section, _: &mut Env) -> Result<Hooks, Vec<Problem>> {
        let Config { allow } = section.deserialize()?;
        let Some(desk) = self.desk.clone() else {
            let message = "nobody can sign in, write `[login]` with `accounts` or `[login.oidc]`";
            return Err(vec![section.problem(None, message)]);
        };
        if let Some(rule) = &allow {
            desk.interested(rule);
        }
        let filter = Arc::new(RstreamAuth { desk, allow });
        Ok(Hooks::new()
            .at(Stage::Identity)
            .rank(RANK)
            .request(Arc::clone(&filter))
            .rejudge(filter)
            .gives::<Identity>())
    }
}

/// The filter.
#[derive(Debug)]
pub struct RstreamAuth {
    desk: Arc<Desk>,
    allow: Option<Allow>,
}

impl OnRequest for RstreamAuth {
    async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        let tunnel = Arc::clone(cx.exchange.connection().tunnel());
        let navigates = cx.upgrade.is_none() && is_navigation(&cx.head.method, &cx.head.headers);
        if let Some(SignedIn { user, .. }) = cx.exchange.fact() {
            // The project and a scope may both ask: whom the first let in must do for this one, too.
            return Ok(match self.desk.names(user, &tunnel, self.allow.as_ref()) {
                true => Verdict::Continue,
                false if navigates => {
                    let reply = self.desk.refuse(cx.head, &tunnel, user);
                    Verdict::Respond(Box::new(reply.because(Reason::Policy)))
                }
                false => Verdict::Refuse(Reason::Policy),
            });
        }
        if cx.exchange.fact::<Identity>().is_some() {
            // One method is enough, and another has proved who this is.
            return Ok(Verdict::Continue);
        }
        let visitor = self
            .desk
            .visitor(&cx.head.headers, &tunnel, self.allow.as_ref());
        let (session, user) = match visitor {
            Visitor::User(session, user) => (session, user),
            Visitor::Refused(user) if navigates => {
                let reply = self.desk.refuse(cx.head, &tunnel, &user);
                return Ok(Verdict::Respond(Box::new(reply.because(Reason::Policy))));
            }
            Visitor::Refused(_) => return Ok(Verdict::Refuse(Reason::Policy)),
            Visitor::Nobody if navigates => {
                let reply = self.desk.ask(cx.head, &tunnel);
                return Ok(Verdict::Respond(Box::new(reply.because(Reason::Login))));
            }
            Visitor::Nobody => return Ok(Verdict::Refuse(Reason::Login)),
        };
        let identity = Identity {
            subject: user.id.clone(),
            method: NAME,
            name: user.name.clone(),
            email: user.email.clone(),
            ..Identity::default()
        };
        cx.exchange
            .establish(identity)
            .and_then(|()| cx.exchange.establish(SignedIn { session, user }))
            .map_err(|_| FilterError::Trapped {
                reason: "somebody was identified twice",
            })?;
        Ok(Verdict::Continue)
    }
}

/// Who was let in, and by which session.
struct SignedIn {
    session: Box<Session>,
    user: User,
}

/// Somebody who has signed in may stay by the rules asked so far.
struct StaysSignedIn;

impl Fact for StaysSignedIn {
    const NAME: &'static str = STAYS_SIGNED_IN;
}

impl Fact for SignedIn {
    const NAME: &'static str = SIGNED_IN;
}

impl OnRejudge for RstreamAuth {
    fn on_rejudge(&self, cx: &mut RejudgeCx<'_>) -> Result<Stay, FilterError> {
        // Another filter of this kind has its own rule.
        let by_login = cx.facts.get::<StaysSignedIn>().is_some();
        if cx.facts.get::<Identity>().is_some() && !by_login {
            return Ok(Stay::Yes);
        }
        let known = (
            cx.exchange.fact::<SignedIn>(),
            cx.exchange.fact::<Identity>(),
        );
        let (Some(SignedIn { session, .. }), Some(identity)) = known else {
            return Ok(Stay::No(Reason::Login));
        };
        let rule = self.allow.as_ref();
        if !self.desk.may_stay(session, cx.tunnel(), rule) {
            return Ok(Stay::No(Reason::Login));
        }
        let _is_new = cx.facts.establish(identity.clone());
        let _is_new = cx.facts.establish(StaysSignedIn);
        Ok(Stay::Yes)
    }
}

/// Whether somebody opens a page, rather than a script fetching something: only the former can be sent elsewhere to
/// sign in. Browsers say so ([Fetch Metadata](https://www.w3.org/TR/fetch-metadata/#sec-fetch-mode-header)); of other
/// clients those count that would take a page.
pub(crate) fn is_navigation(method: &Method, headers: &HeaderMap) -> bool {
    if method != Method::GET && method != Method::HEAD {
        return false;
    }
    if let Some(mode) = headers.get("sec-fetch-mode") {
        return mode == "navigate";
    }
    let mut accepted = headers.get_all(ACCEPT).iter().peekable();
    accepted.peek().is_none()
        || accepted
            .filter_map(|value| value.to_str().ok())
            .flat_map(|list| list.split(','))
            .filter_map(|range| range.split(';').next())
            .any(|range| {
                ["text/html", "text/*", "*/*"]
                    .iter()
                    .any(|page| range.trim().eq_ignore_ascii_case(page))
            })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_navigation_is_told_from_a_fetch() {
        type Fields = [(&'static str, &'static str)];
        let cases: &[(&str, &Fields, bool)] = &[
            ("GET", &[], true),
            ("HEAD", &[], true),
            ("POST", &[], false),
            ("OPTIONS", &[], false),
            ("GET", &[("sec-fetch-mode", "navigate")], true),
            ("GET", &[("sec-fetch-mode", "cors")], false),
            (
                "GET",
                &[("sec-fetch-mode", "no-cors"), ("accept", "text/html")],
                false,
            ),
            ("POST", &[("sec-fetch-mode", "navigate")], false),
            (
                "GET",
                &[("accept", "text/html,application/xml;q=0.9")],
                true,
            ),
            ("GET", &[("accept", "*/*")], true),
            ("GET", &[("accept", "application/json")], false),
            ("GET", &[("accept", "image/avif, */*;q=0.1")], true),
            ("GET", &[("accept", "text/event-stream")], false),
            ("GET", &[("accept", "")], false),
        ];
        for (method, fields, navigates) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in *fields {
                headers.append(*name, value.parse().unwrap());
            }
            let method: Method = method.parse().unwrap();
            assert_eq!(
                is_navigation(&method, &headers),
                *navigates,
                "{method} {fields:?}"
            );
        }
    }
}
