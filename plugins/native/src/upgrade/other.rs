//! `upgrade`: grants HTTP/1.1 upgrades to protocols other than WebSocket.
//!
//! `h2c`, other HTTP versions and TLS are never granted: behind such an upgrade the visitor would speak HTTP to the
//! service past every filter.

use std::sync::Arc;

use adit_filters::{
    ConfigError, Env, Fact, Filter, FilterError, Hooks, OnRejudge, OnRequest, RejudgeCx, RequestCx,
    Stage, Stay, Upgrade, Verdict,
};
use http::HeaderValue;
use http::header::UPGRADE;
use serde::Deserialize;

/// The fact's name.
const OFFERED: &str = "upgrade-offered";

/// How many protocols the list may name.
pub const TOKENS_MAX: usize = 64;

/// Which protocols may be upgraded to.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Only these tokens, as `name` (any version) or `name/version`; without it, any but those never granted.
    pub tokens: Option<Vec<String>>,
}

/// The filter.
#[derive(Debug)]
pub struct OtherUpgrade {
    tokens: Option<Vec<String>>,
}

impl OtherUpgrade {
    /// Grants everything that is ever granted: what an HTTP tunnel gets unless its project says more.
    #[must_use]
    pub fn any() -> Self {
        Self { tokens: None }
    }

    /// The service may pick any of the protocols offered, so all of them must be allowed.
    fn grants<'a>(&self, offered: impl IntoIterator<Item = &'a HeaderValue>) -> bool {
        let mut some = false;
        for field in offered {
            let Ok(field) = field.to_str() else {
                return false;
            };
            for token in field
                .split(',')
                .map(str::trim)
                .filter(|token| !token.is_empty())
            {
                some = true;
                if is_never_granted(token) || !self.lists(token) {
                    return false;
                }
            }
        }
        some
    }

    fn lists(&self, token: &str) -> bool {
        self.tokens.as_ref().is_none_or(|listed| {
            listed.iter().any(|listed| {
                token.eq_ignore_ascii_case(listed)
                    || (!listed.contains('/') && name_of(token).eq_ignore_ascii_case(listed))
            })
        })
    }
}

fn name_of(token: &str) -> &str {
    token.split('/').next().unwrap_or(token)
}

/// HTTP inside HTTP, TLS over it, and WebSocket, which has a filter of its own.
fn is_never_granted(token: &str) -> bool {
    ["h2c", "h2", "h3", "http", "tls", "websocket"]
        .iter()
        .any(|name| name_of(token).eq_ignore_ascii_case(name))
}

/// Which protocols a visitor has offered to speak.
struct Offered(Vec<HeaderValue>);

impl Fact for Offered {
    const NAME: &'static str = OFFERED;
}

impl OnRequest for OtherUpgrade {
    async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        if cx.upgrade != Some(Upgrade::Other) {
            return Ok(Verdict::Continue);
        }
        let offered: Vec<_> = cx.head.headers.get_all(UPGRADE).iter().cloned().collect();
        let granted = self.grants(&offered);
        // Established already if there is another such filter.
        let _ = cx.exchange.establish(Offered(offered));
        Ok(match granted {
            true => Verdict::Upgrade(Upgrade::Other),
            false => Verdict::Continue,
        })
    }
}

impl OnRejudge for OtherUpgrade {
    fn on_rejudge(&self, cx: &mut RejudgeCx<'_>) -> Result<Stay, FilterError> {
        let offered = cx.exchange.fact::<Offered>();
        let granted = offered.is_some_and(|Offered(offered)| self.grants(offered));
        Ok(match cx.upgrade == Some(Upgrade::Other) && granted {
            true => Stay::Upgraded,
            // Another filter may grant it.
            false => Stay::Yes,
        })
    }
}

impl Filter for OtherUpgrade {
    const NAME: &'static str = "upgrade";
    const STAGE: Stage = Stage::Upgrade;
    type Config = Config;

