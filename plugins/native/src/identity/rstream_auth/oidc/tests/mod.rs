//! A provider that is played by the test, whose clock and keys the test holds.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adit_config::Secret;
use adit_filters::Reply;
use adit_filters::env::fake::Fake;
use adit_filters::env::{FetchError, HttpRequest, HttpResponse, Reach};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, LOCATION, SET_COOKIE};
use http::{HeaderMap, Request, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::super::seal::hash;
use super::super::session::Millis;
use super::super::user::Allow;
use super::super::{Desk, DeskSettings};
use super::provider::ProviderSettings;
use super::{Provider, fetch};

const ISSUER: &str = "https://login.test/realm";

/// The fake clock's beginning, in Unix seconds.
const NOW: u64 = 1_800_000_000;

struct Key {
    kid: &'static str,
    signing: EncodingKey,
    public: Vec<u8>,
}

impl Key {
    fn new(kid: &'static str) -> Arc<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let der = pair.to_pkcs8v1().unwrap();
        Arc::new(Self {
            kid,
            signing: EncodingKey::from_ec_der(der.as_ref()),
            public: pair.public_key().as_ref().to_vec(),
        })
    }

    fn jwk(&self) -> Value {
        let part = |range| {
            URL_SAFE_NO_PAD.encode(self.public.get::<std::ops::Range<usize>>(range).unwrap())
        };
        json!({ "kty": "EC", "crv": "P-256", "kid": self.kid, "use": "sig", "alg": "ES256", "x": part(1..33), "y": part(33..65) })
    }
}

/// How the provider behaves.
struct Behaviour {
    up: bool,
    published: Vec<Value>,
    /// Makes the token of these claims.
    sign: Box<dyn Fn(Value) -> String + Send>,
    claims: Value,
    userinfo: Option<Value>,
    nonce: String,
    /// The challenge that a code's verifier must meet.
    challenge: String,
    /// How often the keys were asked for.
    key_fetches: usize,
    discovered: Value,
}

struct Bench {
    fake: Fake,
    desk: Desk,
    behaviour: Arc<Mutex<Behaviour>>,
    key: Arc<Key>,
}

fn signed_by(key: &Arc<Key>) -> Box<dyn Fn(Value) -> String + Send> {
    let key = Arc::clone(key);
    Box::new(move |claims| {
        let head = Header {
            kid: Some(key.kid.to_owned()),
            ..Header::new(Algorithm::ES256)
        };
        jsonwebtoken::encode(&head, &claims, &key.signing).unwrap()
    })
}

impl Bench {
    fn new(allow: Value) -> Self {
        let fake = Fake::default();
        let key = Key::new("k-1");
        let behaviour = Arc::new(Mutex::new(Behaviour {
            up: true,
            published: vec![json!({ "kty": "unheard-of" }), key.jwk()],
            sign: signed_by(&key),
            claims: json!({}),
            userinfo: Some(json!({
                "sub": "u-1", "name": "Ada", "email": "ada@example.com", "email_verified": true,
                "groups": ["staff", "other"], "realm": { "roles": ["admin"] }, "picture": "https://p.test/a.png",
            })),
            nonce: String::new(),
            challenge: String::new(),
            key_fetches: 0,
            discovered: json!({}),
        }));
        let played = Arc::clone(&behaviour);
        fake.http
            .answer(move |request| played.lock().unwrap().answer(request));
        let allow: Option<Allow> = serde_json::from_value(allow).unwrap();
        let settings = DeskSettings {
            host: "edge.test".into(),
            secret: Secret::new("a secret that is long enough for tests".into()),
            lifetime: Duration::from_secs(3_600),
            allow,
            projects: BTreeMap::new(),
            accounts: None,
            provider: Some(ProviderSettings {
                issuer: ISSUER.into(),
                name: None,
                client_id: "adit".into(),
                client_secret: Some(Secret::new("client secret".into())),
                scopes: vec!["email".into()],
                groups_claim: "groups".into(),
                trust_email: false,
            }),
        };
        let desk = Desk::new(settings, &fake.env(), None).unwrap();
        Self {
            fake,
            desk,
            behaviour,
            key,
        }
    }

    fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().unwrap());
    }

    async fn get(&self, url: &str, cookies: &str) -> Reply {
        let request = Request::get(url).header(COOKIE, cookies);
        let request = request.body(Bytes::new()).unwrap();
        self.desk.serve(request, [192, 0, 2, 1].into()).await
    }

    /// To the provider: where the browser is sent, and its cookie.
    async fn to_provider(&self) -> (String, String) {
        let reply = self.get("https://edge.test/rstream/auth", "").await;
        assert_eq!(reply.status, StatusCode::FOUND, "{}", text(&reply));
        let cookie = reply.headers.get(SET_COOKIE).unwrap().to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let to = reply.headers.get(LOCATION).unwrap().to_str().unwrap();
        self.behave(|behaviour| {
            behaviour.nonce = parameter(to, "nonce");
            behaviour.challenge = parameter(to, "code_challenge");
        });
        (to.to_owned(), cookie)
    }

    /// There and back.
    async fn sign_in(&self) -> Reply {
        let (to, cookie) = self.to_provider().await;
        let back = format!(
            "https://edge.test/rstream/auth/callback?code=c-1&state={}&iss={ISSUER}",
            parameter(&to, "state")
        );
        self.get(&back, &cookie).await
    }

    /// The status of signing in, and whether somebody is signed in then.
    async fn outcome(&self) -> (u16, bool) {
        let reply = self.sign_in().await;
        let login = reply.headers.get_all(SET_COOKIE).iter().any(|cookie| {
            cookie
                .to_str()
                .unwrap()
                .starts_with("__Host-rstream_login=")
        });
        (reply.status.as_u16(), login)
    }
}

