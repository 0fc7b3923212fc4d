//! Which properties go together. The functions run in the order in which violations are reported.

use adit_protocol::ProtocolError;

use super::fields::{Fields, HttpVersion, Kind, Protocol, TlsMode, invalid};
use super::{LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, NAME_BYTES_MAX};

/// Longest application protocol id, in bytes (RFC 7301 §3.1).
const ALPN_BYTES_MAX: usize = 255;

type Check = Result<(), ProtocolError>;

/// The first rule the request breaks.
pub(super) fn check(fields: &Fields) -> Check {
    let rules: [fn(&Fields) -> Check; 12] = [
        type_matches_protocol,
        http_options_need_http,
        tls_mode_needs_tls,
        passthrough_leaves_tls_alone,
        tls_negotiates_the_http_version,
        aliases_agree,
        packets_need_upstream_tls,
        port_needs_tcp,
        tcp_is_plain,
        private_has_no_public_policy,
        rest_applies,
        values_are_well_formed,
    ];
    rules.iter().try_for_each(|rule| rule(fields))
}

fn type_matches_protocol(fields: &Fields) -> Check {
    let fits = match (fields.protocol, fields.http_version) {
        (Some(Protocol::Http), Some(HttpVersion::H3)) => fields.kind == Kind::Datagram,
        (Some(Protocol::Http | Protocol::Tls | Protocol::Tcp), _) => {
            fields.kind == Kind::Bytestream
        }
        (Some(Protocol::Dtls | Protocol::Quic), _) => fields.kind == Kind::Datagram,
        (Some(Protocol::Webtty) | None, _) => true,
    };
    if !fits {
        return Err(invalid(format!(
            "`type` {} does not go with this protocol",
            fields.kind.as_str()
        )));
    }
    if let (false, Some(protocol @ (Protocol::Dtls | Protocol::Quic | Protocol::Tcp))) =
        (fields.publish, fields.protocol)
    {
        return Err(invalid(format!(
            "a private tunnel cannot have `protocol` {}, leave it out",
            protocol.as_str()
        )));
    }
    Ok(())
}

fn http_options_need_http(fields: &Fields) -> Check {
    if fields.protocol == Some(Protocol::Http) {
        return Ok(());
    }
    let webtty = fields.protocol == Some(Protocol::Webtty);
    let token_auth = fields.token_auth == Some(true);
    first_given(
        "needs `protocol` http",
        &[
            ("http_version", fields.http_version.is_some()),
            ("token_auth", token_auth && !webtty),
            ("rstream_auth", fields.rstream_auth == Some(true) && !webtty),
            ("challenge_mode", fields.challenge_mode),
            ("http_use_tls", fields.tls_to_service_alias == Some(true)),
        ],
    )
}

fn tls_mode_needs_tls(fields: &Fields) -> Check {
    let misplaced = fields.tls_mode.is_some() && fields.protocol != Some(Protocol::Tls);
    first_given("needs `protocol` tls", &[("tls_mode", misplaced)])
}

fn passthrough_leaves_tls_alone(fields: &Fields) -> Check {
    if fields.tls_mode != Some(TlsMode::Passthrough) {
        return Ok(());
    }
    first_given(
        "does not go with `tls_mode` passthrough",
        &[
            ("mtls_auth", fields.mtls_auth),
            ("tls_alpns", !fields.tls_alpns.is_empty()),
            ("upstream_tls", fields.upstream_tls()),
            ("tls_min_version", fields.tls_min_version.is_some()),
            ("tls_ciphers", !fields.tls_ciphers.is_empty()),
        ],
    )
}

fn tls_negotiates_the_http_version(fields: &Fields) -> Check {
    let explicit = matches!(
        fields.http_version,
        Some(HttpVersion::Http1 | HttpVersion::H2c)
    );
    let given = fields.upstream_tls() && explicit;
    first_given(
        "does not go with `upstream_tls`, which negotiates the version",
        &[("http_version", given)],
    )
}

fn aliases_agree(fields: &Fields) -> Check {
    match (fields.tls_to_service, fields.tls_to_service_alias) {
        (Some(one), Some(other)) if one != other => Err(invalid(
            "`http_use_tls` and `upstream_tls` differ, set `upstream_tls` alone",
        )),
        _ => Ok(()),
    }
}

fn packets_need_upstream_tls(fields: &Fields) -> Check {
    let quic =
        fields.http_version == Some(HttpVersion::H3) || fields.protocol == Some(Protocol::Quic);
    let off = fields.tls_to_service.or(fields.tls_to_service_alias) == Some(false);
    if quic && off {
        return Err(invalid(
            "`upstream_tls` cannot be off for h3 and quic, leave it out",
        ));
    }
    Ok(())
}

fn port_needs_tcp(fields: &Fields) -> Check {
    let Some(port) = fields.port else {
        return Ok(());
    };
    if fields.protocol != Some(Protocol::Tcp) {
        return Err(invalid("`port` needs `protocol` tcp"));
    }
    if port == 0 || port > u32::from(u16::MAX) {
        return Err(invalid(format!("`port` {port} is not 1 to 65535")));
    }
    Ok(())
}

fn tcp_is_plain(fields: &Fields) -> Check {
    if fields.protocol != Some(Protocol::Tcp) {
        return Ok(());
    }
    first_given(
        "does not go with `protocol` tcp",
        &[
            ("hostname", fields.hostname.is_some()),
            ("tls_alpns", !fields.tls_alpns.is_empty()),
            ("tls_min_version", fields.tls_min_version.is_some()),
            ("tls_ciphers", !fields.tls_ciphers.is_empty()),
            ("mtls_auth", fields.mtls_auth),
            ("upstream_tls", fields.upstream_tls()),
            ("datagram_guaranteed_delivery", fields.guaranteed_delivery),
        ],
    )
}

