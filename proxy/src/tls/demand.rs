//! What filters demand of a handshake, as configurations of the TLS library.

use std::sync::Arc;

use adit_filters::{CipherSuite, ClientAuth, ClientHello, Handshake, KeyExchange, TlsVersion};
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, ResolvesServerCert};
use rustls::{NamedGroup, ServerConfig, SupportedCipherSuite, version};

use super::certificate::Certificate;
use super::clients::Clients;

/// TLS 1.3 tickets sent to a peer: one is what a client uses, and each costs a record.
const TICKETS: usize = 1;

/// TLS 1.3 as a hello numbers it (RFC 8446 §4.2.1).
const TLS13: u16 = 0x0304;

/// The groups that combine a curve with ML-KEM, the most preferred first.
static HYBRID: [&dyn SupportedKxGroup; 2] = [kx_group::X25519MLKEM768, kx_group::SECP256R1MLKEM768];

/// The configurations that meet one demand.
#[derive(Debug)]
pub(crate) struct Answers {
    usual: Arc<ServerConfig>,
    /// For clients that can, where they shall: the library would follow the client's order of groups.
    hybrid: Option<Arc<ServerConfig>>,
}

impl Answers {
    pub(super) fn new(
        provider: &Arc<CryptoProvider>,
        certificate: &Arc<Certificate>,
        demand: &Handshake,
        alpn: &[&[u8]],
    ) -> Result<Self, rustls::Error> {
        let usual = config(provider, certificate, demand, alpn)?;
        let hybrid = match demand.key_exchange() {
            Some(KeyExchange::PreferHybrid) => {
                let stricter = demand.clone().with_key_exchange(KeyExchange::RequireHybrid);
                let mut hybrid = config(provider, certificate, &stricter, alpn)?;
                // A ticket of one is good for the other.
                hybrid.ticketer = Arc::clone(&usual.ticketer);
                Some(Arc::new(hybrid))
            }
            _ => None,
        };
        let usual = Arc::new(usual);
        Ok(Self { usual, hybrid })
    }

    /// The one for a client of which nothing is known.
    pub(super) fn usual(self) -> Arc<ServerConfig> {
        self.usual
    }

    /// The one for a client that said this.
    pub(crate) fn to(&self, hello: &ClientHello) -> Arc<ServerConfig> {
        let hybrid = self.hybrid.as_ref().filter(|_| {
            let offers = |group: &u16| HYBRID.iter().any(|known| u16::from(known.name()) == *group);
            hello.versions.contains(&TLS13) && hello.groups.iter().any(offers)
        });
        Arc::clone(hybrid.unwrap_or(&self.usual))
    }
}

/// The cryptography of servers. The suite is chosen here and not by the client: all are good, and AES with short keys
/// costs least on nearly every machine there is.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let mut provider = CryptoProvider::clone(&adit_transport::tls::provider());
    provider.cipher_suites.sort_by_key(|suite| {
        let name = suite.suite().as_str().unwrap_or_default();
        (!name.contains("AES_128"), !name.contains("AES_256"))
    });
    Arc::new(provider)
}

/// The configuration that meets a demand.
pub(super) fn config(
    provider: &Arc<CryptoProvider>,
    certificate: &Arc<Certificate>,
    demand: &Handshake,
    alpn: &[&[u8]],
) -> Result<ServerConfig, rustls::Error> {
    let versions: &[&rustls::SupportedProtocolVersion] = match demand.min_version() {
        TlsVersion::Tls12 => &[&version::TLS13, &version::TLS12],
        TlsVersion::Tls13 => &[&version::TLS13],
    };
    let verifier: Arc<dyn ClientCertVerifier> = match demand.client_auth() {
        ClientAuth::None => Arc::new(NoClientAuth),
        _ => Arc::new(Clients::new(provider, demand.clone())),
    };
    let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(certificate) as _;
    let mut config = ServerConfig::builder_with_provider(narrowed(provider, demand))
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver);
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.ignore_client_order = true;
    config.send_tls13_tickets = TICKETS;
    // Tickets the client keeps, so that resumption costs no memory here.
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
    Ok(config)
}

/// The cryptography that is left of `provider`.
fn narrowed(provider: &Arc<CryptoProvider>, demand: &Handshake) -> Arc<CryptoProvider> {
    if demand.cipher_suites().is_none() && demand.key_exchange().is_none() {
        return Arc::clone(provider);
    }
    let mut narrowed = CryptoProvider::clone(provider);
    if let Some(suites) = demand.cipher_suites() {
        narrowed
            .cipher_suites
            .retain(|suite| is_allowed(*suite, suites));
    }
    match demand.key_exchange() {
        None | Some(KeyExchange::PreferHybrid) => {}
        Some(KeyExchange::Classic) => narrowed.kx_groups.retain(|group| !is_hybrid(group.name())),
        Some(KeyExchange::RequireHybrid) => narrowed.kx_groups = HYBRID.to_vec(),
    }
    Arc::new(narrowed)
}

fn is_allowed(suite: SupportedCipherSuite, allowed: &[CipherSuite]) -> bool {
    let name = suite.suite().as_str();
    suite.version().version == rustls::ProtocolVersion::TLSv1_3
        || allowed.iter().any(|one| Some(one.name()) == name)
}

fn is_hybrid(group: NamedGroup) -> bool {
    HYBRID.iter().any(|hybrid| hybrid.name() == group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suites_filters_can_name_are_those_the_library_has() {
        let provider = provider();
        let library: Vec<&str> = provider
            .cipher_suites
            .iter()
            .filter(|suite| suite.version().version == rustls::ProtocolVersion::TLSv1_2)
            .filter_map(|suite| suite.suite().as_str())
            .collect();
        assert_eq!(CipherSuite::ALL.map(CipherSuite::name).to_vec(), library);
    }

    #[test]
    fn every_hybrid_group_of_the_library_is_known_as_one() {
        let provider = adit_transport::tls::provider();
        for group in &provider.kx_groups {
            let name = group.name().as_str().unwrap_or_default();
            assert_eq!(is_hybrid(group.name()), name.contains("MLKEM"), "{name}");
        }
    }
}
