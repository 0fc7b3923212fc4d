//! The plain HTTP port: sends everybody to HTTPS and never proxies.

use super::plain::{Answer, Request};

/// Answers a request with where it should have gone.
pub(crate) fn answer(request: &Request, https_port: u16) -> Answer {
    let (host, path) = match request.target.strip_prefix("http://") {
        // The absolute form names the host itself (RFC 9112 §3.2.2).
        Some(rest) => match rest.find(['/', '?']) {
            Some(end) => rest.split_at(end),
            None => (rest, "/"),
        },
        None => (
            request.host.as_deref().unwrap_or(""),
            request.target.as_str(),
        ),
    };
    let Some(host) = bare_host(host) else {
        return Answer::text("400 Bad Request", "the request names no host");
    };
    let path = match path.chars().next() {
        Some('/') => path.to_owned(),
        Some('?') => format!("/{path}"),
        _ => {
            let why = "this port only redirects to HTTPS";
            return Answer::text("400 Bad Request", why);
        }
    };
    let port = match https_port {
        443 => String::new(),
        port => format!(":{port}"),
    };
    // A client must repeat other methods as they are, body included (RFC 9110 §15.4.9).
    let status = match request.method.as_str() {
        "GET" | "HEAD" => "301 Moved Permanently",
        _ => "308 Permanent Redirect",
    };
    let location = format!("https://{host}{port}{path}");
    Answer::text(status, &location)
        .with("location", location)
        .with("cache-control", "no-store")
}

/// The host without its port, if it is one a URL can carry as it stands.
fn bare_host(authority: &str) -> Option<&str> {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    (bracketed || (!host.is_empty() && host.bytes().all(plain))).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, target: &str, host: Option<&str>, port: u16) -> String {
        let request = Request {
            method: method.to_owned(),
            target: target.to_owned(),
            host: host.map(str::to_owned),
            authorization: None,
        };
        let answer = answer(&request, port);
        let location = answer.fields.iter().find(|(name, _)| *name == "location");
        let code = answer.status.split(' ').next().unwrap_or_default();
        let location = location.map_or("", |(_, location)| location);
        format!("{code} {location}")
    }

    // edge-behaviour §14.7 X17
    #[test]
    fn every_request_is_sent_to_https() {
        let host = Some("app.t.example.com");
        for (method, target, host, port, expected) in [
            (
                "GET",
                "/a?b=c",
                host,
                443,
                "301 https://app.t.example.com/a?b=c",
            ),
            ("HEAD", "/", Some("x.y:8080"), 8443, "301 https://x.y:8443/"),
            ("POST", "/a", host, 443, "308 https://app.t.example.com/a"),
            (
                "GET",
                "http://x.y:80/a",
                Some("other"),
                443,
                "301 https://x.y/a",
            ),
            ("GET", "http://x.y?a", None, 443, "301 https://x.y/?a"),
            ("GET", "/", Some("[::1]:80"), 443, "301 https://[::1]/"),
        ] {
            assert_eq!(check(method, target, host, port), expected);
        }
    }

    #[test]
    fn what_cannot_be_sent_anywhere_is_refused() {
        for (method, target, host) in [
            ("GET", "/", None),
            ("GET", "/", Some("")),
            ("GET", "/", Some("a b")),
            ("GET", "/", Some("a@b")),
            ("GET", "/", Some("[::1")),
            ("OPTIONS", "*", Some("x.y")),
            ("CONNECT", "x.y:443", Some("x.y")),
        ] {
            assert_eq!(
                check(method, target, host, 443),
                "400 ",
                "{method} {target} {host:?}"
            );
        }
    }
}
