//! The provider's keys ([RFC 7517](https://www.rfc-editor.org/rfc/rfc7517)), which change.

use std::time::Duration;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header};
use serde::Deserialize;
use serde_json::Value;

/// How long keys count before they are asked for again: a key that was taken back is trusted no longer than that.
pub(super) const KEYS_LIFE: Duration = Duration::from_secs(10 * 60);

/// How long after they were asked for because a token names one that is not there they may be asked for again for that.
pub(super) const KEYS_AGAIN: Duration = Duration::from_secs(60);

/// Most keys of a set that are looked at.
const KEYS_MAX: usize = 100;

/// The ways to sign that are accepted: by a key that the provider alone has.
pub(super) const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
];

/// A key set as it is fetched. Keys of kinds unknown here stand beside those that are known.
#[derive(Deserialize)]
pub(super) struct Fetched {
    keys: Vec<Value>,
}

/// Keys that signatures can be verified with.
#[derive(Debug, Default)]
pub(super) struct Keys(Vec<Jwk>);

impl From<Fetched> for Keys {
    fn from(fetched: Fetched) -> Self {
        let keys = fetched.keys.into_iter().take(KEYS_MAX);
        let keys = keys.filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        Self(keys.filter(is_for_signatures).collect())
    }
}

impl Keys {
    /// The key that a token of this head was signed with. A token may leave out which one it was where there is only
    /// one it can have been.
    pub(super) fn find(&self, head: &Header) -> Option<DecodingKey> {
        let mut fits = self.0.iter().filter(|key| fits(key, head.alg));
        let key = match &head.kid {
            Some(kid) => fits.find(|key| key.common.key_id.as_ref() == Some(kid))?,
            None => fits.next().filter(|_| fits.next().is_none())?,
        };
        DecodingKey::from_jwk(key).ok()
    }
}

fn is_for_signatures(key: &Jwk) -> bool {
    matches!(
        key.common.public_key_use,
        None | Some(PublicKeyUse::Signature)
    )
}

/// Whether a key is of the kind that this way to sign takes, and meant for no other.
fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    let kind = match (&key.algorithm, algorithm) {
        (AlgorithmParameters::EllipticCurve(curve), Algorithm::ES256) => {
            curve.curve == EllipticCurve::P256
        }
        (AlgorithmParameters::EllipticCurve(curve), Algorithm::ES384) => {
            curve.curve == EllipticCurve::P384
        }
        (AlgorithmParameters::OctetKeyPair(pair), Algorithm::EdDSA) => {
            pair.curve == EllipticCurve::Ed25519
        }
        (
            AlgorithmParameters::RSA(_),
            Algorithm::RS256
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512,
        ) => true,
        _ => false,
    };
    let meant = key
        .common
        .key_algorithm
        .is_none_or(|meant| meant == KeyAlgorithm::from(algorithm));
    kind && meant
}
