//! The pages on the engine's own host: sign in, go on to the tunnel, sign out.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use adit_config::Secret;
use adit_filters::Reply;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HOST, ORIGIN, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};

use super::accounts::NAME_BYTES_MAX;
use super::codes::LoginRequest;
use super::cookies;
use super::desk::Desk;
use super::oidc::RETURN_PATH;
use super::pages::{self, Hidden, SignIn};
use super::passwords::{Busy, PASSWORD_BYTES_MAX};
use super::seal::is_id;
use super::session::{Login, Proof};
use super::throttle::WINDOW;
use super::tunnel::{CALLBACK_PATH, redirect};
use super::user::User;

/// Longest form, in bytes: a name, a password and what the visitor wanted.
pub const FORM_BYTES_MAX: usize = 16 * 1024;

/// How long what tells one browser from another on the engine's host is kept.
pub(super) const VISIT_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a visitor is told to wait when too many sign in at once.
const BUSY: Duration = Duration::from_secs(2);

/// What a visitor wants, as its request to the engine's host says.
pub(super) enum Wanted {
    /// To sign in, no more.
    Nothing,
    /// To get to a tunnel: what it asked for there, and that sealed.
    Tunnel(LoginRequest, String),
}

impl Wanted {
    fn sealed(&self) -> &str {
        match self {
            Self::Nothing => "",
            Self::Tunnel(_, sealed) => sealed,
        }
    }

    fn host(&self) -> Option<&str> {
        match self {
            Self::Nothing => None,
            Self::Tunnel(request, _) => Some(&request.host),
        }
    }

    /// Where the visitor comes in again.
    pub(super) fn again(&self) -> String {
        match self {
            Self::Nothing => "/rstream/auth".to_owned(),
            Self::Tunnel(_, sealed) => format!("/rstream/auth?request={sealed}"),
        }
    }

    /// Where the provider is asked.
    fn provider(&self, as_other: bool) -> String {
        let sealed = self.sealed();
        let other = if as_other { "&as=other" } else { "" };
        format!("/rstream/auth/provider?request={sealed}{other}")
    }

    /// Where the visitor comes in again, to sign in as somebody else.
    fn other(&self) -> String {
        match self {
            Self::Nothing => "/rstream/auth?as=other".to_owned(),
            Self::Tunnel(_, sealed) => format!("/rstream/auth?request={sealed}&as=other"),
        }
    }
}

impl Desk {
    /// Answers a request to the engine's host below `/rstream/`, from a visitor with this address.
    pub async fn serve(&self, request: Request<Bytes>, from: IpAddr) -> Reply {
        let is_head = request.method() == Method::HEAD;
        let path = request.uri().path();
        let (get, post) = match *request.method() {
            Method::GET | Method::HEAD => (true, false),
            Method::POST => (false, true),
            _ => (false, false),
        };
        let mut reply = match path {
            _ if is_embedded(request.headers()) => pages::problem(
                StatusCode::BAD_REQUEST,
                "This page stands alone",
                "Open the address of the tunnel you want to get to in a tab of its own.",
            ),
            "/rstream/auth" if get => self.enter(&request).await,
            "/rstream/auth/provider" if get => self.ask_provider(&request).await,
            RETURN_PATH if get => self.back_from_provider(&request, from).await,
            "/rstream/auth/password" if post => self.password(&request, from).await,
            "/rstream/auth/continue" if post => self.back_in(&request),
            "/rstream/logout" if get => self.ask_to_sign_out(&request),
            "/rstream/logout" if post => self.sign_out_everywhere(&request),
            "/rstream/auth" | "/rstream/auth/provider" | RETURN_PATH => other_method("GET, HEAD"),
            "/rstream/auth/password" | "/rstream/auth/continue" => other_method("POST"),
            "/rstream/logout" => other_method("GET, HEAD, POST"),
            _ => pages::problem(
                StatusCode::NOT_FOUND,
                "Nothing is here",
                "Open the address of the tunnel you want to get to.",
            ),
        };
        if is_head {
            reply.body = Bytes::new();
        }
        reply
    }

