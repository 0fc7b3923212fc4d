//! The `rstream.token` query parameter, which browsers use where they cannot set a header.

use std::borrow::Cow;

use http::Uri;
use http::uri::PathAndQuery;

/// The parameter's name.
pub const QUERY_TOKEN: &str = "rstream.token";

/// What a query says about a token.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum QueryToken<'a> {
    Absent,
    One(Cow<'a, str>),
    /// More than one, an empty one, or one that is not text: no proof at all.
    Unusable,
}

pub(super) fn find(query: Option<&str>) -> QueryToken<'_> {
    let mut found = pairs(query)
        .filter(|(name, _)| is_token(name))
        .map(|(_, value)| value);
    match (found.next(), found.next()) {
        (None, _) => QueryToken::Absent,
        (Some(value), None) if !value.is_empty() => {
            decode(value).map_or(QueryToken::Unusable, QueryToken::One)
        }
        _ => QueryToken::Unusable,
    }
}

/// The URI without any `rstream.token` parameter, everything else byte for byte; none if there is none.
#[must_use]
pub fn without_query_token(uri: &Uri) -> Option<Uri> {
    let query = uri.query()?;
    if !pairs(Some(query)).any(|(name, _)| is_token(name)) {
        return None;
    }
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| !is_token(pair.split_once('=').map_or(*pair, |(name, _)| name)))
        .collect();
    let path = uri.path();
    let text = if kept.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{}", kept.join("&"))
    };
    let mut parts = uri.clone().into_parts();
    // Removing whole parameters from a valid target leaves a valid one; should it not, nothing of it goes on.
    parts.path_and_query =
        Some(PathAndQuery::try_from(text).unwrap_or_else(|_| PathAndQuery::from_static("/")));
    Some(Uri::from_parts(parts).unwrap_or_default())
}

fn pairs(query: Option<&str>) -> impl Iterator<Item = (&str, &str)> {
    query
        .unwrap_or_default()
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// An escaped spelling of the name is the same name to whoever reads the log or the request.
fn is_token(name: &str) -> bool {
    name == QUERY_TOKEN
        || (name.contains('%') && decode(name).is_some_and(|name| name == QUERY_TOKEN))
}

/// Undoes percent-encoding; none if what comes of it is not text.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    percent_encoding::percent_decode_str(text)
        .decode_utf8()
        .ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn one_token_is_found_and_others_are_unusable() {
        let one = |text| QueryToken::One(Cow::Borrowed(text));
        let cases = [
            (None, QueryToken::Absent),
            (Some(""), QueryToken::Absent),
            (
                Some("a=1&rstream.tokens=x&xrstream.token=y"),
                QueryToken::Absent,
            ),
            (Some("rstream.token=t"), one("t")),
            (Some("a=1&rstream.token=t&b=2"), one("t")),
            (Some("rstream%2Etoken=t%2Et"), one("t.t")),
            (Some("rstream%2etoken=t=u"), one("t=u")),
            // edge-behaviour §14.2 T8
            (
                Some("rstream.token=t&rstream.token=u"),
                QueryToken::Unusable,
            ),
            (
                Some("rstream.token=t&rstream%2etoken=u"),
                QueryToken::Unusable,
            ),
            (Some("rstream.token="), QueryToken::Unusable),
            (Some("rstream.token"), QueryToken::Unusable),
            (Some("rstream.token=%ff"), QueryToken::Unusable),
        ];
        for (query, expected) in cases {
            assert_eq!(find(query), expected, "{query:?}");
        }
    }

    #[test]
    fn the_parameter_is_removed_and_the_rest_is_left_alone() {
        let cases = [
            (
                "https://a.example/x?rstream.token=t",
                Some("https://a.example/x"),
            ),
            (
                "https://a.example/x?a=1&rstream.token=t&b=%20+2&&c",
                Some("https://a.example/x?a=1&b=%20+2&&c"),
            ),
            (
                "https://a.example/x?rstream%2Etoken=t&rstream.token&a",
                Some("https://a.example/x?a"),
            ),
            ("https://a.example/x?a=rstream.token", None),
            ("https://a.example/x", None),
        ];
        for (uri, expected) in cases {
            let without = without_query_token(&uri.parse().unwrap()).map(|uri| uri.to_string());
            assert_eq!(without.as_deref(), expected, "{uri}");
        }
    }
}
