//! Opens WebSockets for pages of some origins, and for no others.
//!
//! ```toml
//! [plugin.ws-origin]
//! component = "ws_origin.wasm"
//! stage = "upgrade"
//!
//! [policy.edge]
//! filters = [{ use = "ws-origin", origins = ["https://app.example.com"] }]
//! [project.default]
//! policies = ["edge"]
//! upgrades = []
//! ```

use adit_guest::prelude::*;

/// Which pages may open one.
#[config]
pub struct Config {
    /// Origins, as browsers write them.
    origins: Vec<String>,
}

struct WsOrigin(Config);

impl Plugin for WsOrigin {
    type Config = Config;

    fn new(config: Config) -> Result<Self, ConfigError> {
        match config.origins.is_empty() {
            false => Ok(Self(config)),
            true => Err(ConfigError::at("origins", "name an origin")),
        }
    }
}

impl OnRequest for WsOrigin {
    fn on_request(&self, request: &Request, exchange: &Exchange) -> Result<Verdict, Failure> {
        if exchange.upgrade() != Some(Upgrade::Websocket) {
            return Ok(Verdict::Continue);
        }
        let origin = request.field("origin").unwrap_or_default();
        exchange.keep("origin", &origin);
        Ok(match self.0.origins.contains(&origin) {
            true => Verdict::Upgrade(Upgrade::Websocket),
            false => Refusal::new(Reason::Origin).into(),
        })
    }
}

impl OnRejudge for WsOrigin {
    fn on_rejudge(&self, exchange: &Exchange) -> Result<Stay, Failure> {
        if exchange.upgrade() != Some(Upgrade::Websocket) {
            return Ok(Stay::Yes);
        }
        let origin = exchange.kept("origin").unwrap_or_default();
        Ok(match self.0.origins.contains(&origin) {
            true => Stay::Upgraded,
            false => Stay::No(Reason::Origin),
        })
    }
}

adit_guest::export!(WsOrigin: on_request, on_rejudge);
