//! The pages people see when they sign in. They need no script, load nothing, and every text of somebody else's in them
//! is escaped.

use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::Duration;

use adit_filters::Reply;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::user::User;

/// How the pages look.
const STYLE: &str = include_str!("pages.css");

/// Nothing but that style and forms to this very host, in no frame.
static SECURITY: LazyLock<String> = LazyLock::new(|| {
    let style = STANDARD.encode(digest::digest(&digest::SHA256, STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
});

/// What a form of ours carries beside what people type.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hidden<'a> {
    /// What the visitor wanted, sealed; empty if nothing.
    pub(super) request: &'a str,
    /// What shows that the form came from here.
    pub(super) csrf: &'a str,
}

/// The page to sign in.
#[derive(Clone, Copy, Debug)]
pub(super) struct SignIn<'a> {
    pub(super) hidden: Hidden<'a>,
    /// The host the visitor wants to get to.
    pub(super) host: Option<&'a str>,
    /// Whether there are local accounts.
    pub(super) accounts: bool,
    /// Where the provider is asked, and what it is called.
    pub(super) provider: Option<(&'a str, &'a str)>,
    /// What went wrong before.
    pub(super) error: Option<&'a str>,
    /// What was typed as a name before.
    pub(super) name: &'a str,
}

/// The page to sign in. Its status is 200, or 401 after a failure.
pub(super) fn sign_in(page: SignIn<'_>) -> Reply {
    let mut body = String::from("<h1>Sign in</h1>");
    if let Some(host) = page.host {
        let host = escaped(host);
        let _ = write!(
            body,
            "<p class=\"where\">to continue to <strong>{host}</strong></p>"
        );
    }
    if let Some(error) = page.error {
        let _ = write!(
            body,
            "<p class=\"error\" id=\"error\" role=\"alert\">{}</p>",
            escaped(error)
        );
    }
    if page.accounts {
        let described = match page.error {
            Some(_) => " aria-invalid=\"true\" aria-describedby=\"error\"",
            None => "",
        };
        // After a failure the name is there already.
        let (name_focus, password_focus) = match page.name {
            "" => (" autofocus", ""),
            _ => ("", " autofocus"),
        };
        let _ = write!(
            body,
            "<form method=\"post\" action=\"/rstream/auth/password\">{hidden}\
             <label for=\"name\">Name</label>\
             <input id=\"name\" name=\"name\" autocomplete=\"username\" autocapitalize=\"none\" \
             spellcheck=\"false\" required value=\"{name}\"{described}{name_focus}>\
             <label for=\"password\">Password</label>\
             <input id=\"password\" name=\"password\" type=\"password\" \
             autocomplete=\"current-password\" required{described}{password_focus}>\
             <button>Sign in</button></form>",
            hidden = hidden(page.hidden),
            name = escaped(page.name),
        );
    }
    if let Some((href, name)) = page.provider {
        let (href, name) = (escaped(href), escaped(name));
        // One button of a page is the first choice.
        let class = if page.accounts {
            "button other"
        } else {
            "button"
        };
        let _ = write!(
            body,
            "<p><a class=\"{class}\" href=\"{href}\">Sign in with {name}</a></p>"
        );
    }
    let status = match page.error {
        Some(_) => StatusCode::UNAUTHORIZED,
        None => StatusCode::OK,
    };
    let mut reply = reply(status, "Sign in", "", &body);
    if status == StatusCode::UNAUTHORIZED {
        // No browser knows the scheme, so none asks on its own (RFC 9110 §15.5.2).
        let scheme = HeaderValue::from_static("Form realm=\"rstream\"");
        reply.headers.insert(WWW_AUTHENTICATE, scheme);
    }
    reply
}

/// The visitor signed in and goes on to its tunnel. That is a page and not a redirection: browsers that send a form
/// hold every later redirection to the form's own policy, and where the tunnel sends them is the tunnel's affair.
pub(super) fn onwards(to: &str) -> Reply {
    let to = escaped(to);
    let body = format!(
        "<h1>You are signed in</h1><p><a href=\"{to}\">Continue</a> if nothing happens.</p>"
    );
    let refresh = format!("<meta http-equiv=\"refresh\" content=\"0;url={to}\">");
    reply(StatusCode::OK, "Signed in", &refresh, &body)
}

