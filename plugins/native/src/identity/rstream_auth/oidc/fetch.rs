//! Asking the provider.

use std::time::Duration;

use adit_filters::env::{FetchError, HttpClient, HttpRequest, HttpResponse, Reach};
use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use serde::de::DeserializeOwned;

/// How long one answer of the provider may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest answer that is read, in bytes: documents, key sets and tokens are far smaller.
pub(crate) const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Why a user could not be vouched for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProviderError {
    /// No answer, or none that would be one.
    #[error("the provider's {what} cannot be had: {why}")]
    Unavailable {
        /// What was asked for.
        what: &'static str,
        /// What came instead.
        why: String,
    },
    /// The provider says no.
    #[error("the provider refuses: {0}")]
    Refused(String),
    /// What it says cannot be believed.
    #[error("the provider's word cannot be taken: {0}")]
    Word(&'static str),
}

impl ProviderError {
    pub(super) fn unavailable(what: &'static str, why: impl ToString) -> Self {
        Self::Unavailable {
            what,
            why: why.to_string(),
        }
    }

    fn of_fetch(what: &'static str, error: &FetchError) -> Self {
        let mut why = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            why.push_str(": ");
            why.push_str(&error.to_string());
            cause = error.source();
        }
        Self::unavailable(what, why)
    }
}

/// Where the provider is, and how to ask it.
pub(super) struct Asker<'a> {
    pub(super) http: &'a dyn HttpClient,
    /// The issuer's host, which the operator named: that one may be inside the house.
    pub(super) named: &'a str,
    /// Whether the issuer is on this machine: then what it names need not be encrypted.
    pub(super) plain: bool,
}

impl Asker<'_> {
    /// A document.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        what: &'static str,
        address: &str,
        headers: HeaderMap,
    ) -> Result<T, ProviderError> {
        let answer = self
            .ask(what, Method::GET, address, headers, Bytes::new())
            .await?;
        if answer.status != StatusCode::OK {
            return Err(ProviderError::unavailable(what, answer.status));
        }
        read(what, &answer)
    }

    /// Any request with its answer, bounded.
    pub(super) async fn ask(
        &self,
        what: &'static str,
        method: Method,
        address: &str,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Result<HttpResponse, ProviderError> {
        let uri = self.uri(what, address)?;
        let is_named = uri
            .host()
            .is_some_and(|host| host.eq_ignore_ascii_case(self.named));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let request = HttpRequest {
            method,
            uri,
            headers,
            body,
            timeout: FETCH_TIMEOUT,
            reach: match is_named {
                true => Reach::Named,
                false => Reach::Public,
            },
        };
        let answer = self
            .http
            .fetch(request)
            .await
            .map_err(|error| ProviderError::of_fetch(what, &error))?;
        if answer.body.len() > ANSWER_BYTES_MAX {
            let why = format!("larger than {ANSWER_BYTES_MAX} bytes");
            return Err(ProviderError::unavailable(what, why));
        }
        Ok(answer)
    }

    /// An address the provider may name.
    pub(super) fn uri(&self, what: &'static str, address: &str) -> Result<Uri, ProviderError> {
        let wrong = || ProviderError::unavailable(what, format!("`{address}` is no address of it"));
        let uri: Uri = address.parse().map_err(|_| wrong())?;
        let host = uri.host().ok_or_else(wrong)?;
        match uri.scheme_str() {
            Some("https") => Ok(uri),
            Some("http") if self.plain && host.eq_ignore_ascii_case(self.named) => Ok(uri),
            _ => Err(wrong()),
        }
    }
}

/// An answer as JSON.
pub(super) fn read<T: DeserializeOwned>(
    what: &'static str,
    answer: &HttpResponse,
) -> Result<T, ProviderError> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        ProviderError::unavailable(what, format!("not what it should be: {error}"))
    })
}
