//! What answers look like: JSON, or a short text where the request cannot be served.

use adit_plugins::identity::token::Permission;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Why a request is not served (engine-api §2, status codes).
#[derive(Debug)]
pub(super) enum Refusal {
    /// A token beside a certificate.
    Ambiguous,
    Forbidden(Permission),
    /// The connection was not made for this name (RFC 9110 §15.5.20).
    Misdirected,
    NotFound,
    /// The token's boundary never grants what was asked for.
    OutOfBounds,
    Params(String),
    Unauthorized(String),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Forbidden(permission) => text(
                StatusCode::FORBIDDEN,
                format!("the token lacks the permission {}", permission.as_str()),
            ),
            Self::Ambiguous => text(
                StatusCode::BAD_REQUEST,
                "a token and a client certificate cannot be used together".to_owned(),
            ),
            Self::Misdirected => text(
                StatusCode::MISDIRECTED_REQUEST,
                "Misdirected Request: this name needs a connection of its own".to_owned(),
            ),
            Self::NotFound => text(StatusCode::NOT_FOUND, "not found".to_owned()),
            Self::OutOfBounds => text(
                StatusCode::FORBIDDEN,
                "the token's resources do not include listing tunnels".to_owned(),
            ),
            Self::Params(why) => text(StatusCode::BAD_REQUEST, why),
            Self::Unauthorized(why) => {
                let mut response = text(StatusCode::UNAUTHORIZED, why);
                let scheme = HeaderValue::from_static("Bearer");
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, scheme);
                response
            }
        }
    }
}

fn text(status: StatusCode, text: String) -> Response {
    (status, text).into_response()
}

/// `value` as JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    (status, axum::Json(value)).into_response()
}

/// Any method but GET and HEAD: a browser's preflight gets its permission, others a refusal.
pub(super) async fn other_method(method: Method, uri: Uri) -> Response {
    let path = uri.path().to_owned();
    let methods = HeaderValue::from_static(match usual(&path) {
        "POST" => "POST, OPTIONS",
        _ => "GET, HEAD, OPTIONS",
    });
    if method != Method::OPTIONS {
        let mut response = text(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("use {}", usual(&path)),
        );
        response.headers_mut().insert(header::ALLOW, methods);
        return response;
    }
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("Authorization"),
    );
    headers.insert(
        header::ACCESS_CONTROL_MAX_AGE,
        HeaderValue::from_static("600"),
    );
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// The method that a path of the API takes.
fn usual(path: &str) -> &'static str {
    match path {
        super::challenges::PATH => "POST",
        _ => "GET",
    }
}

/// What every answer carries: no cache keeps it, and scripts of any origin may read it, for their
/// right is the token they show and not a cookie (engine-api §3.7).
pub(super) async fn common(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    response
}
