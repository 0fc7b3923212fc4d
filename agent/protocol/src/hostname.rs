//! Host names an agent asks for, and addresses as it shows them.

use std::net::Ipv4Addr;

use crate::DEFAULT_PORT;
use crate::message::TunnelProperties;

/// Longest label of a host name, in bytes.
const LABEL_MAX: usize = 63;

/// Fewest bytes left for the slug for which a name is still made.
const SLUG_MIN: usize = 9;

/// The slug of a stable host name: `r` and eight hex digits. Draw the octets once per process.
#[must_use]
pub fn slug(random: [u8; 4]) -> String {
    format!("r{:08x}", u32::from_be_bytes(random))
}

/// The host name an agent asks for so that its address survives a reconnect:
/// `<slug>-<first label of the engine host>.t.<rest of the engine host>`.
///
/// `None` for hosts of fewer than two labels, for IP literals and for names that are no DNS names,
/// and when the slug does not fit into the label.
#[must_use]
pub fn derive(engine_host: &str, slug: &str) -> Option<String> {
    let host = engine_host.trim().trim_end_matches('.');
    if host.parse::<Ipv4Addr>().is_ok() {
        return None;
    }
    let host = host.to_ascii_lowercase();
    let (endpoint, rest) = host.split_once('.')?;
    let fits = slug.len() >= SLUG_MIN && slug.len() + 1 + endpoint.len() <= LABEL_MAX;
    let valid = is_label(slug) && is_label(endpoint) && rest.split('.').all(is_label);
    (fits && valid).then(|| format!("{slug}-{endpoint}.t.{rest}"))
}

/// Whether `text` is one label of a host name in lower case: 1 to 63 of `[a-z0-9-]`, no hyphen
/// first or last.
#[must_use]
pub fn is_label(text: &str) -> bool {
    (1..=LABEL_MAX).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// How a client shows the public address of a tunnel, from the properties the engine returned.
/// `None` if they hold neither a host nor a name nor an id.
#[must_use]
pub fn forwarding_address(tunnel: &TunnelProperties) -> Option<String> {
    let text = |field: &Option<String>| {
        let text = field.as_deref().unwrap_or_default().trim();
        (!text.is_empty()).then(|| text.to_owned())
    };
    let protocol = tunnel.protocol.as_deref().unwrap_or_default();
    let port = tunnel.port.unwrap_or(u32::from(DEFAULT_PORT));
    let bare_port = port == u32::from(DEFAULT_PORT) && !matches!(protocol, "tls" | "tcp");
    let authority = match text(&tunnel.hostname) {
        Some(host) if bare_port => Some(host),
        Some(host) => Some(format!("{host}:{port}")),
        None => text(&tunnel.host),
    };
    if let Some(authority) = authority {
        return Some(match protocol {
            "http" => format!("https://{authority}"),
            "tls" | "tcp" | "dtls" | "quic" => format!("{authority} ({protocol})"),
            _ => authority,
        });
    }
    let name = text(&tunnel.name).or_else(|| text(&tunnel.id))?;
    Some(format!("rstrm://{name} (unpublished)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_names_hang_under_the_parent_of_the_engine_host() {
        let slug = slug([0x1a, 0x2b, 0x3c, 0x4d]);
        assert_eq!(slug, "r1a2b3c4d");
        for (host, expected) in [
            ("engine.example.com", Some("r1a2b3c4d-engine.t.example.com")),
            (
                "Engine.Example.com.",
                Some("r1a2b3c4d-engine.t.example.com"),
            ),
            ("a.b", Some("r1a2b3c4d-a.t.b")),
            ("localhost", None),
            ("127.0.0.1", None),
            ("::1", None),
            ("[2001:db8::1]", None),
            ("-a.example.com", None),
            ("a..com", None),
        ] {
            assert_eq!(derive(host, &slug).as_deref(), expected, "{host}");
        }
    }

    #[test]
    fn a_label_without_room_for_the_slug_yields_no_name() {
        let slug = slug([0; 4]);
        let longest = "e".repeat(LABEL_MAX - 1 - slug.len());
        assert!(derive(&format!("{longest}.example.com"), &slug).is_some());
        assert!(derive(&format!("{longest}e.example.com"), &slug).is_none());
    }

    #[test]
    fn addresses_are_shown_by_protocol_and_port() {
        let tunnel = |protocol: &str, hostname: &str, port: u32, host: &str| TunnelProperties {
            protocol: (!protocol.is_empty()).then(|| protocol.to_owned()),
            hostname: (!hostname.is_empty()).then(|| hostname.to_owned()),
            port: (port != 0).then_some(port),
            host: (!host.is_empty()).then(|| host.to_owned()),
            id: Some("t1".to_owned()),
            ..TunnelProperties::default()
        };
        for (tunnel, expected) in [
            (tunnel("http", "a.t.b", 443, ""), "https://a.t.b"),
            (tunnel("http", "a.t.b", 8443, ""), "https://a.t.b:8443"),
            (tunnel("http", " ", 443, "old.t.b"), "https://old.t.b"),
            (tunnel("tls", "a.t.b", 0, ""), "a.t.b:443 (tls)"),
            (tunnel("quic", "a.t.b", 443, ""), "a.t.b (quic)"),
            (tunnel("webtty", "a.t.b", 443, ""), "a.t.b"),
            (tunnel("", "", 0, ""), "rstrm://t1 (unpublished)"),
        ] {
            assert_eq!(forwarding_address(&tunnel).as_deref(), Some(expected));
        }
        assert_eq!(forwarding_address(&TunnelProperties::default()), None);
    }
}
