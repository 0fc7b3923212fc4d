//! Where the Engine API takes client certificates: names of their own, and the document that tells of them
//! (engine-api §4).

use std::sync::Arc;

use adit_filters::ConnectionInfo;
use axum::extract::{Request, State};
use axum::http::{StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::access::Presented;
use super::respond::{self, Refusal};
use super::{Api, Shared};

/// The one version of the document there is.
const VERSION: u8 = 1;

/// What clients look for.
const CAPABILITY: &str = "engine-api-mtls";

/// How long clients keep the document: an hour.
const CACHED: &str = "public, max-age=3600";

/// Port that is not written in a URL.
const HTTPS: u16 = 443;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    version: u8,
    project_endpoint: &'a str,
    mtls_api_url: String,
    capabilities: [&'static str; 1],
}

/// The document about the host that is asked for; none where nobody is known by a certificate.
pub(super) async fn engine(State(api): Shared, uri: Uri) -> Response {
    let names = api.names.load();
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    let Some(other) = names.own.certificates_at(host) else {
        return Refusal::NotFound.into_response();
    };
    let port = match names.port {
        HTTPS => String::new(),
        port => format!(":{port}"),
    };
    let document = Document {
        version: VERSION,
        project_endpoint: host.split('.').next().unwrap_or_default(),
        mtls_api_url: format!("https://{other}{port}/api"),
        capabilities: [CAPABILITY],
    };
    let answer = respond::json(StatusCode::OK, &document);
    ([(header::CACHE_CONTROL, CACHED)], answer).into_response()
}

/// Lets only connections that were asked for a certificate reach a name that takes them, and only for the API.
pub(super) async fn guard(
    State(api): State<Arc<Api>>,
    mut request: Request,
    next: Next,
) -> Response {
    let host = request.uri().host().unwrap_or_default();
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let names = api.names.load();
    let connection = request.extensions().get::<Arc<ConnectionInfo>>().cloned();
    // What a project demands of handshakes at its host was not demanded of one for another name.
    if let Some(project) = names.own.demands_of(&host)
        && let Some(hello) = connection.as_ref().and_then(|info| info.hello.as_ref())
        && hello
            .server_name
            .as_deref()
            .and_then(|name| names.own.demands_of(name))
            != Some(project)
    {
        return Refusal::Misdirected.into_response();
    }
    if !names.own.takes_certificates(&host) {
        return next.run(request).await;
    }
    let tls = connection.as_ref().and_then(|info| info.tls.as_ref());
    let Some(tls) = tls.filter(|tls| tls.certificate_for.as_deref() == Some(&*host)) else {
        return Refusal::Misdirected.into_response();
    };
    if !request.uri().path().starts_with("/api/") {
        return Refusal::NotFound.into_response();
    }
    if let Some(certificate) = &tls.client_certificate {
        let certificate = Arc::clone(certificate);
        request.extensions_mut().insert(Presented(certificate));
    }
    next.run(request).await
}
