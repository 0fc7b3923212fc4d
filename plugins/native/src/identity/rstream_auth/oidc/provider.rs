//! What is known of the provider, and how it is asked about a user.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use adit_config::Secret;
use adit_filters::Env;
use adit_filters::env::{Clock, HttpClient};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use form_urlencoded::{Serializer, byte_serialize};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::super::session::Millis;
use super::super::user::{IMAGE_BYTES_MAX, Interests, User, tidy};
use super::fetch::{Asker, ProviderError, read};
use super::id_token::{self, Expected, Vouched};
use super::keys::{Fetched, KEYS_AGAIN, KEYS_LIFE, Keys};

/// How long what the provider says of itself counts before it is asked again: no longer than users may be sent to one that
/// is away, where nobody tells them what to do.
const METADATA_LIFE: Duration = Duration::from_secs(60);

/// How long after a failure the provider is left alone: so many visitors do not each wait for it.
const FAILURE_PAUSE: Duration = Duration::from_secs(2);

/// A provider as it is configured.
#[derive(Clone, Debug)]
pub struct ProviderSettings {
    /// Its issuer.
    pub issuer: String,
    /// What its button is called; its host without it.
    pub name: Option<String>,
    /// This engine's id there.
    pub client_id: String,
    /// This engine's secret there; none for a public client.
    pub client_secret: Option<Secret<String>>,
    /// What is asked for beside `openid`.
    pub scopes: Vec<String>,
    /// The claim that lists a user's groups; dots lead into nested claims.
    pub groups_claim: String,
    /// Whether mail addresses count that it does not say it has verified.
    pub trust_email: bool,
}

/// The provider.
pub(crate) struct Provider {
    pub(super) settings: ProviderSettings,
    host: String,
    http: Arc<dyn HttpClient>,
    clock: Arc<dyn Clock>,
    /// One asks, the others wait for what it learns.
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    metadata: Option<(Duration, Arc<Metadata>)>,
    keys: Option<(Duration, Arc<Keys>)>,
    /// When the keys were last asked for because a token named one that was not there.
    missed: Option<Duration>,
    failed: Option<(Duration, String)>,
}

/// What a provider says of itself
/// ([OpenID Connect Discovery §3](https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderMetadata)).
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    issuer: String,
    pub(super) authorization_endpoint: String,
    token_endpoint: String,
    userinfo_endpoint: Option<String>,
    jwks_uri: String,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
}

/// What the provider answers to a code.
#[derive(Deserialize)]
struct Tokens {
    id_token: String,
    access_token: Option<String>,
}

#[derive(Deserialize)]
struct TokenRefusal {
    error: String,
}

/// What a user comes back from the provider with, and what must be so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Returned<'a> {
    pub(super) code: &'a str,
    pub(super) verifier: &'a str,
    pub(super) redirect_uri: &'a str,
    pub(super) nonce: &'a str,
}

impl Provider {
    pub(crate) fn new(settings: ProviderSettings, env: &Env) -> Self {
        let uri: Option<Uri> = settings.issuer.parse().ok();
        let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
        Self {
            host: host.to_owned(),
            http: Arc::clone(&env.http),
            clock: Arc::clone(&env.clock),
            known: Mutex::default(),
            settings,
        }
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.settings.issuer
    }

    /// What people know it as.
    pub(crate) fn name(&self) -> &str {
        self.settings.name.as_deref().unwrap_or(&self.host)
    }

