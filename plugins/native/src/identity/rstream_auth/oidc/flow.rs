//! To the provider and back.

use std::net::IpAddr;
use std::time::Duration;

use adit_filters::Reply;
use bytes::Bytes;
use form_urlencoded::Serializer;
use http::header::SET_COOKIE;
use http::{HeaderMap, Request, StatusCode};
use serde::{Deserialize, Serialize};

use super::super::codes::{LoginRequest, REQUEST_LIFE};
use super::super::cookies;
use super::super::desk::Desk;
use super::super::pages;
use super::super::seal::hash;
use super::super::serve::{VISIT_LIFE, Wanted, field, visit_of};
use super::super::session::{Millis, Proof};
use super::super::tunnel::redirect;
use super::super::user::tidy;
use super::fetch::ProviderError;
use super::provider::{Metadata, Provider, Returned};

/// The path on the engine's host that the provider sends users back to: it is registered there.
pub(crate) const RETURN_PATH: &str = "/rstream/auth/callback";

/// How long a visitor is told to wait for a provider that does not answer.
const AWAY: Duration = Duration::from_secs(10);

/// Longest code of a provider, in bytes.
const CODE_BYTES_MAX: usize = 4 * 1024;

/// What goes with a user to the provider and comes back.
#[derive(Debug, Deserialize, Serialize)]
struct State {
    /// What it wants here.
    request: Option<LoginRequest>,
    /// The hash of its browser's own cookie.
    visit: String,
    /// Which provider it was sent to.
    issuer: String,
    since: Millis,
}

impl Desk {
    /// Sends a visitor to the provider.
    pub(in crate::identity::rstream_auth) async fn to_provider(
        &self,
        headers: &HeaderMap,
        wanted: &Wanted,
        as_other: bool,
    ) -> Reply {
        let Some(provider) = &self.provider else {
            return nothing_here();
        };
        let metadata = match provider.metadata().await {
            Ok(metadata) => metadata,
            Err(error) => return away(provider, &error, wanted),
        };
        let known = visit_of(headers).map(str::to_owned);
        let visit = known.unwrap_or_else(|| self.seal.id());
        let to = self.authorization(provider, &metadata, &visit, wanted, as_other);
        let mut reply = redirect(StatusCode::FOUND, &to);
        let cookie = cookies::set(cookies::VISIT, &visit, VISIT_LIFE);
        reply.headers.append(SET_COOKIE, cookie);
        reply
    }

    fn authorization(
        &self,
        provider: &Provider,
        metadata: &Metadata,
        visit: &str,
        wanted: &Wanted,
        as_other: bool,
    ) -> String {
        let request = match wanted {
            Wanted::Nothing => None,
            Wanted::Tunnel(request, _) => Some(request.clone()),
        };
        let state = State {
            request,
            visit: hash(visit),
            issuer: provider.issuer().to_owned(),
            since: self.now(),
        };
        let state = self.seal.seal(&["state"], &state);
        let settings = &provider.settings;
        let mut scope = "openid".to_owned();
        for more in settings.scopes.iter().filter(|more| *more != "openid") {
            scope.push(' ');
            scope.push_str(more);
        }
        let mut query = Serializer::new(String::new());
        query
            .append_pair("response_type", "code")
            .append_pair("client_id", &settings.client_id)
            .append_pair("redirect_uri", &self.redirect_uri())
            .append_pair("scope", &scope)
            .append_pair("state", &state)
            .append_pair("nonce", &self.nonce(&state, visit))
            .append_pair("code_challenge", &hash(&self.verifier(&state, visit)))
            .append_pair("code_challenge_method", "S256");
        if as_other {
            query.append_pair("prompt", "login");
        }
        let endpoint = &metadata.authorization_endpoint;
        let join = if endpoint.contains('?') { '&' } else { '?' };
        format!("{endpoint}{join}{}", query.finish())
    }