fn private_has_no_public_policy(fields: &Fields) -> Check {
    if fields.publish {
        return Ok(());
    }
    first_given(
        "needs a published tunnel",
        &[
            ("hostname", fields.hostname.is_some()),
            ("token_auth", fields.token_auth == Some(true)),
            ("rstream_auth", fields.rstream_auth == Some(true)),
            ("challenge_mode", fields.challenge_mode),
            ("mtls_auth", fields.mtls_auth),
            ("geoip", !fields.geoip.is_empty()),
            (
                "trusted_ips",
                !fields.trusted_ips.is_empty() || fields.wrong_ip.is_some(),
            ),
        ],
    )
}

/// What applies to some protocols only and has no rule of its own above.
fn rest_applies(fields: &Fields) -> Check {
    let public = fields.publish;
    let protocol = fields.protocol;
    let edge_tls = matches!(
        protocol,
        Some(Protocol::Http | Protocol::Tls | Protocol::Quic | Protocol::Webtty)
    );
    let alpns = matches!(
        protocol,
        Some(Protocol::Tls | Protocol::Dtls | Protocol::Quic)
    );
    let upstream = matches!(
        protocol,
        Some(Protocol::Http | Protocol::Tls | Protocol::Dtls | Protocol::Quic)
    );
    first_given(
        "does not apply to this tunnel",
        &[
            (
                "tls_alpns",
                !(fields.tls_alpns.is_empty() || public && alpns),
            ),
            (
                "tls_min_version",
                fields.tls_min_version.is_some() && !(public && edge_tls),
            ),
            (
                "tls_ciphers",
                !(fields.tls_ciphers.is_empty() || public && edge_tls),
            ),
            ("upstream_tls", fields.upstream_tls() && !upstream),
            (
                "datagram_guaranteed_delivery",
                fields.guaranteed_delivery && fields.kind != Kind::Datagram,
            ),
            ("mtls_cacert_pem", fields.mtls_cacert),
        ],
    )
}

fn values_are_well_formed(fields: &Fields) -> Check {
    if let Some(name) = &fields.name
        && !is_name(name)
    {
        return Err(invalid(format!(
            "`name` {name:?} is not 1 to {NAME_BYTES_MAX} letters, digits, dots, hyphens and underscores with a letter or digit first"
        )));
    }
    if fields.labels.len() > LABELS_MAX {
        return Err(invalid(format!(
            "`labels` has more than {LABELS_MAX} pairs"
        )));
    }
    for (key, value_len) in &fields.labels {
        if key.is_empty() || key.len() > LABEL_KEY_BYTES_MAX {
            return Err(invalid(format!(
                "`labels` has a key that is not 1 to {LABEL_KEY_BYTES_MAX} bytes"
            )));
        }
        if *value_len > LABEL_VALUE_BYTES_MAX {
            return Err(invalid(format!(
                "`labels` has a value above {LABEL_VALUE_BYTES_MAX} bytes at {key:?}"
            )));
        }
    }
    if let Some(country) = fields.geoip.iter().find(|country| !is_country(country)) {
        return Err(invalid(format!(
            "`geoip` {country:?} is not a two-letter country code"
        )));
    }
    if let Some(text) = &fields.wrong_ip {
        return Err(invalid(format!(
            "`trusted_ips` {text:?} is not an address or a network such as 203.0.113.0/24"
        )));
    }
    let alpn_fits = |alpn: &String| (1..=ALPN_BYTES_MAX).contains(&alpn.len());
    if !fields.tls_alpns.iter().all(alpn_fits) {
        return Err(invalid(format!(
            "`tls_alpns` has an id that is not 1 to {ALPN_BYTES_MAX} bytes"
        )));
    }
    Ok(())
}

/// What the request is about that this engine does not do, if anything.
pub(super) fn unsupported(fields: &Fields) -> Option<&'static str> {
    let private = !fields.publish;
    let features = [
        ("`protocol` tls", fields.protocol == Some(Protocol::Tls)),
        ("`protocol` dtls", fields.protocol == Some(Protocol::Dtls)),
        ("`protocol` quic", fields.protocol == Some(Protocol::Quic)),
        ("`protocol` tcp", fields.protocol == Some(Protocol::Tcp)),
        (
            "`protocol` webtty",
            fields.protocol == Some(Protocol::Webtty),
        ),
        (
            "`http_version` h3",
            fields.http_version == Some(HttpVersion::H3),
        ),
        ("datagram tunnels", fields.kind == Kind::Datagram),
        // A private stream is passed on as it is, so nothing would translate or encrypt it.
        (
            "`upstream_tls` on private tunnels",
            private && fields.upstream_tls(),
        ),
        (
            "`http_version` h2c on private tunnels",
            private && fields.http_version == Some(HttpVersion::H2c),
        ),
    ];
    let found = features.into_iter().find(|(_, asked)| *asked);
    found.map(|(feature, _)| feature)
}

/// An error that names the first property given.
fn first_given(why: &str, properties: &[(&str, bool)]) -> Check {
    match properties.iter().find(|(_, given)| *given) {
        Some((key, _)) => Err(invalid(format!("`{key}` {why}"))),
        None => Ok(()),
    }
}

fn is_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn is_country(code: &str) -> bool {
    code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_alphabetic())
}
