//! The fields of a request, each on its own: absent, or a value of its kind.

use std::net::IpAddr;

use adit_protocol::message::TunnelProperties;
use adit_protocol::{ErrorCode, ProtocolError};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Bytes or packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ordered bytes.
    Bytestream,
    /// Packets.
    Datagram,
}

/// What visitors speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// DTLS.
    Dtls,
    /// HTTP, any version.
    Http,
    /// QUIC.
    Quic,
    /// TCP as it comes.
    Tcp,
    /// TLS.
    Tls,
    /// A terminal in the browser.
    Webtty,
}

/// What the service behind an HTTP tunnel speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 in the clear, with prior knowledge.
    H2c,
    /// HTTP/3.
    H3,
}

/// Who does the TLS of a `tls` tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TlsMode {
    Terminated,
    Passthrough,
}

/// A value written as one of a few words.
trait Word: Copy + 'static {
    const KEY: &'static str;
    const WORDS: &'static [(&'static str, Self)];

    fn read(field: Option<&str>) -> Result<Option<Self>, ProtocolError> {
        let Some(text) = field.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let found = Self::WORDS.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| Some(*value)).ok_or_else(|| {
            let words: Vec<&str> = Self::WORDS.iter().map(|(word, _)| *word).collect();
            invalid(format!(
                "`{}` {text:?} is not known, use one of {}",
                Self::KEY,
                words.join(", ")
            ))
        })
    }
}

impl Word for Kind {
    const KEY: &'static str = "type";
    const WORDS: &'static [(&'static str, Self)] = &[
        ("bytestream", Self::Bytestream),
        ("datagram", Self::Datagram),
    ];
}

impl Word for Protocol {
    const KEY: &'static str = "protocol";
    const WORDS: &'static [(&'static str, Self)] = &[
        ("http", Self::Http),
        ("tls", Self::Tls),
        ("tcp", Self::Tcp),
        ("dtls", Self::Dtls),
        ("quic", Self::Quic),
        ("webtty", Self::Webtty),
    ];
}

impl Word for HttpVersion {
    const KEY: &'static str = "http_version";
    const WORDS: &'static [(&'static str, Self)] = &[
        ("http/1.1", Self::Http1),
        ("h2c", Self::H2c),
        ("h3", Self::H3),
    ];
}

impl Word for TlsMode {
    const KEY: &'static str = "tls_mode";
    const WORDS: &'static [(&'static str, Self)] = &[
        ("terminated", Self::Terminated),
        ("passthrough", Self::Passthrough),
    ];
}

/// Lowest TLS version of the public endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl Word for TlsVersion {
    const KEY: &'static str = "tls_min_version";
    const WORDS: &'static [(&'static str, Self)] =
        &[("tls1.2", Self::Tls12), ("tls1.3", Self::Tls13)];
}

fn word<T: Word + PartialEq>(value: T) -> &'static str {
    let found = T::WORDS.iter().find(|(_, known)| *known == value);
    found.map_or("", |(word, _)| word)
}

impl Kind {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        word(self)
    }
}

impl Protocol {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        word(self)
    }
}

impl TlsVersion {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        word(self)
    }
}

impl HttpVersion {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        word(self)
    }
}

/// A request with its words understood and its defaults filled in.
pub(super) struct Fields {
    pub(super) name: Option<String>,
    pub(super) kind: Kind,
    pub(super) publish: bool,
    pub(super) protocol: Option<Protocol>,
    pub(super) http_version: Option<HttpVersion>,
    pub(super) tls_mode: Option<TlsMode>,
    pub(super) tls_min_version: Option<TlsVersion>,
    pub(super) tls_ciphers: Vec<String>,
    pub(super) tls_alpns: Vec<String>,
    pub(super) mtls_auth: bool,
    pub(super) mtls_cacert: bool,
    pub(super) geoip: Vec<String>,
    pub(super) trusted_ips: Vec<IpNet>,
    pub(super) wrong_ip: Option<String>,
    pub(super) token_auth: Option<bool>,
    pub(super) rstream_auth: Option<bool>,
    pub(super) challenge_mode: bool,
    pub(super) tls_to_service: Option<bool>,
    pub(super) tls_to_service_alias: Option<bool>,
    pub(super) hostname: Option<String>,
    pub(super) port: Option<u32>,
    pub(super) guaranteed_delivery: bool,
    pub(super) labels: Vec<(String, usize)>,
}