    fn asker(&self) -> Asker<'_> {
        Asker {
            http: &*self.http,
            named: &self.host,
            plain: self.settings.issuer.starts_with("http://"),
        }
    }

    /// What the provider says of itself.
    pub(super) async fn metadata(&self) -> Result<Arc<Metadata>, ProviderError> {
        let mut known = self.known.lock().await;
        let now = self.clock.monotonic();
        if let Some((at, metadata)) = &known.metadata
            && now.saturating_sub(*at) < METADATA_LIFE
        {
            return Ok(Arc::clone(metadata));
        }
        known.pause(now)?;
        let asked = self.discover().await;
        let metadata = known.learned(self.clock.monotonic(), asked)?;
        known.metadata = Some((now, Arc::clone(&metadata)));
        Ok(metadata)
    }

    async fn discover(&self) -> Result<Arc<Metadata>, ProviderError> {
        const WHAT: &str = "discovery document";
        let address = format!(
            "{}/.well-known/openid-configuration",
            self.settings.issuer.trim_end_matches('/')
        );
        let asker = self.asker();
        let metadata: Metadata = asker.get(WHAT, &address, HeaderMap::new()).await?;
        // OpenID Connect Discovery §4.3: else one provider could speak for another.
        if metadata.issuer != self.settings.issuer {
            let why = format!("it is of issuer `{}`", metadata.issuer);
            return Err(ProviderError::unavailable(WHAT, why));
        }
        let endpoints = [
            Some(&metadata.authorization_endpoint),
            Some(&metadata.token_endpoint),
            Some(&metadata.jwks_uri),
            metadata.userinfo_endpoint.as_ref(),
        ];
        for endpoint in endpoints.into_iter().flatten() {
            asker.uri(WHAT, endpoint)?;
        }
        Ok(Arc::new(metadata))
    }

    /// The key that verifies a token of this head. The set is asked for again when it has become old, and, for a key
    /// that is not in it, once a minute at most.
    async fn key(
        &self,
        metadata: &Metadata,
        head: &jsonwebtoken::Header,
    ) -> Result<jsonwebtoken::DecodingKey, ProviderError> {
        let unknown =
            ProviderError::Word("its token is signed with a key that it does not publish");
        let mut known = self.known.lock().await;
        let now = self.clock.monotonic();
        let mut misses = false;
        if let Some((at, keys)) = &known.keys
            && now.saturating_sub(*at) < KEYS_LIFE
        {
            misses = true;
            if let Some(key) = keys.find(head) {
                return Ok(key);
            }
            let missed = known.missed;
            if missed.is_some_and(|missed| now.saturating_sub(missed) < KEYS_AGAIN) {
                return Err(unknown);
            }
        }
        known.pause(now)?;
        let asked = self
            .asker()
            .get::<Fetched>("key set", &metadata.jwks_uri, HeaderMap::new())
            .await;
        let keys = known.learned(
            self.clock.monotonic(),
            asked.map(|set| Arc::new(Keys::from(set))),
        )?;
        if misses {
            // Only once it was learned: while the provider could not be asked, it was not known not to help.
            known.missed = Some(now);
        }
        known.keys = Some((now, Arc::clone(&keys)));
        keys.find(head).ok_or(unknown)
    }

    /// Who came back.
    ///
    /// # Errors
    /// Why nobody can be vouched for.
    pub(super) async fn user(
        &self,
        returned: Returned<'_>,
        now: Millis,
        interests: &Interests,
    ) -> Result<User, ProviderError> {
        let metadata = self.metadata().await?;
        let tokens = self.exchange(&metadata, returned).await?;
        let head = id_token::head(&tokens.id_token).map_err(ProviderError::Word)?;
        let key = self.key(&metadata, &head).await?;
        let expected = Expected {
            issuer: &self.settings.issuer,
            client_id: &self.settings.client_id,
            nonce: returned.nonce,
            now,
        };
        let mut vouched = id_token::verify(&tokens.id_token, &head, &key, expected)
            .map_err(ProviderError::Word)?;
        if let (Some(endpoint), Some(token)) = (&metadata.userinfo_endpoint, &tokens.access_token) {
            self.tell_more(endpoint, token, &mut vouched).await?;
        }
        Ok(self.user_of(&vouched, interests))
    }

    /// A code for tokens ([RFC 6749 §4.1.3](https://www.rfc-editor.org/rfc/rfc6749#section-4.1.3)).
    async fn exchange(
        &self,
        metadata: &Metadata,
        returned: Returned<'_>,
    ) -> Result<Tokens, ProviderError> {
        const WHAT: &str = "answer to a code";
        let (headers, body) = self.token_request(metadata, returned);
        let answer = self
            .asker()
            .ask(WHAT, Method::POST, &metadata.token_endpoint, headers, body)
            .await?;
        match answer.status {
            StatusCode::OK => read(WHAT, &answer),
            status if status.is_client_error() => {
                let told = read::<TokenRefusal>(WHAT, &answer);
                Err(ProviderError::Refused(told.map_or_else(
                    |_| status.to_string(),
                    |told| tidy(&told.error).unwrap_or_default(),
                )))
            }
            status => Err(ProviderError::unavailable(WHAT, status)),
        }
    }

    fn token_request(&self, metadata: &Metadata, returned: Returned<'_>) -> (HeaderMap, Bytes) {
        let Returned {
            code,
            verifier,
            redirect_uri,
            ..
        } = returned;
        let settings = &self.settings;
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("code_verifier", verifier);
        let mut headers = HeaderMap::new();
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, kind);
        match &settings.client_secret {
            Some(secret) if metadata.takes_basic() => {
                headers.insert(AUTHORIZATION, basic(&settings.client_id, secret));
            }
            Some(secret) => {
                form.append_pair("client_id", &settings.client_id)
                    .append_pair("client_secret", secret.expose());
            }
            None => {
                form.append_pair("client_id", &settings.client_id);
            }
        }
        (headers, Bytes::from(form.finish()))
    }

    /// What the provider says of the user beside the token; what the token says counts first.
    async fn tell_more(
        &self,
        endpoint: &str,
        token: &str,
        vouched: &mut Vouched,
    ) -> Result<(), ProviderError> {
        const WHAT: &str = "word about the user";
        let mut headers = HeaderMap::new();
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|error| ProviderError::unavailable(WHAT, error))?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
        let more: Map<String, Value> = self.asker().get(WHAT, endpoint, headers).await?;
        // OpenID Connect Core §5.3.2: else one user's token could bring another's claims.
        if more.get("sub").and_then(Value::as_str) != Some(&*vouched.subject) {
            return Err(ProviderError::Word("it speaks of another user"));
        }
        for (claim, value) in more {
            vouched.claims.entry(claim).or_insert(value);
        }
        Ok(())
    }

    pub(super) fn user_of(&self, vouched: &Vouched, interests: &Interests) -> User {
        let claims = &vouched.claims;
        let text = |claim: &str| claims.get(claim).and_then(Value::as_str);
        let verified = match claims.get("email_verified") {
            Some(Value::Bool(verified)) => *verified,
            // Some providers write it so.
            Some(Value::String(text)) => text == "true",
            _ => false,
        };
        let email = text("email")
            .filter(|email| email.contains('@') && (verified || self.settings.trust_email));
        let groups = find(claims, &self.settings.groups_claim)
            .map(values)
            .unwrap_or_default();
        let claims = interests
            .claims
            .iter()
            .filter_map(|(claim, asked)| {
                let has: BTreeSet<String> = find(claims, claim).map(values)?;
                let kept: BTreeSet<String> = has.intersection(asked).cloned().collect();
                (!kept.is_empty()).then(|| (claim.clone(), kept))
            })
            .collect::<BTreeMap<_, _>>();
        User {
            id: format!("oidc:{}", vouched.subject),
            name: text("name")
                .or_else(|| text("preferred_username"))
                .and_then(tidy),
            email: email.and_then(tidy),
            image: text("picture")
                .filter(|image| image.starts_with("https://") && image.len() <= IMAGE_BYTES_MAX)
                .map(str::to_owned),
            groups: interests.groups(groups),
            claims,
        }
    }
}

