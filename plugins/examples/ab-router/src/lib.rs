//! Sends visitors to one of two variants and keeps them there.
//!
//! The service is told the variant in a field; a cookie keeps the visitor with it.
//!
//! ```toml
//! [plugin.ab-router]
//! component = "ab_router.wasm"
//!
//! [policy.edge]
//! filters = [{ use = "ab-router", percent = 20 }]
//! ```

use adit_guest::prelude::*;

const COOKIE: &str = "variant";

/// How many visitors get the new variant.
#[config]
pub struct Config {
    /// In a hundred.
    #[schemars(range(max = 100))]
    percent: u8,
    /// The field that tells the service.
    #[serde(default = "field")]
    field: String,
}

fn field() -> String {
    "x-variant".to_owned()
}

struct AbRouter(Config);

impl Plugin for AbRouter {
    type Config = Config;

    fn new(config: Config) -> Result<Self, ConfigError> {
        Ok(Self(config))
    }
}

impl OnRequest for AbRouter {
    fn on_request(&self, request: &Request, exchange: &Exchange) -> Result<Verdict, Failure> {
        let variant = match request.cookie(COOKIE).as_deref() {
            Some("a") => "a",
            Some("b") => "b",
            _ => {
                let [die] = random::bytes::<1>();
                let variant = if u16::from(die) * 100 / 256 < self.0.percent.into() {
                    "b"
                } else {
                    "a"
                };
                exchange.keep("new", variant);
                variant
            }
        };
        request
            .set_field(&self.0.field, variant)
            .map_err(|_| "the field cannot be set")?;
        Ok(Verdict::Continue)
    }
}

impl OnResponse for AbRouter {
    fn on_response(&self, response: &Response, exchange: &Exchange) -> Result<Revision, Failure> {
        if let Some(variant) = exchange.kept("new") {
            let cookie =
                format!("{COOKIE}={variant}; Path=/; Secure; SameSite=Lax; Max-Age=2592000");
            response
                .set_cookie(&cookie)
                .map_err(|_| "the cookie cannot be set")?;
        }
        Ok(Revision::Keep)
    }
}

adit_guest::export!(AbRouter: on_request, on_response);
