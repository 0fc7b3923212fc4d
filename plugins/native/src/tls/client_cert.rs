//! `client-cert`: only visitors with a client certificate of a stored credential that allows the request.
//!
//! Credentials name certificates by the SHA-256 of their DER form; no chain of authorities makes one known
//! (edge-behaviour §7.4). Where the certificate is the only proof there is, the handshake requires and judges it;
//! where another may do, it is asked for, and one that is not accepted is refused in HTTP. It is looked up at each
//! request, so that a resumed session or an open connection does not outlive its credential.

use std::sync::Arc;

use adit_config::{NearPath, Problem, Section};
use adit_filters::env::Clock;
use adit_filters::{
    Admission, CertificateVerdict, ClientCertificate, ConnectCx, Env, Fact, Factory, FilterError,
    Handshake, Hooks, Identity, JudgeCertificate, OnConnect, OnRejudge, OnRequest, Reason,
    RejudgeCx, RequestCx, Stage, Stay, Verdict,
};
use http::HeaderMap;
use http::header::COOKIE;
use serde::Deserialize;

use super::anchors::Anchors;
use super::leaf::Leaf;
use crate::identity::Missing;
use crate::identity::token::{Admitted, Authority, CertificateError, TokenFilter, stays};

const NAME: &str = "client-cert";

/// How identities proved by a certificate are marked.
const METHOD: &str = "mtls";

/// The fact's name.
const PROOF: &str = "certificate-proof";

/// The cookie of a login session, which is a proof too.
const SESSION_COOKIE: &str = "rstream_auth";

/// What a certificate may do is in its credential; this is what else it must be, and what happens without one.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    missing: Missing,
    /// Authorities one of which must have signed the certificate as well.
    ca: Option<NearPath>,
}

/// Makes `client-cert` filters that share one authority.
#[derive(Debug)]
pub struct ClientCertFactory {
    authority: Arc<Authority>,
}

impl ClientCertFactory {
    /// Filters look certificates up at this authority.
    #[must_use]
    pub fn new(authority: Arc<Authority>) -> Self {
        Self { authority }
    }
}

impl Factory for ClientCertFactory {
    fn name(&self) -> &str {
        NAME
    }

    fn stage(&self) -> Stage {
        Stage::Tls
    }

    fn build(&self, section: &Section, env: &mut Env) -> Result<Hooks, Vec<Problem>> {
        let Config { missing, ca } = section.deserialize()?;
        let anchors = ca.map(|path| Anchors::read(path.as_ref())).transpose();
        let anchors = anchors.map_err(|text| vec![section.problem(Some("ca"), text)])?;
        let filter = ClientCert {
            authority: Arc::clone(&self.authority),
            anchors,
            missing,
            clock: env.clock.clone(),
            tokens: TokenFilter::new(Arc::clone(&self.authority), env),
        };
        Ok(filter.hooks())
    }
}

/// The filter.
pub struct ClientCert {
    authority: Arc<Authority>,
    anchors: Option<Anchors>,
    missing: Missing,
    clock: Arc<dyn Clock>,
    /// Tells which requests carry a token beside the certificate.
    tokens: TokenFilter,
}

/// The certificate has proved who the visitor is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Proof;

impl Fact for Proof {
    const NAME: &'static str = PROOF;
}

impl ClientCert {
    fn hooks(self) -> Hooks {
        let missing = self.missing;
        let filter = Arc::new(self);
        let demand = match missing {
            Missing::Refuse => {
                let judge = Arc::clone(&filter) as Arc<dyn JudgeCertificate>;
                Handshake::new().requiring_certificate(judge)
            }
            Missing::Next => Handshake::new().requesting_certificate(),
        };
        let hooks = Hooks::new()
            .at(Stage::Tls)
            .rank(1)
            .handshake(demand)
            .connect(Arc::clone(&filter))
            .request(Arc::clone(&filter))
            .rejudge(filter);
        match missing {
            Missing::Refuse => hooks.gives::<Identity>(),
            Missing::Next => hooks.defers::<Identity>(),
        }
    }

    /// The leaf, if it is what a client's must be, whoever it belongs to.
    fn leaf(&self, certificate: &ClientCertificate) -> Result<Leaf, CertificateVerdict> {
        let leaf = certificate.chain.first().and_then(|der| Leaf::read(der));
        let leaf = leaf.ok_or(CertificateVerdict::Unsuitable)?;
        match &self.anchors {
            Some(anchors) if !anchors.vouch_for(certificate, self.clock.now()) => {
                Err(CertificateVerdict::Untrusted)
            }
            _ => Ok(leaf),
        }
    }

    /// Whether the request carries another proof beside the certificate. A bearer of the service's own is none.
    fn is_ambiguous(&self, cx: &RequestCx<'_>) -> bool {
        self.tokens.finds_token(cx) || has_session(&cx.head.headers)
    }
}