/// The visitor signed out of this tunnel before: it has to say that it wants back in.
pub(super) fn back_in(user: &User, host: &str, hidden_fields: Hidden<'_>, other: &str) -> Reply {
    let body = format!(
        "<h1>Continue as {who}?</h1>\
         <p class=\"where\">You signed out of <strong>{host}</strong> before.</p>\
         <form method=\"post\" action=\"/rstream/auth/continue\">{hidden}\
         <button autofocus>Continue</button></form>\
         <p class=\"more\"><a href=\"{other}\">Sign in as somebody else</a></p>",
        who = escaped(called(user)),
        host = escaped(host),
        hidden = hidden(hidden_fields),
        other = escaped(other),
    );
    reply(StatusCode::OK, "Continue", "", &body)
}

/// Who is signed in, without any tunnel to go to.
pub(super) fn signed_in(user: &User) -> Reply {
    let body = format!(
        "<h1>You are signed in</h1><p>as <strong>{}</strong>. Open the address of a tunnel to go on.</p>\
         <p class=\"more\"><a href=\"/rstream/logout\">Sign out</a></p>",
        escaped(called(user))
    );
    reply(StatusCode::OK, "Signed in", "", &body)
}

/// The page to sign out everywhere.
pub(super) fn sign_out(user: Option<&User>, csrf: &str) -> Reply {
    let Some(user) = user else {
        return signed_out();
    };
    let fields = Hidden { request: "", csrf };
    let body = format!(
        "<h1>Sign out?</h1>\
         <p>You are signed in as <strong>{}</strong>. This signs you out of every tunnel.</p>\
         <form method=\"post\" action=\"/rstream/logout\">{}<button autofocus>Sign out</button></form>",
        escaped(called(user)),
        hidden(fields)
    );
    reply(StatusCode::OK, "Sign out", "", &body)
}

/// Nobody is signed in any more.
pub(super) fn signed_out() -> Reply {
    let body = "<h1>You are signed out</h1><p><a href=\"/rstream/auth\">Sign in again</a></p>";
    reply(StatusCode::OK, "Signed out", "", body)
}

/// The user may not enter.
pub(super) fn not_allowed(user: &User, host: &str, other: &str) -> Reply {
    let body = format!(
        "<h1>You may not enter</h1>\
         <p>You are signed in as <strong>{}</strong>, who is not among the users of <strong>{}</strong>. \
         Ask whoever runs it to let you in, or sign in as somebody else.</p>\
         <p><a class=\"button\" href=\"{}\">Sign in as somebody else</a></p>",
        escaped(called(user)),
        escaped(host),
        escaped(other),
    );
    reply(StatusCode::FORBIDDEN, "Not allowed", "", &body)
}

/// The user has no business here at all.
pub(super) fn not_accepted(user: &User, again: &str) -> Reply {
    let body = format!(
        "<h1>You may not sign in</h1>\
         <p><strong>{}</strong> is not among the users of this engine. Ask whoever runs it, or sign in as somebody else.</p>\
         <p><a class=\"button\" href=\"{}\">Sign in as somebody else</a></p>",
        escaped(called(user)),
        escaped(again),
    );
    reply(StatusCode::FORBIDDEN, "Not allowed", "", &body)
}

/// A way back that leads nowhere: its code is old, used, or another browser's.
pub(super) fn not_signed_in(origin: &str) -> Reply {
    let body = format!(
        "<h1>You are not signed in yet</h1>\
         <p>This link counts once, for a minute, in the browser that asked for it, and needs cookies.</p>\
         <p><a class=\"button\" href=\"{}/\">Try again</a></p>",
        escaped(origin)
    );
    reply(StatusCode::BAD_REQUEST, "Not signed in", "", &body)
}

/// Anything else that went wrong: what, and what to do.
pub(super) fn problem(status: StatusCode, title: &str, text: &str) -> Reply {
    let body = format!("<h1>{}</h1><p>{}</p>", escaped(title), escaped(text));
    reply(status, title, "", &body)
}