    fn new(config: Config, _: &mut Env) -> Result<Self, ConfigError> {
        for (index, token) in config.tokens.iter().flatten().enumerate() {
            let at = |message: String| ConfigError::at(&format!("tokens.{index}"), message);
            if name_of(token).eq_ignore_ascii_case("websocket") {
                return Err(at(
                    "`websocket` has a filter of its own: use it instead".into()
                ));
            }
            if is_never_granted(token) {
                return Err(at(format!(
                    "`{token}` is never granted: filters could not see what passes inside it"
                )));
            }
            if !is_token(token) {
                return Err(at(format!(
                    "`{token}` is not a protocol, write it like `name` or `name/version`"
                )));
            }
        }
        match &config.tokens {
            Some(tokens) if tokens.is_empty() => Err(ConfigError::at(
                "tokens",
                "`tokens` is empty: name a protocol, or leave it out to grant any",
            )),
            Some(tokens) if tokens.len() > TOKENS_MAX => {
                let message = format!(
                    "`tokens` names {} protocols, more than {TOKENS_MAX}",
                    tokens.len()
                );
                Err(ConfigError::at("tokens", message))
            }
            _ => Ok(Self {
                tokens: config.tokens,
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

/// `token [ "/" token ]` of [RFC 9110 §7.8](https://www.rfc-editor.org/rfc/rfc9110#section-7.8).
fn is_token(text: &str) -> bool {
    let mut parts = text.splitn(2, '/');
    parts.all(|part| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use adit_filters::env::fake::Fake;
    use http::HeaderMap;

    use super::*;

    fn config(tokens: Option<&[&str]>) -> Result<OtherUpgrade, ConfigError> {
        let tokens = tokens.map(|list| list.iter().map(|&token| token.to_owned()).collect());
        OtherUpgrade::new(Config { tokens }, &mut Fake::default().env())
    }

    #[test]
    fn listed_protocols_are_granted_and_others_are_not() {
        type Case = (
            Option<&'static [&'static str]>,
            &'static [&'static str],
            bool,
        );
        let cases: &[Case] = &[
            (None, &["spdy/3"], true),
            (None, &["foo, bar/2"], true),
            (None, &["h2c"], false),
            (None, &["H2C"], false),
            (None, &["foo, h2c"], false),
            (None, &["foo", "HTTP/2.0"], false),
            (None, &["TLS/1.0"], false),
            (None, &["websocket, foo"], false),
            (None, &[""], false),
            (None, &[], false),
            (Some(&["foo"]), &["FOO"], true),
            (Some(&["foo"]), &["foo/2"], true),
            (Some(&["foo"]), &["foo, bar"], false),
            (Some(&["foo"]), &["foo", "bar"], false),
            (Some(&["foo/2"]), &["foo/2"], true),
            (Some(&["foo/2"]), &["foo/3"], false),
            (Some(&["foo/2"]), &["foo"], false),
        ];
        for (tokens, sent, expected) in cases {
            let mut headers = HeaderMap::new();
            for field in *sent {
                headers.append(UPGRADE, field.parse().unwrap());
            }
            assert_eq!(
                config(*tokens).unwrap().grants(headers.get_all(UPGRADE)),
                *expected,
                "{tokens:?} {sent:?}"
            );
        }
    }

    #[test]
    fn protocols_that_would_pass_the_filters_by_are_refused() {
        for (tokens, key) in [
            (&["h2c"][..], "tokens.0"),
            (&["foo", "http/2.0"], "tokens.1"),
            (&["websocket"], "tokens.0"),
            (&["not a token"], "tokens.0"),
            (&["a/b/c"], "tokens.0"),
            (&[], "tokens"),
        ] {
            assert_eq!(
                config(Some(tokens)).unwrap_err().key.as_deref(),
                Some(key),
                "{tokens:?}"
            );
        }
        let many = vec!["foo"; TOKENS_MAX + 1];
        assert!(config(Some(&many)).is_err() && config(Some(&many[1..])).is_ok());
    }
}
