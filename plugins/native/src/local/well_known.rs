//! `well-known`: what lies below `/.well-known/rstream/` on a tunnel's host is answered at the edge and never forwarded
//! (edge-behaviour §7.6).
//!
//! It stands before the filters that judge proofs, so it looks at them itself, and changes nothing.

use std::sync::Arc;

use adit_config::{Problem, Section};
use adit_filters::{
    Env, Factory, FilterError, Hooks, Identity, OnRequest, PathPattern, Reason, Rehearsal, Reply,
    RequestCx, Stage, TunnelInfo, Verdict,
};
use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ORIGIN, REFERER, SET_COOKIE,
    TRANSFER_ENCODING,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, request};
use serde::Deserialize;
use serde_json::json;

use crate::Services;
use crate::identity::challenge::{self, Gate};
use crate::identity::rstream_auth::{self, Desk, Visitor};
use crate::identity::token::TokenFilter;

/// What `use = "…"` calls the filter.
pub const NAME: &str = "well-known";

/// Everything below it is the edge's.
const RESERVED: &str = "/.well-known/rstream/*";

/// The id of the one workspace there is: projects here belong to the engine, not to workspaces of several owners.
const WORKSPACE: &str = "default";

/// The filter's table.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What the tunnel asks of its visitors, as the session endpoint names it.
    #[serde(default)]
    pub policies: Vec<Policy>,
}

/// What a tunnel asks of its visitors.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// A client certificate.
    MtlsAuth,
    /// A token.
    TokenAuth,
    /// A browser's proof of work.
    ChallengeMode,
    /// Signing in.
    RstreamAuth,
}

impl Policy {
    /// Every one, in the order in which proofs are tried.
    pub const ALL: [Self; 4] = [
        Self::MtlsAuth,
        Self::TokenAuth,
        Self::ChallengeMode,
        Self::RstreamAuth,
    ];

    /// What a filter of this kind asks of visitors, if it is about that.
    #[must_use]
    pub fn of_filter(kind: &str) -> Option<Self> {
        match kind {
            "client-cert" => Some(Self::MtlsAuth),
            "token" => Some(Self::TokenAuth),
            "challenge" => Some(Self::ChallengeMode),
            "rstream-auth" => Some(Self::RstreamAuth),
            _ => None,
        }
    }

    /// As the session endpoint names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MtlsAuth => "mtls-auth",
            Self::TokenAuth => "token-auth",
            Self::ChallengeMode => "challenge-mode",
            Self::RstreamAuth => "rstream-auth",
        }
    }
}

/// Makes `well-known` filters that look at proofs through the same services as those that judge them.
#[derive(Debug)]
pub struct WellKnownFactory {
    services: Services,
}

impl WellKnownFactory {
    /// Filters look at proofs through these services.
    #[must_use]
    pub fn new(services: Services) -> Self {
        Self { services }
    }
}

impl Factory for WellKnownFactory {
    fn name(&self) -> &str {
        NAME
    }

    fn stage(&self) -> Stage {
        Stage::Local
    }

    fn build(&self, section: &Section, env: &mut Env) -> Result<Hooks, Vec<Problem>> {
        let config = section.deserialize()?;
        Ok(WellKnown::new(&self.services, config, env).hooks())
    }
}

/// The filter.
pub struct WellKnown {
    policies: Vec<Policy>,
    tokens: TokenFilter,
    desk: Option<Arc<Desk>>,
    gate: Option<Arc<Gate>>,
    reserved: PathPattern,
}

/// Who a request is from, as far as its proofs say.
struct Who {
    method: Policy,
    id: String,
    name: Option<String>,
    email: Option<String>,
    image: Option<String>,
}

impl WellKnown {
    /// A filter over these services.
    #[must_use]
    pub fn new(services: &Services, config: Config, env: &Env) -> Self {
        Self {
            policies: config.policies,
            tokens: TokenFilter::new(Arc::clone(&services.authority), env),
            desk: services.desk.clone(),
            gate: services.gate.clone(),
            reserved: PathPattern::parse(RESERVED).expect("the pattern is written plainly"),
        }
    }

    /// The phases it takes part in.
    #[must_use]
    pub fn hooks(self) -> Hooks {
        Hooks::new()
            .at(Stage::Local)
            .judges_once()
            .request(Arc::new(self))
    }

    fn answer(&self, cx: &RequestCx<'_>) -> Verdict {
        // The path as it was received: another spelling of it is no endpoint, and does not reach the service either.
        let reply = match cx.head.uri.path() {
            "/.well-known/rstream/session" if cx.upgrade.is_none() => self.session(cx),
            "/.well-known/rstream/logout" if cx.upgrade.is_none() => {
                match self.logout(cx.head, cx.exchange.connection().tunnel(), cx) {
                    Ok(reply) => reply,
                    Err(reason) => return Verdict::Refuse(reason),
                }
            }
            rstream_auth::CALLBACK_PATH if cx.upgrade.is_none() => match &self.desk {
                Some(desk) if cx.head.method == Method::GET => {
                    desk.callback(cx.head, cx.exchange.connection().tunnel())
                }
                Some(_) => other_method("GET"),
                None => return Verdict::Refuse(Reason::NotFound),
            },
            challenge::CALLBACK_PATH if cx.upgrade.is_none() => match &self.gate {
                Some(gate) if cx.head.method == Method::GET => {
                    let connection = cx.exchange.connection();
                    gate.callback(cx.head, connection.tunnel(), connection.info().peer.ip())
                }
                Some(_) => other_method("GET"),
                None => return Verdict::Refuse(Reason::NotFound),
            },
            _ => return Verdict::Refuse(Reason::NotFound),
        };
        Verdict::Respond(Box::new(reply))
    }