    /// A visitor comes from a tunnel, or by itself.
    async fn enter(&self, request: &Request<Bytes>) -> Reply {
        let (wanted, as_other) = match self.asked(request) {
            Ok(asked) => asked,
            Err(reply) => return *reply,
        };
        match self.login(request.headers()) {
            Some((login, user)) if !as_other => self.go_on(request, login, &user, &wanted),
            // There is nothing to choose from.
            _ if self.local.is_none() && !as_other => {
                self.to_provider(request.headers(), &wanted, false).await
            }
            _ => self.ask_to_sign_in(request, &wanted, as_other, None, ""),
        }
    }

    /// A visitor chose the provider.
    async fn ask_provider(&self, request: &Request<Bytes>) -> Reply {
        match self.asked(request) {
            Ok((wanted, as_other)) => self.to_provider(request.headers(), &wanted, as_other).await,
            Err(reply) => *reply,
        }
    }

    /// What a visitor wants, and whether as somebody else than it is.
    fn asked(&self, request: &Request<Bytes>) -> Result<(Wanted, bool), Box<Reply>> {
        let query = request.uri().query().unwrap_or_default().as_bytes();
        let wanted = self.wanted(field(query, "request").as_deref())?;
        let as_other = field(query, "as").is_some_and(|who| who == "other");
        Ok((wanted, as_other))
    }

    /// Reads what a visitor wants. What is too old is asked for anew: the visitor goes back and returns at once.
    fn wanted(&self, sealed: Option<&str>) -> Result<Wanted, Box<Reply>> {
        let Some(sealed) = sealed.filter(|sealed| !sealed.is_empty()) else {
            return Ok(Wanted::Nothing);
        };
        let Some(request) = self.seal.open::<LoginRequest>(&["request"], sealed) else {
            return Err(Box::new(pages::problem(
                StatusCode::BAD_REQUEST,
                "This link does not work",
                "It was not made by this engine, or not as it is now. Open the address of the tunnel again.",
            )));
        };
        if request.is_over(self.now()) {
            let to = format!("{}{}", self.origin(&request.host), request.path);
            return Err(Box::new(redirect(StatusCode::FOUND, &to)));
        }
        Ok(Wanted::Tunnel(request, sealed.to_owned()))
    }

    /// A visitor that is signed in goes on to where it wants to get.
    fn go_on(&self, request: &Request<Bytes>, login: Login, user: &User, wanted: &Wanted) -> Reply {
        let Wanted::Tunnel(asked, sealed) = wanted else {
            return pages::signed_in(user);
        };
        if !self.admits(user, &asked.project) {
            return pages::not_allowed(user, &asked.host, &wanted.other());
        }
        if self.ended().asks(&login, &asked.host) {
            return self.with_csrf(request, |csrf| {
                let hidden = Hidden {
                    request: sealed,
                    csrf,
                };
                pages::back_in(user, &asked.host, hidden, &wanted.other())
            });
        }
        match self.callback_url(login, asked) {
            Ok(to) => redirect(StatusCode::FOUND, &to),
            Err(reply) => *reply,
        }
    }

    /// The address at the tunnel that turns a login into a session there.
    fn callback_url(&self, login: Login, asked: &LoginRequest) -> Result<String, Box<Reply>> {
        match self.code(login, asked.clone()) {
            Some(code) => Ok(format!(
                "{}{CALLBACK_PATH}?code={code}",
                self.origin(&asked.host)
            )),
            None => Err(Box::new(pages::later(
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many are signing in",
                "Try again in a minute.",
                BUSY,
                None,
            ))),
        }
    }

    fn ask_to_sign_in(
        &self,
        request: &Request<Bytes>,
        wanted: &Wanted,
        as_other: bool,
        error: Option<&str>,
        name: &str,
    ) -> Reply {
        let at_provider = wanted.provider(as_other);
        let provider = self.provider.as_ref();
        self.with_csrf(request, |csrf| {
            pages::sign_in(SignIn {
                hidden: Hidden {
                    request: wanted.sealed(),
                    csrf,
                },
                host: wanted.host(),
                accounts: self.local.is_some(),
                provider: provider.map(|provider| (&*at_provider, provider.name())),
                error,
                name,
            })
        })
    }

