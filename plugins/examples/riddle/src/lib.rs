//! Lets browsers in that have solved a riddle: a page asks, and a signed cookie remembers.
//!
//! ```toml
//! [plugin.riddle]
//! component = "riddle.wasm"
//! stage = "identity"
//!
//! [policy.edge]
//! filters = [{ use = "riddle", question = "The name of our cat?", answer = "Minka", secret = "a long secret" }]
//! ```

use std::time::{Duration, UNIX_EPOCH};

use adit_guest::prelude::*;
use hmac_sha256::HMAC;

const COOKIE: &str = "__Host-riddle";

/// How long a solution counts.
const LIFETIME: Duration = Duration::from_secs(60 * 60);

/// The riddle.
#[config]
pub struct Config {
    /// What is asked.
    question: String,
    /// What is right; capitals and spaces around it do not matter.
    answer: String,
    /// What cookies are signed with.
    secret: String,
}

struct Riddle(Config);

impl Plugin for Riddle {
    type Config = Config;

    fn new(config: Config) -> Result<Self, ConfigError> {
        match config.secret.len() {
            16.. => Ok(Self(config)),
            _ => Err(ConfigError::at("secret", "use 16 letters or more")),
        }
    }
}

/// A value of a form, as it was typed.
fn decoded(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        let hex =
            |rest: &[u8]| u8::from_str_radix(std::str::from_utf8(rest.get(..2)?).ok()?, 16).ok();
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => match hex(&rest.clone().take(2).collect::<Vec<u8>>()) {
                Some(octet) => {
                    bytes.push(octet);
                    rest.nth(1);
                }
                None => bytes.push(byte),
            },
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn seconds() -> u64 {
    clock::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

impl Riddle {
    /// A cookie's value: until when it counts, and the signature of that for this visitor and tunnel.
    fn pass(&self, until: u64, exchange: &Exchange) -> String {
        let text = format!(
            "{until} {} {}",
            exchange.tunnel_id(),
            exchange.client_address()
        );
        let signature = HMAC::mac(text.as_bytes(), self.0.secret.as_bytes());
        let hex: String = signature
            .iter()
            .map(|octet| format!("{octet:02x}"))
            .collect();
        format!("{until}.{hex}")
    }

    fn has_pass(&self, request: &Request, exchange: &Exchange) -> bool {
        let Some(shown) = request.cookie(COOKIE) else {
            return false;
        };
        let until = shown
            .split('.')
            .next()
            .and_then(|until| until.parse().ok())
            .unwrap_or(0);
        seconds() < until && same(shown.as_bytes(), self.pass(until, exchange).as_bytes())
    }

    fn page(&self) -> String {
        let question = self.0.question.replace('&', "&amp;").replace('<', "&lt;");
        format!(
            "<!doctype html><html lang=en><meta charset=utf-8><title>A riddle</title>\
             <form method=get><label>{question} <input name=riddle autofocus></label> <button>Enter</button></form>"
        )
    }
}

impl OnRequest for Riddle {
    fn on_request(&self, request: &Request, exchange: &Exchange) -> Result<Verdict, Failure> {
        if self.has_pass(request, exchange) {
            return Ok(Verdict::Continue);
        }
        let query = request.query().unwrap_or_default();
        let said = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("riddle="));
        let said = said.map(|said| decoded(said).trim().to_lowercase());
        if said == Some(self.0.answer.trim().to_lowercase()) {
            let pass = self.pass(seconds() + LIFETIME.as_secs(), exchange);
            let cookie = format!("{COOKIE}={pass}; Path=/; Secure; HttpOnly; SameSite=Lax");
            // With the host before it: a path that begins with two slashes would name another one.
            let back = format!("https://{}{}", request.authority(), request.path());
            let reply = Reply::new(303)
                .header("location", back)
                .header("set-cookie", cookie);
            return Ok(reply.into());
        }
        match request.method() == "GET" && exchange.upgrade().is_none() {
            true => Ok(Reply::new(403)
                .header("cache-control", "no-store")
                .html(self.page())
                .into()),
            false => Ok(Refusal::new(Reason::Challenge).into()),
        }
    }
}

adit_guest::export!(Riddle: on_request);
