//! An exchange that found its tunnel: the filters decide, the upstream answers, the filters see the
//! answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use adit_filters::{
    By, Cause, Chain, Decision, Exchange, Identity, Reason, Refusal, Reply, RequestId, RequestLine,
    Revised, Settlement, Upgrade,
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header, request, response};

use super::abort::Abort;
use super::body::{Inbound, Outbound, RequestBody, ResponseBody, Unread};
use super::drive::{Answer, Form, respond};
use super::fields::{self, Origin};
use super::head;
use super::record::{Opening, Record};
use super::site::Site;
use super::upgrade::{self, Asked};
use super::upstream::{self, Outgoing, UpstreamError};
use super::visit::{Denial, Denied, Visit};
use crate::render::{self, Rendered};

/// A request that found its tunnel.
pub(super) struct Begun<'a> {
    pub(super) visit: &'a Arc<Visit>,
    pub(super) site: &'a Arc<Site>,
    /// What was in force when the chain was taken.
    pub(super) edition: u64,
    pub(super) chain: Arc<Chain>,
    pub(super) client: IpAddr,
    pub(super) id: RequestId,
    pub(super) form: Form,
}

impl Begun<'_> {
    pub(super) async fn run(
        self,
        mut head: request::Parts,
        body: Inbound,
        asked: Option<Asked>,
        unread: Unread,
    ) -> Answer {
        let clock = Instant::now();
        let started = SystemTime::now();
        let admitted = self
            .visit
            .admitted(self.site, &self.chain, self.client)
            .await;
        let connection = match admitted {
            Ok(connection) => connection,
            Err(denied) => return self.denied(&head, denied, clock, started, asked.as_ref()),
        };
        let kind = asked.as_ref().map(|asked| asked.kind);
        let trailers = head::for_filters(&mut head, asked.as_ref());
        let mut exchange = self.chain.exchange(connection);
        exchange.set_bodiless(body.is_end_stream());
        let mut begun = Unjudged(Some(self.opening(&head, exchange, clock, started, kind)));
        let decision = begun.judge(&self.chain, &mut head, kind).await;
        let record = begun.record();
        let granted = match decision {
            Decision::Pass { upgrade } => upgrade,
            Decision::Refuse(refusal) => return self.refuse(&record, refusal).await,
            Decision::Respond { reply, by } => {
                match reply.because {
                    Some(reason) => record.refuse(Refusal {
                        by: Some(by),
                        ..Refusal::edge(reason)
                    }),
                    None => record.settle(by, Settlement::Answered),
                }
                return self.reply(&record, *reply).await;
            }
            Decision::Redirect { redirect, by } => {
                record.settle(by, Settlement::Redirected);
                return self
                    .reply(&record, redirected(redirect.status, redirect.location))
                    .await;
            }
            Decision::Close { by } => {
                record.settle(by, Settlement::Closed);
                record.end(By::Server, Cause::Closed);
                return Answer::Close;
            }
        };
        if asked.is_some() && !granted {
            let refusal = Refusal {
                detail: Some("no filter of the tunnel grants this upgrade".to_owned()),
                ..Refusal::edge(Reason::Unsupported)
            };
            return self.refuse(&record, refusal).await;
        }
        if let Err(refusal) = self.visit.exchanges.enter(&record, self.edition).await {
            return self.refuse(&record, refusal).await;
        }
        self.forwarded_form(&mut head, &record);
        tokio::select! {
            biased;
            answer = self.reach(head, body, asked, unread, trailers, &record) => answer,
            refusal = record.stopped_by() => self.refuse(&record, refusal).await,
        }
    }

    /// The filters have let it pass: the upstream answers, or something else does in its place.
    async fn reach(
        &self,
        mut head: request::Parts,
        body: Inbound,
        asked: Option<Asked>,
        unread: Unread,
        trailers: bool,
        record: &Arc<Record>,
    ) -> Answer {
        if let Some(asked) = asked {
            return self.upgrade(head, asked, record).await;
        }
        let length = content_length(&mut head);
        let idle = self.visit.limits().body_idle;
        let mut body = RequestBody::new(body, Arc::clone(record), length, idle, unread);
        if let Err(abort) = body.prefill().await {
            return self.failed(record, UpstreamError::Aborted(abort)).await;
        }
        let outgoing = Outgoing {
            head,
            body,
            trailers,
            record: Arc::clone(record),
        };
        match upstream::send(self.visit, self.site, outgoing).await {
            Ok((head, body)) => self.answer(record, head, body).await,
            Err(error) => self.failed(record, error).await,
        }
    }

    async fn upgrade(&self, head: request::Parts, asked: Asked, record: &Arc<Record>) -> Answer {
        let outcome =
            upgrade::perform(self.visit, self.site, head, &asked, self.client, record).await;
        match outcome {
            Ok(upgrade::Outcome::Switched(mut head, relay)) => {
                record.establish();
                if let Some(instead) = self.revised(record, &mut head).await {
                    return instead;
                }
                record.answer(&head);
                Answer::Switch { head, relay }
            }
            Ok(upgrade::Outcome::Answered(head, body)) => self.answer(record, head, body).await,
            Ok(upgrade::Outcome::NotThere(head)) => {
                let outgoing = Outgoing {
                    head,
                    body: RequestBody::none(Arc::clone(record)),
                    trailers: false,
                    record: Arc::clone(record),
                };
                match upstream::send(self.visit, self.site, outgoing).await {
                    Ok((head, body)) => self.answer(record, head, body).await,
                    Err(error) => self.failed(record, error).await,
                }
            }
            Err(error) => self.failed(record, error).await,
        }
    }

    fn opening(
        &self,
        head: &request::Parts,
        exchange: Exchange,
        clock: Instant,
        started: SystemTime,
        upgrade: Option<Upgrade>,
    ) -> Opening {
        let line = self
            .chain
            .takes_log()
            .then(|| RequestLine::of(head, self.chain.logged_request_fields()));
        Opening {
            chain: Arc::clone(&self.chain),
            exchange,
            line,
            version: head.version,
            id: self.id,
            started,
            clock,
            upgrade,
            counters: Arc::clone(self.visit.counters()),
            site: Arc::clone(self.site),
        }
    }

    /// Takes off what is not the upstream's and puts on what the edge vouches for.
    fn forwarded_form(&self, head: &mut request::Parts, record: &Record) {
        // What a filter added concerns no connection either.
        fields::strip_hop_by_hop(&mut head.headers);
        let chain = self.front_chain(&head.headers);
        fields::strip_identity(&mut head.headers);
        fields::strip_own_cookies(&mut head.headers);
        let authority = head
            .uri
            .authority()
            .map(ToString::to_string)
            .unwrap_or_default();
        let origin = Origin {
            client: self.client,
            chain: chain.as_ref(),
            authority: &authority,
            port: self.visit.edge.port,
        };
        fields::set_forwarded(&mut head.headers, origin);
        if let Some(identity) = record.exchange().fact::<Identity>() {
            fields::set_identity(&mut head.headers, identity);
        }
    }

    /// `X-Forwarded-For` as a trusted front proxy sent it, with that proxy appended.
    fn front_chain(&self, headers: &http::HeaderMap) -> Option<HeaderValue> {
        let peer = self.visit.info.peer.ip();
        if !self.visit.edge.fronts.trusts(peer) {
            return None;
        }
        let mut chain = Vec::new();
        for value in headers.get_all("x-forwarded-for") {
            chain.extend_from_slice(value.as_bytes());
            chain.extend_from_slice(b", ");
        }
        chain.extend_from_slice(peer.to_string().as_bytes());
        HeaderValue::from_bytes(&chain).ok()
    }

    async fn answer(
        &self,
        record: &Arc<Record>,
        mut head: response::Parts,
        body: Outbound,
    ) -> Answer {
        record.establish();
        fields::strip_hop_by_hop(&mut head.headers);
        if let Some(instead) = self.revised(record, &mut head).await {
            return instead;
        }
        record.answer(&head);
        let body = ResponseBody::of_upstream(body, record);
        if body.may_change() {
            head.headers.remove(header::CONTENT_LENGTH);
        }
        Answer::Response { head, body }
    }

    /// Takes the head of an answer back up the chain; `Some` is what goes to the visitor in its
    /// place.
    async fn revised(&self, record: &Arc<Record>, head: &mut response::Parts) -> Option<Answer> {
        if !self.chain.takes_response() {
            return None;
        }
        let mut refused = None;
        loop {
            let id = self.id.to_string();
            match self.chain.response(head, record.exchange()).await {
                Revised::Keep => break,
                Revised::Replace(reply) => return Some(self.replaced(record, *reply)),
                Revised::Close { by } => {
                    record.settle(by, Settlement::Closed);
                    record.end(By::Server, Cause::Closed);
                    return Some(Answer::Close);
                }
                // The refusal's own head goes on to the filters further out.
                Revised::Refuse(refusal) => {
                    let rendered = render::refusal(&refusal, self.form.audience(&id));
                    *head = rendered.head;
                    record.refuse(refusal);
                    refused = Some(rendered.body);
                }
            }
        }
        let body = refused?;
        record.answer(head);
        record.end(By::Server, Cause::Closed);
        let (mut shown, ()) = http::Response::new(()).into_parts();
        std::mem::swap(&mut shown, head);
        Some(respond(
            Rendered { head: shown, body },
            Some(Arc::clone(record)),
        ))
    }

    /// The filters did not admit the connection: nothing of the request has been looked at.
    fn denied(
        &self,
        head: &request::Parts,
        denied: Denied,
        clock: Instant,
        started: SystemTime,
        asked: Option<&Asked>,
    ) -> Answer {
        let exchange = self.chain.denied(denied.connection);
        let kind = asked.map(|asked| asked.kind);
        let record = Record::new(self.opening(head, exchange, clock, started, kind));
        record.end(By::Server, Cause::Closed);
        let refusal = match denied.how {
            Denial::Refused(refusal) => refusal,
            Denial::Closed(by) => {
                record.settle(by, Settlement::Closed);
                return Answer::Close;
            }
        };
        let id = self.id.to_string();
        let rendered = render::refusal(&refusal, self.form.audience(&id));
        record.refuse(refusal);
        record.answer(&rendered.head);
        respond(rendered, Some(record))
    }

    async fn refuse(&self, record: &Arc<Record>, refusal: Refusal) -> Answer {
        let id = self.id.to_string();
        let rendered = render::refusal(&refusal, self.form.audience(&id));
        record.refuse(refusal);
        self.local(record, rendered).await
    }

    async fn failed(&self, record: &Arc<Record>, error: UpstreamError) -> Answer {
        if let Some(refusal) = record.refusal() {
            // The upstream's exchange broke off because a filter refused the body.
            return self.refuse(record, refusal).await;
        }
        let error = match record.broken_off() {
            Some(abort) => UpstreamError::Aborted(abort),
            None => error,
        };
        match &error {
            UpstreamError::Aborted(Abort::Answered(reply)) => {
                return self.reply(record, Reply::clone(reply)).await;
            }
            UpstreamError::Aborted(Abort::Closed) => return Answer::Close,
            _ => {}
        }
        tracing::info!(tunnel = %self.site.info.id, request = %self.id, %error, "no answer from the upstream");
        record.fail(error.logged(&self.visit.limits()));
        record.end(By::Upstream, Cause::Error);
        let id = self.id.to_string();
        let rendered = render::failure(error.failure(), self.form.audience(&id));
        self.local(record, rendered).await
    }

    /// An answer of the edge's own, shown to the filters that let the request in.
    async fn local(&self, record: &Arc<Record>, mut rendered: Rendered) -> Answer {
        if let Some(instead) = self.revised(record, &mut rendered.head).await {
            return instead;
        }
        record.answer(&rendered.head);
        record.end(By::Server, Cause::Closed);
        respond(rendered, Some(Arc::clone(record)))
    }

    async fn reply(&self, record: &Arc<Record>, reply: Reply) -> Answer {
        let rendered = self.rendered(reply);
        self.local(record, rendered).await
    }

    /// A reply that has been through the chain already.
    fn replaced(&self, record: &Arc<Record>, reply: Reply) -> Answer {
        let rendered = self.rendered(reply);
        record.answer(&rendered.head);
        record.end(By::Server, Cause::Closed);
        respond(rendered, Some(Arc::clone(record)))
    }

    fn rendered(&self, reply: Reply) -> Rendered {
        let (mut head, ()) = http::Response::new(()).into_parts();
        head.status = reply.status;
        head.headers = reply.headers;
        fields::strip_hop_by_hop(&mut head.headers);
        head.headers
            .insert(header::CONTENT_LENGTH, HeaderValue::from(reply.body.len()));
        let body = if self.form.head_only {
            Bytes::new()
        } else {
            reply.body
        };
        Rendered { head, body }
    }
}

