//! The deciding phases: connect, request, response, and the log at the end.

use std::sync::Arc;

use http::{request, response};

use super::{Chain, Connected, Decision, Gate, Refusal, Revised};
use crate::connection::{Connection, ConnectionInfo, TunnelInfo};
use crate::context::{ConnectCx, LogCx, RequestCx, ResponseCx};
use crate::exchange::Exchange;
use crate::facts::Facts;
use crate::hooks::DynOnRequest;
use crate::meter::Ear;
use crate::outcome::Outcome;
use crate::verdict::{Admission, FilterError, Reason, Reply, Revision, Upgrade, Verdict};
use crate::weight::{Weighed, Weight};
use crate::when::{When, is_ambiguous_path};

impl Chain {
    /// Decides whether a connection may reach a tunnel; facts are frozen afterwards. Call it again when a reused
    /// connection reaches another tunnel.
    pub async fn connect(&self, info: Arc<ConnectionInfo>, tunnel: Arc<TunnelInfo>) -> Connected {
        let mut ear = Weight::ear(self.connect.first().map(|link| &link.weight));
        self.connect_heard(info, tunnel, Facts::default(), &mut ear)
            .await
    }

    pub(super) async fn connect_heard(
        &self,
        info: Arc<ConnectionInfo>,
        tunnel: Arc<TunnelInfo>,
        mut facts: Facts,
        ear: &mut Ear<'_>,
    ) -> Connected {
        let mut notes = Vec::new();
        let mut denied = None;
        for link in &self.connect {
            let known = facts.len();
            let mut cx = ConnectCx {
                connection: &info,
                tunnel: &tunnel,
                facts: &mut facts,
            };
            let answer = link.hook.call(&mut cx).await;
            let answer = match link.weight.weigh(answer, &link.name, ear) {
                Weighed::Counts(answer) => answer,
                Weighed::Undone(note) => {
                    notes.extend(note);
                    facts.truncate(known);
                    continue;
                }
            };
            denied = match answer {
                Ok(Admission::Admit) => continue,
                Ok(Admission::Refuse(reason)) => {
                    Some(Denial::Refused(Refusal::new(reason, &link.name, None)))
                }
                Ok(Admission::RefuseFor(reason, wait)) => {
                    let refusal = Refusal::new(reason, &link.name, None);
                    Some(Denial::Refused(refusal.retry_after(wait)))
                }
                Ok(Admission::Close) => Some(Denial::Close(link.name.clone())),
                Err(error) => Some(Denial::Refused(failure(&error, &link.name))),
            };
            break;
        }
        let connection = Arc::new(Connection::with_notes(info, tunnel, facts, notes));
        match denied {
            None => Connected::Admitted(connection),
            Some(Denial::Refused(refusal)) => Connected::Refused {
                refusal,
                connection,
            },
            Some(Denial::Close(by)) => Connected::Close { by, connection },
        }
    }

    /// A new exchange on an admitted connection.
    #[must_use]
    pub fn exchange(&self, connection: Arc<Connection>) -> Exchange {
        Exchange::new(connection, self.len)
    }

    /// An exchange on a connection that was refused or closed by [`connect`](Self::connect): only to be logged. No
    /// filter sees its response.
    #[must_use]
    pub fn denied(&self, connection: Arc<Connection>) -> Exchange {
        let exchange = Exchange::new(connection, self.len);
        exchange.set_inward(0);
        exchange
    }

    /// Sends a request down the chain. `asked` is the upgrade it wishes for; only that one can be granted.
    ///
    /// Whatever the decision, give the head of the response that comes of it to [`response`](Self::response).
    pub async fn request(
        &self,
        head: &mut request::Parts,
        exchange: &mut Exchange,
        asked: Option<Upgrade>,
    ) -> Decision {
        let mut ear = Weight::ear(self.request.first().map(|gate| &gate.weight));
        self.request_heard(head, exchange, asked, &mut ear).await
    }

    pub(super) async fn request_heard(
        &self,
        head: &mut request::Parts,
        exchange: &mut Exchange,
        asked: Option<Upgrade>,
        ear: &mut Ear<'_>,
    ) -> Decision {
        let mut upgrade = false;
        if self.conditional && is_ambiguous_path(head.uri.path()) {
            // A condition on a path means nothing when the service may read another path than the filter did.
            exchange.set_inward(0);
            let detail = Some("the path can be read in two ways".to_owned());
            return Decision::Refuse(Refusal {
                detail,
                ..Refusal::edge(Reason::BadRequest)
            });
        }
        exchange.set_target(head.uri.path_and_query().cloned());
        for gate in &self.request {
            if gate
                .when
                .as_ref()
                .is_some_and(|when| !when.matches(head.uri.path()))
            {
                exchange.skip(gate.at);
                continue;
            }
            let Some(hook) = &gate.hook else { continue };
            exchange.set_inward(gate.at);
            let verdict = if gate.weight.may_undo() {
                undoable(gate, &**hook, head, exchange, asked, ear).await
            } else {
                let mut cx = RequestCx {
                    head,
                    exchange,
                    upgrade: asked,
                };
                let verdict = hook.call(&mut cx).await;
                gate.weight.weigh_full(verdict, ear)
            };
            let by = &gate.name;
            exchange.sign_deadline(by);
            match verdict {
                Ok(Verdict::Continue) => {}
                Ok(Verdict::Upgrade(granted)) => upgrade |= asked == Some(granted),
                Ok(Verdict::Respond(reply)) => {
                    return Decision::Respond {
                        reply,
                        by: by.clone(),
                    };
                }
                Ok(Verdict::Redirect(redirect)) => {
                    return Decision::Redirect {
                        redirect,
                        by: by.clone(),
                    };
                }
                Ok(Verdict::Refuse(reason)) => {
                    return Decision::Refuse(Refusal::new(reason, by, None));
                }
                Ok(Verdict::RefuseFor(reason, wait)) => {
                    let refusal = Refusal::new(reason, by, None);
                    return Decision::Refuse(refusal.retry_after(wait));
                }
                Ok(Verdict::Close) => return Decision::Close { by: by.clone() },
                Err(error) => return Decision::Refuse(failure(&error, by)),
            }
        }
        exchange.set_inward(self.len);
        exchange.set_rewritten(head.uri.path_and_query());
        match self.evaded(head, exchange) {
            Some(refusal) => Decision::Refuse(refusal),
            None => Decision::Pass { upgrade },
        }
    }

