//! Who was let in to what: enough to ask later whether it may stay.

use std::sync::Arc;

use adit_filters::{Fact, Identity, RejudgeCx, RequestCx, TunnelInfo, Upgrade};
use http::uri::PathAndQuery;
use serde_json::{Value, json};

use super::authority::Authority;
use super::filter::connects;
use super::principal::Principal;

/// The fact's name.
const ADMITTED: &str = "admitted";

/// A principal that was let in, and the path it asked for. Filters that authenticate establish it beside the identity.
pub struct Admitted {
    principal: Arc<Principal>,
    path: Path,
}

/// What a path limit is held against.
enum Path {
    /// A plain CONNECT has none: who is limited to one cannot make it.
    None,
    Of(PathAndQuery),
}

impl Admitted {
    /// The principal, as it asks for what `cx` is about.
    #[must_use]
    pub fn new(principal: Arc<Principal>, cx: &RequestCx<'_>) -> Self {
        let path = match (cx.upgrade, cx.head.uri.path_and_query()) {
            (Some(Upgrade::Connect), _) | (_, None) => Path::None,
            (_, Some(path)) => Path::Of(path.clone()),
        };
        Self { principal, path }
    }

    /// The principal, as it was when it was let in.
    #[must_use]
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }

    /// Whether it would be let in to `tunnel` by the rights it was let in with.
    #[must_use]
    pub fn may_enter(&self, tunnel: &TunnelInfo) -> bool {
        connects(&self.principal, tunnel, self.path())
    }

    /// Whether it may stay, by what `authority` believes now: its credential stands and still lets it in to `tunnel`.
    /// That its time is over since does not matter (edge-behaviour §7.2).
    #[must_use]
    pub fn may_stay(&self, authority: &Authority, tunnel: &TunnelInfo) -> bool {
        authority
            .judge_again(&self.principal)
            .is_ok_and(|principal| connects(&principal, tunnel, self.path()))
    }

    fn path(&self) -> Option<&str> {
        match &self.path {
            Path::None => None,
            Path::Of(path) => Some(path.path()),
        }
    }
}

/// Whether the exchange was let in by a credential that still lets it in. If so its `proof` and identity are established
/// anew.
pub(crate) fn stays<F: Fact>(cx: &mut RejudgeCx<'_>, authority: &Authority, proof: F) -> bool {
    let Some(admitted) = cx.exchange.fact::<Admitted>() else {
        return false;
    };
    // Two proofs contradict each other, as they do when a request comes.
    if !admitted.may_stay(authority, cx.tunnel()) || cx.facts.establish(proof).is_err() {
        return false;
    }
    match cx.exchange.fact::<Identity>() {
        Some(identity) => cx.facts.establish(identity.clone()).is_ok(),
        // It has spared its bearer some work, and said no more.
        None => true,
    }
}

impl Fact for Admitted {
    const NAME: &'static str = ADMITTED;

    fn to_json(&self) -> Option<Value> {
        let Principal {
            user_id,
            name,
            email,
            credential_id,
            kind,
            token_id,
            expires,
            ..
        } = &*self.principal;
        Some(json!({
            "user_id": user_id,
            "name": name,
            "email": email,
            "credential_id": credential_id,
            "kind": kind,
            "token_id": token_id,
            "expires": expires,
        }))
    }
}
