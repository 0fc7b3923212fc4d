//! Asks a service what it thinks of an address, and remembers.
//!
//! The service answers `{"score": 0…100}`; while it cannot be asked, visitors pass unless it is `strict`.
//!
//! ```toml
//! [plugin.ip-reputation]
//! component = "ip_reputation.wasm"
//! stage = "network"
//! allow-hosts = ["reputation.example.com"]
//!
//! [policy.edge]
//! filters = [{ use = "ip-reputation", url = "https://reputation.example.com/v1/", worst = 75 }]
//! ```

use std::time::Duration;

use adit_guest::prelude::*;

/// How long an answer counts.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);

/// Whom to ask, and what to make of it.
#[config]
pub struct Config {
    /// The address is put at its end.
    url: String,
    /// The highest score that passes.
    worst: u8,
    /// Whether visitors are refused while the service cannot be asked.
    #[serde(default)]
    strict: bool,
}

struct IpReputation(Config);

impl Plugin for IpReputation {
    type Config = Config;

    fn new(config: Config) -> Result<Self, ConfigError> {
        match config.url.starts_with("https://") || config.url.starts_with("http://") {
            true => Ok(Self(config)),
            false => Err(ConfigError::at(
                "url",
                "write an address such as `https://reputation.example.com/v1/`",
            )),
        }
    }
}

impl IpReputation {
    fn score(&self, address: &str) -> Result<u8, Failure> {
        if let Some([score]) = store::get(address).as_deref() {
            return Ok(*score);
        }
        let answer = http::get(format!("{}{address}", self.0.url)).send();
        let answer = answer.map_err(|error| Failure::unavailable(format!("{error:?}")))?;
        let said: serde_json::Value = serde_json::from_slice(&answer.body)
            .map_err(|_| Failure::unavailable("the service spoke no JSON"))?;
        let score = said["score"]
            .as_u64()
            .and_then(|score| u8::try_from(score).ok());
        let score = score.ok_or_else(|| Failure::unavailable("the service gave no score"))?;
        // What has no room is asked again.
        let _ = store::set(address, &[score], REMEMBERED);
        Ok(score)
    }
}

impl OnConnect for IpReputation {
    fn on_connect(&self, exchange: &Exchange) -> Result<Admission, Failure> {
        match self.score(&exchange.client_address()) {
            Ok(score) if score <= self.0.worst => Ok(Admission::Admit),
            Ok(score) => Ok(Refusal::new(Reason::Ip)
                .because(format!("score {score}"))
                .into()),
            Err(error) if self.0.strict => Err(error),
            Err(error) => {
                log::warn(format!("not asked: {error:?}"));
                Ok(Admission::Admit)
            }
        }
    }
}

adit_guest::export!(IpReputation: on_connect);
