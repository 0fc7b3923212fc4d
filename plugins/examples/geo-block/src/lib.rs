//! Only visitors from some countries, as a `geoip` filter before it has found them.
//!
//! ```toml
//! [plugin.geo-block]
//! component = "geo_block.wasm"
//! stage = "policy"
//!
//! [policy.edge]
//! filters = [{ use = "geoip", deny = ["AS64500"] }, { use = "geo-block", countries = ["DE", "FR"] }]
//! ```

use adit_guest::prelude::*;

/// Which countries may pass.
#[config]
pub struct Config {
    /// ISO 3166-1 alpha-2, upper case.
    countries: Vec<String>,
    /// Whether visitors pass of whom nobody knows where they are.
    #[serde(default)]
    unknown: bool,
}

struct GeoBlock(Config);

impl Plugin for GeoBlock {
    type Config = Config;

    fn new(config: Config) -> Result<Self, ConfigError> {
        let is_code =
            |code: &String| code.len() == 2 && code.bytes().all(|byte| byte.is_ascii_uppercase());
        match config.countries.iter().position(|code| !is_code(code)) {
            Some(at) => Err(ConfigError::at(
                &format!("countries.{at}"),
                "use two capital letters, such as `DE`",
            )),
            None => Ok(Self(config)),
        }
    }
}

impl GeoBlock {
    fn admits(&self, exchange: &Exchange) -> bool {
        match exchange.location().and_then(|location| location.country) {
            Some(country) => self.0.countries.contains(&country),
            None => self.0.unknown,
        }
    }
}

impl OnRequest for GeoBlock {
    fn on_request(&self, _: &Request, exchange: &Exchange) -> Result<Verdict, Failure> {
        Ok(match self.admits(exchange) {
            true => Verdict::Continue,
            false => Refusal::new(Reason::Country).into(),
        })
    }
}

impl OnRejudge for GeoBlock {
    fn on_rejudge(&self, exchange: &Exchange) -> Result<Stay, Failure> {
        Ok(match self.admits(exchange) {
            true => Stay::Yes,
            false => Stay::No(Reason::Country),
        })
    }
}

adit_guest::export!(GeoBlock: on_request, on_rejudge);
