//! Who may ask: a bearer token in the `Authorization` header and nowhere else (engine-api §2).

use std::sync::Arc;
use std::time::SystemTime;

use adit_plugins::identity::token::{Authority, Permission, Principal};
use axum::http::{HeaderMap, header};

use super::respond::Refusal;

/// Who sent the request.
pub(super) fn principal(
    authority: &Authority,
    headers: &HeaderMap,
    now: SystemTime,
) -> Result<Arc<Principal>, Refusal> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
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
