//! Header fields between two connections: what belongs to one hop is taken off, what the edge
//! vouches for is put on.

use std::net::{IpAddr, SocketAddr};

use adit_filters::Identity;
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Fields that only ever concern one connection (RFC 9110 §7.6.1).
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

const AUTH_METHOD: HeaderName = HeaderName::from_static("x-rstream-auth-method");
const CERT_SHA256: HeaderName = HeaderName::from_static("x-rstream-cert-sha256");
const TOKEN_ID: HeaderName = HeaderName::from_static("x-rstream-token-id");
const USER_EMAIL: HeaderName = HeaderName::from_static("x-rstream-user-email");
const USER_ID: HeaderName = HeaderName::from_static("x-rstream-user-id");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Takes off what concerned the connection a message came on, and says whether the peer takes
/// trailers (`TE: trailers`).
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) -> bool {
    let trailers = headers.get_all(header::TE).iter().any(|value| {
        value.to_str().is_ok_and(|list| {
            list.split(',')
                .any(|item| item.trim().eq_ignore_ascii_case("trailers"))
        })
    });
    if headers.contains_key(header::CONNECTION) {
        let listed: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|list| list.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in listed {
            headers.remove(name);
        }
    }
    // A length beside a transfer coding is void (RFC 9112 §6.3).
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove(header::PROXY_AUTHORIZATION);
    headers.remove(header::PROXY_AUTHENTICATE);
    trailers
}

/// Takes off every field by which an upstream could be told who the visitor is, under each
/// spelling a CGI-like upstream would merge (`_` and `-` are one there).
pub(crate) fn strip_identity(headers: &mut HeaderMap) {
    let forged: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_identity(name.as_str()))
        .cloned()
        .collect();
    for name in forged {
        headers.remove(name);
    }
}

fn is_identity(name: &str) -> bool {
    // The common case first: most names begin with neither.
    if !name.starts_with(['x', 'f']) {
        return false;
    }
    let mut plain = name.as_bytes().iter().map(|byte| match byte {
        b'_' => b'-',
        other => *other,
    });
    let is = |known: &str| plain.clone().eq(known.bytes());
    if [
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
    ]
    .into_iter()
    .any(is)
    {
        return true;
    }
    "x-rstream-".bytes().all(|byte| plain.next() == Some(byte))
}

/// Cookies that are between the visitor and the edge alone.
const OWN_COOKIES: [&str; 3] = [
    "__Host-rstream_browser",
    "rstream_auth",
    "rstream_challenge",
];

/// Takes the edge's own cookies off; others stay as they are, byte for byte.
pub(crate) fn strip_own_cookies(headers: &mut HeaderMap) {
    let is_own = |pair: &[u8]| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or(pair);
        OWN_COOKIES
            .iter()
            .any(|own| name.trim_ascii() == own.as_bytes())
    };
    let carries = |value: &HeaderValue| value.as_bytes().split(|byte| *byte == b';').any(is_own);
    if !headers.get_all(header::COOKIE).iter().any(carries) {
        return;
    }
    let kept: Vec<HeaderValue> = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| {
            let pairs: Vec<&[u8]> = value
                .as_bytes()
                .split(|byte| *byte == b';')
                .filter(|pair| !is_own(pair))
                .collect();
            let joined = pairs.join(&b';');
            let joined = joined.trim_ascii();
            // What is left of a field value is one.
            (!joined.is_empty()).then(|| HeaderValue::from_bytes(joined).ok())?
        })
        .collect();
    headers.remove(header::COOKIE);
    for value in kept {
        headers.append(header::COOKIE, value);
    }
}

/// What the edge knows about where a request came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    /// The visitor.
    pub(crate) client: IpAddr,
    /// The chain a trusted front proxy sent, to which the visitor is appended already.
    pub(crate) chain: Option<&'a HeaderValue>,
    /// The authority as the visitor wrote it.
    pub(crate) authority: &'a str,
    /// The public port.
    pub(crate) port: u16,
}

/// Puts on `Forwarded` (RFC 7239) and its older forms.
pub(crate) fn set_forwarded(headers: &mut HeaderMap, origin: Origin<'_>) {
    let client = origin.client.to_string();
    let node = match origin.client {
        IpAddr::V4(_) => client.clone(),
        IpAddr::V6(_) => format!("\"[{client}]\""),
    };
    let forwarded = format!("for={node};host=\"{}\";proto=https", origin.authority);
    let mut put = |name: HeaderName, value: Result<HeaderValue, _>| {
        // An authority that parsed has no byte a field value may not have.
        if let Ok(value) = value {
            headers.insert(name, value);
        }
    };
    put(header::FORWARDED, HeaderValue::from_str(&forwarded));
    match origin.chain {
        Some(chain) => put(X_FORWARDED_FOR, Ok(chain.clone())),
        None => put(X_FORWARDED_FOR, HeaderValue::from_str(&client)),
    }
    put(X_FORWARDED_HOST, HeaderValue::from_str(origin.authority));
    put(X_FORWARDED_PORT, Ok(HeaderValue::from(origin.port)));
    put(X_FORWARDED_PROTO, Ok(HeaderValue::from_static("https")));
}

