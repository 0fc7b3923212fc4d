//! The desk where users sign in: what filters, the tunnels' own endpoints and the pages on the engine's host share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use adit_config::{Problem, Secret};
use adit_filters::env::{Clock, JobsError};
use adit_filters::{Env, TunnelInfo};
use http::HeaderMap;

use super::accounts::Accounts;
use super::codes::{Codes, Grant, LoginRequest};
use super::cookies;
use super::oidc::{Provider, ProviderSettings};
use super::passwords::Comparer;
use super::seal::{Seal, is_id};
use super::session::{At, Ended, Login, Millis, Proof, Session};
use super::throttle::Throttle;
use super::user::{Allow, Interests, User};

/// How far a session's beginning may be ahead of the clock: more, and the clock was set back.
const SKEW: Duration = Duration::from_secs(60);

/// What a desk is made of.
#[derive(Clone, Debug)]
pub struct DeskSettings {
    /// The engine's public name.
    pub host: String,
    /// What keys are derived from.
    pub secret: Secret<String>,
    /// How long a login lasts.
    pub lifetime: Duration,
    /// Who may sign in; none lets everybody who can.
    pub allow: Option<Allow>,
    /// Who may enter tunnels of a project, where the project names its users.
    pub projects: BTreeMap<String, Allow>,
    /// File of local accounts.
    pub accounts: Option<PathBuf>,
    /// A provider that vouches for users.
    pub provider: Option<ProviderSettings>,
}

/// Why there is no desk.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The accounts cannot be used.
    #[error("the accounts cannot be used")]
    Accounts(Vec<Problem>),
    /// There is no thread to compare passwords on.
    #[error("passwords cannot be compared")]
    Threads(#[source] JobsError),
}

/// The desk.
pub struct Desk {
    pub(super) settings: DeskSettings,
    pub(super) seal: Seal,
    pub(super) local: Option<Local>,
    pub(super) provider: Option<Provider>,
    pub(super) throttle: Throttle,
    clock: Arc<dyn Clock>,
    kept: Arc<Kept>,
    interests: Mutex<Interests>,
}

/// Signing in by a local account.
pub(super) struct Local {
    pub(super) accounts: Arc<Accounts>,
    pub(super) comparer: Comparer,
}

/// What outlives a reload.
#[derive(Default)]
struct Kept {
    port: AtomicU16,
    codes: Mutex<Codes>,
    ended: Mutex<Ended>,
    told: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Kept {
    fn tell(&self) {
        if let Some(told) = self.told.get() {
            told();
        }
    }
}

/// Who is behind a request, by its session.
pub(crate) enum Visitor {
    /// Nobody.
    Nobody,
    /// A user who may not enter.
    Refused(User),
    /// A user who may, and the session that says so.
    User(Box<Session>, User),
}

impl Desk {
    /// A desk of these settings. It takes over from `before` what outlives a reload.
    ///
    /// # Errors
    /// [`DeskError`].
    pub fn new(
        settings: DeskSettings,
        env: &Env,
        before: Option<&Self>,
    ) -> Result<Self, DeskError> {
        let local = match &settings.accounts {
            Some(path) => {
                let accounts = Accounts::read(path).map_err(DeskError::Accounts)?;
                let accounts = Arc::new(accounts);
                let looked_at = Arc::clone(&accounts);
                let comparer = Comparer::start(env, move || looked_at.look());
                Some(Local {
                    accounts,
                    comparer: comparer.map_err(DeskError::Threads)?,
                })
            }
            None => None,
        };
        let mut interests = Interests::default();
        for rule in settings.allow.iter().chain(settings.projects.values()) {
            interests.add(rule);
        }
        Ok(Self {
            seal: Seal::new(&settings.secret, Arc::clone(&env.random)),
            local,
            provider: settings
                .provider
                .clone()
                .map(|provider| Provider::new(provider, env)),
            throttle: Throttle::new(Arc::clone(&env.store)),
            clock: Arc::clone(&env.clock),
            kept: before.map_or_else(Arc::default, |before| Arc::clone(&before.kept)),
            interests: Mutex::new(interests),
            settings,
        })
    }

    /// Says at which port the public reaches the engine.
    pub fn set_port(&self, port: u16) {
        self.kept.port.store(port, Ordering::Relaxed);
    }

    /// What a filter's own rule asks about is kept from now on when users sign in.
    pub(crate) fn interested(&self, rule: &Allow) {
        lock(&self.interests).add(rule);
    }

    /// What rules ask about users.
    pub(super) fn interests(&self) -> Interests {
        lock(&self.interests).clone()
    }

    pub(super) fn now(&self) -> Millis {
        Millis::of(self.clock.now())
    }

