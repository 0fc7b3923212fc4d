//! Sessions: what a browser carries from one request to the next.
//!
//! Signing in gives a [`Login`], which the engine's own host keeps in a cookie. Each tunnel gets a [`Session`] of it,
//! in a cookie sealed for that tunnel's host and project and bound to the browser: to a second cookie whose name begins
//! with `__Host-`, which no other host can set. So a cookie that was stolen, made elsewhere or planted by a page of
//! another tunnel is no session.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::seal::{Seal, hash};
use super::user::User;

/// Longest value of a session cookie, in bytes: with name and attributes it stays below the 4096 that browsers keep.
pub const COOKIE_BYTES_MAX: usize = 3_800;

/// How many logins that were ended, or signed out of a tunnel, are remembered.
pub const ENDED_MAX: usize = 65_536;

/// How many tunnels one login may be signed out of before it is ended altogether.
pub const SIGN_OUTS_MAX: usize = 64;

/// A point in time, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Millis(pub u64);

impl Millis {
    pub(crate) fn of(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH);
        Self(since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        }))
    }

    pub(crate) fn after(self, wait: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// How long until `later`; nothing if that has passed.
    pub(crate) fn until(self, later: Self) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }
}

/// What a user proved itself by.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// The password of a local account.
    Account {
        /// The account's name.
        name: String,
        /// What changes with its password.
        stamp: String,
    },
    /// The word of an OpenID Connect provider.
    Provider {
        /// Its issuer.
        issuer: String,
    },
}

/// A user who signed in with one browser.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Login {
    /// Its id; nobody guesses it.
    pub id: String,
    /// Who signed in.
    pub user: User,
    /// By what.
    pub proof: Proof,
    /// When.
    pub since: Millis,
    /// When it is over at the latest.
    pub until: Millis,
}

/// A login at one tunnel.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Session {
    /// The login it is of.
    pub login: Login,
    /// When it was begun.
    pub since: Millis,
    /// The hash of the browser's own cookie.
    browser: String,
}

/// The place a session is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At<'a> {
    pub(crate) host: &'a str,
    pub(crate) project: &'a str,
}

impl Session {
    pub(crate) fn new(login: Login, browser: &str, since: Millis) -> Self {
        Self {
            login,
            since,
            browser: browser.to_owned(),
        }
    }

    /// The value of its cookie; none if it would be longer than browsers keep.
    pub(crate) fn seal(&self, seal: &Seal, at: At<'_>) -> Option<String> {
        let sealed = seal.seal(&["session", at.host, at.project], self);
        (sealed.len() <= COOKIE_BYTES_MAX).then_some(sealed)
    }

    /// Reads a cookie that was made for this place, in a browser with this cookie of its own.
    pub(crate) fn open(seal: &Seal, at: At<'_>, sealed: &str, browser: &str) -> Option<Self> {
        let session: Self = seal.open(&["session", at.host, at.project], sealed)?;
        (session.browser == hash(browser)).then_some(session)
    }
}

impl Login {
    /// The value of its cookie on the engine's host; none if it would be longer than browsers keep.
    pub(crate) fn seal(&self, seal: &Seal) -> Option<String> {
        let sealed = seal.seal(&["login"], self);
        (sealed.len() <= COOKIE_BYTES_MAX).then_some(sealed)
    }

    pub(crate) fn open(seal: &Seal, sealed: &str) -> Option<Self> {
        seal.open(&["login"], sealed)
    }
}

/// Which logins have been ended, or signed out of a tunnel, before their time.
///
/// It forgets by the time they would have been over anyway. When there are too many, the one that was ended first is
/// forgotten, and every login as old as that one is over: what is forgotten does not come back to life.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    logins: HashMap<String, EndedLogin>,
    /// Logins in the order in which they came here, by a number.
    order: BTreeMap<u64, String>,
    next: u64,
    /// Logins begun up to then are over.
    before: Option<Millis>,
}