/// Puts on who the visitor is, once a filter has established it.
pub(crate) fn set_identity(headers: &mut HeaderMap, identity: &Identity) {
    headers.insert(AUTH_METHOD, HeaderValue::from_static(identity.method));
    let certificate = identity.certificate_sha256.map(hex::encode);
    for (name, text) in [
        (USER_ID, Some(&identity.subject)),
        (USER_EMAIL, identity.email.as_ref()),
        (TOKEN_ID, identity.token_id.as_ref()),
        (CERT_SHA256, certificate.as_ref()),
    ] {
        // What no field value can hold is left out rather than changed.
        if let Some(value) = text.and_then(|text| HeaderValue::from_str(text).ok()) {
            headers.insert(name, value);
        }
    }
}

/// The visitor as a trusted front proxy names it: the rightmost address of `X-Forwarded-For` that
/// is not itself trusted. `None` when the proxy named nobody.
pub(crate) fn client_behind_front(
    headers: &HeaderMap,
    trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    let mut leftmost = None;
    for value in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        for item in value.as_bytes().rsplit(|byte| *byte == b',') {
            let address = std::str::from_utf8(item)
                .ok()
                .and_then(|text| parse_node(text.trim()));
            match address {
                Some(address) if !trusted(address) => return Some(address),
                Some(address) => leftmost = Some(address),
                // What stands further left is the visitor's own word.
                None => return leftmost,
            }
        }
    }
    leftmost
}

fn parse_node(text: &str) -> Option<IpAddr> {
    let address = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn what_concerned_one_hop_does_not_go_on() {
        // edge behaviour R21
        let mut headers = map(&[
            ("connection", "keep-alive, X-Secret"),
            ("connection", "x-other"),
            ("x-secret", "1"),
            ("x-other", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "Basic x"),
            ("authorization", "Bearer y"),
        ]);
        assert!(strip_hop_by_hop(&mut headers));
        assert_eq!(headers.len(), 1);
        assert!(headers.contains_key(header::AUTHORIZATION));
        assert!(!strip_hop_by_hop(&mut map(&[("te", "gzip")])));
    }

    #[test]
    fn a_visitor_cannot_say_who_it_is_under_any_spelling() {
        // edge behaviour R22
        let mut headers = map(&[
            ("x-rstream-user-id", "admin"),
            ("x_rstream_user_id", "admin"),
            ("X-Rstream-Auth_Method", "mtls"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x_forwarded-for", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("x-rstreamer", "kept"),
            ("from", "kept@example.com"),
            ("x-forwarded", "kept"),
        ]);
        strip_identity(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["from", "x-forwarded", "x-rstreamer"]);
    }

    #[test]
    fn the_edges_own_cookies_stay_at_the_edge() {
        for (sent, kept) in [
            (vec!["a=1; rstream_auth=x; b=2"], vec!["a=1; b=2"]),
            (vec!["rstream_auth=x"], vec![]),
            (vec!["rstream_challenge=x; a=1"], vec!["a=1"]),
            (vec!["__Host-rstream_browser=x; a=1"], vec!["a=1"]),
            (
                vec!["a=1;  b", "rstream_auth=1;c=\"2\""],
                vec!["a=1;  b", "c=\"2\""],
            ),
            (
                vec!["xrstream_auth=1; rstream_auths=2"],
                vec!["xrstream_auth=1; rstream_auths=2"],
            ),
        ] {
            let fields: Vec<(&str, &str)> = sent.iter().map(|value| ("cookie", *value)).collect();
            let mut headers = map(&fields);
            strip_own_cookies(&mut headers);
            let left: Vec<&HeaderValue> = headers.get_all("cookie").iter().collect();
            assert_eq!(left, kept, "{sent:?}");
        }
    }

    #[test]
    fn the_edge_says_where_a_request_came_from() {
        let mut headers = HeaderMap::new();
        set_forwarded(
            &mut headers,
            Origin {
                client: "2001:db8::1".parse().unwrap(),
                chain: None,
                authority: "x.t.edge.test:8443",
                port: 8443,
            },
        );
        assert_eq!(
            headers.get("forwarded").unwrap(),
            "for=\"[2001:db8::1]\";host=\"x.t.edge.test:8443\";proto=https"
        );
        assert_eq!(headers.get("x-forwarded-for").unwrap(), "2001:db8::1");
        assert_eq!(headers.get("x-forwarded-port").unwrap(), "8443");
    }

    #[test]
    fn the_client_behind_a_front_proxy_is_the_last_one_it_vouches_for() {
        let trusted = |address: IpAddr| address.to_string().starts_with("10.");
        let find = |list: &str| client_behind_front(&map(&[("x-forwarded-for", list)]), trusted);
        assert_eq!(
            find("1.1.1.1, 203.0.113.9, 10.0.0.2").unwrap().to_string(),
            "203.0.113.9"
        );
        assert_eq!(find("10.0.0.9, 10.0.0.2").unwrap().to_string(), "10.0.0.9");
        assert_eq!(
            find("::ffff:203.0.113.9").unwrap().to_string(),
            "203.0.113.9"
        );
        assert_eq!(find("unknown"), None);
        let last = find("203.0.113.9, bogus, 10.0.0.2").unwrap();
        assert_eq!(last.to_string(), "10.0.0.2");
        let mut headers = HeaderMap::new();
        let forged = http::HeaderValue::from_bytes(b"\xff, 203.0.113.9").unwrap();
        headers.append("x-forwarded-for", forged);
        let found = client_behind_front(&headers, trusted).unwrap();
        assert_eq!(found.to_string(), "203.0.113.9");
    }
}
