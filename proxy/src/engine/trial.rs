//! What a tunnel's filters would say to a request that nobody made.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use adit_filters::{
    CertificateVerdict, Chain, ClientAuth, ClientCertificate, ConnectionInfo, Decision, Handshake,
    Heard, Phase, Reason, TlsInfo, Transport, Trial, TunnelInfo,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::explain::bare;
use super::inner::Inner;
use crate::edge::{Directory, Found};
use crate::render;
use crate::route::Lookup;

/// A request to be imagined, and who is to have made it.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TrialRequest {
    /// Ask what this project's policies say of a tunnel that need not be live; without it, a live tunnel is asked.
    pub project: Option<String>,
    /// The host asked for.
    pub host: String,
    /// Name of the tunnel that need not be live.
    pub name: Option<String>,
    /// Labels of the tunnel that need not be live.
    pub labels: BTreeMap<String, String>,
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Header fields, in order.
    pub fields: Vec<(String, String)>,
    /// The whole body.
    pub body: Option<String>,
    /// The visitor's address.
    pub from: IpAddr,
    /// TLS 1.3 rather than 1.2.
    pub tls13: bool,
    /// SHA-256 of the visitor's certificate, in hexadecimal.
    pub certificate_sha256: Option<String>,
}

impl fmt::Debug for TrialRequest {
    /// Without the values of fields, which may be credentials.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("TrialRequest")
            .field("project", &self.project)
            .field("host", &self.host)
            .field("method", &self.method)
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

/// What was said to an imagined request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct TrialReport {
    /// Whose filters were asked, in words.
    pub asked: String,
    /// Each filter in order, once for each phase.
    pub lines: Vec<TrialLine>,
    /// Whether it would reach the service.
    pub passes: bool,
    /// What would become of it, in words.
    pub outcome: String,
    /// The status the visitor would get, if not the service's.
    pub status: Option<u16>,
}

/// One filter in one phase.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct TrialLine {
    /// The filter.
    pub filter: String,
    /// The phase.
    pub phase: String,
    /// What it said, in words.
    pub said: String,
    /// Where it is written.
    pub origin: String,
}

/// Why nothing was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrialError {
    /// The chain cannot be made.
    #[error("the chain cannot be made: {0}")]
    Chain(String),
    /// The request is none.
    #[error("{0}")]
    NotARequest(String),
    /// The host is the engine's own.
    #[error("{0} is the engine itself, which has no filters")]
    Engine(String),
    /// Nobody is there.
    #[error(
        "no live tunnel has the host {0}: start its agent, or ask what a project's policies alone say with `--project`"
    )]
    NoTunnel(String),
    /// No such project.
    #[error("there is no project `{0}`")]
    NoProject(String),
}

impl Inner {
    /// Asks the filters of a live tunnel, or of a project, about a request. Nothing comes of it.
    pub(crate) async fn trial(&self, request: TrialRequest) -> Result<TrialReport, TrialError> {
        let host = bare(&request.host);
        let (asked, tunnel, chain) = self.to_ask(&request, &host)?;
        let tls = tls(&request, &tunnel, chain.handshake())?;
        if let Some(handshake) = chain.handshake()
            && let Some(why) = refused_in_handshake(handshake, &tls)
        {
            return Ok(ended_in_handshake(asked, &chain, why));
        }
        let head = head(&request, &host)?;
        let (mut head, upgrade) = match crate::edge::imagined(head) {
            Ok(imagined) => imagined,
            Err(failure) => {
                let status = failure.status();
                return Ok(TrialReport {
                    asked,
                    lines: Vec::new(),
                    passes: false,
                    outcome: format!("is refused by the edge before any filter: {status}"),
                    status: Some(status.as_u16()),
                });
            }
        };
        let info = ConnectionInfo {
            id: 0,
            peer: SocketAddr::new(request.from.to_canonical(), 0),
            transport: Transport::Tls,
            hello: None,
            tls: Some(tls),
        };
        let body = request.body.map(Bytes::from);
        let trial = chain
            .trial(Arc::new(info), tunnel, &mut head, upgrade, body)
            .await;
        Ok(report(asked, trial, upgrade.is_some()))
    }

    /// Whose filters are asked.
    fn to_ask(
        &self,
        request: &TrialRequest,
        host: &str,
    ) -> Result<(String, Arc<TunnelInfo>, Arc<Chain>), TrialError> {
        if let Some(project) = &request.project {
            let tunnel = TunnelInfo {
                id: "imagined".to_owned(),
                name: request.name.clone(),
                project: project.clone(),
                hostname: Some(host.to_owned()),
                published: true,
                protocol: Some("http".to_owned()),
                kind: "bytestream".to_owned(),
                labels: request.labels.clone(),
                ..TunnelInfo::default()
            };
            let policies = self.policies.load();
            let chain = policies
                .operators_chain(&tunnel)
                .ok_or_else(|| TrialError::NoProject(project.clone()))?
                .map_err(|error| TrialError::Chain(error.to_string()))?;
            let asked = format!("the policies of project {project}, without what a tunnel adds");
            return Ok((asked, Arc::new(tunnel), Arc::new(chain)));
        }
        if matches!(self.routes.find(host), Found::Engine) {
            return Err(TrialError::Engine(host.to_owned()));
        }
        let no_tunnel = || TrialError::NoTunnel(host.to_owned());
        let Lookup::Tunnel(tunnel) = self.routes.host(host) else {
            return Err(no_tunnel());
        };
        let site = tunnel.site.as_ref().ok_or_else(no_tunnel)?;
        let TunnelInfo { id, project, .. } = &*tunnel.info;
        let asked = format!("the filters of tunnel {id} of project {project}");
        Ok((asked, Arc::clone(&tunnel.info), site.chain()))
    }
}

