//! Outbound HTTP for filters: no redirects, no proxies, bounded answers, and no way into the house.
//!
//! A name is resolved here and only public addresses are connected to, so that a name cannot be made to lead inside
//! after it was judged. Requests to hosts the operator named are the exception, and have connections of their own.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use adit_filters::env::{BoxFuture, FetchError, HttpClient, HttpRequest, HttpResponse, Reach};
use bytes::BytesMut;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use tokio::sync::Semaphore;

use super::address::is_public;

/// The largest answer, in bytes.
pub const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// The largest request body, in bytes.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// The longest a fetch may take, whatever the filter says.
pub const FETCH_TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// How many fetches may run at once; more wait their turn, within their own time.
pub const FETCHES_MAX: usize = 64;

/// How many idle connections are kept to one host.
const IDLE_PER_HOST_MAX: usize = 4;

/// The client of all filters.
pub struct OutboundHttp {
    public: reqwest::Client,
    named: reqwest::Client,
    running: Semaphore,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// TLS cannot be set up.
    #[error("TLS for outbound HTTP cannot be set up")]
    Tls(#[source] rustls::Error),
    /// The HTTP client cannot be made.
    #[error("client for outbound HTTP cannot be made")]
    Client(#[source] reqwest::Error),
}

impl OutboundHttp {
    /// A client that trusts the system's certificate authorities; where it has none, no HTTPS server.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub fn new() -> Result<Self, OutboundError> {
        let mut roots = rustls::RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (_, unreadable) = roots.add_parsable_certificates(found.certs);
        if unreadable > 0 || !found.errors.is_empty() {
            tracing::debug!(unreadable, errors = ?found.errors, "some of the system's certificate authorities are left out");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(OutboundError::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = || {
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .redirect(Policy::none())
                .no_proxy()
                .timeout(FETCH_TIMEOUT_MAX)
                .pool_max_idle_per_host(IDLE_PER_HOST_MAX)
        };
        let public = client().dns_resolver(Arc::new(PublicOnly));
        Ok(Self {
            public: public.build().map_err(OutboundError::Client)?,
            named: client().build().map_err(OutboundError::Client)?,
            running: Semaphore::new(FETCHES_MAX),
        })
    }

    async fn answer(&self, request: HttpRequest, host: &str) -> Result<HttpResponse, FetchError> {
        let unreachable = |error: reqwest::Error| unreachable(host, error);
        let HttpRequest {
            method,
            uri,
            headers,
            body,
            reach,
            ..
        } = request;
        let client = match reach {
            Reach::Public => &self.public,
            Reach::Named => &self.named,
        };
        let mut response = client
            .request(method, uri.to_string())
            .headers(headers)
            .body(body)
            .send()
            .await
            .map_err(unreachable)?;
        let over = || FetchError::OverLimit {
            limit: ANSWER_BYTES_MAX,
        };
        let declared = response.content_length().unwrap_or(0);
        if usize::try_from(declared).map_or(true, |declared| declared > ANSWER_BYTES_MAX) {
            return Err(over());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if body.len().saturating_add(chunk.len()) > ANSWER_BYTES_MAX {
                return Err(over());
            }
            body.extend_from_slice(&chunk);
        }
        let headers = std::mem::take(response.headers_mut());
        Ok(HttpResponse {
            status: response.status(),
            headers,
            body: body.freeze(),
        })
    }
}

impl HttpClient for OutboundHttp {
    fn fetch(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, FetchError>> {
        Box::pin(async move {
            let host = check(&request)?;
            let limit = request.timeout.min(FETCH_TIMEOUT_MAX);
            let fetch = async {
                // Never closed: the semaphore lives as long as the client.
                let _turn = self.running.acquire().await;
                self.answer(request, &host).await
            };
            tokio::time::timeout(limit, fetch)
                .await
                .unwrap_or_else(|_| {
                    Err(FetchError::TimedOut {
                        host: host.clone(),
                        limit,
                    })
                })
        })
    }
}

fn unreachable(host: &str, error: reqwest::Error) -> FetchError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        if error.is::<OnlyInside>() {
            return FetchError::NotGranted {
                host: host.to_owned(),
            };
        }
        cause = error.source();
    }
    // The address may hold a secret in its query.
    FetchError::Unreachable {
        host: host.to_owned(),
        source: Box::new(error.without_url()),
    }
}

/// The host of a request that may be sent as far as can be told before its name is resolved.
fn check(request: &HttpRequest) -> Result<String, FetchError> {
    let invalid = |reason: &str| FetchError::Invalid {
        reason: reason.to_owned(),
    };
    if !matches!(request.uri.scheme_str(), Some("http" | "https")) {
        return Err(invalid("its scheme is neither `http` nor `https`"));
    }
    let authority = request
        .uri
        .authority()
        .ok_or_else(|| invalid("it names no host"))?;
    if authority.as_str().contains('@') {
        return Err(invalid(
            "credentials do not belong in an address, send a header",
        ));
    }
    if request.body.len() > REQUEST_BYTES_MAX {
        return Err(invalid(&format!(
            "its body is larger than {REQUEST_BYTES_MAX} bytes"
        )));
    }
    let host = authority.host().to_ascii_lowercase();
    // An address in the URI is not resolved, so the resolver would not see it. Other spellings of addresses
    // (`127.1`, `0x7f000001`) are normalised the same way by `url`, which the client uses.
    let url = reqwest::Url::parse(&request.uri.to_string())
        .map_err(|error| invalid(&error.to_string()))?;
    let address = url.host_str().and_then(|host| {
        host.trim_start_matches('[')
            .trim_end_matches(']')
            .parse::<IpAddr>()
            .ok()
    });
    if request.reach == Reach::Public && address.is_some_and(|address| !is_public(address)) {
        return Err(FetchError::NotGranted { host });
    }
    Ok(host)
}

/// The addresses of a name that anybody's request may be sent to.
fn public(found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, OnlyInside> {
    let public: Vec<SocketAddr> = found
        .into_iter()
        .filter(|address| is_public(address.ip()))
        .collect();
    if public.is_empty() {
        Err(OnlyInside)
    } else {
        Ok(public)
    }
}

/// A name that leads nowhere but inside.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the name has only addresses that filters may not reach")]
struct OnlyInside;

/// The resolver of requests that lead to public addresses alone.
#[derive(Debug)]
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            Ok(Box::new(public(found)?.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use bytes::Bytes;
    use http::{HeaderMap, Method};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn request(uri: &str) -> HttpRequest {
        HttpRequest {
            method: Method::GET,
            uri: uri.parse().unwrap(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            timeout: Duration::from_secs(10),
            reach: Reach::Public,
        }
    }

    /// A request to a host the operator named.
    fn named(uri: &str) -> HttpRequest {
        HttpRequest {
            reach: Reach::Named,
            ..request(uri)
        }
    }

    fn client() -> OutboundHttp {
        OutboundHttp::new().unwrap()
    }

    /// A server that answers each connection's request with this text, once.
    async fn server(answer: String) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                // An empty answer is one that never comes.
                if answer.is_empty() {
                    std::future::pending::<()>().await;
                }
            }
        });
        port
    }

    #[tokio::test]
    async fn an_answer_comes_whole_and_redirects_are_not_followed() {
        let port = server(
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 2\r\n\r\nhi"
                .into(),
        )
        .await;
        let answer = client()
            .fetch(named(&format!("http://127.0.0.1:{port}/x")))
            .await
            .unwrap();
        assert_eq!(
            (answer.status.as_u16(), &answer.body[..]),
            (302, &b"hi"[..])
        );
        assert!(answer.headers.contains_key("location"));
    }

    #[tokio::test]
    async fn the_house_is_out_of_reach_unless_it_is_named() {
        let port = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".into()).await;
        let client = client();
        for host in [
            "127.0.0.1",
            "localhost",
            "[::1]",
            "127.1",
            "0x7f000001",
            "2130706433",
            "[::ffff:127.0.0.1]",
            "169.254.169.254",
        ] {
            // `http` refuses some spellings itself.
            let Ok(uri) = format!("http://{host}:{port}/").parse() else {
                continue;
            };
            let error = client
                .fetch(HttpRequest {
                    uri,
                    ..request("http://x/")
                })
                .await
                .unwrap_err();
            assert!(
                matches!(error, FetchError::NotGranted { .. }),
                "{host}: {error:?}"
            );
        }
        for host in ["127.0.0.1", "localhost", "LOCALHOST"] {
            let answer = client.fetch(named(&format!("http://{host}:{port}/"))).await;
            assert!(answer.is_ok(), "{host}: {answer:?}");
            // A connection that a named request left idle is not for others.
            let again = client
                .fetch(request(&format!("http://{host}:{port}/")))
                .await;
            assert!(
                matches!(again, Err(FetchError::NotGranted { .. })),
                "{host}"
            );
        }
    }

    #[test]
    fn a_name_with_public_and_inner_addresses_leads_to_the_public_ones() {
        let addresses = ["127.0.0.1:0", "192.0.1.1:0", "[fe80::1]:0"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        assert_eq!(public(addresses).unwrap(), ["192.0.1.1:0".parse().unwrap()]);
        assert!(public(vec!["10.0.0.1:0".parse().unwrap()]).is_err());
    }

    #[tokio::test]
    async fn answers_are_bounded_declared_or_not() {
        let long = "x".repeat(ANSWER_BYTES_MAX + 1);
        let fits = "x".repeat(ANSWER_BYTES_MAX);
        let cases = [
            (
                format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{long}",
                    long.len()
                ),
                false,
            ),
            (
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{long}"),
                false,
            ),
            (
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{fits}"),
                true,
            ),
        ];
        for (answer, fits) in cases {
            let port = server(answer).await;
            let result = client()
                .fetch(named(&format!("http://127.0.0.1:{port}/")))
                .await;
            match result {
                Ok(answer) => assert!(fits && answer.body.len() == ANSWER_BYTES_MAX),
                Err(error) => assert!(
                    !fits && matches!(error, FetchError::OverLimit { .. }),
                    "{error:?}"
                ),
            }
        }
    }

    #[tokio::test]
    async fn a_fetch_ends_with_its_time() {
        let port = server(String::new()).await;
        let client = client();
        let slow = HttpRequest {
            timeout: Duration::from_millis(20),
            ..named(&format!("http://127.0.0.1:{port}/"))
        };
        let error = client.fetch(slow).await.unwrap_err();
        assert!(
            matches!(error, FetchError::TimedOut { limit, .. } if limit == Duration::from_millis(20)),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn requests_that_cannot_be_sent_are_refused() {
        let client = client();
        let large = HttpRequest {
            body: Bytes::from(vec![0; REQUEST_BYTES_MAX + 1]),
            ..request("https://a.example/")
        };
        for request in [
            request("ftp://a.example/"),
            request("/x"),
            request("https://u:p@a.example/"),
            large,
        ] {
            assert!(matches!(
                client.fetch(request).await,
                Err(FetchError::Invalid { .. })
            ));
        }
    }

    #[tokio::test]
    async fn nobody_listening_is_unreachable() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = client()
            .fetch(named(&format!("http://127.0.0.1:{port}/?s=SECRET")))
            .await
            .unwrap_err();
        assert!(matches!(error, FetchError::Unreachable { .. }));
        assert!(!format!("{error:?}").contains("SECRET"));
    }
}