impl JudgeCertificate for ClientCert {
    fn judge(&self, certificate: &ClientCertificate) -> CertificateVerdict {
        let now = self.clock.now();
        // Whose it is comes first: what else is wrong with a stranger's is no concern of theirs.
        match self.authority.certificate(&certificate.sha256, now) {
            Err(CertificateError::Unknown) => return CertificateVerdict::Unknown,
            Err(CertificateError::Revoked) => return CertificateVerdict::Revoked,
            Err(CertificateError::Expired) => return CertificateVerdict::Expired,
            Ok(_) => {}
        }
        match self.leaf(certificate) {
            Ok(leaf) if leaf.is_valid_at(now) => CertificateVerdict::Accepted,
            Ok(_) => CertificateVerdict::Expired,
            Err(verdict) => verdict,
        }
    }
}

impl OnConnect for ClientCert {
    async fn on_connect(&self, cx: &mut ConnectCx<'_>) -> Result<Admission, FilterError> {
        let Some(tls) = &cx.connection.tls else {
            return Ok(Admission::Refuse(Reason::Misdirected));
        };
        let asked = tls.certificate_for.as_deref() == Some(&*cx.tunnel.id);
        Ok(match (&tls.client_certificate, self.missing) {
            (Some(certificate), _) if asked => match self.leaf(certificate) {
                Ok(leaf) => {
                    // Established already if the project has such a filter too.
                    let _ = cx.facts.establish(leaf);
                    Admission::Admit
                }
                Err(_) => Admission::Refuse(Reason::Mtls),
            },
            (None, Missing::Refuse) if asked => Admission::Refuse(Reason::Mtls),
            (None, Missing::Next) => Admission::Admit,
            // The handshake was another tunnel's: what was presented to that one proves nothing here.
            _ => Admission::Refuse(Reason::Misdirected),
        })
    }
}

impl OnRequest for ClientCert {
    async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        if cx.exchange.fact::<Proof>().is_some() {
            // The project and the tunnel may both ask: the first of us has judged it by all that this one would.
            return Ok(Verdict::Continue);
        }
        let connection = Arc::clone(cx.exchange.connection());
        let tls = connection.info().tls.as_ref();
        let presented = tls.and_then(|tls| tls.client_certificate.as_ref());
        let (certificate, leaf) = match (presented, connection.fact::<Leaf>()) {
            (Some(certificate), Some(leaf)) => (certificate, leaf),
            (None, _) if self.missing == Missing::Next => return Ok(Verdict::Continue),
            // One that nobody looked at when the connection came proves nothing, and stands in the way of other proofs.
            _ => return Ok(Verdict::Refuse(Reason::Mtls)),
        };
        if self.is_ambiguous(cx) {
            return Ok(Verdict::Refuse(Reason::AmbiguousCredentials));
        }
        let now = self.clock.now();
        let known = self.authority.certificate(&certificate.sha256, now);
        let principal = match known {
            Ok(principal) if leaf.is_valid_at(now) => principal,
            _ => return Ok(Verdict::Refuse(Reason::Mtls)),
        };
        let admitted = Admitted::new(principal, cx);
        if !admitted.may_enter(connection.tunnel()) {
            return Ok(Verdict::Refuse(Reason::Mtls));
        }
        let principal = admitted.principal();
        let identity = Identity {
            subject: principal.user_id.clone(),
            method: METHOD,
            name: principal.name.clone(),
            email: principal.email.clone(),
            certificate_sha256: Some(certificate.sha256),
            ..Identity::default()
        };
        let exchange = &mut *cx.exchange;
        let established = exchange
            .establish(Proof)
            .and_then(|()| exchange.establish(identity))
            .and_then(|()| exchange.establish(admitted));
        Ok(match established {
            Ok(()) => Verdict::Continue,
            // Somebody else has proved who this is: two proofs on one request contradict each other.
            Err(_) => Verdict::Refuse(Reason::AmbiguousCredentials),
        })
    }
}

impl OnRejudge for ClientCert {
    fn on_rejudge(&self, cx: &mut RejudgeCx<'_>) -> Result<Stay, FilterError> {
        if cx.facts.get::<Proof>().is_some() {
            return Ok(Stay::Yes);
        }
        let tls = cx.connection().tls.as_ref();
        let presented = tls.and_then(|tls| tls.client_certificate.as_ref());
        let proved = cx.exchange.fact::<Proof>().and(presented);
        Ok(match (proved, self.missing) {
            (Some(certificate), _) => {
                let stays = self.leaf(certificate).is_ok() && stays(cx, &self.authority, Proof);
                match stays {
                    true => Stay::Yes,
                    false => Stay::No(Reason::Mtls),
                }
            }
            // One that proved nothing when the exchange began stood in the way of other proofs.
            (None, Missing::Next) if presented.is_none() => Stay::Yes,
            (None, _) => Stay::No(Reason::Mtls),
        })
    }
}

/// Whether the request carries the cookie of a login session.
fn has_session(headers: &HeaderMap) -> bool {
    headers.get_all(COOKIE).iter().any(|field| {
        field.as_bytes().split(|octet| *octet == b';').any(|pair| {
            let name = pair.split(|octet| *octet == b'=').next();
            name.map(<[u8]>::trim_ascii) == Some(SESSION_COOKIE.as_bytes())
        })
    })
}

#[cfg(test)]
mod tests;
