//! What the desk answers on a tunnel's host: the way to the engine's host, and back from it.

use std::time::Duration;

use adit_filters::{Reply, TunnelInfo};
use http::header::{CACHE_CONTROL, LOCATION, REFERRER_POLICY, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode, request};

use super::codes::{LoginRequest, REQUEST_LIFE, return_path};
use super::cookies;
use super::desk::{Desk, browser_of};
use super::pages;
use super::seal::hash;
use super::session::{At, Session};
use super::user::User;

/// The path on a tunnel's host that a browser comes back to with its code.
pub const CALLBACK_PATH: &str = "/.well-known/rstream/auth/callback";

impl Desk {
    /// Sends a visitor to the engine's host to sign in.
    pub(crate) fn ask(&self, head: &request::Parts, tunnel: &TunnelInfo) -> Reply {
        let own = browser_of(&head.headers).map(str::to_owned);
        let browser = own.unwrap_or_else(|| self.seal.id());
        let request = self.request(head, tunnel, &browser);
        let life = self.settings.lifetime.saturating_add(REQUEST_LIFE);
        let to = format!("{}/rstream/auth?request={request}", self.own_origin());
        let mut reply = redirect(StatusCode::FOUND, &to);
        reply
            .headers
            .append(SET_COOKIE, cookies::set(cookies::BROWSER, &browser, life));
        reply
    }

    /// Tells a user that it may not enter, and how to come as another.
    pub(crate) fn refuse(&self, head: &request::Parts, tunnel: &TunnelInfo, user: &User) -> Reply {
        let host = tunnel.hostname.as_deref().unwrap_or_default();
        let browser = browser_of(&head.headers).unwrap_or_default();
        let request = self.request(head, tunnel, browser);
        let other = format!(
            "{}/rstream/auth?request={request}&as=other",
            self.own_origin()
        );
        pages::not_allowed(user, host, &other)
    }

    fn request(&self, head: &request::Parts, tunnel: &TunnelInfo, browser: &str) -> String {
        let path = head.uri.path_and_query();
        let request = LoginRequest {
            host: tunnel.hostname.clone().unwrap_or_default(),
            project: tunnel.project.clone(),
            path: return_path(path.map_or("/", |path| path.as_str())),
            browser: hash(browser),
            since: self.now(),
        };
        self.seal.seal(&["request"], &request)
    }

    /// A browser comes back with a code: it gets its session, or is told what to do.
    pub(crate) fn callback(&self, head: &request::Parts, tunnel: &TunnelInfo) -> Reply {
        let host = tunnel.hostname.as_deref().unwrap_or_default();
        self.redeem(head, tunnel, host)
            .unwrap_or_else(|| pages::not_signed_in(&self.origin(host)))
    }

    fn redeem(&self, head: &request::Parts, tunnel: &TunnelInfo, host: &str) -> Option<Reply> {
        let now = self.now();
        let query = head.uri.query()?;
        let code = form_urlencoded::parse(query.as_bytes())
            .find_map(|(key, value)| (key == "code").then_some(value))?;
        // It is spent whatever comes of it.
        let grant = self.codes().take(&code, now)?;
        let browser = browser_of(&head.headers)?;
        let meant = grant.request.host == host
            && grant.request.project == tunnel.project
            && grant.request.browser == hash(browser);
        if !meant || self.ended().is_over(&grant.login) {
            return None;
        }
        let life = now.until(grant.login.until);
        let session = Session::new(grant.login, &grant.request.browser, now);
        let at = At {
            host,
            project: &tunnel.project,
        };
        let sealed = session.seal(&self.seal, at)?;
        let to = format!("{}{}", self.origin(host), grant.request.path);
        let mut reply = redirect(StatusCode::SEE_OTHER, &to);
        let browser = cookies::set(
            cookies::BROWSER,
            browser,
            life.saturating_add(Duration::from_secs(1)),
        );
        reply.headers.append(SET_COOKIE, browser);
        reply
            .headers
            .append(SET_COOKIE, cookies::set(cookies::SESSION, &sealed, life));
        Some(reply)
    }
}

/// A redirection that no cache keeps and that tells nobody where it came from.
pub(super) fn redirect(status: StatusCode, to: &str) -> Reply {
    let mut headers = HeaderMap::new();
    // What cannot stand in a field was no address.
    if let Ok(to) = HeaderValue::from_str(to) {
        headers.insert(LOCATION, to);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Reply {
        status,
        headers,
        ..Reply::default()
    }
}