    /// A later filter moved the request under the condition of one that was skipped: nobody guarded that path.
    fn evaded(&self, head: &request::Parts, exchange: &Exchange) -> Option<Refusal> {
        if !self.conditional {
            return None;
        }
        let path = head.uri.path();
        self.request
            .iter()
            .find(|gate| {
                exchange.skips(gate.at)
                    && !gate.weight.is_dry_run()
                    && gate.when.as_ref().is_some_and(|when| when.matches(path))
            })
            .map(|gate| {
                let detail =
                    "a later filter moved the request to a path this one guards".to_owned();
                Refusal::new(Reason::Plugin, &gate.name, Some(detail))
            })
    }

    /// Sends a response's head back up through the filters that let the request in. What a filter puts in its place
    /// is what those further out see. Answers of the edge and of filters (refusals too) go through here as well.
    pub async fn response(&self, head: &mut response::Parts, exchange: &Exchange) -> Revised {
        let mut replaced: Option<Box<Reply>> = None;
        let inward = exchange.inward();
        let mut ear = Weight::ear(self.response.first().map(|link| &link.weight));
        let ear = &mut ear;
        for link in self
            .response
            .iter()
            .filter(|link| link.at < inward && !exchange.skips(link.at))
        {
            let original = link.weight.may_undo().then(|| head.clone());
            let answer = link.hook.call(&mut ResponseCx { head, exchange }).await;
            let answer = match link.weight.weigh(answer, &link.name, ear) {
                Weighed::Counts(answer) => answer,
                Weighed::Undone(note) => {
                    if let Some(original) = original {
                        *head = original;
                    }
                    note.into_iter().for_each(|note| exchange.note(note));
                    continue;
                }
            };
            match answer {
                Ok(Revision::Keep) => {}
                Ok(Revision::Replace(reply)) => {
                    head.status = reply.status;
                    head.headers.clone_from(&reply.headers);
                    // The new body comes from here: filters further in have no part in it.
                    exchange.set_inward(link.at);
                    replaced = Some(reply);
                }
                Ok(Revision::Close) => {
                    return Revised::Close {
                        by: link.name.clone(),
                    };
                }
                Err(error) => {
                    exchange.set_inward(link.at);
                    return Revised::Refuse(failure(&error, &link.name));
                }
            }
        }
        match replaced {
            None => Revised::Keep,
            Some(mut reply) => {
                reply.status = head.status;
                reply.headers.clone_from(&head.headers);
                Revised::Replace(reply)
            }
        }
    }

    /// Tells every filter that logs what came of the exchange. Call it once, after both directions have ended.
    pub fn log(&self, exchange: &Exchange, outcome: &Arc<Outcome>) {
        if self.log.is_empty() {
            return;
        }
        let left = exchange.left();
        let (inward, path) = (exchange.inward(), outcome.request.raw_path());
        for link in &self.log {
            // Where the request did not come that far, nobody has held its path against the condition.
            let concerns = |when: &When| when.matches(path) || is_ambiguous_path(path);
            let is_concerned = match link.at < inward {
                true => !exchange.skips(link.at),
                false => link.when.as_ref().is_none_or(concerns),
            };
            if !is_concerned {
                continue;
            }
            link.hook.on_log(&LogCx {
                exchange,
                outcome,
                at: link.at,
                left: &left,
            });
        }
    }
}

/// How a connection was not admitted.
enum Denial {
    Refused(Refusal),
    Close(Arc<str>),
}

/// Asks a filter whose word may not count. What it did is undone then.
async fn undoable(
    gate: &Gate,
    hook: &dyn DynOnRequest,
    head: &mut request::Parts,
    exchange: &mut Exchange,
    asked: Option<Upgrade>,
    ear: &mut Ear<'_>,
) -> Result<Verdict, FilterError> {
    let original = head.clone();
    let known = exchange.facts_mut().len();
    let deadline = exchange.deadline().cloned();
    let verdict = hook
        .call(&mut RequestCx {
            head,
            exchange,
            upgrade: asked,
        })
        .await;
    match gate.weight.weigh(verdict, &gate.name, ear) {
        Weighed::Counts(verdict) => verdict,
        Weighed::Undone(note) => {
            *head = original;
            exchange.facts_mut().truncate(known);
            exchange.set_deadline(deadline);
            note.into_iter().for_each(|note| exchange.note(note));
            Ok(Verdict::Continue)
        }
    }
}

fn failure(error: &FilterError, by: &Arc<str>) -> Refusal {
    Refusal::new(error.reason(), by, Some(error.detail()))
}