impl Behaviour {
    fn answer(&mut self, request: &HttpRequest) -> Result<HttpResponse, FetchError> {
        assert_eq!(request.uri.host(), Some("login.test"));
        assert_eq!(request.reach, Reach::Named, "the operator named it");
        if !self.up {
            return Err(FetchError::TimedOut {
                host: "login.test".into(),
                limit: Duration::from_secs(1),
            });
        }
        let answer = match request.uri.path() {
            "/realm/.well-known/openid-configuration" => {
                let mut document = json!({
                    "issuer": ISSUER,
                    "authorization_endpoint": "https://login.test/authorize?tenant=1",
                    "token_endpoint": "https://login.test/token",
                    "jwks_uri": "https://login.test/jwks",
                    "authorization_response_iss_parameter_supported": true,
                });
                if self.userinfo.is_some() {
                    document["userinfo_endpoint"] = "https://login.test/userinfo".into();
                }
                merge(&mut document, &self.discovered);
                document
            }
            "/jwks" => {
                self.key_fetches += 1;
                json!({ "keys": self.published })
            }
            "/token" => {
                let form = std::str::from_utf8(&request.body).unwrap();
                let verifier = parameter(&format!("?{form}"), "code_verifier");
                let basic = request.headers.get(AUTHORIZATION).unwrap();
                assert_eq!(basic, "Basic YWRpdDpjbGllbnQrc2VjcmV0");
                assert!(
                    form.contains(
                        "redirect_uri=https%3A%2F%2Fedge.test%2Frstream%2Fauth%2Fcallback"
                    )
                );
                if hash(&verifier) != self.challenge {
                    return Ok(answer(
                        StatusCode::BAD_REQUEST,
                        &json!({ "error": "invalid_grant" }),
                    ));
                }
                let mut claims = json!({
                    "iss": ISSUER, "aud": "adit", "sub": "u-1", "nonce": self.nonce, "iat": NOW, "exp": NOW + 3_600,
                });
                merge(&mut claims, &self.claims);
                json!({ "id_token": (self.sign)(claims), "access_token": "at-1", "token_type": "Bearer" })
            }
            "/userinfo" => {
                assert_eq!(request.headers.get(AUTHORIZATION).unwrap(), "Bearer at-1");
                self.userinfo.clone().unwrap()
            }
            other => panic!("asked for {other}"),
        };
        Ok(self::answer(StatusCode::OK, &answer))
    }
}

fn answer(status: StatusCode, body: &Value) -> HttpResponse {
    HttpResponse {
        status,
        headers: HeaderMap::new(),
        body: Bytes::from(body.to_string()),
    }
}

/// Overwrites with what is there; null takes away.
fn merge(into: &mut Value, from: &Value) {
    for (key, value) in from.as_object().unwrap() {
        match value {
            Value::Null => drop(into.as_object_mut().unwrap().remove(key)),
            value => into[key] = value.clone(),
        }
    }
}