    /// A name and a password.
    async fn password(&self, request: &Request<Bytes>, from: IpAddr) -> Reply {
        let (form, wanted) = match self.form(request) {
            Ok(read) => read,
            Err(reply) => return *reply,
        };
        let Some(local) = &self.local else {
            return other_method("");
        };
        let name = field(form, "name").unwrap_or_default();
        let name = name.trim().to_ascii_lowercase();
        let password = Secret::new(field(form, "password").unwrap_or_default().into_owned());
        let wrong = || {
            let error = "Name or password is wrong. Both must be as they were given to you.";
            self.ask_to_sign_in(request, &wanted, false, Some(error), &name)
        };
        if name.len() > NAME_BYTES_MAX || password.expose().len() > PASSWORD_BYTES_MAX {
            return wrong();
        }
        let Some(attempt) = self.throttle.begin(from, &name) else {
            tracing::warn!(%from, account = ?name, "too many wrong passwords, not looking at another");
            return pages::later(
                StatusCode::TOO_MANY_REQUESTS,
                "Too many tries",
                "Wait five minutes, then try again with the right password.",
                WINDOW,
                None,
            );
        };
        let account = local.accounts.find(&name);
        // Who has no account is not told apart by the time the answer takes.
        let hash = match &account {
            Some(account) => account.hash.clone(),
            None => local.accounts.decoy(),
        };
        let matches = local.comparer.compare(password, hash).await;
        let account = match (matches, account) {
            (Ok(true), Some(account)) => account,
            (Ok(_), _) => {
                tracing::info!(%from, account = ?name, "a password was wrong");
                return wrong();
            }
            (Err(Busy), _) => {
                self.throttle.succeeded(&attempt);
                return pages::later(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "Too many are signing in",
                    "Go back and try again in a few seconds.",
                    BUSY,
                    None,
                );
            }
        };
        self.throttle.succeeded(&attempt);
        self.signed_in(account.user.clone(), account.proof.clone(), &wanted, from)
    }

    /// Somebody has proved who it is.
    pub(super) fn signed_in(
        &self,
        user: User,
        proof: Proof,
        wanted: &Wanted,
        from: IpAddr,
    ) -> Reply {
        if !self.accepts(&user) {
            tracing::info!(%from, user = ?user.id, "a user may not sign in");
            return pages::not_accepted(&user, &wanted.other());
        }
        tracing::info!(%from, user = ?user.id, "a user signed in");
        let login = self.begin(user.clone(), proof);
        let Some(cookie) = login.seal(&self.seal) else {
            tracing::warn!(user = ?user.id, "more is known of a user than a cookie holds: rules name too many of its groups");
            return pages::problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "You cannot be signed in",
                "More is known about you than fits. Tell whoever runs this engine.",
            );
        };
        let life = self.settings.lifetime;
        let mut reply = match wanted {
            Wanted::Nothing => pages::signed_in(&user),
            Wanted::Tunnel(asked, _) if !self.admits(&user, &asked.project) => {
                pages::not_allowed(&user, &asked.host, &wanted.other())
            }
            Wanted::Tunnel(asked, _) => match self.callback_url(login, asked) {
                Ok(to) => pages::onwards(&to),
                Err(reply) => *reply,
            },
        };
        reply
            .headers
            .append(SET_COOKIE, cookies::set(cookies::LOGIN, &cookie, life));
        reply
    }

    /// A visitor that signed out of a tunnel wants back in.
    fn back_in(&self, request: &Request<Bytes>) -> Reply {
        let wanted = match self.form(request) {
            Ok((_, wanted)) => wanted,
            Err(reply) => return *reply,
        };
        let Some((login, user)) = self.login(request.headers()) else {
            return self.ask_to_sign_in(request, &wanted, false, None, "");
        };
        let Wanted::Tunnel(asked, _) = &wanted else {
            return pages::signed_in(&user);
        };
        if !self.admits(&user, &asked.project) {
            return pages::not_allowed(&user, &asked.host, &wanted.other());
        }
        self.ended().back(&login, &asked.host);
        match self.callback_url(login, asked) {
            Ok(to) => pages::onwards(&to),
            Err(reply) => *reply,
        }
    }

    fn ask_to_sign_out(&self, request: &Request<Bytes>) -> Reply {
        let login = self.login(request.headers());
        self.with_csrf(request, |csrf| {
            pages::sign_out(login.as_ref().map(|(_, user)| user), csrf)
        })
    }

    fn sign_out_everywhere(&self, request: &Request<Bytes>) -> Reply {
        if let Err(reply) = self.form(request) {
            return *reply;
        }
        if let Some((login, user)) = self.login(request.headers()) {
            self.end(&login);
            tracing::info!(user = ?user.id, "a user signed out");
        }
        let mut reply = pages::signed_out();
        reply
            .headers
            .append(SET_COOKIE, cookies::clear(cookies::LOGIN));
        reply
    }

    /// A page with a form that shows, when it is sent, that it came from here: by a token that belongs to the browser's
    /// own cookie.
    fn with_csrf(&self, request: &Request<Bytes>, page: impl FnOnce(&str) -> Reply) -> Reply {
        let known = visit_of(request.headers());
        let fresh = known.is_none().then(|| self.seal.id());
        let visit = fresh.as_deref().or(known).unwrap_or_default();
        let mut reply = page(&self.seal.derive(&["csrf", visit]));
        if fresh.is_some() {
            let cookie = cookies::set(cookies::VISIT, visit, VISIT_LIFE);
            reply.headers.append(SET_COOKIE, cookie);
        }
        reply
    }

    /// The fields of a form that came from a page of ours, and what its sender wants.
    fn form<'r>(&self, request: &'r Request<Bytes>) -> Result<(&'r [u8], Wanted), Box<Reply>> {
        let refused = |status, title, text| Err(Box::new(pages::problem(status, title, text)));
        let is_form = request
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .and_then(|kind| kind.split(';').next())
            .is_some_and(|kind| {
                kind.trim()
                    .eq_ignore_ascii_case("application/x-www-form-urlencoded")
            });
        if !is_form {
            return refused(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "This is not a form",
                "Use the page's own form.",
            );
        }
        let form = request.body();
        if form.len() > FORM_BYTES_MAX {
            return refused(
                StatusCode::PAYLOAD_TOO_LARGE,
                "The form is too large",
                "Use the page's own form.",
            );
        }
        let csrf = field(form, "csrf").unwrap_or_default();
        let ours = visit_of(request.headers())
            .is_some_and(|visit| self.seal.is_derived(&["csrf", visit], &csrf));
        if !ours || !is_from_here(request) {
            return refused(
                StatusCode::FORBIDDEN,
                "The form has expired",
                "Allow cookies, go back, load the page again and send the form from there.",
            );
        }
        let wanted = self.wanted(field(form, "request").as_deref())?;
        Ok((form, wanted))
    }
}

