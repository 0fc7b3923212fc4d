//! The engine's HTTP API, as far as lists go.

use std::time::Duration;

use adit_agent::EngineAddress;
use adit_transport::tls::Connector;
use anyhow::{Context, bail};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::discovery;
use crate::connection::{Connection, Credential};
use crate::terminal::clean;

/// Time for a whole call, connect to last byte.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// Where an engine says where its API takes client certificates (engine-api §4).
const DISCOVERY: &str = "/.well-known/rstream/engine";

/// Largest answer read: 10,000 tunnels at about 1 KiB, and room.
const ANSWER_LEN_MAX: usize = 16 * 1024 * 1024;

/// Characters of an error answer that are shown.
const ERROR_LEN_MAX: usize = 300;

/// Asks for a list.
pub(super) async fn list(
    connection: &Connection,
    path: &str,
    params: Option<&Value>,
) -> anyhow::Result<Vec<Value>> {
    let path = match params {
        None => path.to_owned(),
        Some(params) => format!("{path}?params={}", encode(&params.to_string())),
    };
    match tokio::time::timeout(CALL_TIMEOUT, get(connection, &path)).await {
        Ok(answer) => serde_json::from_slice(&answer?).context("the engine's answer is no list"),
        Err(_) => bail!("the engine did not answer within {CALL_TIMEOUT:?}"),
    }
}

async fn get(connection: &Connection, path: &str) -> anyhow::Result<Bytes> {
    match &connection.credential {
        Credential::Token(token) => {
            let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.expose()))
                .context("the token holds characters that cannot be sent")?;
            bearer.set_sensitive(true);
            ask(
                &connection.connector()?,
                &connection.engine,
                path,
                Some(bearer),
            )
            .await
        }
        Credential::Certificate(identity) => {
            let document = ask(
                &connection.connector()?,
                &connection.engine,
                DISCOVERY,
                None,
            )
            .await
            .context("the engine does not say where its API takes client certificates")?;
            let api = discovery::api(&document, &connection.engine)?;
            ask(&connection.connector_showing(identity)?, &api, path, None).await
        }
    }
}

async fn ask(
    connector: &Connector,
    host: &EngineAddress,
    path: &str,
    bearer: Option<HeaderValue>,
) -> anyhow::Result<Bytes> {
    let stream = connector.connect_http(host).await?;
    let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(driver);
    let mut request = Request::get(path)
        .header(HOST, host.to_string())
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("adit/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())?;
    request
        .headers_mut()
        .extend(bearer.map(|bearer| (AUTHORIZATION, bearer)));
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_LEN_MAX)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("the engine's answer broke off: {error}"))?
        .to_bytes();
    driver.abort();
    if status == StatusCode::OK {
        return Ok(body);
    }
    let text = String::from_utf8_lossy(&body);
    let text: String = clean(text.trim()).chars().take(ERROR_LEN_MAX).collect();
    if text.is_empty() {
        bail!("the engine answered {status}");
    }
    bail!("the engine answered {status}: {text}");
}

/// Percent-encodes everything but unreserved characters (RFC 3986, section 2.3).
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_fits_into_a_query() {
        assert_eq!(
            encode("{\"a\":\"ä b\"}"),
            "%7B%22a%22%3A%22%C3%A4%20b%22%7D"
        );
    }
}
