//! A request as the log keeps it: copied within limits when it arrives, shown without secrets when it is written.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderMap, HeaderName, Method, header, request};

use crate::redact;

/// Longest path and longest query kept, in bytes each: what waits for its writer has to stay small.
pub const LOGGED_TARGET_BYTES_MAX: usize = 2048;

/// Longest value of a header field kept, in bytes.
pub const LOGGED_FIELD_BYTES_MAX: usize = 512;

/// Most values kept of the fields of one head.
pub const LOGGED_FIELDS_MAX: usize = 32;

/// What a request asked for.
#[derive(Clone, Eq, PartialEq)]
pub struct RequestLine {
    method: Method,
    host: Noted,
    path: Noted,
    query: Option<Noted>,
    user_agent: Option<Noted>,
    fields: Fields,
}

impl RequestLine {
    /// Copies what is logged of a head, and of its fields those called for by `names`.
    #[must_use]
    pub fn of(head: &request::Parts, names: &[HeaderName]) -> Self {
        let authority = head
            .uri
            .authority()
            .map_or("", |authority| authority.as_str());
        let target = |text: &str| Noted::new(text.as_bytes(), LOGGED_TARGET_BYTES_MAX);
        Self {
            method: head.method.clone(),
            host: target(authority),
            path: target(head.uri.path()),
            query: head.uri.query().map(target),
            user_agent: head
                .headers
                .get(header::USER_AGENT)
                .map(|value| Noted::new(value.as_bytes(), LOGGED_FIELD_BYTES_MAX)),
            fields: Fields::of(&head.headers, names),
        }
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The host the visitor asked for, with the port if it named one.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host.0
    }

    /// The path as it was received, without tokens.
    #[must_use]
    pub fn path(&self) -> Cow<'_, str> {
        redact::text(&self.path.0)
    }

    /// The path as it came, to be held against conditions and never shown.
    pub(crate) fn raw_path(&self) -> &str {
        &self.path.0
    }

    /// The query without secrets.
    #[must_use]
    pub fn query(&self) -> Option<String> {
        self.query.as_ref().map(|query| redact::query(&query.0))
    }

    /// The visitor's `User-Agent`.
    #[must_use]
    pub fn user_agent(&self) -> Option<Cow<'_, str>> {
        self.user_agent.as_ref().map(|agent| redact::text(&agent.0))
    }

    /// The fields that filters of the log asked for.
    #[must_use]
    pub fn fields(&self) -> &Fields {
        &self.fields
    }
}

impl fmt::Debug for RequestLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestLine")
            .field("method", &self.method)
            .field("host", &self.host())
            .field("path", &self.path())
            .field("query", &self.query())
            .field("user_agent", &self.user_agent())
            .field("fields", &self.fields)
            .finish()
    }
}

/// Fields of a head that filters of the log asked for, in the order asked.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Fields(Vec<(HeaderName, Noted)>);

impl Fields {
    /// Copies every value of these names.
    #[must_use]
    pub fn of(headers: &HeaderMap, names: &[HeaderName]) -> Self {
        let mut fields = Vec::new();
        for name in names {
            for value in headers.get_all(name) {
                if fields.len() < LOGGED_FIELDS_MAX {
                    let value = Noted::new(value.as_bytes(), LOGGED_FIELD_BYTES_MAX);
                    fields.push((name.clone(), value));
                }
            }
        }
        Self(fields)
    }

    /// Every field, its value without secrets; one that came several times is there several times.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, Cow<'_, str>)> {
        self.0
            .iter()
            .map(|(name, value)| (name, redact::field(&value.0)))
    }

    /// The only value of a field; none where there are several.
    #[must_use]
    pub fn only(&self, name: &HeaderName) -> Option<Cow<'_, str>> {
        let mut values = self.iter().filter(|(other, _)| *other == name);
        match (values.next(), values.next()) {
            (Some((_, value)), None) => Some(value),
            _ => None,
        }
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Words of a visitor's as they came, but for their length.
#[derive(Clone, Eq, PartialEq)]
struct Noted(Box<str>);

impl Noted {
    fn new(words: &[u8], max: usize) -> Self {
        let kept = words.get(..max).unwrap_or(words);
        Self(String::from_utf8_lossy(kept).into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn head(uri: &str, fields: &[(&str, &str)]) -> request::Parts {
        let mut request = http::Request::get(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_line_keeps_what_is_asked_for_and_shows_no_secret() {
        let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1LTkifQ.c2lnbmF0dXJl";
        let head = head(
            &format!("https://a.example:8443/x/{token}?q={token}&rstream.token=s3cret&a=1"),
            &[
                ("user-agent", &format!("curl {token}")),
                ("accept", "text/html"),
                ("accept", token),
                ("authorization", "Bearer s3cret"),
            ],
        );
        let line = RequestLine::of(&head, &[header::ACCEPT]);
        assert_eq!(line.host(), "a.example:8443");
        assert_eq!(line.path(), "/x/REDACTED");
        assert_eq!(
            line.query().as_deref(),
            Some("q=REDACTED&rstream.token=REDACTED&a=1")
        );
        assert_eq!(line.user_agent().as_deref(), Some("curl REDACTED"));
        let fields: Vec<_> = line.fields().iter().map(|(_, value)| value).collect();
        assert_eq!(fields, ["text/html", "REDACTED"]);
        assert_eq!(line.fields().only(&header::ACCEPT), None);
        let debug = format!("{line:?}");
        assert!(
            !debug.contains("s3cret") && !debug.contains("hbGciOi"),
            "{debug}"
        );
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let long = "x".repeat(LOGGED_TARGET_BYTES_MAX * 2);
        let mut fields = vec![("user-agent", long.as_str())];
        fields.extend(std::iter::repeat_n(
            ("accept", long.as_str()),
            LOGGED_FIELDS_MAX + 1,
        ));
        let line = RequestLine::of(
            &head(&format!("https://a.example/{long}?{long}"), &fields),
            &[header::ACCEPT],
        );
        assert_eq!(line.path().len(), LOGGED_TARGET_BYTES_MAX);
        assert_eq!(line.query().unwrap().len(), LOGGED_TARGET_BYTES_MAX);
        assert_eq!(line.user_agent().unwrap().len(), LOGGED_FIELD_BYTES_MAX);
        assert_eq!(line.fields().iter().count(), LOGGED_FIELDS_MAX);
        assert!(
            line.fields()
                .iter()
                .all(|(_, value)| value.len() == LOGGED_FIELD_BYTES_MAX)
        );
    }
}