/// The same with a way to begin again.
pub(super) fn again(status: StatusCode, title: &str, text: &str, again: &str) -> Reply {
    let body = format!(
        "<h1>{}</h1><p>{}</p><p><a class=\"button\" href=\"{}\">Try again</a></p>",
        escaped(title),
        escaped(text),
        escaped(again)
    );
    reply(status, title, "", &body)
}

/// The same for what will pass: the visitor is told when to come back.
pub(super) fn later(
    status: StatusCode,
    title: &str,
    text: &str,
    wait: Duration,
    again: Option<&str>,
) -> Reply {
    let mut body = format!("<h1>{}</h1><p>{}</p>", escaped(title), escaped(text));
    if let Some(again) = again {
        let again = escaped(again);
        let _ = write!(
            body,
            "<p><a class=\"button\" href=\"{again}\">Try again</a></p>"
        );
    }
    let mut reply = reply(status, title, "", &body);
    let seconds = HeaderValue::from(wait.as_secs().max(1));
    reply.headers.insert(RETRY_AFTER, seconds);
    reply
}

/// What to call a user.
fn called(user: &User) -> &str {
    let id = user.id.split_once(':').map_or(&*user.id, |(_, id)| id);
    user.email.as_deref().or(user.name.as_deref()).unwrap_or(id)
}

fn hidden(fields: Hidden<'_>) -> String {
    format!(
        "<input type=\"hidden\" name=\"request\" value=\"{}\"><input type=\"hidden\" name=\"csrf\" value=\"{}\">",
        escaped(fields.request),
        escaped(fields.csrf)
    )
}

/// A text as it stands in HTML, within quotes or without.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn reply(status: StatusCode, title: &str, head: &str, body: &str) -> Reply {
    let page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{title}</title>{head}<style>{STYLE}</style></head>\
         <body><main>{body}</main></body></html>\n",
        title = escaped(title)
    );
    let mut headers = HeaderMap::new();
    let fields: [(HeaderName, &'static str); 7] = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, &SECURITY),
        (X_FRAME_OPTIONS, "DENY"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        // Forms must say which origin they come from, which they do not under `no-referrer`.
        (REFERRER_POLICY, "same-origin"),
        (CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in fields {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Reply {
        status,
        headers,
        body: Bytes::from(page),
        because: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const HOSTILE: &str = "\"><script>alert('x')</script>&";

    #[test]
    fn texts_of_others_are_escaped_on_every_page() {
        let user = User {
            id: format!("oidc:{HOSTILE}"),
            ..User::default()
        };
        let fields = Hidden {
            request: HOSTILE,
            csrf: HOSTILE,
        };
        let pages = [
            sign_in(SignIn {
                hidden: fields,
                host: Some(HOSTILE),
                accounts: true,
                provider: Some((HOSTILE, HOSTILE)),
                error: Some(HOSTILE),
                name: HOSTILE,
            }),
            onwards(HOSTILE),
            back_in(&user, HOSTILE, fields, HOSTILE),
            signed_in(&user),
            sign_out(Some(&user), HOSTILE),
            not_allowed(&user, HOSTILE, HOSTILE),
            not_accepted(&user, HOSTILE),
            not_signed_in(HOSTILE),
            problem(StatusCode::BAD_REQUEST, HOSTILE, HOSTILE),
            again(StatusCode::BAD_REQUEST, HOSTILE, HOSTILE, HOSTILE),
            later(
                StatusCode::SERVICE_UNAVAILABLE,
                HOSTILE,
                HOSTILE,
                Duration::ZERO,
                Some(HOSTILE),
            ),
        ];
        for page in pages {
            let text = String::from_utf8(page.body.to_vec()).unwrap();
            assert!(text.contains("&lt;script&gt;alert(&#39;x&#39;)"), "{text}");
            assert!(!text.contains("<script"), "{text}");
        }
    }

    #[test]
    fn pages_load_nothing_and_stand_in_no_frame() {
        let page = signed_out();
        let policy = page.headers.get(CONTENT_SECURITY_POLICY).unwrap();
        let policy = policy.to_str().unwrap();
        for part in [
            "default-src 'none'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
            "style-src 'sha256-",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(page.headers.get(X_FRAME_OPTIONS).unwrap(), "DENY");
        assert_eq!(page.headers.get(CACHE_CONTROL).unwrap(), "no-store");
    }
}