/// The browser's own cookie on the engine's host.
pub(super) fn visit_of(headers: &HeaderMap) -> Option<&str> {
    cookies::one(headers, cookies::VISIT).filter(|id| is_id(id))
}

/// Whether another page asks for this to be part of itself, such as an image: nobody would see what comes of it.
fn is_embedded(headers: &HeaderMap) -> bool {
    let mode = headers.get("sec-fetch-mode");
    mode.is_some_and(|mode| mode != "navigate")
}

/// Whether a form comes from a page of the same origin, as far as the browser says.
fn is_from_here(request: &Request<Bytes>) -> bool {
    let headers = request.headers();
    let site = headers.get("sec-fetch-site");
    if site.is_some_and(|site| site != "same-origin" && site != "none") {
        return false;
    }
    let Some(origin) = headers.get(ORIGIN) else {
        return true;
    };
    let authority = request
        .uri()
        .authority()
        .map(|authority| authority.as_str().to_owned())
        .or_else(|| headers.get(HOST)?.to_str().ok().map(str::to_owned));
    authority.is_some_and(|authority| {
        let here = format!("https://{authority}");
        origin.to_str().is_ok_and(|origin| {
            origin.eq_ignore_ascii_case(here.strip_suffix(":443").unwrap_or(&here))
        })
    })
}

/// The first value of a field in a query or form.
pub(super) fn field<'f>(form: &'f [u8], name: &str) -> Option<Cow<'f, str>> {
    form_urlencoded::parse(form).find_map(|(key, value)| (key == name).then_some(value))
}

fn other_method(allowed: &'static str) -> Reply {
    let mut reply = pages::problem(
        StatusCode::METHOD_NOT_ALLOWED,
        "This does not work so",
        "Open the address of the tunnel you want to get to.",
    );
    reply
        .headers
        .insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}
