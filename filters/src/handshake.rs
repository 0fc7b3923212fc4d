//! What a tunnel's filters demand of the TLS handshake, where the edge terminates it. Demands add up: what one filter
//! forbids no other can allow.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::connection::TlsInfo;

/// Versions of TLS, lowest first.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum TlsVersion {
    /// TLS 1.2 ([RFC 5246](https://www.rfc-editor.org/rfc/rfc5246)).
    #[default]
    Tls12,
    /// TLS 1.3 ([RFC 8446](https://www.rfc-editor.org/rfc/rfc8446)).
    Tls13,
}

impl TlsVersion {
    /// The version as logs write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tls12 => "TLSv1.2",
            Self::Tls13 => "TLSv1.3",
        }
    }
}

/// A cipher suite of TLS 1.2 that the edge implements. Those of TLS 1.3 are all good and are not chosen from.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct CipherSuite(&'static str);

impl CipherSuite {
    /// All of them, the most preferred first.
    pub const ALL: [Self; 6] = [
        Self("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
        Self("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
        Self("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"),
        Self("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
        Self("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
        Self("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
    ];

    /// The suite of this IANA name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.0 == name)
    }

    /// Its IANA name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0
    }
}

/// Whether keys are agreed on so that a quantum computer cannot find them out later. The groups that do so combine
/// ML-KEM with an elliptic curve, and exist in TLS 1.3 alone. The weakest demand first.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum KeyExchange {
    /// Never.
    Classic,
    /// Wherever the client can, whatever the client would rather do.
    PreferHybrid,
    /// Always.
    RequireHybrid,
}

/// Whether a client is asked for a certificate, the weakest demand first.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum ClientAuth {
    /// It is not.
    #[default]
    None,
    /// It is asked, and may have none.
    Request,
    /// It must have one that every judge accepts.
    Require,
}

/// The certificate a client presented, and proved to hold the key of.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClientCertificate {
    /// SHA-256 of the leaf in DER form.
    pub sha256: [u8; 32],
    /// The chain as it was sent, each in DER form, leaf first.
    pub chain: Vec<Bytes>,
}

/// What a judge says of a certificate. Only one that is accepted lets a handshake go on where a certificate is
/// required.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum CertificateVerdict {
    /// It will do.
    Accepted,
    /// Nobody here has it.
    Unknown,
    /// Its time has not come or is over.
    Expired,
    /// It was taken back.
    Revoked,
    /// It is not made for this, or is no certificate at all.
    Unsuitable,
    /// Nobody who is trusted has signed it.
    Untrusted,
}

/// Judges client certificates while hands are shaken. Never waits.
pub trait JudgeCertificate: Send + Sync {
    /// Called before the client has proved that it has the key.
    fn judge(&self, certificate: &ClientCertificate) -> CertificateVerdict;
}

/// What the filters of a tunnel demand of a handshake.
#[derive(Clone, Default)]
pub struct Handshake {
    min_version: TlsVersion,
    cipher_suites: Option<Vec<CipherSuite>>,
    key_exchange: Option<KeyExchange>,
    client_auth: ClientAuth,
    judges: Vec<Arc<dyn JudgeCertificate>>,
}

/// Why two demands cannot both be met.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Contradiction {
    /// They share no cipher suite.
    #[error("no cipher suite is left that all filters allow")]
    CipherSuites,
    /// One turns on what the other turns off.
    #[error("post-quantum key exchange is turned off by one filter and asked for by another")]
    KeyExchange,
}

impl Handshake {
    /// Demands nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// At least this version.
    #[must_use]
    pub fn with_min_version(self, min_version: TlsVersion) -> Self {
        Self {
            min_version,
            ..self
        }
    }

    /// In TLS 1.2, one of these suites.
    #[must_use]
    pub fn with_cipher_suites(self, suites: Vec<CipherSuite>) -> Self {
        Self {
            cipher_suites: Some(suites),
            ..self
        }
    }

    /// Keys agreed on like this.
    #[must_use]
    pub fn with_key_exchange(self, key_exchange: KeyExchange) -> Self {
        Self {
            key_exchange: Some(key_exchange),
            ..self
        }
    }

    /// A certificate asked for, of which none need be presented.
    #[must_use]
    pub fn requesting_certificate(self) -> Self {
        Self {
            client_auth: self.client_auth.max(ClientAuth::Request),
            ..self
        }
    }

    /// A certificate that this judge accepts.
    #[must_use]
    pub fn requiring_certificate(mut self, judge: Arc<dyn JudgeCertificate>) -> Self {
        self.client_auth = ClientAuth::Require;
        self.judges.push(judge);
        self
    }