    /// The origin of a host of this engine ([RFC 6454](https://www.rfc-editor.org/rfc/rfc6454)).
    pub(super) fn origin(&self, host: &str) -> String {
        match self.kept.port.load(Ordering::Relaxed) {
            0 | 443 => format!("https://{host}"),
            port => format!("https://{host}:{port}"),
        }
    }

    /// The origin of the engine's own host.
    pub(super) fn own_origin(&self) -> String {
        self.origin(&self.settings.host)
    }

    /// Who is behind a request to a tunnel; `rule` is that of the filter that asks.
    pub(crate) fn visitor(
        &self,
        headers: &HeaderMap,
        tunnel: &TunnelInfo,
        rule: Option<&Allow>,
    ) -> Visitor {
        let Some((session, user)) = self.session(headers, tunnel) else {
            return Visitor::Nobody;
        };
        match self.names(&user, tunnel, rule) {
            true => Visitor::User(Box::new(session), user),
            false => Visitor::Refused(user),
        }
    }

    /// Whether who was let in to a tunnel by this session may stay: its user could still sign in, is still let in, and
    /// has not signed out. That the session's time is over since does not matter, as for any proof.
    pub(crate) fn may_stay(
        &self,
        session: &Session,
        tunnel: &TunnelInfo,
        rule: Option<&Allow>,
    ) -> bool {
        let host = tunnel.hostname.as_deref().unwrap_or_default();
        !lock(&self.kept.ended).is_signed_out(session, host)
            && self
                .vouched(&session.login)
                .is_some_and(|user| self.names(&user, tunnel, rule))
    }

    /// Whether a user may enter a tunnel by all rules; `rule` is that of the filter that asks.
    pub(crate) fn names(&self, user: &User, tunnel: &TunnelInfo, rule: Option<&Allow>) -> bool {
        rule.is_none_or(|rule| rule.names(user)) && self.admits(user, &tunnel.project)
    }

    /// The session that a request to a tunnel carries, and its user as known now.
    pub(super) fn session(
        &self,
        headers: &HeaderMap,
        tunnel: &TunnelInfo,
    ) -> Option<(Session, User)> {
        let host = tunnel.hostname.as_deref()?;
        let at = At {
            host,
            project: &tunnel.project,
        };
        let mut sealed = cookies::all(headers, cookies::SESSION).peekable();
        sealed.peek()?;
        let browser = browser_of(headers)?;
        let session = sealed.find_map(|sealed| Session::open(&self.seal, at, sealed, browser))?;
        if lock(&self.kept.ended).is_signed_out(&session, host) {
            return None;
        }
        let user = self.standing(&session.login)?;
        Some((session, user))
    }

    /// The login that a request to the engine's host carries, and its user as known now.
    pub(super) fn login(&self, headers: &HeaderMap) -> Option<(Login, User)> {
        let sealed = cookies::one(headers, cookies::LOGIN)?;
        let login = Login::open(&self.seal, sealed)?;
        if lock(&self.kept.ended).is_over(&login) {
            return None;
        }
        let user = self.standing(&login)?;
        Some((login, user))
    }

    /// The user of a login whose time is not over and who could still sign in the same way.
    fn standing(&self, login: &Login) -> Option<User> {
        let now = self.now();
        let over = now >= login.until
            || now >= login.since.after(self.settings.lifetime)
            || now.after(SKEW) < login.since;
        if over {
            return None;
        }
        self.vouched(login)
    }

    /// The user of a login who could still sign in the same way.
    fn vouched(&self, login: &Login) -> Option<User> {
        match &login.proof {
            Proof::Account { name, .. } => {
                let account = self.local.as_ref()?.accounts.find(name)?;
                (account.proof == login.proof).then(|| account.user.clone())
            }
            Proof::Provider { issuer } => {
                let stands = self.provider.as_ref()?.issuer() == issuer;
                stands.then(|| login.user.clone())
            }
        }
    }

    /// Whether a user may sign in here at all.
    pub(super) fn accepts(&self, user: &User) -> bool {
        self.settings
            .allow
            .as_ref()
            .is_none_or(|rule| rule.names(user))
    }

    /// Whether a user may enter tunnels of a project.
    pub(super) fn admits(&self, user: &User, project: &str) -> bool {
        let rule = self.settings.projects.get(project);
        self.accepts(user) && rule.is_none_or(|rule| rule.names(user))
    }

    /// A new login of a user who has just proved who it is.
    pub(super) fn begin(&self, mut user: User, proof: Proof) -> Login {
        user.groups = lock(&self.interests).groups(user.groups);
        let since = self.now();
        Login {
            id: self.seal.id(),
            user,
            proof,
            since,
            until: since.after(self.settings.lifetime),
        }
    }

    /// Signs the request's user out of a tunnel, if there is one.
    pub(crate) fn sign_out(&self, headers: &HeaderMap, tunnel: &TunnelInfo) -> bool {
        let (Some((session, _)), Some(host)) = (self.session(headers, tunnel), &tunnel.hostname)
        else {
            return false;
        };
        lock(&self.kept.ended).sign_out(&session.login, host, self.now());
        self.kept.tell();
        true
    }

