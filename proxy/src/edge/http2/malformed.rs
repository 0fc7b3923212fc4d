//! Requests that HTTP/2 forbids and h2 lets through (RFC 9113 §8.2.1, §8.3.1, §8.5).

use http::{Method, header, request};

/// Whether a request is malformed, so that its stream ends with `PROTOCOL_ERROR`.
pub(super) fn is_malformed(head: &request::Parts) -> bool {
    let authority = head.uri.authority();
    if head.method == Method::CONNECT && authority.is_none() {
        return true;
    }
    if let (Some(authority), Some(host)) = (authority, head.headers.get(header::HOST))
        && !authority
            .as_str()
            .as_bytes()
            .eq_ignore_ascii_case(host.as_bytes())
    {
        return true;
    }
    head.headers.values().any(|value| {
        let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let bytes = value.as_bytes();
        bytes.first().is_some_and(is_blank) || bytes.last().is_some_and(is_blank)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use http::Request;

    use super::*;

    fn malformed(request: http::request::Builder) -> bool {
        is_malformed(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn what_http2_forbids_is_seen() {
        let get = || Request::get("https://a.test/");
        assert!(!malformed(get()));
        assert!(!malformed(get().header("host", "A.test")));
        assert!(malformed(get().header("host", "b.test")));
        assert!(!malformed(get().header("x", "a b").header("y", "")));
        assert!(malformed(get().header("x", " a")));
        assert!(malformed(get().header("x", "a\t")));
        assert!(malformed(Request::connect("/")));
        assert!(!malformed(Request::connect("a.test:443")));
    }
}
