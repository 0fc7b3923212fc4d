//! What a request asks for: its authority and path, refused where they could be read in two ways.

use http::{HeaderMap, Uri, header, uri::Authority};

use crate::render::Failure;

/// Longest host name in the DNS (RFC 1035 §3.1), in bytes.
const HOST_BYTES_MAX: usize = 253;

/// Finds the one authority of a request, `host[:port]`, as the visitor wrote it.
///
/// `default` stands in for an HTTP/1.0 request without any.
///
/// # Errors
/// `BadRequest` where there is none, more than one, one that does not parse, or two that differ.
pub(crate) fn authority(
    uri: &Uri,
    headers: &HeaderMap,
    default: Option<&str>,
) -> Result<Authority, Failure> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(value), None) => {
            Some(Authority::try_from(value.as_bytes()).map_err(|_| Failure::BadRequest)?)
        }
        (Some(_), Some(_)) => return Err(Failure::BadRequest),
        (None, _) => None,
    };
    let found = match (uri.authority(), host) {
        (Some(of_uri), Some(of_header)) => {
            if !of_uri.as_str().eq_ignore_ascii_case(of_header.as_str()) {
                return Err(Failure::BadRequest);
            }
            of_uri.clone()
        }
        (Some(of_uri), None) => of_uri.clone(),
        (None, Some(of_header)) => of_header,
        (None, None) => default
            .and_then(|name| Authority::try_from(name).ok())
            .ok_or(Failure::BadRequest)?,
    };
    // User information in an authority names another host to some readers (RFC 9110 §4.2.4).
    if found.as_str().contains('@') || found.host().is_empty() {
        return Err(Failure::BadRequest);
    }
    Ok(found)
}

/// The host of an authority as tunnels are looked up: lower case, without port or trailing dot.
pub(crate) fn host(authority: &Authority) -> String {
    let mut host = authority.host().to_ascii_lowercase();
    if host.ends_with('.') {
        host.pop();
    }
    host.truncate(HOST_BYTES_MAX);
    host
}

/// Refuses a path that two readers could take for different ones: dot segments, encoded slashes
/// and NUL, backslashes (the path itself goes on byte for byte).
///
/// # Errors
/// `BadRequest`.
pub(crate) fn unambiguous(path: &str) -> Result<(), Failure> {
    if path != "*" && !path.starts_with('/') {
        return Err(Failure::BadRequest);
    }
    if adit_filters::is_ambiguous_path(path) {
        return Err(Failure::BadRequest);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn paths_two_readers_could_read_differently_are_refused() {
        // edge behaviour T20
        for bad in [
            "/a/../b",
            "/a/./b",
            "/..",
            "/.",
            "/a/%2e%2e/b",
            "/a/.%2E/b",
            "/%2e",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a\\b",
            "/a%00",
            "/a/..;x/b",
            "/a/%2e%2e;x=1",
            "/a;%2fb",
            "a/b",
            "/100%",
            "/%zz",
            "",
        ] {
            assert_eq!(unambiguous(bad), Err(Failure::BadRequest), "{bad}");
        }
        for good in [
            "/",
            "*",
            "/a/b/",
            "/a..b",
            "/...",
            "/.well-known/x",
            "/a%20b",
            "/a//b",
            "/x;v=1",
            "/a/b..;x",
        ] {
            assert_eq!(unambiguous(good), Ok(()), "{good}");
        }
    }

    fn read(uri: &str, hosts: &[&str], default: Option<&str>) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in hosts {
            headers.append(header::HOST, value.parse().unwrap());
        }
        let uri: Uri = uri.parse().unwrap();
        authority(&uri, &headers, default)
            .ok()
            .map(|found| host(&found))
    }

    #[test]
    fn a_request_has_exactly_one_authority() {
        let edge = Some("edge.test".to_owned());
        assert_eq!(read("/", &["Edge.Test:8443"], None), edge);
        assert_eq!(read("/", &["edge.test."], None), edge);
        assert_eq!(read("https://edge.test/", &["edge.test"], None), edge);
        assert_eq!(read("/", &[], Some("edge.test")), edge);
        assert_eq!(read("/", &[], None), None);
        assert_eq!(read("/", &["a.test", "a.test"], None), None);
        assert_eq!(read("https://a.test/", &["b.test"], None), None);
        assert_eq!(read("/", &["user@edge.test"], None), None);
        assert_eq!(read("/", &["a b"], None), None);
        assert_eq!(read("/", &[""], Some("edge.test")), None);
    }
}