    /// The lowest version that meets the demands.
    #[must_use]
    pub fn min_version(&self) -> TlsVersion {
        match self.key_exchange {
            Some(KeyExchange::RequireHybrid) => TlsVersion::Tls13,
            _ => self.min_version,
        }
    }

    /// The suites of TLS 1.2 that may be used, if not all.
    #[must_use]
    pub fn cipher_suites(&self) -> Option<&[CipherSuite]> {
        self.cipher_suites.as_deref()
    }

    /// How keys are agreed on, if anybody minds.
    #[must_use]
    pub fn key_exchange(&self) -> Option<KeyExchange> {
        self.key_exchange
    }

    /// Whether the client is asked for a certificate.
    #[must_use]
    pub fn client_auth(&self) -> ClientAuth {
        self.client_auth
    }

    /// What the judges say of a certificate: the first objection counts.
    #[must_use]
    pub fn judge(&self, certificate: &ClientCertificate) -> CertificateVerdict {
        let objects = |verdict: &CertificateVerdict| *verdict != CertificateVerdict::Accepted;
        let mut verdicts = self.judges.iter().map(|judge| judge.judge(certificate));
        verdicts
            .find(objects)
            .unwrap_or(CertificateVerdict::Accepted)
    }

    /// Whether version, suite and key exchange of a finished handshake are as demanded.
    #[must_use]
    pub fn is_met_by(&self, tls: &TlsInfo) -> bool {
        let version = [TlsVersion::Tls12, TlsVersion::Tls13]
            .into_iter()
            .find(|version| version.as_str() == tls.version);
        let Some(version) = version else {
            return false;
        };
        let suite = self.cipher_suites.as_ref().is_none_or(|suites| {
            version == TlsVersion::Tls13 || suites.iter().any(|suite| suite.0 == tls.cipher)
        });
        let hybrid = tls.group.as_deref().is_some_and(is_hybrid);
        let keys = match self.key_exchange {
            None | Some(KeyExchange::PreferHybrid) => true,
            Some(KeyExchange::Classic) => !hybrid,
            Some(KeyExchange::RequireHybrid) => hybrid,
        };
        version >= self.min_version() && suite && keys
    }

    /// Adds another's demands to these.
    pub(crate) fn tighten(&mut self, other: &Self) -> Result<(), Contradiction> {
        self.min_version = self.min_version.max(other.min_version);
        if let Some(allowed) = &other.cipher_suites {
            let suites = self
                .cipher_suites
                .get_or_insert_with(|| CipherSuite::ALL.to_vec());
            suites.retain(|suite| allowed.contains(suite));
            if suites.is_empty() {
                return Err(Contradiction::CipherSuites);
            }
        }
        self.key_exchange = match (self.key_exchange, other.key_exchange) {
            (one, None) => one,
            (None, one) => one,
            (Some(one), Some(other)) if one == other => Some(one),
            (Some(KeyExchange::Classic), _) | (_, Some(KeyExchange::Classic)) => {
                return Err(Contradiction::KeyExchange);
            }
            _ => Some(KeyExchange::RequireHybrid),
        };
        self.client_auth = self.client_auth.max(other.client_auth);
        self.judges.extend(other.judges.iter().cloned());
        Ok(())
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("min_version", &self.min_version)
            .field("cipher_suites", &self.cipher_suites)
            .field("key_exchange", &self.key_exchange)
            .field("client_auth", &self.client_auth)
            .field("judges", &self.judges.len())
            .finish()
    }
}

