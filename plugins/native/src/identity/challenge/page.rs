//! The page on which a browser works. It loads nothing, and its one script and style are known by their hashes.

use std::sync::LazyLock;

use adit_filters::Reply;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};

/// How the page looks.
const STYLE: &str = include_str!("page.css");

/// What works.
const SCRIPT: &str = include_str!("page.js");

/// Nothing but that style and script, in no frame.
static SECURITY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| STANDARD.encode(digest(&SHA256, text.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'",
        hash(STYLE),
        hash(SCRIPT)
    )
});

/// What a browser is to do.
pub(super) struct Work<'a> {
    /// What the work is done for.
    pub(super) id: &'a str,
    /// Zero bits of each piece.
    pub(super) bits: u8,
    /// The host the visitor wants to get to.
    pub(super) host: &'a str,
    /// Where it goes with its proof.
    pub(super) back: &'a str,
    /// What it wanted, sealed.
    pub(super) request: &'a str,
}

/// The page to work on.
pub(super) fn work(work: Work<'_>) -> Reply {
    // Texts of base64, host names and addresses made of them need no escaping; it is done all the same.
    let Work {
        id,
        bits,
        host,
        back,
        request,
    } = work;
    let [id, host, back, request] = [id, host, back, request].map(escaped);
    let pieces = super::work::PIECES;
    let body = format!(
        "<h1>Checking your browser</h1>\
         <p class=\"where\">before you continue to <strong>{host}</strong></p>\
         <progress id=\"progress\" max=\"{pieces}\" value=\"0\" aria-labelledby=\"status\"></progress>\
         <p id=\"status\" role=\"status\" aria-live=\"polite\">This takes a moment and goes on by itself. \
         There is nothing for you to do.</p>\
         <p id=\"again\" hidden><a class=\"button\" id=\"retry\" href=\"\">Try again</a></p>\
         <noscript><p class=\"error\" role=\"alert\">This check needs JavaScript, and your browser has it turned off. \
         Turn it on for this page and load it again.</p></noscript>\
         <script id=\"work\" data-id=\"{id}\" data-bits=\"{bits}\" data-pieces=\"{pieces}\" data-back=\"{back}\" \
         data-request=\"{request}\" data-host=\"{host}\">{SCRIPT}</script>"
    );
    html(StatusCode::OK, "Checking your browser", &body)
}

/// What the visitor wanted cannot be read, is somebody else's, or is too old.
pub(super) fn over() -> Reply {
    let body = "<h1>This check is over</h1>\
                <p class=\"error\" role=\"alert\">The link is too old, was made for another network, or is damaged. \
                Go back and open the page you wanted again.</p>";
    html(StatusCode::BAD_REQUEST, "This check is over", body)
}

/// A proof that is none.
pub(super) fn not_passed(origin: &str) -> Reply {
    let origin = escaped(origin);
    let body = format!(
        "<h1>The check did not succeed</h1>\
         <p class=\"error\" role=\"alert\">It was used before, took too long, or your network changed on the way.</p>\
         <p><a class=\"button\" href=\"{origin}/\">Try again</a></p>"
    );
    html(StatusCode::FORBIDDEN, "The check did not succeed", &body)
}

/// Anything but reading the page.
pub(super) fn wrong_method() -> Reply {
    let mut reply = html(
        StatusCode::METHOD_NOT_ALLOWED,
        "Method not allowed",
        "<h1>Method not allowed</h1>",
    );
    reply
        .headers
        .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    reply
}

fn html(status: StatusCode, title: &str, body: &str) -> Reply {
    let page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head>\
         <body><main>{body}</main></body></html>\n"
    );
    let mut headers = HeaderMap::new();
    let mut put = |name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    put(CONTENT_TYPE, "text/html; charset=utf-8");
    put(CACHE_CONTROL, "no-store");
    put(CONTENT_SECURITY_POLICY, &SECURITY);
    put(REFERRER_POLICY, "no-referrer");
    put(X_CONTENT_TYPE_OPTIONS, "nosniff");
    put(X_FRAME_OPTIONS, "DENY");
    Reply {
        status,
        headers,
        body: Bytes::from(page),
        because: None,
    }
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}