#[derive(Debug)]
struct EndedLogin {
    since: Millis,
    until: Millis,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Over everywhere.
    Over,
    /// Signed out of these tunnels, each at that time.
    SignedOut(BTreeMap<String, SignedOut>),
}

#[derive(Debug)]
struct SignedOut {
    at: Millis,
    /// Whether the user has to say that it wants back in.
    asks: bool,
}

impl Ended {
    /// Ends a login everywhere.
    pub(crate) fn end(&mut self, login: &Login, now: Millis) {
        self.entry(login, now).state = State::Over;
    }

    /// Ends a login's sessions at one tunnel.
    pub(crate) fn sign_out(&mut self, login: &Login, host: &str, now: Millis) {
        let entry = self.entry(login, now);
        if let State::SignedOut(hosts) = &mut entry.state {
            hosts.insert(
                host.to_owned(),
                SignedOut {
                    at: now,
                    asks: true,
                },
            );
            if hosts.len() > SIGN_OUTS_MAX {
                entry.state = State::Over;
            }
        }
    }

    /// Whether the login is over.
    pub(crate) fn is_over(&self, login: &Login) -> bool {
        self.before.is_some_and(|before| login.since <= before)
            || self
                .logins
                .get(&login.id)
                .is_some_and(|entry| matches!(entry.state, State::Over))
    }

    /// Whether a session at this tunnel is over.
    pub(crate) fn is_signed_out(&self, session: &Session, host: &str) -> bool {
        self.is_over(&session.login)
            || self
                .signed_out(&session.login, host)
                .is_some_and(|out| session.since <= out.at)
    }

    /// Whether the user signed out of this tunnel and has not said since that it wants back in.
    pub(crate) fn asks(&self, login: &Login, host: &str) -> bool {
        self.signed_out(login, host).is_some_and(|out| out.asks)
    }

    /// The user wants back in.
    pub(crate) fn back(&mut self, login: &Login, host: &str) {
        if let Some(EndedLogin {
            state: State::SignedOut(hosts),
            ..
        }) = self.logins.get_mut(&login.id)
            && let Some(out) = hosts.get_mut(host)
        {
            out.asks = false;
        }
    }

    fn signed_out(&self, login: &Login, host: &str) -> Option<&SignedOut> {
        match &self.logins.get(&login.id)?.state {
            State::SignedOut(hosts) => hosts.get(host),
            State::Over => None,
        }
    }

    fn entry(&mut self, login: &Login, now: Millis) -> &mut EndedLogin {
        if !self.logins.contains_key(&login.id) {
            self.make_room(now);
            self.order.insert(self.next, login.id.clone());
            self.next = self.next.saturating_add(1);
        }
        self.logins
            .entry(login.id.clone())
            .or_insert_with(|| EndedLogin {
                since: login.since,
                until: login.until,
                state: State::SignedOut(BTreeMap::new()),
            })
    }

