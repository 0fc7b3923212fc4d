//! `websocket`: grants the WebSocket upgrade when a request asks for it, on every HTTP version.
//!
//! A browser lets any page open a WebSocket anywhere and sends the visitor's cookies along; the `Origin` field is the
//! service's only defence ([RFC 6455 §10.2](https://www.rfc-editor.org/rfc/rfc6455#section-10.2)).

use std::sync::Arc;

use adit_filters::{
    ConfigError, Env, Fact, Filter, FilterError, Hooks, OnRejudge, OnRequest, Reason, RejudgeCx,
    RequestCx, Stage, Stay, Upgrade, Verdict,
};
use http::header::ORIGIN;
use http::uri::{Authority, Scheme};
use http::{Uri, request};
use serde::Deserialize;

/// The fact's name.
const OPENER: &str = "websocket-opener";

/// How many origins the list may name.
pub const ORIGINS_MAX: usize = 256;

/// Which pages may open a WebSocket.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Only pages of these origins; without it, any page and any program.
    pub origins: Option<Vec<OriginPattern>>,
}

/// `https://app.example.com`, `https://*.example.com` (its subdomains), or `self` (the tunnel's own pages).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub enum OriginPattern {
    /// This origin.
    Exact(Origin),
    /// Every subdomain, by the suffix with its leading dot.
    Subdomains(Origin),
    /// The origin of the request itself.
    Own,
}

/// Scheme, host and port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Origin {
    https: bool,
    host: String,
    port: u16,
}

/// What is not an origin.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "`{0}` is not an origin, write `https://app.example.com`, `https://*.example.com` or `self`"
)]
pub struct NotAnOrigin(String);

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let https = match scheme {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        // An origin ends with its port: no path, no user.
        if rest.contains(['/', '?', '#', '@', '\\']) {
            return None;
        }
        Self::of(https, &rest.parse().ok()?)
    }

    fn of(https: bool, authority: &Authority) -> Option<Self> {
        let after_host = authority.as_str().strip_prefix(authority.host())?;
        let port = match after_host.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None if after_host.is_empty() => {
                if https {
                    443
                } else {
                    80
                }
            }
            None => return None,
        };
        let host = authority.host().to_ascii_lowercase();
        (!host.is_empty()).then_some(Self { https, host, port })
    }

    fn of_request(uri: &Uri) -> Option<Self> {
        Self::of(uri.scheme() == Some(&Scheme::HTTPS), uri.authority()?)
    }
}

impl TryFrom<String> for OriginPattern {
    type Error = NotAnOrigin;

    fn try_from(text: String) -> Result<Self, NotAnOrigin> {
        if text == "self" {
            return Ok(Self::Own);
        }
        let pattern = match text.split_once("://*.") {
            Some((scheme, rest)) => Origin::parse(&format!("{scheme}://{rest}")).map(|base| {
                Self::Subdomains(Origin {
                    host: format!(".{}", base.host),
                    ..base
                })
            }),
            None => Origin::parse(&text).map(Self::Exact),
        };
        pattern
            .filter(|pattern| !pattern.host().contains('*'))
            .ok_or(NotAnOrigin(text))
    }
}

impl OriginPattern {
    fn host(&self) -> &str {
        match self {
            Self::Exact(origin) | Self::Subdomains(origin) => &origin.host,
            Self::Own => "",
        }
    }

    fn matches(&self, origin: &Origin, own: Option<&Origin>) -> bool {
        match self {
            Self::Exact(exact) => exact == origin,
            Self::Subdomains(base) => {
                (base.https, base.port) == (origin.https, origin.port)
                    && origin
                        .host
                        .strip_suffix(&base.host)
                        .is_some_and(|sub| !sub.is_empty())
            }
            Self::Own => own == Some(origin),
        }
    }
}

/// The filter.
#[derive(Debug)]
pub struct WebSocket {
    origins: Option<Vec<OriginPattern>>,
}

impl WebSocket {
    /// Grants the upgrade to every page and program: what an HTTP tunnel gets unless its project says more.
    #[must_use]
    pub fn any() -> Self {
        Self { origins: None }
    }

    fn accepts(&self, opener: &Opener) -> bool {
        let Some(allowed) = &self.origins else {
            return true;
        };
        let Some(origin) = &opener.origin else {
            return false;
        };
        allowed
            .iter()
            .any(|pattern| pattern.matches(origin, opener.own.as_ref()))
    }
}

/// Which page has opened a WebSocket.
struct Opener {
    /// What the one `Origin` field says, if it is an origin.
    origin: Option<Origin>,
    /// The origin of the request itself.
    own: Option<Origin>,
}

