//! Judging an open exchange by another chain than the one that let it in, or by the same one later.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use super::{Chain, Juror, Refusal, Rehearsal};
use crate::context::ConnectCx;
use crate::exchange::Exchange;
use crate::facts::Facts;
use crate::meter::Ear;
use crate::rejudge::{Asked, RejudgeCx, Stay};
use crate::verdict::{Admission, FilterError, Reason, Upgrade};
use crate::weight::Weighed;

impl Chain {
    /// Whether an exchange that `before` let in may go on by this chain; `upgrade` is what it has left HTTP for. Nothing
    /// of this is measured: the metrics count what visitors bring. A filter that has not answered when `patience` is over
    /// could not decide.
    ///
    /// # Errors
    /// Why it has to end.
    pub async fn rejudge<P: Future<Output = ()>>(
        &self,
        before: &Self,
        exchange: &Exchange,
        upgrade: Option<Upgrade>,
        patience: impl Fn() -> P,
    ) -> Result<(), Refusal> {
        let mut facts = Facts::default();
        // The first fact of all: nobody can have established it.
        let _is_new = facts.establish(Rehearsal);
        let mut granted = upgrade.is_none();
        for juror in &self.jurors {
            if juror
                .when
                .as_ref()
                .is_some_and(|when| !exchange.paths().any(|path| when.matches(path)))
            {
                continue;
            }
            let known = facts.len();
            let asking = juror.ask(before, exchange, upgrade, &mut facts);
            let answer = within(patience(), asking).await;
            let mut ear = Ear::measuring(None);
            let answer = match juror.weight.weigh(answer, &juror.name, &mut ear) {
                Weighed::Counts(answer) => answer,
                Weighed::Undone(_) => {
                    facts.truncate(known);
                    continue;
                }
            };
            match answer {
                Ok(Stay::Yes) => {}
                Ok(Stay::Upgraded) => granted = true,
                Ok(Stay::No(reason)) => {
                    let detail = match juror.asked {
                        Asked::Stands { .. } => "it began without this filter",
                        _ => "it may not go on",
                    };
                    return Err(juror.refusal(reason, detail));
                }
                Err(error) => return Err(juror.refusal(error.reason(), &error.detail())),
            }
        }
        match granted {
            true => Ok(()),
            false => {
                let detail = Some("no filter of the tunnel grants this upgrade".to_owned());
                Err(Refusal {
                    detail,
                    ..Refusal::edge(Reason::Unsupported)
                })
            }
        }
    }

    /// Whether a filter of this name was asked about the request when the exchange began, and let it pass.
    fn has_asked(&self, name: &str, exchange: &Exchange) -> bool {
        self.request.iter().any(|gate| {
            *gate.name == *name
                && gate.hook.is_some()
                && !gate.weight.is_dry_run()
                && !exchange.skips(gate.at)
        })
    }
}

/// The answer, if it comes before `patience` is over.
async fn within(
    patience: impl Future<Output = ()>,
    asking: impl Future<Output = Result<Stay, FilterError>>,
) -> Result<Stay, FilterError> {
    let (mut asking, mut patience) = (pin!(asking), pin!(patience));
    poll_fn(|cx| match asking.as_mut().poll(cx) {
        Poll::Pending => patience.as_mut().poll(cx).map(|()| {
            Err(FilterError::Unavailable {
                service: "the filter",
                source: None,
            })
        }),
        answered => answered,
    })
    .await
}

impl Juror {
    async fn ask(
        &self,
        before: &Chain,
        exchange: &Exchange,
        upgrade: Option<Upgrade>,
        facts: &mut Facts,
    ) -> Result<Stay, FilterError> {
        match &self.asked {
            Asked::Hook(hook) => hook.on_rejudge(&mut RejudgeCx {
                exchange,
                facts,
                upgrade,
            }),
            Asked::Connect(hook) => {
                let connection = exchange.connection();
                let mut cx = ConnectCx {
                    connection: connection.info(),
                    tunnel: connection.tunnel(),
                    facts,
                };
                Ok(match hook.call(&mut cx).await? {
                    Admission::Admit => Stay::Yes,
                    Admission::Refuse(reason) | Admission::RefuseFor(reason, _) => Stay::No(reason),
                    Admission::Close => Stay::No(Reason::Policy),
                })
            }
            Asked::Stands { grants } => match before.has_asked(&self.name, exchange) {
                true if *grants && upgrade.is_some() => Ok(Stay::Upgraded),
                true => Ok(Stay::Yes),
                false => Ok(Stay::No(Reason::Policy)),
            },
        }
    }

    fn refusal(&self, reason: Reason, detail: &str) -> Refusal {
        let detail = format!("judged again: {detail}");
        Refusal::new(reason, &Arc::clone(&self.name), Some(detail))
    }
}
