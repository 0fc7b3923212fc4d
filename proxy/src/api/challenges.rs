//! Challenges made for visitors of somebody else's edge (edge-behaviour §7.5, step 3).

use adit_plugins::identity::token::{Permission, Place};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::access::Caller;
use super::{Refusal, Shared, respond};

/// Where they are made.
pub(super) const PATH: &str = "/api/rstream/challenge/requests";

/// Longest body of a request, in bytes.
const BODY_BYTES_MAX: usize = 8 << 10;

/// What is asked for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wanted {
    /// Where the visitor is to come back to; this engine knows that of its tunnels by itself.
    #[serde(rename = "returnUrl", default)]
    _return_url: String,
    destination: Destination,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Destination {
    /// What the visitor wants to see.
    target_url: String,
    /// On which tunnel.
    tunnel_host: String,
}

/// Makes a challenge, for whoever may connect to the tunnel.
pub(super) async fn create(
    State(api): Shared,
    caller: Caller,
    request: Request,
) -> Result<Response, Refusal> {
    // Nothing of a stranger's body is kept.
    let principal = api.principal(&caller)?;
    let body = axum::body::to_bytes(request.into_body(), BODY_BYTES_MAX).await;
    let too_long = |_| Refusal::Params(format!("the body is longer than {BODY_BYTES_MAX} bytes"));
    let body = body.map_err(too_long)?;
    let wanted: Wanted =
        serde_json::from_slice(&body).map_err(|error| Refusal::Params(error.to_string()))?;
    let services = api.services.load();
    let gate = services.gate.as_ref().ok_or(Refusal::NotFound)?;
    let host = wanted.destination.tunnel_host.to_ascii_lowercase();
    let tunnel = api.inventory.tunnels().into_iter().find(|tunnel| {
        let named = tunnel.object.get("hostname");
        named.and_then(serde_json::Value::as_str) == Some(host.as_str())
    });
    let tunnel = tunnel.ok_or(Refusal::NotFound)?;
    let place = Place {
        project: &tunnel.project,
        workspace: None,
    };
    if !principal.may_connect(place, &tunnel.object, None) {
        return Err(Refusal::Forbidden(Permission::CreateStreams));
    }
    let created = gate
        .create(&host, &tunnel.project, &wanted.destination.target_url)
        .map_err(|error| Refusal::Params(error.to_string()))?;
    Ok(respond::json(StatusCode::CREATED, &created))
}