impl Fact for Opener {
    const NAME: &'static str = OPENER;
}

impl Opener {
    fn of(head: &request::Parts) -> Self {
        let mut fields = head.headers.get_all(ORIGIN).iter();
        let origin = match (fields.next(), fields.next()) {
            (Some(field), None) => field.to_str().ok().and_then(Origin::parse),
            _ => None,
        };
        let own = Origin::of_request(&head.uri);
        Self { origin, own }
    }
}

impl OnRequest for WebSocket {
    async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        if cx.upgrade != Some(Upgrade::WebSocket) {
            return Ok(Verdict::Continue);
        }
        let opener = Opener::of(cx.head);
        let accepted = self.accepts(&opener);
        // Established already if there is another such filter.
        let _ = cx.exchange.establish(opener);
        Ok(match accepted {
            true => Verdict::Upgrade(Upgrade::WebSocket),
            false => Verdict::Refuse(Reason::Origin),
        })
    }
}

impl OnRejudge for WebSocket {
    fn on_rejudge(&self, cx: &mut RejudgeCx<'_>) -> Result<Stay, FilterError> {
        if cx.upgrade != Some(Upgrade::WebSocket) {
            return Ok(Stay::Yes);
        }
        let opener = cx.exchange.fact::<Opener>();
        Ok(match opener.is_some_and(|opener| self.accepts(opener)) {
            true => Stay::Upgraded,
            false => Stay::No(Reason::Origin),
        })
    }
}

impl Filter for WebSocket {
    const NAME: &'static str = "websocket";
    const STAGE: Stage = Stage::Upgrade;
    type Config = Config;

    fn new(config: Config, _: &mut Env) -> Result<Self, ConfigError> {
        match &config.origins {
            Some(origins) if origins.is_empty() => Err(ConfigError::at(
                "origins",
                "`origins` is empty: name an origin, or leave it out to accept any",
            )),
            Some(origins) if origins.len() > ORIGINS_MAX => {
                let message = format!(
                    "`origins` names {} origins, more than {ORIGINS_MAX}",
                    origins.len()
                );
                Err(ConfigError::at("origins", message))
            }
            _ => Ok(Self {
                origins: config.origins,
            }),
        }
    }

    fn hooks(self: Arc<Self>) -> Hooks {
        Hooks::new()
            .at(Self::STAGE)
            .request(Arc::clone(&self))
            .rejudge(self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn accepts(origins: &[&str], sent: &[&str]) -> bool {
        let origins = origins
            .iter()
            .map(|text| OriginPattern::try_from((*text).to_owned()).unwrap())
            .collect();
        let mut request = http::Request::get("https://A.example/ws");
        for origin in sent {
            request = request.header(ORIGIN, *origin);
        }
        let head = request.body(()).unwrap().into_parts().0;
        WebSocket {
            origins: Some(origins),
        }
        .accepts(&Opener::of(&head))
    }

    #[test]
    fn pages_of_listed_origins_may_and_others_may_not() {
        let cases: &[(&[&str], &[&str], bool)] = &[
            (&["https://app.example"], &["https://app.example"], true),
            (&["https://app.example"], &["https://APP.example:443"], true),
            (&["https://app.example"], &["http://app.example"], false),
            (
                &["https://app.example"],
                &["https://app.example:8443"],
                false,
            ),
            (
                &["https://app.example"],
                &["https://app.example.evil"],
                false,
            ),
            (
                &["https://app.example"],
                &["https://evil/https://app.example"],
                false,
            ),
            (&["https://app.example"], &["null"], false),
            (&["https://app.example"], &[], false),
            (
                &["https://app.example"],
                &["https://app.example", "https://app.example"],
                false,
            ),
            (
                &["https://*.example.com"],
                &["https://a.b.example.com"],
                true,
            ),
            (&["https://*.example.com"], &["https://example.com"], false),
            (
                &["https://*.example.com"],
                &["https://evilexample.com"],
                false,
            ),
            (&["self"], &["https://a.example"], true),
            (&["self"], &["https://b.example"], false),
            (&["http://localhost:3000"], &["http://localhost:3000"], true),
            (&["http://[::1]:3000"], &["http://[::1]:3000"], true),
        ];
        for (origins, sent, expected) in cases {
            assert_eq!(accepts(origins, sent), *expected, "{origins:?} {sent:?}");
        }
    }

    #[test]
    fn what_is_not_an_origin_is_refused() {
        for text in [
            "app.example",
            "https://",
            "ftp://a",
            "https://a/",
            "https://a/b",
            "https://u@a",
            "*",
            "https://a.*.b",
            "https://a:x",
            "null",
        ] {
            assert!(OriginPattern::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
