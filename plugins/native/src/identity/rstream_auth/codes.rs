//! One-time codes: how a login on the engine's host gets to a tunnel's.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::session::{Login, Millis};

/// How long a code counts.
pub const CODE_LIFE: Duration = Duration::from_secs(60);

/// How many codes wait to be redeemed.
pub const CODES_MAX: usize = 8_192;

/// How many of them may be one user's: so nobody takes the others' places.
pub const CODES_PER_USER_MAX: usize = 16;

/// Longest path and query that a visitor is brought back to, in bytes; from longer ones it goes to `/`.
pub const RETURN_BYTES_MAX: usize = 1_024;

/// How long a visitor may take to sign in.
pub const REQUEST_LIFE: Duration = Duration::from_secs(10 * 60);

/// What a visitor without a session wanted: it goes through the browser, sealed, so nothing waits for visitors who
/// never come back.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct LoginRequest {
    /// The tunnel's host.
    pub(crate) host: String,
    /// Its project.
    pub(crate) project: String,
    /// The path and query asked for; it begins with one slash.
    pub(crate) path: String,
    /// The hash of the browser's own cookie at the tunnel.
    pub(crate) browser: String,
    /// When.
    pub(crate) since: Millis,
}

impl LoginRequest {
    pub(crate) fn is_over(&self, now: Millis) -> bool {
        // One from the future was made before the clock was set back.
        now < self.since || now >= self.since.after(REQUEST_LIFE)
    }
}

/// The path and query to bring a visitor back to: of the same origin whatever the visitor wrote, since browsers take
/// two slashes, or a slash and a backslash, for the beginning of another host.
pub(crate) fn return_path(path_and_query: &str) -> String {
    let own = path_and_query.starts_with('/')
        && !path_and_query.starts_with("//")
        && !path_and_query.starts_with("/\\")
        && path_and_query.len() <= RETURN_BYTES_MAX
        && path_and_query.bytes().all(|byte| byte.is_ascii_graphic());
    let path = if own { path_and_query } else { "/" };
    path.to_owned()
}

/// A login on its way to a tunnel.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) login: Login,
    pub(crate) request: LoginRequest,
}

/// Codes that were given out and not yet redeemed.
#[derive(Debug, Default)]
pub(crate) struct Codes {
    grants: HashMap<String, (Millis, Grant)>,
    order: BTreeMap<(Millis, String), ()>,
    of_user: HashMap<String, usize>,
}

impl Codes {
    /// Keeps a grant under a code. Says whether there was room.
    pub(crate) fn put(&mut self, code: String, grant: Grant, now: Millis) -> bool {
        self.forget(now);
        let user = &grant.login.user.id;
        let count = self.of_user.get(user).copied().unwrap_or_default();
        if count >= CODES_PER_USER_MAX || self.grants.len() >= CODES_MAX {
            return false;
        }
        self.of_user.insert(user.clone(), count + 1);
        let until = now.after(CODE_LIFE);
        self.order.insert((until, code.clone()), ());
        self.grants.insert(code, (until, grant));
        true
    }

    /// Takes the grant of a code; a code counts once, whoever comes with it.
    pub(crate) fn take(&mut self, code: &str, now: Millis) -> Option<Grant> {
        self.forget(now);
        let (until, grant) = self.grants.remove(code)?;
        self.order.remove(&(until, code.to_owned()));
        self.release(&grant);
        Some(grant)
    }

    fn forget(&mut self, now: Millis) {
        while let Some(entry) = self.order.first_entry()
            && entry.key().0 <= now
        {
            let ((_, code), ()) = entry.remove_entry();
            if let Some((_, grant)) = self.grants.remove(&code) {
                self.release(&grant);
            }
        }
        // The clock was set back: what was given out meanwhile would live on.
        let latest = now.after(CODE_LIFE);
        while let Some(entry) = self.order.last_entry()
            && entry.key().0 > latest
        {
            let ((_, code), ()) = entry.remove_entry();
            if let Some((_, grant)) = self.grants.remove(&code) {
                self.release(&grant);
            }
        }
    }

    fn release(&mut self, grant: &Grant) {
        let user = &grant.login.user.id;
        if let Some(count) = self.of_user.get_mut(user) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.of_user.remove(user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::session::Proof;
    use super::super::user::User;
    use super::*;

    fn grant(user: &str) -> Grant {
        Grant {
            login: Login {
                id: "l-1".into(),
                user: User {
                    id: user.into(),
                    ..User::default()
                },
                proof: Proof::Provider {
                    issuer: "https://login.test".into(),
                },
                since: Millis(0),
                until: Millis(1),
            },
            request: LoginRequest {
                host: "a.test".into(),
                project: "default".into(),
                path: "/".into(),
                browser: String::new(),
                since: Millis(0),
            },
        }
    }

    #[test]
    fn a_code_counts_once_and_for_a_minute() {
        let mut codes = Codes::default();
        assert!(codes.put("c-1".into(), grant("ada"), Millis(1_000)));
        assert!(codes.put("c-2".into(), grant("ada"), Millis(1_000)));
        assert!(codes.take("c-3", Millis(1_001)).is_none());
        assert!(codes.take("c-1", Millis(60_999)).is_some());
        assert!(codes.take("c-1", Millis(60_999)).is_none(), "once");
        assert!(codes.take("c-2", Millis(61_000)).is_none(), "too late");
        assert!(codes.of_user.is_empty() && codes.order.is_empty());
        // A clock that jumps back gives a code no more time than it had.
        assert!(codes.put("c-4".into(), grant("ada"), Millis(900_000)));
        assert!(codes.take("c-4", Millis(1_000)).is_none());
    }

    #[test]
    fn nobody_takes_more_places_than_are_his() {
        let mut codes = Codes::default();
        for at in 0..CODES_PER_USER_MAX {
            assert!(codes.put(format!("a-{at}"), grant("ada"), Millis(0)));
        }
        assert!(!codes.put("a-more".into(), grant("ada"), Millis(0)));
        assert!(codes.put("b-0".into(), grant("bob"), Millis(0)));
        let mut at = 0;
        while codes.put(format!("c-{at}"), grant(&format!("u-{at}")), Millis(0)) {
            at += 1;
        }
        assert_eq!(codes.grants.len(), CODES_MAX);
        assert!(
            codes.put("later".into(), grant("ada"), Millis(60_000)),
            "room again"
        );
    }

    #[test]
    fn a_visitor_is_brought_back_to_the_same_origin_alone() {
        for own in ["/", "/a/b?c=d&e", "/a//b", "/?next=https://evil.test"] {
            assert_eq!(return_path(own), own);
        }
        for other in [
            "//evil.test",
            "/\\evil.test",
            "https://evil.test/",
            "evil.test",
            "",
            "*",
            "/\u{e9}",
            "/a b",
            "/a\r\nb",
            &format!("/{}", "a".repeat(RETURN_BYTES_MAX)),
        ] {
            assert_eq!(return_path(other), "/", "{other}");
        }
    }

    #[test]
    fn a_login_request_has_its_time() {
        let request = grant("ada").request;
        assert!(!request.is_over(Millis(0)) && !request.is_over(Millis(599_999)));
        assert!(request.is_over(Millis(600_000)));
        let from_the_future = LoginRequest {
            since: Millis(5),
            ..request
        };
        assert!(from_the_future.is_over(Millis(4)));
    }
}
