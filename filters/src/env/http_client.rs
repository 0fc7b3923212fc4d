//! Outbound HTTP.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};

use super::BoxFuture;

/// Asks other services. Redirects are never followed; addresses inside the house are refused unless the request says
/// that the operator named them.
pub trait HttpClient: Send + Sync {
    /// One request and its whole answer.
    fn fetch(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, FetchError>>;
}

/// An outbound request.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// Method.
    pub method: Method,
    /// `https` or `http`, with an authority.
    pub uri: Uri,
    /// Fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// How long the whole exchange may take; the client's own limit if that is shorter.
    pub timeout: Duration,
    /// Where it may lead.
    pub reach: Reach,
}

/// Where a request may lead.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Reach {
    /// To public addresses alone: for whatever a visitor, or another service, had a part in.
    #[default]
    Public,
    /// Anywhere, the inside of the house too: only for an address whose host the operator wrote into the
    /// configuration.
    Named,
}

/// Its answer.
#[derive(Clone, Debug)]
pub struct HttpResponse {
    /// Status.
    pub status: StatusCode,
    /// Fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The address is one of the house's own, and was not named.
    #[error("`{host}` has only addresses that filters may not reach")]
    NotGranted {
        /// The host asked for.
        host: String,
    },
    /// The request cannot be sent.
    #[error("request is not one that can be sent: {reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// No connection, or it broke.
    #[error("`{host}` cannot be reached")]
    Unreachable {
        /// The host asked for.
        host: String,
        /// What happened.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It took too long.
    #[error("`{host}` took longer than {} ms", .limit.as_millis())]
    TimedOut {
        /// The host asked for.
        host: String,
        /// How long it may take.
        limit: Duration,
    },
    /// The answer is too large.
    #[error("answer is larger than {limit} bytes")]
    OverLimit {
        /// How large it may be, in bytes.
        limit: usize,
    },
}
