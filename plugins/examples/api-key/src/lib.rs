//! Lets requests with a known key in, as the one it belongs to: an auth mode of its own.
//!
//! Keys are long and random, so their SHA-256 is enough to know them by; the table holds nothing that opens a door.
//!
//! ```toml
//! [plugin.api-key]
//! component = "api_key.wasm"
//! stage = "identity"
//! establish-identity = true
//!
//! [policy.edge]
//! filters = [{ use = "api-key", keys = { ada = "sha256 of ada's key, in hexadecimal" } }]
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use adit_guest::NotEstablished;
use adit_guest::prelude::*;
use hmac_sha256::Hash;

/// How long attempts of one address are counted.
const WINDOW: Duration = Duration::from_secs(60);

/// Where an exchange keeps by whose key it was let in, and which.
const OWNER: &str = "owner";

/// Which keys are known.
#[config]
pub struct Config {
    /// Each owner's key, by its SHA-256 in hexadecimal.
    keys: BTreeMap<String, String>,
    /// The field it comes in.
    #[serde(default = "field")]
    field: String,
    /// How many wrong keys one address may try in a minute.
    #[serde(default = "tries")]
    tries: i64,
}

fn field() -> String {
    "x-api-key".to_owned()
}

fn tries() -> i64 {
    20
}

struct ApiKey {
    config: Config,
    hashes: Vec<(String, [u8; 32])>,
}

fn hash_of(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    (text.len() == 64).then_some(())?;
    for (at, octet) in hash.iter_mut().enumerate() {
        *octet = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(hash)
}

impl Plugin for ApiKey {
    type Config = Config;

    fn new(config: Config) -> Result<Self, ConfigError> {
        let known = config.keys.iter().map(|(owner, text)| {
            let wrong = || {
                ConfigError::at(
                    &format!("keys.{owner}"),
                    "not a SHA-256, use 64 hexadecimal digits",
                )
            };
            Ok((owner.clone(), hash_of(text).ok_or_else(wrong)?))
        });
        let hashes = known.collect::<Result<_, _>>()?;
        Ok(Self { config, hashes })
    }
}

impl ApiKey {
    /// Whose key this is. Every key is compared, so that the time says nothing.
    fn owner(&self, key: &[u8]) -> Option<&str> {
        let shown = Hash::hash(key);
        let mut owner = None;
        for (name, hash) in &self.hashes {
            if same(hash, &shown) {
                owner = Some(name.as_str());
            }
        }
        owner
    }
}

impl OnRequest for ApiKey {
    fn on_request(&self, request: &Request, exchange: &Exchange) -> Result<Verdict, Failure> {
        let fields = request.fields();
        let [key] = &*fields.get(&self.config.field) else {
            return Ok(Refusal::new(Reason::MissingToken).into());
        };
        // Who has guessed too often is not heard for a while, right or wrong.
        let tried = format!("tries {}", exchange.client_address());
        let tries = store::add(&tried, 0, WINDOW).unwrap_or(i64::MAX);
        if tries >= self.config.tries {
            return Ok(Refusal::new(Reason::RateLimited).retry_after(WINDOW).into());
        }
        let Some(owner) = self.owner(key) else {
            let _ = store::add(&tried, 1, WINDOW);
            return Ok(Refusal::new(Reason::InvalidToken).into());
        };
        // The service has no use for it.
        fields
            .remove(&self.config.field)
            .map_err(|_| "the field cannot be removed")?;
        // By which key it was let in, as the table has it.
        exchange.keep(OWNER, &format!("{owner} {}", self.config.keys[owner]));
        let identity = Identity {
            subject: owner.to_owned(),
            name: None,
            email: None,
            token_id: None,
        };
        match exchange.establish_identity(&identity) {
            Ok(()) => Ok(Verdict::Continue),
            Err(NotEstablished::AlreadyKnown) => {
                Ok(Refusal::new(Reason::AmbiguousCredentials).into())
            }
            Err(_) => Err("set `establish-identity = true` for this plugin".into()),
        }
    }
}

impl OnRejudge for ApiKey {
    fn on_rejudge(&self, exchange: &Exchange) -> Result<Stay, Failure> {
        let kept = exchange.kept(OWNER).unwrap_or_default();
        let (owner, key) = kept.rsplit_once(' ').unwrap_or_default();
        Ok(
            match self
                .config
                .keys
                .get(owner)
                .is_some_and(|known| known == key)
            {
                true => Stay::Yes,
                false => Stay::No(Reason::InvalidToken),
            },
        )
    }
}

adit_guest::export!(ApiKey: on_request, on_rejudge);