impl Metadata {
    /// Whether the secret may go in a field of its own, as is best; it may unless the provider says otherwise.
    fn takes_basic(&self) -> bool {
        let methods = self.token_endpoint_auth_methods_supported.as_ref();
        methods.is_none_or(|methods| {
            methods.iter().any(|method| method == "client_secret_basic")
                || !methods.iter().any(|method| method == "client_secret_post")
        })
    }
}

impl Known {
    /// Leaves a provider alone that has just failed.
    fn pause(&self, now: Duration) -> Result<(), ProviderError> {
        match &self.failed {
            Some((at, why)) if now.saturating_sub(*at) < FAILURE_PAUSE => {
                Err(ProviderError::unavailable("answer", why))
            }
            _ => Ok(()),
        }
    }

    fn learned<T>(
        &mut self,
        now: Duration,
        asked: Result<T, ProviderError>,
    ) -> Result<T, ProviderError> {
        self.failed = asked.as_ref().err().map(|error| (now, error.to_string()));
        asked
    }
}

/// RFC 6749 §2.3.1: both are encoded like a form's values first.
fn basic(id: &str, secret: &Secret<String>) -> HeaderValue {
    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
    let pair = Secret::new(format!("{}:{}", encoded(id), encoded(secret.expose())));
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair.expose())))
        .expect("base64 can stand in a field");
    value.set_sensitive(true);
    value
}

/// A claim by its name, or else by a path of names with dots between.
fn find<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    if let Some(found) = claims.get(name) {
        return Some(found);
    }
    let mut steps = name.split('.');
    let first = claims.get(steps.next()?)?;
    steps.try_fold(first, |value, step| value.get(step))
}

/// The values of a claim: itself, or what it lists.
fn values(claim: &Value) -> BTreeSet<String> {
    let one = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    };
    match claim {
        Value::Array(many) => many.iter().filter_map(one).collect(),
        single => one(single).into_iter().collect(),
    }
}