    /// Ends a login everywhere.
    pub(super) fn end(&self, login: &Login) {
        lock(&self.kept.ended).end(login, self.now());
        self.kept.tell();
    }

    /// Says who is told when somebody signs out; the first counts.
    pub fn on_sign_out(&self, told: impl Fn() + Send + Sync + 'static) {
        let _first = self.kept.told.set(Box::new(told));
    }

    pub(super) fn codes(&self) -> MutexGuard<'_, Codes> {
        lock(&self.kept.codes)
    }

    pub(super) fn ended(&self) -> MutexGuard<'_, Ended> {
        lock(&self.kept.ended)
    }

    /// Gives out a code for a login and the tunnel it is to get to; none if too many wait.
    pub(super) fn code(&self, login: Login, request: LoginRequest) -> Option<String> {
        let code = self.seal.id();
        let grant = Grant { login, request };
        self.codes()
            .put(code.clone(), grant, self.now())
            .then_some(code)
    }
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// The browser's own cookie at a tunnel.
pub(super) fn browser_of(headers: &HeaderMap) -> Option<&str> {
    cookies::one(headers, cookies::BROWSER).filter(|id| is_id(id))
}

/// Data behind these locks stays whole when a holder panics: what is left half done is forgotten in its time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use adit_filters::env::fake::Fake;
    use http::header::COOKIE;

    use super::super::oidc::ProviderSettings;
    use super::super::seal::hash;
    use super::*;

    const BROWSER: &str = "AAAAAAAAAAAAAAAAAAAAAA";

    fn desk(fake: &Fake) -> Desk {
        let provider = ProviderSettings {
            issuer: "https://login.test".into(),
            name: None,
            client_id: "adit".into(),
            client_secret: None,
            scopes: Vec::new(),
            groups_claim: "groups".into(),
            trust_email: false,
        };
        let settings = DeskSettings {
            host: "edge.test".into(),
            secret: Secret::new("a secret that is long enough for tests".into()),
            lifetime: Duration::from_secs(3_600),
            allow: None,
            projects: BTreeMap::new(),
            accounts: None,
            provider: Some(provider),
        };
        Desk::new(settings, &fake.env(), None).unwrap()
    }

    /// A request with a session of this login at a tunnel.
    fn request(desk: &Desk, login: Login) -> (HeaderMap, TunnelInfo) {
        let tunnel = TunnelInfo {
            project: "default".into(),
            hostname: Some("a.t.edge.test".into()),
            ..TunnelInfo::default()
        };
        let at = At {
            host: "a.t.edge.test",
            project: "default",
        };
        let since = login.since;
        let sealed = Session::new(login, &hash(BROWSER), since).seal(&desk.seal, at);
        let cookies = format!(
            "rstream_auth={}; __Host-rstream_browser={BROWSER}",
            sealed.unwrap()
        );
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, cookies.parse().unwrap());
        (headers, tunnel)
    }

    fn login(desk: &Desk, issuer: &str) -> Login {
        let user = User {
            id: "oidc:u-1".into(),
            ..User::default()
        };
        let issuer = issuer.to_owned();
        desk.begin(user, Proof::Provider { issuer })
    }

    #[test]
    fn a_session_has_its_time_whatever_the_clock_does() {
        let fake = Fake::default();
        let desk = desk(&fake);
        let now = login(&desk, "https://login.test");
        let is_in = |login: &Login| {
            let (headers, tunnel) = request(&desk, login.clone());
            matches!(desk.visitor(&headers, &tunnel, None), Visitor::User(..))
        };
        // As if the clock had been set back since: refused, and back by itself.
        let ahead = |by: u64| Login {
            since: now.since.after(Duration::from_secs(by)),
            until: now.until.after(Duration::from_secs(by)),
            ..now.clone()
        };
        assert!(is_in(&now) && is_in(&ahead(60)) && !is_in(&ahead(61)));
        fake.clock.advance(Duration::from_secs(1));
        assert!(is_in(&ahead(61)));
        // Its end is that of the settings in force, if that comes first.
        let long = Login {
            until: now.until.after(Duration::from_secs(9_999)),
            ..now.clone()
        };
        fake.clock.advance(Duration::from_secs(3_598));
        assert!(is_in(&now) && is_in(&long));
        fake.clock.advance(Duration::from_secs(1));
        assert!(!is_in(&now) && !is_in(&long));
    }

    #[test]
    fn a_session_ends_with_the_provider_that_vouched() {
        let fake = Fake::default();
        let desk = desk(&fake);
        let (headers, tunnel) = request(&desk, login(&desk, "https://other.test"));
        assert!(matches!(
            desk.visitor(&headers, &tunnel, None),
            Visitor::Nobody
        ));
    }
}
