//! What an engine says of the host where its API takes client certificates (engine-api §4).

use adit_agent::EngineAddress;
use anyhow::{Context, bail};
use serde::Deserialize;

/// Longest document read, in bytes.
const DOCUMENT_BYTES_MAX: usize = 16 << 10;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    version: u64,
    project_endpoint: String,
    mtls_api_url: String,
    capabilities: Vec<String>,
}

/// The host of the API that the document of `engine` names. A certificate is shown to nobody else.
pub(super) fn api(document: &[u8], engine: &EngineAddress) -> anyhow::Result<EngineAddress> {
    if document.len() > DOCUMENT_BYTES_MAX {
        bail!("the engine's discovery document is longer than {DOCUMENT_BYTES_MAX} bytes");
    }
    let document: Document = serde_json::from_slice(document)
        .context("the engine's discovery document is not what it should be")?;
    let own = engine.to_string();
    let endpoint = first_label(&own);
    let host = document
        .mtls_api_url
        .strip_prefix("https://")
        .and_then(|rest| rest.strip_suffix("/api"));
    let fits = document.version == 1
        && document.project_endpoint == endpoint
        && document
            .capabilities
            .iter()
            .any(|one| one == "engine-api-mtls");
    match host {
        Some(host) if fits && first_label(host) == endpoint => host
            .parse()
            .context("the engine's discovery document names no host"),
        _ => bail!("the engine's discovery document is not about `{engine}`"),
    }
}

fn first_label(host: &str) -> &str {
    host.split(['.', ':']).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_a_document_about_this_engine_leads_to_its_api() {
        let engine: EngineAddress = "edge.example.com:8443".parse().unwrap();
        let document = |version: u8, endpoint: &str, url: &str, capability: &str| {
            format!(
                r#"{{"version":{version},"projectEndpoint":"{endpoint}","mtlsApiUrl":"{url}","capabilities":["{capability}"]}}"#
            )
        };
        let (url, capability) = ("https://edge.mtls.example.com:8443/api", "engine-api-mtls");
        let good = document(1, "edge", url, capability);
        let api = |document: &str| super::api(document.as_bytes(), &engine);
        assert_eq!(
            api(&good).unwrap().to_string(),
            "edge.mtls.example.com:8443"
        );
        for bad in [
            document(2, "edge", url, capability),
            document(1, "other", url, capability),
            document(1, "edge", url, "something-else"),
            document(1, "edge", "http://edge.mtls.example.com/api", capability),
            document(1, "edge", "https://edge.mtls.example.com/api/x", capability),
            document(1, "edge", "https://evil.example.com/api", capability),
            document(1, "edge", "https://edge.a@b.example.com/api", capability),
            "[]".to_owned(),
            format!("{good}{}", " ".repeat(DOCUMENT_BYTES_MAX)),
        ] {
            assert!(api(&bad).is_err(), "{bad}");
        }
    }
}