fn parameter(url: &str, name: &str) -> String {
    let query = url.split_once('?').unwrap().1;
    form_urlencoded::parse(query.as_bytes())
        .find_map(|(key, value)| (key == name).then(|| value.into_owned()))
        .unwrap_or_else(|| panic!("no {name} in {url}"))
}

fn text(reply: &Reply) -> String {
    String::from_utf8(reply.body.to_vec()).unwrap()
}

#[tokio::test]
async fn a_user_goes_to_the_provider_with_all_that_binds_the_answer() {
    let bench = Bench::new(Value::Null);
    let (to, _) = bench.to_provider().await;
    assert!(
        to.starts_with("https://login.test/authorize?tenant=1&response_type=code&"),
        "{to}"
    );
    for (name, value) in [
        ("client_id", "adit"),
        ("redirect_uri", "https://edge.test/rstream/auth/callback"),
        ("scope", "openid email"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(parameter(&to, name), value);
    }
    let (again, _) = bench.to_provider().await;
    for name in ["state", "nonce", "code_challenge"] {
        assert_ne!(parameter(&to, name), parameter(&again, name), "{name}");
    }
    // Who wants to sign in as somebody else is asked there, too.
    let other = bench
        .get("https://edge.test/rstream/auth/provider?as=other", "")
        .await;
    assert_eq!(
        parameter(
            other.headers.get(LOCATION).unwrap().to_str().unwrap(),
            "prompt"
        ),
        "login"
    );
    assert_eq!(bench.outcome().await, (200, true));
}

#[tokio::test]
async fn only_a_token_that_is_meant_for_this_sign_in_is_believed() {
    let cases = [
        (json!({}), true),
        (json!({ "nonce": "another" }), false),
        (json!({ "nonce": null }), false),
        (json!({ "aud": "somebody-else" }), false),
        (json!({ "aud": [] }), false),
        (json!({ "aud": ["adit"] }), true),
        (json!({ "aud": ["adit", "somebody-else"] }), false),
        (
            json!({ "aud": ["adit", "somebody-else"], "azp": "adit" }),
            true,
        ),
        (
            json!({ "aud": ["adit", "somebody-else"], "azp": "somebody-else" }),
            false,
        ),
        (json!({ "azp": "somebody-else" }), false),
        (json!({ "iss": "https://login.test/other" }), false),
        (json!({ "iss": format!("{ISSUER}/") }), false),
        (json!({ "exp": NOW - 61 }), false),
        (json!({ "exp": NOW - 59 }), true),
        (json!({ "exp": null }), false),
        (json!({ "exp": "soon" }), false),
        (json!({ "iat": NOW + 61 }), false),
        (json!({ "iat": NOW + 59 }), true),
        (json!({ "iat": null }), false),
        (json!({ "nbf": NOW + 61 }), false),
        (json!({ "sub": "" }), false),
        (json!({ "sub": "u".repeat(256) }), false),
        (json!({ "sub": null }), false),
    ];
    for (claims, believed) in cases {
        let bench = Bench::new(Value::Null);
        bench.behave(|behaviour| {
            behaviour.claims = claims.clone();
            behaviour.userinfo = None;
        });
        let expected = if believed { (200, true) } else { (400, false) };
        assert_eq!(bench.outcome().await, expected, "{claims}");
    }
}

#[tokio::test]
async fn only_a_key_of_the_providers_own_signs() {
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = move |head: Value, signature: &str| {
        let signature = signature.to_owned();
        move |claims: Value| format!("{}.{}.{signature}", encoded(&head), encoded(&claims))
    };
    let ours = Key::new("k-1");
    let hmac = |head: Header, secret: Vec<u8>| {
        move |claims: Value| {
            jsonwebtoken::encode(&head, &claims, &EncodingKey::from_secret(&secret)).unwrap()
        }
    };
    let hs256 = Header {
        kid: Some("k-1".into()),
        ..Header::new(Algorithm::HS256)
    };
    let with_head = |change: fn(&mut Header)| {
        let bench = Bench::new(Value::Null);
        let key = Arc::clone(&bench.key);
        let sign = move |claims: Value| {
            let mut head = Header::new(Algorithm::ES256);
            head.kid = Some("k-1".into());
            change(&mut head);
            jsonwebtoken::encode(&head, &claims, &key.signing).unwrap()
        };
        (bench, Box::new(sign) as Box<dyn Fn(Value) -> String + Send>)
    };
    type Sign = Box<dyn Fn(Value) -> String + Send>;
    let public = ours.public.clone();
    let cases: Vec<(&str, Bench, Sign)> = vec![
        (
            "none",
            Bench::new(Value::Null),
            Box::new(unsigned(json!({ "alg": "none" }), "")),
        ),
        (
            "None",
            Bench::new(Value::Null),
            Box::new(unsigned(json!({ "alg": "None", "kid": "k-1" }), "")),
        ),
        (
            "ES256 without a signature",
            Bench::new(Value::Null),
            Box::new(unsigned(json!({ "alg": "ES256", "kid": "k-1" }), "")),
        ),
        (
            "HS256 by the client's secret",
            Bench::new(Value::Null),
            Box::new(hmac(hs256.clone(), b"client secret".to_vec())),
        ),
        (
            "HS256 by the public key",
            Bench::new(Value::Null),
            Box::new(hmac(hs256, public)),
        ),
        (
            "another's key under that name",
            Bench::new(Value::Null),
            signed_by(&ours),
        ),
        (
            "a key that is not published",
            Bench::new(Value::Null),
            signed_by(&Key::new("k-2")),
        ),
        (
            "nonsense",
            Bench::new(Value::Null),
            Box::new(|_| "nonsense".to_owned()),
        ),
        (
            "too long",
            Bench::new(Value::Null),
            Box::new(|_| format!("a.{}.c", "b".repeat(70_000))),
        ),
    ];
    for (what, bench, sign) in cases {
        bench.behave(|behaviour| behaviour.sign = sign);
        assert_eq!(bench.outcome().await, (400, false), "{what}");
    }
    let (bench, sign) = with_head(|head| head.crit = Some(vec!["b64".into()]));
    bench.behave(|behaviour| behaviour.sign = sign);
    assert_eq!(bench.outcome().await, (400, false), "crit");
    // The allowed twins: with the name of the key, and without where there is one only.
    for change in [(|_: &mut Header| ()) as fn(&mut Header), |head| {
        head.kid = None
    }] {
        let (bench, sign) = with_head(change);
        bench.behave(|behaviour| behaviour.sign = sign);
        assert_eq!(bench.outcome().await, (200, true));
    }
    // A key that is meant for something else.
    for (field, value) in [("use", "enc"), ("alg", "ES384"), ("crv", "P-384")] {
        let bench = Bench::new(Value::Null);
        let mut key = bench.key.jwk();
        key[field] = value.into();
        bench.behave(|behaviour| behaviour.published = vec![key]);
        assert_eq!(bench.outcome().await, (400, false), "{field} {value}");
    }
}

#[tokio::test]
async fn keys_change_while_users_sign_in() {
    let bench = Bench::new(Value::Null);
    assert_eq!(bench.outcome().await, (200, true));
    let fetches = || bench.behaviour.lock().unwrap().key_fetches;
    assert_eq!((bench.outcome().await, fetches()), ((200, true), 1));
    let rotate = |kid| {
        let key = Key::new(kid);
        bench.behave(|behaviour| {
            behaviour.published = vec![key.jwk()];
            behaviour.sign = signed_by(&key);
        });
    };
    rotate("k-2");
    assert_eq!((bench.outcome().await, fetches()), ((200, true), 2));
    // Names that nobody knows make the engine ask once a minute, no more.
    rotate("k-3");
    for _ in 0..5 {
        assert_eq!((bench.outcome().await, fetches()), ((400, false), 2));
    }
    bench.fake.clock.advance(Duration::from_secs(60));
    assert_eq!((bench.outcome().await, fetches()), ((200, true), 3));
    // Of a set that has no end, the beginning is looked at.
    let padded = |kept: Value, before: usize| {
        let mut all = vec![json!({ "kty": "unheard-of" }); before];
        all.push(kept);
        all
    };
    for (before, signed_in) in [(99, true), (100, false)] {
        let bench = Bench::new(Value::Null);
        let key = bench.key.jwk();
        bench.behave(|behaviour| behaviour.published = padded(key, before));
        assert_eq!(bench.outcome().await.1, signed_in, "behind {before}");
    }
    // A key that was taken back is not trusted for long.
    bench.behave(|behaviour| behaviour.published = vec![Key::new("k-4").jwk()]);
    assert_eq!(bench.outcome().await, (200, true));
    bench.fake.clock.advance(Duration::from_secs(600));
    assert_eq!((bench.outcome().await, fetches()), ((400, false), 4));
}

#[tokio::test]
async fn a_provider_that_is_away_is_told_so_and_comes_back_by_itself() {
    let bench = Bench::new(Value::Null);
    bench.behave(|behaviour| behaviour.up = false);
    let away = bench.get("https://edge.test/rstream/auth", "").await;
    assert_eq!(away.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(away.headers.get("retry-after").unwrap(), "10");
    assert!(
        text(&away).contains("login.test does not answer"),
        "{}",
        text(&away)
    );
    // It is left alone for a moment, then asked again.
    bench.behave(|behaviour| behaviour.up = true);
    let asked = bench.fake.http.asked().len();
    let away = bench.get("https://edge.test/rstream/auth", "").await;
    assert_eq!(
        (away.status, bench.fake.http.asked().len()),
        (StatusCode::SERVICE_UNAVAILABLE, asked)
    );
    bench.fake.clock.advance(Duration::from_secs(2));
    assert_eq!(bench.outcome().await, (200, true));
    // Away when the user is back from there: while its keys have become old, too.
    let (to, cookie) = bench.to_provider().await;
    bench.fake.clock.advance(Duration::from_secs(599));
    bench.behave(|behaviour| behaviour.up = false);
    let back = format!(
        "https://edge.test/rstream/auth/callback?code=c&iss={ISSUER}&state={}",
        parameter(&to, "state")
    );
    let away = bench.get(&back, &cookie).await;
    assert_eq!(away.status, StatusCode::SERVICE_UNAVAILABLE);
    bench.behave(|behaviour| behaviour.up = true);
    bench.fake.clock.advance(Duration::from_secs(2));
    assert_eq!(bench.outcome().await, (200, true));
}

#[tokio::test]
async fn an_answer_counts_in_the_browser_that_asked_from_the_issuer_that_was_asked() {
    let bench = Bench::new(Value::Null);
    let (to, cookie) = bench.to_provider().await;
    let (_, other_cookie) = bench.to_provider().await;
    // The provider meant the first.
    bench.behave(|behaviour| {
        behaviour.nonce = parameter(&to, "nonce");
        behaviour.challenge = parameter(&to, "code_challenge");
    });
    let state = parameter(&to, "state");
    let good = format!("?code=c-1&state={state}&iss={ISSUER}");
    let cases = [
        (good.clone(), cookie.as_str(), 200),
        // Login CSRF: another browser, or none.
        (good.clone(), &other_cookie, 400),
        (good.clone(), "", 400),
        // Mixed up: another issuer, or none though it said it would name itself.
        (
            format!("?code=c-1&state={state}&iss=https://login.test/other"),
            &cookie,
            400,
        ),
        (format!("?code=c-1&state={state}"), &cookie, 400),
        (
            format!("?code=c-1&state={state}A&iss={ISSUER}"),
            &cookie,
            400,
        ),
        (format!("?code=c-1&iss={ISSUER}"), &cookie, 400),
        (format!("?state={state}&iss={ISSUER}"), &cookie, 400),
        (
            format!("?code={}&state={state}&iss={ISSUER}", "c".repeat(5_000)),
            &cookie,
            400,
        ),
        (
            format!("?error=access_denied&state={state}&iss={ISSUER}"),
            &cookie,
            400,
        ),
        (String::new(), &cookie, 400),
    ];
    for (query, cookies, status) in cases {
        let back = format!("https://edge.test/rstream/auth/callback{query}");
        let reply = bench.get(&back, cookies).await;
        assert_eq!(reply.status.as_u16(), status, "{query}: {}", text(&reply));
    }
    // A code that was given to another sign-in meets another verifier (RFC 7636).
    bench.behave(|behaviour| behaviour.challenge = "another".into());
    let back = format!("https://edge.test/rstream/auth/callback{good}");
    let refused = bench.get(&back, &cookie).await;
    assert!(
        text(&refused).contains("refused: invalid_grant"),
        "{}",
        text(&refused)
    );
    // Ten minutes, no more.
    bench.fake.clock.advance(Duration::from_secs(600));
    assert_eq!(
        bench.get(&back, &cookie).await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn a_provider_speaks_for_itself_alone() {
    let cases = [
        json!({ "issuer": "https://login.test/other" }),
        json!({ "token_endpoint": "http://login.test/token" }),
        json!({ "authorization_endpoint": "javascript:alert(1)" }),
        json!({ "jwks_uri": "not an address" }),
        json!({ "userinfo_endpoint": "ftp://login.test/" }),
        json!({ "token_endpoint": null }),
    ];
    for discovered in cases {
        let bench = Bench::new(Value::Null);
        bench.behave(|behaviour| behaviour.discovered = discovered.clone());
        let reply = bench.get("https://edge.test/rstream/auth", "").await;
        assert_eq!(
            reply.status,
            StatusCode::SERVICE_UNAVAILABLE,
            "{discovered}"
        );
    }
    let bench = Bench::new(Value::Null);
    bench.behave(|behaviour| behaviour.userinfo = Some(json!({ "sub": "u-2" })));
    assert_eq!(
        bench.outcome().await,
        (400, false),
        "it speaks of another user"
    );
    let bench = Bench::new(Value::Null);
    let large = "x".repeat(fetch::ANSWER_BYTES_MAX);
    bench.behave(|behaviour| behaviour.discovered = json!({ "more": large }));
    let reply = bench.get("https://edge.test/rstream/auth", "").await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "too large");
}

#[tokio::test]
async fn claims_decide_who_may_sign_in() {
    let more = |more: Value| {
        let mut all = json!({
            "sub": "u-1", "email": "ada@example.com", "email_verified": true, "groups": ["staff"],
            "realm": { "roles": ["admin"] }, "level": 3,
        });
        merge(&mut all, &more);
        all
    };
    let cases = [
        (
            json!({ "emails": ["ada@example.com"] }),
            more(json!({})),
            true,
        ),
        // An address that nobody verified is anybody's.
        (
            json!({ "emails": ["ada@example.com"] }),
            more(json!({ "email_verified": false })),
            false,
        ),
        (
            json!({ "emails": ["ada@example.com"] }),
            more(json!({ "email_verified": null })),
            false,
        ),
        (
            json!({ "domains": ["example.com"] }),
            more(json!({ "email_verified": "true" })),
            true,
        ),
        (json!({ "groups": ["staff"] }), more(json!({})), true),
        (
            json!({ "groups": ["staff"] }),
            more(json!({ "groups": "staff" })),
            true,
        ),
        (
            json!({ "groups": ["staff"] }),
            more(json!({ "groups": ["others"] })),
            false,
        ),
        (
            json!({ "groups": ["staff"] }),
            more(json!({ "groups": null })),
            false,
        ),
        (
            json!({ "claims": { "realm.roles": ["admin"] } }),
            more(json!({})),
            true,
        ),
        (
            json!({ "claims": { "realm.roles": ["root"] } }),
            more(json!({})),
            false,
        ),
        (
            json!({ "claims": { "level": ["3"] } }),
            more(json!({})),
            true,
        ),
        (json!({ "users": ["oidc:u-1"] }), more(json!({})), true),
        (json!({ "users": ["account:u-1"] }), more(json!({})), false),
    ];
    for (allow, userinfo, may) in cases {
        let bench = Bench::new(allow.clone());
        bench.behave(|behaviour| behaviour.userinfo = Some(userinfo.clone()));
        let expected = if may { (200, true) } else { (403, false) };
        assert_eq!(bench.outcome().await, expected, "{allow} {userinfo}");
    }
}

#[test]
fn nothing_of_a_user_is_kept_but_what_is_asked_about() {
    let bench = Bench::new(json!({ "groups": ["staff"], "claims": { "realm.roles": ["admin"] } }));
    let interests = bench.desk.interests();
    let settings = bench.desk.settings.provider.clone().unwrap();
    let provider = Provider::new(settings, &bench.fake.env());
    let vouched = super::id_token::Vouched {
        subject: "u-1".into(),
        claims: json!({
            "groups": ["staff", "secret"], "realm": { "roles": ["admin", "root"] }, "name": "Ada", "ssn": "1",
            "picture": "javascript:alert(1)", "email": "ada@example.com",
        })
        .as_object()
        .unwrap()
        .clone(),
    };
    let user = provider.user_of(&vouched, &interests);
    assert_eq!(
        serde_json::to_value(&user).unwrap(),
        json!({
            "id": "oidc:u-1", "name": "Ada", "email": null, "image": null, "groups": ["staff"],
            "claims": { "realm.roles": ["admin"] },
        })
    );
    assert_eq!(Millis(NOW * 1_000), bench.desk.now());
}