/// An exchange the filters have not judged yet. A visitor that leaves meanwhile leaves a record too.
struct Unjudged(Option<Opening>);

impl Unjudged {
    async fn judge(
        &mut self,
        chain: &Chain,
        head: &mut request::Parts,
        asked: Option<Upgrade>,
    ) -> Decision {
        match &mut self.0 {
            Some(opening) => chain.request(head, &mut opening.exchange, asked).await,
            None => Decision::Refuse(Refusal::edge(Reason::Unavailable)),
        }
    }

    fn record(mut self) -> Arc<Record> {
        let opening = self.0.take();
        Record::new(opening.expect("taken here alone, which ends it"))
    }
}

impl Drop for Unjudged {
    fn drop(&mut self) {
        if let Some(opening) = self.0.take() {
            drop(Record::new(opening));
        }
    }
}

fn redirected(status: StatusCode, location: HeaderValue) -> Reply {
    let mut headers = http::HeaderMap::new();
    headers.insert(header::LOCATION, location);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Reply {
        status,
        headers,
        ..Reply::default()
    }
}

/// Takes the length a visitor announced out of the head: each connection frames for itself.
fn content_length(head: &mut request::Parts) -> Option<u64> {
    let value = head.headers.remove(header::CONTENT_LENGTH)?;
    let length = value.to_str().ok()?.parse().ok();
    if length == Some(0) {
        // Nothing is framed by it; without it some services ask for a length.
        head.headers.insert(header::CONTENT_LENGTH, value);
    }
    length
}
