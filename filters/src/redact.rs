//! What of a visitor's words may be written down.
//!
//! A secret is known by the name it goes under in a query, or by its own look: every token of this engine, and most of
//! others, is a JSON Web Token. Too much is left out rather than too little.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// What stands in a secret's place.
pub const REDACTED: &str = "REDACTED";

/// How a JSON Web Token begins: `{"` in base64url (RFC 7515 §3.1).
const TOKEN_START: &str = "eyJ";

/// What begins like a token and is shorter than this, in bytes, is none: not even a header fits.
const TOKEN_BYTES_MIN: usize = 20;

/// A name with one of these anywhere in it names a secret.
const SECRET_PARTS: [&str; 15] = [
    "accesskey",
    "apikey",
    "assertion",
    "authkey",
    "bearer",
    "credential",
    "jwt",
    "nonce",
    "passw",
    "privatekey",
    "secret",
    "session",
    "signature",
    "ticket",
    "token",
];

/// A name with one of these as a word names a secret.
const SECRET_WORDS: [&str; 12] = [
    "auth",
    "authorization",
    "code",
    "cookie",
    "csrf",
    "key",
    "otp",
    "pass",
    "pin",
    "pwd",
    "sid",
    "sig",
];

/// Whether something of that name, a parameter or a header field, is not for the log.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_PARTS.iter().any(|part| name.contains(part))
        || name
            .split(|letter: char| !letter.is_ascii_alphanumeric())
            .any(|word| SECRET_WORDS.contains(&word))
}

/// A text without what looks like a token.
#[must_use]
pub fn text(text: &str) -> Cow<'_, str> {
    if !text.contains(TOKEN_START) && !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for piece in text.split_inclusive(|letter: char| !is_token_letter(letter) && letter != '%') {
        let end = piece.trim_end_matches(|letter: char| !is_token_letter(letter) && letter != '%');
        if holds_token(end) {
            shown.push_str(REDACTED);
            shown.push_str(piece.get(end.len()..).unwrap_or_default());
        } else {
            shown.push_str(piece);
        }
    }
    Cow::Owned(shown)
}

/// A query without the values of secrets.
#[must_use]
pub fn query(query: &str) -> String {
    let pairs = query.split('&').map(|pair| {
        let Some((name, value)) = pair.split_once('=') else {
            return text(pair);
        };
        let decoded = percent_decode_str(name).decode_utf8_lossy();
        match is_secret_name(&decoded) && !value.is_empty() {
            true => Cow::Owned(format!("{}={REDACTED}", text(name))),
            false => text(pair),
        }
    });
    pairs.collect::<Vec<_>>().join("&")
}

/// The value of a header field, which may be an address with a query of its own.
#[must_use]
pub fn field(value: &str) -> Cow<'_, str> {
    match value.split_once('?') {
        None => text(value),
        Some((before, rest)) => Cow::Owned(format!("{}?{}", text(before), query(rest))),
    }
}

fn is_token_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.')
}

/// Whether a token is in `piece`, in whatever spelling.
fn holds_token(piece: &str) -> bool {
    let decoded = percent_decode_str(piece).decode_utf8_lossy();
    decoded.match_indices(TOKEN_START).any(|(at, _)| {
        let rest = decoded.get(at..).unwrap_or_default();
        rest.chars()
            .take_while(|letter| is_token_letter(*letter))
            .count()
            >= TOKEN_BYTES_MIN
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1LTkifQ.c2lnbmF0dXJl";

    #[test]
    fn a_secret_in_a_query_is_known_by_its_name_or_its_look() {
        let cases = [
            ("a=1&b", "a=1&b"),
            (
                "a=1&rstream.token=s3cret&b=2",
                "a=1&rstream.token=REDACTED&b=2",
            ),
            ("rstream%2Etoken=s", "rstream%2Etoken=REDACTED"),
            ("rstream.%74%6Fken=s", "rstream.%74%6Fken=REDACTED"),
            ("Access_Token=s", "Access_Token=REDACTED"),
            ("api-key=s&keyword=k", "api-key=REDACTED&keyword=k"),
            (
                "code=s&country_code=DE&encoded=1",
                "code=REDACTED&country_code=REDACTED&encoded=1",
            ),
            ("X-Amz-Signature=s", "X-Amz-Signature=REDACTED"),
            ("token=", "token="),
        ];
        for (query, expected) in cases {
            assert_eq!(super::query(query), expected);
        }
        for query in [
            format!("q={TOKEN}"),
            TOKEN.to_owned(),
            format!("{TOKEN}=1"),
            format!("a=x,{TOKEN}"),
            format!("a=%65yJ{}", TOKEN.get(3..).unwrap_or_default()),
            format!("a=x%2F{TOKEN}"),
        ] {
            let shown = super::query(&query);
            assert!(!shown.contains("hbGciOi"), "{query}: {shown}");
            assert!(shown.contains(REDACTED), "{query}: {shown}");
        }
    }

    #[test]
    fn a_token_in_a_path_leaves_the_rest_of_it() {
        assert_eq!(text(&format!("/reset/{TOKEN}/now")), "/reset/REDACTED/now");
        assert_eq!(text(&format!("curl/8 ({TOKEN})")), "curl/8 (REDACTED)");
        for harmless in ["/a/b.html", "/caf%C3%A9/%zz", "/eyJoe", "/", ""] {
            assert_eq!(text(harmless), harmless);
        }
    }

    #[test]
    fn a_fields_address_has_a_query_of_its_own() {
        assert_eq!(
            field("https://a.example/x?code=1&a=2"),
            "https://a.example/x?code=REDACTED&a=2"
        );
        assert_eq!(field("text/html"), "text/html");
    }

    #[test]
    fn fields_that_carry_credentials_are_known_by_their_names() {
        for name in [
            "Authorization",
            "Proxy-Authorization",
            "Cookie",
            "Set-Cookie",
            "X-Api-Key",
            "X-CSRF-Token",
            "Sec-WebSocket-Key",
            "X-Amz-Security-Token",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "Accept",
            "Content-Type",
            "X-Request-Id",
            "Origin",
            "Traceparent",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }
}
