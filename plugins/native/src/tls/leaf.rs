//! The client's own certificate: made for this, and valid now (RFC 5280 §4.2.1.3, §4.2.1.12).

use std::time::SystemTime;

use adit_filters::Fact;
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;

/// A leaf that is made for client authentication, and how long it is valid.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Leaf {
    /// In seconds since 1970.
    not_before: i64,
    /// In seconds since 1970, inclusive.
    not_after: i64,
}

impl Leaf {
    /// Reads a leaf in DER form; none if it is no X.509 certificate or is not made for this.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let (rest, leaf) = x509_parser::parse_x509_certificate(der).ok()?;
        let made_for_this = rest.is_empty() && is_for_clients(&leaf).ok()?;
        let validity = leaf.validity();
        made_for_this.then(|| Self {
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        })
    }

    /// Whether `now` is within its time.
    pub(super) fn is_valid_at(self, now: SystemTime) -> bool {
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        i64::try_from(now).is_ok_and(|now| (self.not_before..=self.not_after).contains(&now))
    }
}

impl Fact for Leaf {
    const NAME: &'static str = LEAF;
}

/// The fact's name.
const LEAF: &str = "client-certificate";

fn is_for_clients(leaf: &X509Certificate<'_>) -> Result<bool, X509Error> {
    let signs = leaf
        .key_usage()?
        .is_none_or(|usage| usage.value.digital_signature());
    let serves_clients = leaf
        .extended_key_usage()?
        .is_none_or(|usage| usage.value.client_auth);
    Ok(signs && serves_clients)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

    use rcgen::{
        CertificateParams, ExtendedKeyUsagePurpose as Extended, KeyPair, KeyUsagePurpose as Usage,
    };

    use super::*;

    fn der(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::new(["agent".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn only_certificates_made_for_clients_are_read() {
        // edge behaviour §7.4, accepted leaf
        let with = |usages: &[Usage], extended: &[Extended]| {
            let (usages, extended) = (usages.to_vec(), extended.to_vec());
            der(|params| {
                params.key_usages = usages;
                params.extended_key_usages = extended;
            })
        };
        for (der, accepted) in [
            (with(&[], &[]), true),
            (
                with(&[Usage::DigitalSignature], &[Extended::ClientAuth]),
                true,
            ),
            (
                with(&[], &[Extended::ServerAuth, Extended::ClientAuth]),
                true,
            ),
            (with(&[Usage::KeyCertSign], &[]), false),
            (with(&[], &[Extended::ServerAuth]), false),
            (with(&[], &[Extended::Any]), false),
            (b"no certificate".to_vec(), false),
            ([der(|_| {}), vec![0]].concat(), false),
        ] {
            assert_eq!(Leaf::read(&der).is_some(), accepted);
        }
    }

    #[test]
    fn a_leaf_is_valid_from_its_first_second_to_its_last() {
        let leaf = Leaf::read(&der(|params| {
            params.not_before = rcgen::date_time_ymd(2027, 1, 1);
            params.not_after = rcgen::date_time_ymd(2028, 1, 1);
        }));
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        for (now, valid) in [
            (0, false),
            (1_798_761_599, false),
            (1_798_761_600, true),
            (1_830_297_600, true),
            (1_830_297_601, false),
        ] {
            assert_eq!(leaf.unwrap().is_valid_at(at(now)), valid, "{now}");
        }
    }
}