    /// A user comes back from the provider.
    pub(in crate::identity::rstream_auth) async fn back_from_provider(
        &self,
        request: &Request<Bytes>,
        from: IpAddr,
    ) -> Reply {
        let Some(provider) = &self.provider else {
            return nothing_here();
        };
        let query = request.uri().query().unwrap_or_default().as_bytes();
        let sealed = field(query, "state").unwrap_or_default();
        let Some((state, visit)) = self.state(&sealed, request.headers(), provider) else {
            return pages::problem(
                StatusCode::BAD_REQUEST,
                "You are not signed in yet",
                "This page counts once, for ten minutes, in the browser that asked for it, and needs cookies. Open the address of the tunnel again.",
            );
        };
        let wanted = match state.request {
            Some(asked) => Wanted::Tunnel(asked.clone(), self.seal.seal(&["request"], &asked)),
            None => Wanted::Nothing,
        };
        let failed = |error: &ProviderError| away(provider, error, &wanted);
        if let Some(error) = field(query, "error") {
            // Whoever wrote the address wrote this, too.
            return failed(&ProviderError::Refused(tidy(&error).unwrap_or_default()));
        }
        if !self.throttle.answer(from) {
            return pages::problem(
                StatusCode::TOO_MANY_REQUESTS,
                "You are not signed in yet",
                "Too many have tried from here. Wait some minutes, then open the address of the tunnel again.",
            );
        }
        let metadata = match provider.metadata().await {
            Ok(metadata) => metadata,
            Err(error) => return failed(&error),
        };
        // RFC 9207: an answer that another provider gave must not be taken to this one.
        let issuer = field(query, "iss");
        let mixed_up = match &issuer {
            Some(issuer) => *issuer != provider.issuer(),
            None => metadata.authorization_response_iss_parameter_supported,
        };
        if mixed_up {
            return failed(&ProviderError::Word("the answer is another issuer's"));
        }
        let code = field(query, "code").unwrap_or_default();
        if code.is_empty() || code.len() > CODE_BYTES_MAX {
            return failed(&ProviderError::Word("there is no code in its answer"));
        }
        let (nonce, verifier) = (self.nonce(&sealed, visit), self.verifier(&sealed, visit));
        let returned = Returned {
            code: &code,
            verifier: &verifier,
            redirect_uri: &self.redirect_uri(),
            nonce: &nonce,
        };
        let user = provider.user(returned, self.now(), &self.interests()).await;
        match user {
            Ok(user) => {
                let proof = Proof::Provider {
                    issuer: provider.issuer().to_owned(),
                };
                self.signed_in(user, proof, &wanted, from)
            }
            Err(error) => failed(&error),
        }
    }

    /// What went with the user, if this browser is the one it went with, lately and to this provider.
    fn state<'h>(
        &self,
        sealed: &str,
        headers: &'h HeaderMap,
        provider: &Provider,
    ) -> Option<(State, &'h str)> {
        let state: State = self.seal.open(&["state"], sealed)?;
        let visit = visit_of(headers)?;
        let now = self.now();
        let stands = state.visit == hash(visit)
            && state.issuer == provider.issuer()
            && state.since <= now
            && now < state.since.after(REQUEST_LIFE);
        stands.then_some((state, visit))
    }

    fn redirect_uri(&self) -> String {
        format!("{}{RETURN_PATH}", self.own_origin())
    }

    fn nonce(&self, state: &str, visit: &str) -> String {
        self.seal.derive(&["nonce", state, visit])
    }

    fn verifier(&self, state: &str, visit: &str) -> String {
        self.seal.derive(&["verifier", state, visit])
    }
}

/// Tells a visitor that the provider does not vouch for it, and why as far as that helps.
fn away(provider: &Provider, error: &ProviderError, wanted: &Wanted) -> Reply {
    let name = provider.name();
    let again = wanted.again();
    match error {
        ProviderError::Unavailable { .. } => {
            tracing::warn!(issuer = provider.issuer(), %error, "nobody can sign in at the provider");
            pages::later(
                StatusCode::SERVICE_UNAVAILABLE,
                "You cannot sign in just now",
                &format!(
                    "{name} does not answer as it should. Try again in a minute; if it stays so, tell whoever runs this engine."
                ),
                AWAY,
                Some(&again),
            )
        }
        ProviderError::Refused(why) => {
            tracing::info!(issuer = provider.issuer(), %error, "a user was refused by the provider");
            let told = match &**why {
                "access_denied" => format!("You were not let through by {name}, or turned back."),
                why => format!("{name} refused: {why}."),
            };
            pages::again(
                StatusCode::BAD_REQUEST,
                "You are not signed in",
                &told,
                &again,
            )
        }
        ProviderError::Word(_) => {
            tracing::warn!(issuer = provider.issuer(), %error, "a user's sign-in is not believed");
            let told = format!(
                "What {name} says about you cannot be taken. Try again; if it stays so, tell whoever runs this engine."
            );
            pages::again(
                StatusCode::BAD_REQUEST,
                "You are not signed in",
                &told,
                &again,
            )
        }
    }
}

fn nothing_here() -> Reply {
    pages::problem(
        StatusCode::NOT_FOUND,
        "Nothing is here",
        "Open the address of the tunnel you want to get to.",
    )
}
