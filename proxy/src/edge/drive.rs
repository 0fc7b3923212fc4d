//! The life of an exchange, the same for every HTTP version: route, ask the filters, find the
//! upstream, bring the answer back.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::{request, response};
use tower::ServiceExt as _;

use super::begun::Begun;
use super::body::{ApiBody, Inbound, Outbound, ResponseBody, Unread};
use super::counters::Finished;
use super::duplex::Relay;
use super::fields;
use super::head;
use super::record::Record;
use super::site::{Found, Site};
use super::upgrade::Asked;
use super::visit::Visit;
use crate::render::{self, Audience, Failure, Rendered};

/// What a visitor gets.
pub(crate) enum Answer {
    /// A response in HTTP.
    Response {
        head: response::Parts,
        body: ResponseBody,
    },
    /// The head that ends HTTP, and what happens on the stream from then on.
    Switch { head: response::Parts, relay: Relay },
    /// Nothing: the stream or connection is closed.
    Close,
}

/// Drives one exchange until the head of its answer is known. `unread` says whether the request
/// body still has something in it.
pub(crate) async fn drive(
    visit: &Arc<Visit>,
    head: request::Parts,
    body: Inbound,
    asked: Option<Asked>,
    unread: Unread,
) -> Answer {
    // Until something reads it: an answer may come before anything does.
    unread.store(!body.is_end_stream(), Ordering::Relaxed);
    let id = visit.edge.request_ids.next();
    let version = head.version;
    let (head, found, client) = match route(visit, head, asked.as_ref()) {
        Ok(routed) => routed,
        Err((failure, form)) => {
            let rendered = render::failure(failure, form.audience(&id.to_string()));
            let finished = Finished::without_tunnel(version, rendered.head.status);
            visit.counters().finished(finished);
            return respond(rendered, None);
        }
    };
    let site = match found {
        Target::Site(site) => site,
        Target::Engine => {
            let mut head = head;
            head.extensions.insert(Visitor(client));
            head.extensions.insert(Arc::clone(&visit.info));
            return api(visit, head, body, unread).await;
        }
    };
    let form = Form::of(&head);
    let edition = visit.edge.open.edition();
    let chain = site.chain();
    let exchange = Begun {
        visit,
        site: &site,
        edition,
        chain,
        client,
        id,
        form,
    };
    exchange.run(head, body, asked, unread).await
}

/// The visitor's address, for what answers on the engine's own host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visitor(pub(crate) IpAddr);

enum Target {
    Site(Arc<Site>),
    Engine,
}

/// How an answer of the edge's own is to look.
#[derive(Clone, Copy)]
pub(super) struct Form {
    pub(super) head_only: bool,
    html: bool,
}

impl Form {
    fn of(head: &request::Parts) -> Self {
        let audience = Audience::of(&head.method, &head.headers, "");
        Self {
            head_only: audience.head_only,
            html: audience.html,
        }
    }

    pub(super) fn audience(self, request_id: &str) -> Audience<'_> {
        Audience {
            head_only: self.head_only,
            html: self.html,
            request_id,
        }
    }
}

/// Checks a head, makes its URI absolute and finds what it is for.
fn route(
    visit: &Visit,
    mut head: request::Parts,
    asked: Option<&Asked>,
) -> Result<(request::Parts, Target, IpAddr), (Failure, Form)> {
    let form = Form::of(&head);
    let fail = |failure| (failure, form);
    if asked.is_some_and(|asked| !asked.is_served()) {
        return Err(fail(Failure::Unsupported));
    }
    let default = visit
        .site
        .as_ref()
        .filter(|_| head.version == http::Version::HTTP_10)
        .and_then(|site| site.info.hostname.as_deref());
    let host = head::absolute(&mut head, default).map_err(fail)?;
    let peer = visit.info.peer.ip();
    let client = if visit.edge.fronts.trusts(peer) {
        let trusts = |address| visit.edge.fronts.trusts(address);
        match fields::client_behind_front(&head.headers, trusts) {
            Some(client) => client,
            // A front proxy that speaks for itself, such as a health check.
            None if !head.headers.contains_key("x-forwarded-for") => peer,
            None => return Err(fail(Failure::BadRequest)),
        }
    } else {
        peer
    };
    let found = match visit.edge.directory.find(&host) {
        Found::Site(site) => Target::Site(site),
        Found::Engine => Target::Engine,
        Found::Offline => return Err(fail(Failure::Offline)),
        Found::OtherProtocol => return Err(fail(Failure::Misdirected)),
        Found::Unknown => return Err(fail(Failure::NotFound)),
    };
    Ok((head, found, client))
}

/// The engine's own host: the API answers.
async fn api(visit: &Visit, head: request::Parts, body: Inbound, unread: Unread) -> Answer {
    let idle = visit.limits().body_idle;
    let version = head.version;
    let body = axum::body::Body::new(ApiBody::new(body, idle, unread));
    let router = visit.edge.api.clone();
    let Ok(answer) = router.oneshot(http::Request::from_parts(head, body)).await;
    let (head, body) = answer.into_parts();
    let finished = Finished::without_tunnel(version, head.status);
    visit.counters().finished(finished);
    Answer::Response {
        head,
        body: ResponseBody::new(Outbound::Api(body), None),
    }
}

pub(super) fn respond(rendered: Rendered, record: Option<Arc<Record>>) -> Answer {
    let body = ResponseBody::new(Outbound::Full(rendered.body), record);
    Answer::Response {
        head: rendered.head,
        body,
    }
}
