//! Who may ask: a bearer token in the `Authorization` header, or a client certificate at the names that take one
//! (engine-api §2). Never both.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::SystemTime;

use adit_filters::ClientCertificate;
use adit_plugins::identity::token::{Authority, Permission, Principal, without_query_token};
use adit_plugins::tls::holder;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use super::respond::Refusal;

/// The certificate of a connection to a name that takes certificates.
#[derive(Clone, Debug)]
pub(super) struct Presented(pub(super) Arc<ClientCertificate>);

/// What a request shows of who sent it.
#[derive(Debug)]
pub(super) struct Caller {
    headers: HeaderMap,
    query_token: bool,
    certificate: Option<Presented>,
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self {
            headers: head.headers.clone(),
            query_token: without_query_token(&head.uri).is_some(),
            certificate: head.extensions.get().cloned(),
        })
    }
}

/// Who sent the request.
pub(super) fn principal(
    authority: &Authority,
    caller: &Caller,
    now: SystemTime,
) -> Result<Arc<Principal>, Refusal> {
    let fields = caller.headers.get_all(header::AUTHORIZATION);
    if let Some(Presented(certificate)) = &caller.certificate {
        if caller.query_token || fields.iter().next().is_some() {
            return Err(Refusal::Ambiguous);
        }
        return holder(authority, certificate, now)
            .map_err(|error| Refusal::Unauthorized(error.to_string()));
    }
    let mut values = fields.iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Refusal::Unauthorized("a bearer token is needed".to_owned()));
    };
    let token = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim())
        .ok_or_else(|| Refusal::Unauthorized("a bearer token is needed".to_owned()))?;
    authority
        .verify(token, now)
        .map_err(|error| Refusal::Unauthorized(error.to_string()))
}

/// The principal, if permission and boundary let it read the inventory. What it then sees of it
/// may be nothing.
pub(super) fn reader(principal: Arc<Principal>) -> Result<Arc<Principal>, Refusal> {
    if !principal.allows(Permission::ReadResources) {
        return Err(Refusal::Forbidden(Permission::ReadResources));
    }
    if !principal.may_list() {
        return Err(Refusal::OutOfBounds);
    }
    Ok(principal)
}
