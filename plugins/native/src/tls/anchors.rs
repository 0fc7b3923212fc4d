//! Authorities that a client certificate must be signed by, beside being registered.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::SystemTime;

use adit_filters::ClientCertificate;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// Longest bundle taken, in bytes.
const BUNDLE_BYTES_MAX: u64 = 1 << 20;

/// The authorities of a bundle.
#[derive(Debug)]
pub(super) struct Anchors(Vec<TrustAnchor<'static>>);

impl Anchors {
    /// Reads a bundle of PEM certificates.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let mut pem = Vec::new();
        File::open(path)
            .and_then(|file| file.take(BUNDLE_BYTES_MAX + 1).read_to_end(&mut pem))
            .map_err(|error| format!("`{shown}` cannot be read: {error}"))?;
        if pem.len() as u64 > BUNDLE_BYTES_MAX {
            return Err(format!(
                "`{shown}` is longer than {BUNDLE_BYTES_MAX} bytes, leave out authorities nobody uses"
            ));
        }
        let mut anchors = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate =
                certificate.map_err(|error| format!("`{shown}` is not PEM: {error}"))?;
            let anchor = anchor_from_trusted_cert(&certificate).map_err(|error| {
                format!("`{shown}` holds a certificate that cannot be used: {error}")
            })?;
            anchors.push(anchor.to_owned());
        }
        if anchors.is_empty() {
            return Err(format!(
                "`{shown}` holds no certificate: put those of the authorities in it, in PEM"
            ));
        }
        Ok(Self(anchors))
    }

    /// Whether one of them, or one they vouch for, has signed the certificate, and all of that is valid at `now`.
    pub(super) fn vouch_for(&self, certificate: &ClientCertificate, now: SystemTime) -> bool {
        let chain = certificate.chain.iter();
        let chain: Vec<CertificateDer<'_>> =
            chain.map(|der| CertificateDer::from(&**der)).collect();
        let Some((leaf, between)) = chain.split_first() else {
            return false;
        };
        let Ok(now) = now.duration_since(SystemTime::UNIX_EPOCH) else {
            return false;
        };
        EndEntityCert::try_from(leaf)
            .and_then(|leaf| {
                let now = UnixTime::since_unix_epoch(now);
                let usage = KeyUsage::client_auth();
                leaf.verify_for_usage(
                    ALL_VERIFICATION_ALGS,
                    &self.0,
                    between,
                    now,
                    usage,
                    None,
                    None,
                )
                .map(|_| ())
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

    use super::*;

    type Authority = CertifiedIssuer<'static, KeyPair>;

    fn params(name: &str, is_ca: bool) -> CertificateParams {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        if is_ca {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    }

    fn root(name: &str) -> Authority {
        CertifiedIssuer::self_signed(params(name, true), KeyPair::generate().unwrap()).unwrap()
    }

    fn leaf(by: &Authority) -> rcgen::Certificate {
        let key = KeyPair::generate().unwrap();
        params("leaf", false).signed_by(&key, by).unwrap()
    }

    fn chain(certificates: &[&[u8]]) -> ClientCertificate {
        ClientCertificate {
            sha256: [0; 32],
            chain: certificates
                .iter()
                .map(|der| bytes::Bytes::copy_from_slice(der))
                .collect(),
        }
    }

    #[test]
    fn only_what_the_bundle_vouches_for_is_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bundle.pem");
        let (one, other, stranger) = (root("one"), root("other"), root("stranger"));
        std::fs::write(&path, [one.pem(), other.pem()].concat()).unwrap();
        let anchors = Anchors::read(&path).unwrap();
        let key = KeyPair::generate().unwrap();
        let between = CertifiedIssuer::signed_by(params("between", true), key, &one).unwrap();
        let below = leaf(&between);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        for (certificate, trusted) in [
            (chain(&[leaf(&one).der()]), true),
            (chain(&[leaf(&other).der()]), true),
            (chain(&[leaf(&stranger).der()]), false),
            (chain(&[leaf(&stranger).der(), stranger.der()]), false),
            (chain(&[below.der(), between.der()]), true),
            (chain(&[below.der()]), false),
            (chain(&[b"nonsense"]), false),
            (chain(&[]), false),
        ] {
            assert_eq!(anchors.vouch_for(&certificate, now), trusted);
        }
        let late = SystemTime::UNIX_EPOCH + Duration::from_secs(90_000_000_000);
        assert!(!anchors.vouch_for(&chain(&[leaf(&one).der()]), late));
    }

    #[test]
    fn a_bundle_that_cannot_be_used_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bundle.pem");
        let problem = || Anchors::read(&path).unwrap_err();
        assert!(problem().contains("cannot be read"), "{}", problem());
        for (text, expected) in [
            (String::new(), "holds no certificate"),
            (
                "-----BEGIN CERTIFICATE-----\nMIIB\n".to_owned(),
                "is not PEM",
            ),
            (
                "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".to_owned(),
                "cannot be used",
            ),
            ("#".repeat(BUNDLE_BYTES_MAX as usize + 1), "is longer than"),
        ] {
            std::fs::write(&path, text).unwrap();
            assert!(problem().contains(expected), "{}", problem());
        }
    }
}