/// Whether a group of this name combines a curve with ML-KEM.
fn is_hybrid(group: &str) -> bool {
    group.contains("MLKEM")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn suites(names: &[&str]) -> Vec<CipherSuite> {
        names
            .iter()
            .map(|name| CipherSuite::named(name).unwrap())
            .collect()
    }

    const AES256: &str = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
    const AES128: &str = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
    const CHACHA: &str = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256";

    fn both(one: &Handshake, other: &Handshake) -> Result<Handshake, Contradiction> {
        let mut sum = one.clone();
        sum.tighten(other).map(|()| sum)
    }

    #[test]
    fn the_higher_minimum_and_the_common_suites_count() {
        let new = Handshake::new;
        let one = new().with_cipher_suites(suites(&[AES256, AES128]));
        let other = new()
            .with_min_version(TlsVersion::Tls13)
            .with_cipher_suites(suites(&[CHACHA, AES128]));
        for sum in [both(&one, &other).unwrap(), both(&other, &one).unwrap()] {
            assert_eq!(sum.min_version(), TlsVersion::Tls13);
            assert_eq!(sum.cipher_suites().unwrap(), suites(&[AES128]));
        }
        let stranger = new().with_cipher_suites(suites(&[CHACHA]));
        let disjoint = both(&one, &stranger).unwrap_err();
        assert_eq!(disjoint, Contradiction::CipherSuites);
    }

    #[test]
    fn key_exchange_gets_stricter_or_contradicts() {
        use KeyExchange::{Classic, PreferHybrid, RequireHybrid};
        let of = |wish: Option<KeyExchange>| {
            wish.map_or_else(Handshake::new, |wish| {
                Handshake::new().with_key_exchange(wish)
            })
        };
        for (one, other, sum) in [
            (None, None, Ok(None)),
            (None, Some(Classic), Ok(Some(Classic))),
            (Some(Classic), Some(Classic), Ok(Some(Classic))),
            (
                Some(PreferHybrid),
                Some(RequireHybrid),
                Ok(Some(RequireHybrid)),
            ),
            (
                Some(PreferHybrid),
                Some(PreferHybrid),
                Ok(Some(PreferHybrid)),
            ),
            (
                Some(Classic),
                Some(PreferHybrid),
                Err(Contradiction::KeyExchange),
            ),
            (
                Some(Classic),
                Some(RequireHybrid),
                Err(Contradiction::KeyExchange),
            ),
        ] {
            let exchange = |sum: Handshake| sum.key_exchange();
            assert_eq!(both(&of(one), &of(other)).map(exchange), sum);
            assert_eq!(both(&of(other), &of(one)).map(exchange), sum);
        }
        let required = of(Some(RequireHybrid));
        assert_eq!(required.min_version(), TlsVersion::Tls13);
    }

    #[test]
    fn a_required_certificate_must_please_every_judge() {
        struct Says(CertificateVerdict);
        impl JudgeCertificate for Says {
            fn judge(&self, _: &ClientCertificate) -> CertificateVerdict {
                self.0
            }
        }
        let requires = |verdict| Handshake::new().requiring_certificate(Arc::new(Says(verdict)));
        let requests = Handshake::new().requesting_certificate();
        let certificate = ClientCertificate::default();
        let accepted = CertificateVerdict::Accepted;
        for (one, other, auth, verdict) in [
            (
                requests.clone(),
                Handshake::new(),
                ClientAuth::Request,
                accepted,
            ),
            (
                requests.clone(),
                requires(accepted),
                ClientAuth::Require,
                accepted,
            ),
            (
                requires(accepted),
                requires(CertificateVerdict::Unknown),
                ClientAuth::Require,
                CertificateVerdict::Unknown,
            ),
        ] {
            let sum = both(&one, &other).unwrap();
            assert_eq!(sum.client_auth(), auth);
            assert_eq!(sum.judge(&certificate), verdict);
        }
    }

    #[test]
    fn a_handshake_is_measured_by_version_suite_and_group() {
        let tls = |version, cipher: &str, group: Option<&str>| TlsInfo {
            version,
            cipher: cipher.to_owned(),
            group: group.map(str::to_owned),
            ..TlsInfo::default()
        };
        let hybrid = tls("TLSv1.3", "TLS_AES_128_GCM_SHA256", Some("X25519MLKEM768"));
        let classic = tls("TLSv1.3", "TLS_AES_128_GCM_SHA256", Some("X25519"));
        let old = tls("TLSv1.2", AES128, Some("X25519"));
        // A resumed session of TLS 1.2 names no group.
        let resumed = tls("TLSv1.2", AES128, None);
        let new = Handshake::new;
        for (demand, met) in [
            (new(), [true, true, true, true]),
            (
                new().with_min_version(TlsVersion::Tls13),
                [true, true, false, false],
            ),
            (
                new().with_cipher_suites(suites(&[AES128])),
                [true, true, true, true],
            ),
            (
                new().with_cipher_suites(suites(&[AES256])),
                [true, true, false, false],
            ),
            (
                new().with_key_exchange(KeyExchange::Classic),
                [false, true, true, true],
            ),
            (
                new().with_key_exchange(KeyExchange::PreferHybrid),
                [true, true, true, true],
            ),
            (
                new().with_key_exchange(KeyExchange::RequireHybrid),
                [true, false, false, false],
            ),
        ] {
            let got = [&hybrid, &classic, &old, &resumed].map(|tls| demand.is_met_by(tls));
            assert_eq!(got, met, "{demand:?}");
        }
        assert!(
            !new().is_met_by(&TlsInfo::default()),
            "no version is no TLS"
        );
    }
}