fn head(request: &TrialRequest, host: &str) -> Result<http::request::Parts, TrialError> {
    let wrong = |error: http::Error| TrialError::NotARequest(format!("not a request: {error}"));
    let mut head = http::Request::builder()
        .method(request.method.as_str())
        .uri(request.target.as_str());
    let names_host = |(name, _): &&(String, String)| name.eq_ignore_ascii_case("host");
    if request.fields.iter().find(names_host).is_none() {
        head = head.header(http::header::HOST, host);
    }
    for (name, value) in &request.fields {
        head = head.header(name.as_str(), value.as_str());
    }
    Ok(head.body(()).map_err(wrong)?.into_parts().0)
}

/// The handshake that the visitor is to have made.
fn tls(
    request: &TrialRequest,
    tunnel: &TunnelInfo,
    demand: Option<&Handshake>,
) -> Result<TlsInfo, TrialError> {
    let certificate = request.certificate_sha256.as_ref().map(|text| {
        let mut sha256 = [0; 32];
        let hex: String = text.chars().filter(|c| *c != ':').collect();
        hex::decode_to_slice(hex, &mut sha256).map_err(|_| {
            let text = "the certificate's SHA-256 must be 64 hexadecimal digits";
            TrialError::NotARequest(text.to_owned())
        })?;
        Ok(Arc::new(ClientCertificate {
            sha256,
            chain: Vec::new(),
        }))
    });
    let (version, cipher, group) = match request.tls13 {
        true => ("TLSv1.3", "TLS_AES_256_GCM_SHA384", "X25519MLKEM768"),
        false => (
            "TLSv1.2",
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            "X25519",
        ),
    };
    let asks = demand.is_some_and(|demand| demand.client_auth() != ClientAuth::None);
    Ok(TlsInfo {
        version,
        cipher: cipher.to_owned(),
        alpn: Some("http/1.1".to_owned()),
        group: Some(group.to_owned()),
        certificate_for: asks.then(|| tunnel.id.as_str().into()),
        client_certificate: certificate.transpose()?,
    })
}

/// Why a handshake would not come to an end, if it would not.
fn refused_in_handshake(demand: &Handshake, tls: &TlsInfo) -> Option<String> {
    if !demand.is_met_by(tls) {
        return Some(format!(
            "{} with {} is not what they demand",
            tls.version, tls.cipher
        ));
    }
    if demand.client_auth() != ClientAuth::Require {
        return None;
    }
    match &tls.client_certificate {
        None => Some("a client certificate is demanded".to_owned()),
        Some(certificate) => match demand.judge(certificate) {
            CertificateVerdict::Accepted => None,
            verdict => Some(format!(
                "the client certificate is not accepted: {verdict:?}"
            )),
        },
    }
}

fn ended_in_handshake(asked: String, chain: &Chain, why: String) -> TrialReport {
    let lines = chain.rows().map(|row| TrialLine {
        filter: row.name.to_string(),
        phase: "-".to_owned(),
        said: "not asked: the handshake had failed already".to_owned(),
        origin: row.origin,
    });
    TrialReport {
        asked,
        lines: lines.collect(),
        passes: false,
        outcome: format!("is refused in the handshake, with an alert: {why}"),
        status: None,
    }
}

fn report(asked: String, trial: Trial, wants_upgrade: bool) -> TrialReport {
    let lines = trial.rows.into_iter().map(|row| TrialLine {
        filter: row.filter.name.to_string(),
        phase: row.phase.map_or("-", Phase::as_str).to_owned(),
        said: match row.heard {
            Heard::Said(said) => said.to_string(),
            Heard::WouldSay(said) if row.filter.dry_run => {
                format!("would say, but is on dry-run: {said}")
            }
            Heard::WouldSay(said) => format!("{said}, which passes by its `on-error`"),
            Heard::Skipped => "skipped by `when`".to_owned(),
            Heard::NotAsked => "not asked: an earlier filter had decided".to_owned(),
            Heard::NoPart => "takes no part in this".to_owned(),
        },
        origin: row.filter.origin,
    });
    let lines = lines.collect();
    let (passes, outcome, status) = match trial.decision {
        Decision::Pass { upgrade: false } if wants_upgrade => {
            let status = render::status_of(Reason::Unsupported);
            let text = format!("is refused, no filter grants the upgrade: {status}");
            (false, text, Some(status))
        }
        Decision::Pass { upgrade: true } => (true, "passes, and leaves HTTP".to_owned(), None),
        Decision::Pass { upgrade: false } => (true, "passes".to_owned(), None),
        Decision::Refuse(refusal) => {
            let by = refusal.by.as_deref().unwrap_or("the edge");
            let status = render::status_of(refusal.reason);
            let mut text = format!("is refused by {by}: {}, {status}", refusal.reason);
            if let Some(detail) = refusal.detail {
                text.push_str(&format!(" ({detail})"));
            }
            (false, text, Some(status))
        }
        Decision::Respond { reply, by } => {
            let text = format!("is answered by {by}: {}", reply.status);
            (false, text, Some(reply.status))
        }
        Decision::Redirect { redirect, by } => {
            let to = String::from_utf8_lossy(redirect.location.as_bytes()).into_owned();
            let text = format!("is redirected by {by}: {}, {to}", redirect.status);
            (false, text, Some(redirect.status))
        }
        Decision::Close { by } => (false, format!("is closed by {by} without a word"), None),
    };
    TrialReport {
        asked,
        lines,
        passes,
        outcome,
        status: status.map(|status| status.as_u16()),
    }
}
