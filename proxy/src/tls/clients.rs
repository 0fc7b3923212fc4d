//! Client certificates during a handshake. No chain of authorities is evaluated here: whoever demanded
//! a certificate judges it.

use std::fmt;
use std::sync::Arc;

use adit_filters::{CertificateVerdict, ClientAuth, ClientCertificate, Handshake};
use adit_plugins::identity::credentials::sha256;
use bytes::Bytes;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

/// Most certificates a client may present, leaf included.
const CHAIN_MAX: usize = 8;

/// Most bytes they may have together: they stay for as long as the connection.
const CHAIN_BYTES_MAX: usize = 32 << 10;

/// Asks clients for certificates.
#[derive(Debug)]
pub(super) struct Clients {
    algorithms: WebPkiSupportedAlgorithms,
    demand: Handshake,
}

impl Clients {
    pub(super) fn new(provider: &CryptoProvider, demand: Handshake) -> Self {
        Self {
            algorithms: provider.signature_verification_algorithms,
            demand,
        }
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.demand.client_auth() == ClientAuth::Require
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // None: the client decides which of its certificates is known here.
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let bytes = more.iter().map(|one| one.len()).sum::<usize>();
        if more.len() >= CHAIN_MAX || bytes.saturating_add(leaf.len()) > CHAIN_BYTES_MAX {
            return Err(CertificateError::BadEncoding.into());
        }
        match self.demand.judge(&certificate(leaf, more)) {
            CertificateVerdict::Accepted => Ok(ClientCertVerified::assertion()),
            verdict => Err(objection(verdict).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, leaf, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A chain as filters see it.
pub(super) fn certificate(
    leaf: &CertificateDer<'_>,
    more: &[CertificateDer<'_>],
) -> ClientCertificate {
    let chain = std::iter::once(leaf).chain(more);
    ClientCertificate {
        sha256: sha256(leaf),
        chain: chain.map(|one| Bytes::copy_from_slice(one)).collect(),
    }
}

/// A verdict in the library's words, which decide the alert (RFC 8446 §6.2).
fn objection(verdict: CertificateVerdict) -> CertificateError {
    match verdict {
        CertificateVerdict::Expired => CertificateError::Expired,
        CertificateVerdict::Revoked => CertificateError::Revoked,
        CertificateVerdict::Unsuitable => CertificateError::InvalidPurpose,
        CertificateVerdict::Untrusted => CertificateError::UnknownIssuer,
        // certificate_unknown: edge-behaviour §7.4.
        CertificateVerdict::Unknown | CertificateVerdict::Accepted => {
            CertificateError::Other(OtherError(Arc::new(Unknown)))
        }
    }
}

/// Nobody here has the certificate.
#[derive(Debug)]
struct Unknown;

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the certificate is not known here")
    }
}

impl std::error::Error for Unknown {}
