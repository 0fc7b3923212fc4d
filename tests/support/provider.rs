//! An OpenID Connect provider on loopback that misbehaves as told. Who is sent to it signs in at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The subject of its one user.
pub const SUBJECT: &str = "248289761001";

/// The engine's id there.
pub const CLIENT: &str = "adit";

/// How it behaves.
#[derive(Clone)]
pub struct Behaviour {
    /// It answers at all.
    pub up: bool,
    /// It publishes keys.
    pub keys_up: bool,
    /// Put over the claims of its tokens; null takes away.
    pub claims: Value,
    /// How its tokens are signed.
    pub signing: Signing,
    /// The name of its key; another name is another key.
    pub kid: String,
}

/// How a token is signed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signing {
    /// With the key it publishes.
    Own,
    /// Not at all.
    None,
    /// With a secret.
    Secret,
    /// With a key it does not publish, under the name of the one it does.
    Forged,
}

struct State {
    behaviour: Behaviour,
    keys: HashMap<String, rcgen::KeyPair>,
    /// Nonce and challenge by code.
    codes: HashMap<String, (String, String)>,
    issuer: String,
    logins: usize,
}

/// The provider.
#[derive(Clone)]
pub struct Provider {
    pub issuer: String,
    state: Arc<Mutex<State>>,
}

impl Provider {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let behaviour = Behaviour {
            up: true,
            keys_up: true,
            claims: json!({}),
            signing: Signing::Own,
            kid: "k-1".to_owned(),
        };
        let state = Arc::new(Mutex::new(State {
            behaviour,
            keys: HashMap::new(),
            codes: HashMap::new(),
            issuer: issuer.clone(),
            logins: 0,
        }));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { issuer, state }
    }

    /// The engine's configuration for it.
    pub fn config(&self) -> String {
        format!(
            "[login.oidc]\nissuer = {:?}\nclient-id = {CLIENT:?}\nname = 'Test login'\n",
            self.issuer
        )
    }

    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.state.lock().unwrap().behaviour);
    }

    /// The user signs in: where the browser that was sent to `url` goes next.
    pub fn authorize(&self, url: &str) -> String {
        assert!(
            url.starts_with(&format!("{}/authorize?", self.issuer)),
            "{url}"
        );
        let mut state = self.state.lock().unwrap();
        assert_eq!(parameter(url, "response_type"), "code");
        assert_eq!(parameter(url, "client_id"), CLIENT);
        assert_eq!(parameter(url, "code_challenge_method"), "S256");
        state.logins += 1;
        let code = format!("code-{}", state.logins);
        let kept = (parameter(url, "nonce"), parameter(url, "code_challenge"));
        state.codes.insert(code.clone(), kept);
        format!(
            "{}?code={code}&state={}&iss={}",
            parameter(url, "redirect_uri"),
            parameter(url, "state"),
            state.issuer
        )
    }

    /// How often its user has signed in.
    pub fn logins(&self) -> usize {
        self.state.lock().unwrap().logins
    }
}

impl State {
    fn answer(&mut self, path: &str, body: &str) -> Option<(u16, Value)> {
        let own = |path: &str| format!("{}{path}", self.issuer);
        let answer = match path {
            _ if !self.behaviour.up => return None,
            "/.well-known/openid-configuration" => json!({
                "issuer": self.issuer,
                "authorization_endpoint": own("/authorize"),
                "token_endpoint": own("/token"),
                "userinfo_endpoint": own("/userinfo"),
                "jwks_uri": own("/jwks"),
                "authorization_response_iss_parameter_supported": true,
            }),
            "/jwks" if !self.behaviour.keys_up => return None,
            "/jwks" => {
                let kid = self.behaviour.kid.clone();
                let point = self.key(&kid).public_key_raw();
                let part = |from: usize| URL_SAFE_NO_PAD.encode(&point[from..from + 32]);
                json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": kid, "x": part(1), "y": part(33) }] })
            }
            "/token" => {
                let form = format!("?{body}");
                let Some((nonce, challenge)) = self.codes.remove(&parameter(&form, "code")) else {
                    return Some((400, json!({ "error": "invalid_grant" })));
                };
                let verifier = parameter(&form, "code_verifier");
                let met = digest::digest(&digest::SHA256, verifier.as_bytes());
                if URL_SAFE_NO_PAD.encode(met) != challenge {
                    return Some((400, json!({ "error": "invalid_grant" })));
                }
                json!({ "id_token": self.token(&nonce), "access_token": "at", "token_type": "Bearer" })
            }
            "/userinfo" => json!({
                "sub": SUBJECT, "name": "Ada", "email": "ada@example.com", "email_verified": true, "groups": ["staff"],
            }),
            _ => return Some((404, json!({}))),
        };
        Some((200, answer))
    }

    fn token(&mut self, nonce: &str) -> String {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let mut claims = json!({
            "iss": self.issuer, "aud": CLIENT, "sub": SUBJECT, "nonce": nonce, "iat": now, "exp": now + 600,
        });
        for (claim, value) in self.behaviour.claims.as_object().unwrap() {
            claims[claim] = value.clone();
        }
        let (kid, signing) = (self.behaviour.kid.clone(), self.behaviour.signing);
        let head = |algorithm| Header {
            kid: Some(kid.clone()),
            ..Header::new(algorithm)
        };
        let with = |pair: &rcgen::KeyPair| EncodingKey::from_ec_der(&pair.serialize_der());
        match signing {
            Signing::Own => {
                let key = with(self.key(&kid));
                jsonwebtoken::encode(&head(Algorithm::ES256), &claims, &key).unwrap()
            }
            Signing::Forged => {
                let key = with(&rcgen::KeyPair::generate().unwrap());
                jsonwebtoken::encode(&head(Algorithm::ES256), &claims, &key).unwrap()
            }
            Signing::Secret => {
                let key = EncodingKey::from_secret(CLIENT.as_bytes());
                jsonwebtoken::encode(&head(Algorithm::HS256), &claims, &key).unwrap()
            }
            Signing::None => {
                let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
                format!("{}.{}.", part(&json!({ "alg": "none" })), part(&claims))
            }
        }
    }

    fn key(&mut self, kid: &str) -> &rcgen::KeyPair {
        let keys = self.keys.entry(kid.to_owned());
        keys.or_insert_with(|| rcgen::KeyPair::generate().unwrap())
    }
}

/// Answers one request.
async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut read = Vec::new();
    let (head, body) = loop {
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(count) if count > 0 => read.extend_from_slice(&chunk[..count]),
            _ => return,
        }
        let text = String::from_utf8_lossy(&read).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.to_lowercase();
        let length = length.split_once("content-length: ");
        let length: usize =
            length.map_or(0, |(_, rest)| rest.lines().next().unwrap().parse().unwrap());
        if body.len() >= length {
            break (head.to_owned(), body.to_owned());
        }
    };
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let answer = state.lock().unwrap().answer(&path, &body);
    let Some((status, body)) = answer else {
        return;
    };
    let body = body.to_string();
    let text = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let _gone = stream.write_all(text.as_bytes()).await;
}

/// A parameter of an address, decoded.
pub fn parameter(url: &str, name: &str) -> String {
    let query = url.split_once('?').unwrap().1;
    let pair = query
        .split('&')
        .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("no {name} in {url}"));
    let mut text = Vec::new();
    let mut rest = pair.bytes();
    while let Some(byte) = rest.next() {
        text.push(match byte {
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(text).unwrap()
}
