//! Which proofs a tunnel may take where its project demands some.

use adit_filters::Identity;
use adit_plugins::identity::rstream_auth;

use super::tls::enforced;
use super::{AssembleError, ProjectChain};
use crate::properties::Effective;

/// Whether the tunnel's ways to prove who one is are among those its project takes. Each stands for the whole demand: one
/// that the project does not take would let in whom the project's own filters never asked (edge-behaviour §7.1).
pub(super) fn suffice(project: &ProjectChain, asked: &Effective) -> Result<(), AssembleError> {
    let Some(demand) = enforced(project).find(|placed| placed.hooks.gives_always::<Identity>())
    else {
        return Ok(());
    };
    let takes = |kind: &str| project.kinds.contains(kind);
    let methods = [
        (asked.mtls_auth, "mtls_auth", "client-cert"),
        (asked.token_auth, "token_auth", "token"),
        (asked.rstream_auth, "rstream_auth", rstream_auth::NAME),
    ];
    let other = methods
        .into_iter()
        .find(|(asked, _, kind)| *asked && !takes(kind));
    match other {
        Some((_, method, _)) => Err(AssembleError::OtherProof {
            method,
            filter: demand.name.clone(),
        }),
        None => Ok(()),
    }
}
