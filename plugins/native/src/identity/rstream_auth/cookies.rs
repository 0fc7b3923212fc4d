//! Cookies, read and written ([RFC 6265](https://www.rfc-editor.org/rfc/rfc6265)).

use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

/// The session at a tunnel (edge-behaviour §7.6).
pub(crate) const SESSION: &str = "rstream_auth";

/// What tells one browser from another at a tunnel. No other host can set a cookie of this name
/// ([RFC 6265bis §4.1.3.2](https://datatracker.ietf.org/doc/html/draft-ietf-httpbis-rfc6265bis)).
pub(crate) const BROWSER: &str = "__Host-rstream_browser";

/// The login, on the engine's host.
pub(crate) const LOGIN: &str = "__Host-rstream_login";

/// What tells one browser from another on the engine's host.
pub(crate) const VISIT: &str = "__Host-rstream_visit";

/// How many cookies of one name are looked at.
const SAME_NAME_MAX: usize = 4;

/// The values of the cookies of this name, the first few.
pub(crate) fn all<'h>(headers: &'h HeaderMap, name: &'h str) -> impl Iterator<Item = &'h str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|field| field.to_str().ok())
        .flat_map(|field| field.split(';'))
        .filter_map(move |pair| {
            let (found, value) = pair.split_once('=')?;
            (found.trim() == name).then(|| value.trim())
        })
        .take(SAME_NAME_MAX)
}

/// The value of the only cookie of this name: of two, nobody can say which one counts.
pub(crate) fn one<'h>(headers: &'h HeaderMap, name: &'h str) -> Option<&'h str> {
    let mut all = all(headers, name);
    all.next().filter(|_| all.next().is_none())
}

/// A field that sets a cookie for the host alone.
pub(crate) fn set(name: &str, value: &str, life: Duration) -> HeaderValue {
    let text = format!(
        "{name}={value}; Max-Age={}; Path=/; Secure; HttpOnly; SameSite=Lax",
        life.as_secs()
    );
    // What is set is base64 throughout.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// A field that takes a cookie back.
pub(crate) fn clear(name: &str) -> HeaderValue {
    set(name, "", Duration::ZERO)
}

/// A field that takes a tunnel's session back.
pub(crate) fn clear_session() -> HeaderValue {
    clear(SESSION)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn cookies_are_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, "a=1; rstream_auth=x=y;b".parse().unwrap());
        headers.append(COOKIE, "rstream_auth=z; xrstream_auth=w".parse().unwrap());
        let found: Vec<&str> = all(&headers, SESSION).collect();
        assert_eq!(found, ["x=y", "z"]);
        assert_eq!(one(&headers, SESSION), None, "two of them");
        assert_eq!(one(&headers, "a"), Some("1"));
        assert_eq!(one(&headers, "c"), None);
        let many = ["rstream_auth=1"; 9].join("; ");
        headers.append(COOKIE, many.parse().unwrap());
        assert_eq!(all(&headers, SESSION).count(), SAME_NAME_MAX);
    }

    #[test]
    fn cookies_are_the_hosts_own_and_no_scripts() {
        assert_eq!(
            set(SESSION, "abc", Duration::from_secs(60)),
            "rstream_auth=abc; Max-Age=60; Path=/; Secure; HttpOnly; SameSite=Lax"
        );
        assert!(clear(SESSION).to_str().unwrap().contains("=; Max-Age=0;"));
    }
}