    fn make_room(&mut self, now: Millis) {
        if self.logins.len() < ENDED_MAX {
            return;
        }
        self.logins.retain(|_, entry| entry.until > now);
        let logins = &self.logins;
        self.order.retain(|_, id| logins.contains_key(id));
        while self.logins.len() >= ENDED_MAX
            && let Some((_, id)) = self.order.pop_first()
        {
            if let Some(entry) = self.logins.remove(&id) {
                self.before = self.before.max(Some(entry.since));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;

    use adit_config::Secret;
    use adit_filters::env::fake::FakeRandom;

    use super::*;

    fn seal() -> Seal {
        let secret = Secret::new("a secret that is long enough for tests".to_owned());
        Seal::new(&secret, Arc::new(FakeRandom::default()))
    }

    fn login(id: &str, since: u64) -> Login {
        Login {
            id: id.into(),
            user: User {
                id: "account:ada".into(),
                ..User::default()
            },
            proof: Proof::Account {
                name: "ada".into(),
                stamp: "1".into(),
            },
            since: Millis(since),
            until: Millis(since + 1_000_000),
        }
    }

    #[test]
    fn a_session_counts_at_its_tunnel_and_in_its_browser_alone() {
        let seal = seal();
        let here = At {
            host: "a.test",
            project: "default",
        };
        let session = Session::new(login("l-1", 1), &hash("browser"), Millis(2));
        let cookie = session.seal(&seal, here).unwrap();
        let open = |at, browser| Session::open(&seal, at, &cookie, browser);
        assert_eq!(open(here, "browser"), Some(session));
        assert_eq!(open(here, "another"), None);
        assert_eq!(open(here, ""), None);
        for elsewhere in [
            At {
                host: "b.test",
                ..here
            },
            At {
                project: "other",
                ..here
            },
        ] {
            assert_eq!(open(elsewhere, "browser"), None, "{elsewhere:?}");
        }
        // The engine's own cookie is no session, nor the other way round.
        let own = login("l-1", 1).seal(&seal).unwrap();
        assert_eq!(Session::open(&seal, here, &own, "browser"), None);
        assert_eq!(Login::open(&seal, &cookie), None);
    }

    #[test]
    fn a_session_that_no_browser_would_keep_is_none() {
        let mut large = login("l-1", 1);
        large.user.image = Some("x".repeat(COOKIE_BYTES_MAX));
        assert_eq!(large.seal(&seal()), None);
    }

    #[test]
    fn signing_out_ends_what_was_begun_before() {
        let mut ended = Ended::default();
        let ada = login("l-1", 1);
        let session = |since| Session::new(ada.clone(), "", Millis(since));
        ended.sign_out(&ada, "a.test", Millis(10));
        assert!(ended.is_signed_out(&session(10), "a.test"));
        assert!(
            !ended.is_signed_out(&session(11), "a.test"),
            "signed in again"
        );
        assert!(
            !ended.is_signed_out(&session(10), "b.test"),
            "another tunnel"
        );
        assert!(ended.asks(&ada, "a.test") && !ended.asks(&ada, "b.test"));
        ended.back(&ada, "a.test");
        assert!(!ended.asks(&ada, "a.test"));
        assert!(ended.is_signed_out(&session(10), "a.test"), "still over");
        ended.end(&ada, Millis(20));
        assert!(ended.is_over(&ada));
        assert!(ended.is_signed_out(&session(30), "b.test"));
        assert!(!ended.is_over(&login("l-2", 1)));
    }

    #[test]
    fn a_login_signed_out_of_too_many_tunnels_is_over() {
        let mut ended = Ended::default();
        let ada = login("l-1", 1);
        for at in 0..SIGN_OUTS_MAX {
            ended.sign_out(&ada, &format!("{at}.test"), Millis(10));
        }
        assert!(!ended.is_over(&ada));
        ended.sign_out(&ada, "one-more.test", Millis(10));
        assert!(ended.is_over(&ada));
    }

    #[test]
    fn what_is_forgotten_for_want_of_room_stays_over() {
        let mut ended = Ended::default();
        for at in 0..ENDED_MAX {
            ended.end(&login(&format!("l-{at}"), at as u64), Millis(0));
        }
        assert!(!ended.is_over(&login("untouched", 0)));
        ended.end(&login("one-more", 1_000_000), Millis(0));
        assert_eq!(ended.logins.len(), ENDED_MAX);
        assert!(!ended.logins.contains_key("l-0"));
        assert!(
            ended.is_over(&login("l-0", 0)),
            "as old as what was forgotten"
        );
        assert!(!ended.is_over(&login("untouched", ENDED_MAX as u64)));
        // Those whose time is over make room without harm to anybody.
        let later = Millis(2_000_000);
        ended.end(&login("later", 1_999_999), later);
        assert!(ended.logins.len() < 10);
        assert_eq!(ended.before, Some(Millis(0)));
    }
}
