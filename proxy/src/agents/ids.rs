//! Identifiers nobody can guess.

/// Octets of an id. As 24 hex digits it is what the protocol uses for streams, and its first
/// octets are random, as datagram channels want.
const ID_OCTETS: usize = 12;

/// Octets of a stream's secret: nobody guesses 256 bits within the seconds it is good for.
const SECRET_OCTETS: usize = 32;

/// The operating system gave no random octets.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no random numbers from the operating system")]
pub(super) struct NoRandomness;

/// Fresh random octets.
pub(super) fn octets<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut octets = [0; N];
    getrandom::fill(&mut octets).map_err(|_| NoRandomness)?;
    Ok(octets)
}

/// A fresh id of 24 hex digits, for clients, tunnels and streams.
pub(super) fn id() -> Result<String, NoRandomness> {
    octets::<ID_OCTETS>().map(hex::encode)
}

/// A fresh secret.
pub(super) fn secret() -> Result<adit_protocol::Secret, NoRandomness> {
    octets::<SECRET_OCTETS>().map(|octets| adit_protocol::Secret::new(hex::encode(octets)))
}
