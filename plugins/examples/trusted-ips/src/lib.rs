//! Only visitors from some networks: the twin of the built-in filter of this name.
//!
//! ```toml
//! [plugin.trusted]
//! component = "trusted_ips.wasm"
//! stage = "network"
//!
//! [policy.edge]
//! filters = [{ use = "trusted", allow = ["203.0.113.0/24"], deny = ["203.0.113.9"] }]
//! ```

use std::net::IpAddr;

use adit_guest::prelude::*;
use ipnet::IpNet;

/// Which addresses may pass.
#[config]
pub struct Config {
    /// Only these addresses and networks; without it, all.
    allow: Option<Vec<String>>,
    /// Never these, even if allowed.
    #[serde(default)]
    deny: Vec<String>,
}

struct TrustedIps {
    allow: Option<Vec<IpNet>>,
    deny: Vec<IpNet>,
}

fn networks(key: &str, list: &[String]) -> Result<Vec<IpNet>, ConfigError> {
    let network = |(at, text): (usize, &String)| {
        let net = text
            .parse()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        net.map_err(|_| {
            ConfigError::at(
                &format!("{key}.{at}"),
                format!("`{text}` is not an address or network"),
            )
        })
    };
    list.iter().enumerate().map(network).collect()
}

impl Plugin for TrustedIps {
    type Config = Config;

    fn new(config: Config) -> Result<Self, ConfigError> {
        let allow = config
            .allow
            .map(|list| networks("allow", &list))
            .transpose()?;
        let deny = networks("deny", &config.deny)?;
        if allow.as_ref().is_some_and(Vec::is_empty) {
            return Err(ConfigError::at(
                "allow",
                "name a network, or leave it out to allow all",
            ));
        }
        if allow.is_none() && deny.is_empty() {
            return Err(ConfigError::new(
                "decides nothing: give `allow`, `deny` or both",
            ));
        }
        Ok(Self { allow, deny })
    }
}

impl OnConnect for TrustedIps {
    fn on_connect(&self, exchange: &Exchange) -> Result<Admission, Failure> {
        let peer: IpAddr = exchange
            .client_address()
            .parse()
            .map_err(|_| "no address")?;
        let within = |list: &[IpNet]| list.iter().any(|net| net.contains(&peer));
        Ok(
            match !within(&self.deny) && self.allow.as_deref().is_none_or(within) {
                true => Admission::Admit,
                false => Refusal::new(Reason::Ip).into(),
            },
        )
    }
}

adit_guest::export!(TrustedIps: on_connect);
