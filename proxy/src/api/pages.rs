//! Pages on the engine's own host that people see in a browser. Who serves one gets a whole request,
//! its body bounded, with the visitor's address, and answers with a whole reply.

use std::net::{IpAddr, Ipv4Addr};

use adit_filters::Reply;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use crate::edge::Visitor;

/// Longest body of a form, in bytes.
const FORM_BYTES_MAX: usize = 16 << 10;

/// Hands a request to who serves its page.
pub(super) async fn answer(
    request: Request,
    serve: impl AsyncFnOnce(http::Request<Bytes>, IpAddr) -> Reply,
) -> Response {
    let (head, body) = request.into_parts();
    // Where no visitor is known the request did not come through the edge.
    let visitor = head
        .extensions
        .get::<Visitor>()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |visitor| visitor.0);
    let Ok(body) = axum::body::to_bytes(body, FORM_BYTES_MAX).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let reply = serve(http::Request::from_parts(head, body), visitor).await;
    let mut response = Response::new(axum::body::Body::from(reply.body));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
}