impl Fields {
    /// Reads the words, `type` first, and derives `protocol` and `type` where they are left out.
    pub(super) fn read(
        properties: &TunnelProperties,
        host_asks: bool,
    ) -> Result<Self, ProtocolError> {
        let asked_kind = Kind::read(properties.r#type.as_deref())?;
        let asked_protocol = Protocol::read(properties.protocol.as_deref())?;
        let http_version = HttpVersion::read(properties.http_version.as_deref())?;
        let tls_mode = TlsMode::read(properties.tls_mode.as_deref())?;
        let tls_min_version = TlsVersion::read(properties.tls_min_version.as_deref())?;
        let publish = properties.publish.unwrap_or(true);
        let protocol = asked_protocol.or(publish.then_some(Protocol::Http));
        let packets = matches!(protocol, Some(Protocol::Dtls | Protocol::Quic))
            || http_version == Some(HttpVersion::H3);
        let default_kind = if packets {
            Kind::Datagram
        } else {
            Kind::Bytestream
        };
        let (trusted_ips, wrong_ip) = read_networks(&properties.trusted_ips);
        let asked_host = host_asks.then(|| authority_host(properties.host.as_deref()));
        Ok(Self {
            name: text(properties.name.as_deref()),
            kind: asked_kind.unwrap_or(default_kind),
            publish,
            protocol,
            http_version,
            tls_mode,
            tls_min_version,
            tls_ciphers: once(
                properties
                    .tls_ciphers
                    .iter()
                    .map(|name| name.trim().to_owned()),
            ),
            tls_alpns: properties.tls_alpns.clone(),
            mtls_auth: properties.mtls_auth.unwrap_or(false),
            mtls_cacert: text(properties.mtls_cacert_pem.as_deref()).is_some(),
            geoip: once(
                properties
                    .geoip
                    .iter()
                    .map(|code| code.trim().to_ascii_uppercase()),
            ),
            trusted_ips,
            wrong_ip,
            token_auth: properties.token_auth,
            rstream_auth: properties.rstream_auth,
            challenge_mode: properties.challenge_mode.unwrap_or(false),
            tls_to_service: properties.upstream_tls,
            tls_to_service_alias: properties.http_use_tls,
            hostname: text(properties.hostname.as_deref()).or(asked_host.flatten()),
            port: properties.port,
            guaranteed_delivery: properties.datagram_guaranteed_delivery.unwrap_or(false),
            labels: properties
                .labels
                .iter()
                .map(|(key, value)| (key.clone(), value.len()))
                .collect(),
        })
    }

    /// Whether the leg to the service is TLS, by either name of the property.
    pub(super) fn upstream_tls(&self) -> bool {
        self.tls_to_service
            .or(self.tls_to_service_alias)
            .unwrap_or(false)
    }
}

/// Each text once, in the order they came.
fn once(texts: impl Iterator<Item = String>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for text in texts {
        if !kept.contains(&text) {
            kept.push(text);
        }
    }
    kept
}

/// Networks and single addresses, each once, and the first that is neither. An IPv4 network written
/// in IPv6 is the IPv4 one, since visitors' addresses are compared in that form.
fn read_networks(texts: &[String]) -> (Vec<IpNet>, Option<String>) {
    let mut networks = Vec::new();
    for text in texts {
        let trimmed = text.trim();
        let network = trimmed
            .parse::<IpNet>()
            .or_else(|_| trimmed.parse::<IpAddr>().map(IpNet::from));
        let Ok(network) = network else {
            return (networks, Some(text.clone()));
        };
        let network = canonical(network.trunc());
        if !networks.contains(&network) {
            networks.push(network);
        }
    }
    (networks, None)
}

fn canonical(network: IpNet) -> IpNet {
    /// Bits before the IPv4 address in an IPv4-mapped one.
    const MAPPED_BITS: u8 = 96;
    let IpNet::V6(v6) = network else {
        return network;
    };
    let mapped = v6
        .addr()
        .to_ipv4_mapped()
        .zip(v6.prefix_len().checked_sub(MAPPED_BITS));
    mapped
        .and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok())
        .map_or_else(|| IpNet::V6(Ipv6Net::trunc(&v6)), IpNet::V4)
}

/// The host part of an authority.
fn authority_host(authority: Option<&str>) -> Option<String> {
    let authority = text(authority)?;
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            text(Some(host)).map(|host| host.trim().to_owned())
        }
        _ => Some(authority),
    }
}

/// The text, unless there is nothing in it.
fn text(field: Option<&str>) -> Option<String> {
    field
        .filter(|text| !text.trim().is_empty())
        .map(str::to_owned)
}

pub(super) fn invalid(text: impl Into<String>) -> ProtocolError {
    ProtocolError::new(ErrorCode::INVALID_REQUEST, text)
}