    /// Who the visitor is, for the service's own pages.
    fn session(&self, cx: &RequestCx<'_>) -> Reply {
        if cx.head.method != Method::GET && cx.head.method != Method::HEAD {
            return other_method("GET, HEAD");
        }
        let tunnel = cx.exchange.connection().tunnel();
        let body = match self.who(cx) {
            None => json!({ "auth": { "authenticated": false } }),
            Some(who) => json!({
                "auth": { "authenticated": true, "method": who.method.as_str() },
                "user": {
                    "userId": who.id,
                    "name": who.name,
                    "email": who.email,
                    "image": who.image,
                },
                "tunnel": {
                    "host": tunnel.hostname,
                    "workspaceId": WORKSPACE,
                    "projectId": tunnel.project,
                },
                "policies": self.policies.iter().map(|policy| policy.as_str()).collect::<Vec<_>>(),
            }),
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Reply {
            status: StatusCode::OK,
            headers,
            body: Bytes::from(body.to_string()),
            because: None,
        }
    }

    /// The one proof that would be taken, in the order in which they are (edge-behaviour §7.1).
    fn who(&self, cx: &RequestCx<'_>) -> Option<Who> {
        if let Some(identity) = cx.exchange.fact::<Identity>() {
            return Some(Who {
                method: Policy::MtlsAuth,
                id: identity.subject.clone(),
                name: identity.name.clone(),
                email: identity.email.clone(),
                image: None,
            });
        }
        if self.policies.contains(&Policy::TokenAuth) {
            match self.tokens.look(cx) {
                Some(Ok(principal)) => {
                    return Some(Who {
                        method: Policy::TokenAuth,
                        id: principal.user_id.clone(),
                        name: principal.name.clone(),
                        email: principal.email.clone(),
                        image: None,
                    });
                }
                // An invalid token never falls back to a session.
                Some(Err(_)) => return None,
                None => {}
            }
        }
        if !self.policies.contains(&Policy::RstreamAuth) {
            return None;
        }
        let tunnel = cx.exchange.connection().tunnel();
        match self.desk.as_ref()?.visitor(&cx.head.headers, tunnel, None) {
            Visitor::User(_, user) => Some(Who {
                method: Policy::RstreamAuth,
                id: user.id,
                name: user.name,
                email: user.email,
                image: user.image,
            }),
            Visitor::Refused(_) | Visitor::Nobody => None,
        }
    }

    /// Ends the session of a visitor that has one. It does nothing for others, and says the same.
    fn logout(
        &self,
        head: &request::Parts,
        tunnel: &TunnelInfo,
        cx: &RequestCx<'_>,
    ) -> Result<Reply, Reason> {
        if head.method != Method::POST {
            return Ok(other_method("POST"));
        }
        if !is_json_or_nothing(&head.headers) {
            return Ok(empty(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        if !is_from_here(head) {
            return Err(Reason::Origin);
        }
        let mut reply = empty(StatusCode::NO_CONTENT);
        let by_session = self
            .who(cx)
            .is_some_and(|who| who.method == Policy::RstreamAuth);
        if let Some(desk) = &self.desk
            && by_session
            && desk.sign_out(&head.headers, tunnel)
        {
            reply
                .headers
                .append(SET_COOKIE, rstream_auth::clear_session());
        }
        Ok(reply)
    }
}

impl OnRequest for WellKnown {
    async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        if !self.reserved.matches(cx.head.uri.path()) {
            return Ok(Verdict::Continue);
        }
        if cx.exchange.fact::<Rehearsal>().is_some() {
            // An answer may spend a code or end a session.
            return Ok(Verdict::Respond(Box::new(empty(StatusCode::OK))));
        }
        Ok(self.answer(cx))
    }
}

fn is_json_or_nothing(headers: &HeaderMap) -> bool {
    match headers.get(CONTENT_TYPE) {
        Some(kind) => kind
            .to_str()
            .ok()
            .and_then(|kind| kind.split(';').next())
            .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")),
        None => {
            !headers.contains_key(TRANSFER_ENCODING)
                && headers
                    .get(CONTENT_LENGTH)
                    .is_none_or(|length| length == "0")
        }
    }
}

/// Whether the request comes from a page of the tunnel's own origin, where it says where it comes from.
fn is_from_here(head: &request::Parts) -> bool {
    let here = head.uri.authority().map(|here| origin_of(here.as_str()));
    let is_here = |there: Option<String>| there.is_some() && there == here;
    let origins = head.headers.get_all(ORIGIN).iter();
    let referers = head.headers.get_all(REFERER).iter();
    origins.chain(referers).all(|there| {
        let there = there.to_str().ok().and_then(|there| {
            let uri: Uri = there.parse().ok()?;
            let authority = uri.authority()?;
            (uri.scheme_str() == Some("https")).then(|| origin_of(authority.as_str()))
        });
        is_here(there)
    })
}

/// An authority as origins are compared: lower case, without the port that goes without saying.
fn origin_of(authority: &str) -> String {
    let lower = authority.to_ascii_lowercase();
    lower.strip_suffix(":443").unwrap_or(&lower).to_owned()
}

fn empty(status: StatusCode) -> Reply {
    let mut headers = HeaderMap::new();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Reply {
        status,
        headers,
        ..Reply::default()
    }
}

fn other_method(allowed: &'static str) -> Reply {
    let mut reply = empty(StatusCode::METHOD_NOT_ALLOWED);
    reply
        .headers
        .insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}
