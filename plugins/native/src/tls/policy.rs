//! `tls-policy`: which versions, cipher suites and key exchanges a handshake may come to.
//!
//! The handshake itself enforces it, with the alerts of RFC 8446 §6.2. A connection that was made for another tunnel
//! is measured when it reaches this one, and sent away to make its own (421).

use std::sync::Arc;

use adit_filters::{
    Admission, CipherSuite, ConfigError, ConnectCx, Env, Filter, FilterError, Handshake, Hooks,
    KeyExchange, OnConnect, Reason, Stage, TlsVersion,
};
use serde::Deserialize;

/// What is asked of a handshake. Something must be.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The lowest version.
    pub min_version: Option<MinVersion>,
    /// The suites of TLS 1.2 that may be used, by their IANA names; those of TLS 1.3 always may.
    pub cipher_suites: Option<Vec<String>>,
    /// Key exchange that a quantum computer cannot undo.
    pub post_quantum: Option<Wish>,
    /// Encrypted Client Hello.
    #[serde(default)]
    pub ech: Ech,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
pub enum MinVersion {
    /// TLS 1.2.
    #[serde(rename = "tls1.2")]
    Tls12,
    /// TLS 1.3.
    #[serde(rename = "tls1.3")]
    Tls13,
}

/// How much something is wanted.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    /// Not at all.
    Off,
    /// Wherever the client can.
    Prefer,
    /// Always.
    Require,
}

/// Encrypted Client Hello, of which the TLS library has only the client's side.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Ech {
    /// Not offered.
    #[default]
    Off,
    /// Cannot be had.
    Prefer,
    /// Cannot be had.
    Require,
}

/// The filter.
#[derive(Debug)]
pub struct TlsPolicy {
    demand: Handshake,
}

impl TlsPolicy {
    /// A filter with these demands.
    ///
    /// # Errors
    /// If nothing is demanded, or something nobody can have.
    pub fn from_config(config: Config) -> Result<Self, ConfigError> {
        let Config {
            min_version,
            cipher_suites,
            post_quantum,
            ech,
        } = config;
        if ech != Ech::Off {
            let message = "Encrypted Client Hello cannot be offered: the TLS library has no server's side of it, leave `ech` out";
            return Err(ConfigError::at("ech", message));
        }
        if min_version.is_none() && cipher_suites.is_none() && post_quantum.is_none() {
            let message =
                "demands nothing, set `min-version`, `cipher-suites` or `post-quantum`".to_owned();
            return Err(ConfigError { key: None, message });
        }
        let mut demand = Handshake::new();
        if let Some(version) = min_version {
            demand = demand.with_min_version(match version {
                MinVersion::Tls12 => TlsVersion::Tls12,
                MinVersion::Tls13 => TlsVersion::Tls13,
            });
        }
        if let Some(names) = cipher_suites {
            demand = demand.with_cipher_suites(suites(&names)?);
        }
        if let Some(wish) = post_quantum {
            demand = demand.with_key_exchange(match wish {
                Wish::Off => KeyExchange::Classic,
                Wish::Prefer => KeyExchange::PreferHybrid,
                Wish::Require => KeyExchange::RequireHybrid,
            });
        }
        Ok(Self { demand })
    }
}

/// The suites of these names.
fn suites(names: &[String]) -> Result<Vec<CipherSuite>, ConfigError> {
    let known = || {
        let names = CipherSuite::ALL.map(|suite| format!("`{}`", suite.name()));
        names.join(", ")
    };
    if names.is_empty() {
        let message = format!("`cipher-suites` is empty: name some of {}", known());
        return Err(ConfigError::at("cipher-suites", message));
    }
    let named = |(index, name): (usize, &String)| {
        CipherSuite::named(name).ok_or_else(|| {
            let message = match is_tls13(name) {
                true => {
                    format!("`{name}` is of TLS 1.3, where every suite may be used: leave it out")
                }
                false => format!(
                    "`{name}` is not a suite of TLS 1.2 that this engine has, use {}",
                    known()
                ),
            };
            ConfigError::at(&format!("cipher-suites.{index}"), message)
        })
    };
    names.iter().enumerate().map(named).collect()
}

/// Suites of TLS 1.3 name no key exchange (RFC 8446 §B.4).
fn is_tls13(name: &str) -> bool {
    name.starts_with("TLS_AES_") || name.starts_with("TLS_CHACHA20_")
}

impl Filter for TlsPolicy {
    const NAME: &'static str = "tls-policy";
    const STAGE: Stage = Stage::Tls;
    type Config = Config;

    fn new(config: Config, _: &mut Env) -> Result<Self, ConfigError> {
        Self::from_config(config)
    }

    fn hooks(self: Arc<Self>) -> Hooks {
        Hooks::new()
            .at(Self::STAGE)
            .handshake(self.demand.clone())
            .connect(self)
    }
}

impl OnConnect for TlsPolicy {
    async fn on_connect(&self, cx: &mut ConnectCx<'_>) -> Result<Admission, FilterError> {
        let met = cx
            .connection
            .tls
            .as_ref()
            .is_some_and(|tls| self.demand.is_met_by(tls));
        Ok(match met {
            true => Admission::Admit,
            false => Admission::Refuse(Reason::Misdirected),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::net::SocketAddr;

    use adit_filters::{Chain, Connected, ConnectionInfo, Placed, TlsInfo, Transport, TunnelInfo};

    use super::*;

    fn hooks(config: Config) -> Hooks {
        Arc::new(TlsPolicy::from_config(config).unwrap()).hooks()
    }

    fn min(version: MinVersion) -> Config {
        Config {
            min_version: Some(version),
            ..Config::default()
        }
    }

    #[tokio::test]
    async fn a_reused_connection_is_measured_anew() {
        // edge behaviour §8.2
        const AES128: &str = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256";
        const AES256: &str = "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384";
        let suites = |name: &str| Config {
            cipher_suites: Some(vec![name.to_owned()]),
            ..Config::default()
        };
        let wish = |wish| Config {
            post_quantum: Some(wish),
            ..Config::default()
        };
        let old = TlsInfo {
            version: "TLSv1.2",
            cipher: AES128.to_owned(),
            group: Some("X25519".to_owned()),
            ..TlsInfo::default()
        };
        let new = TlsInfo {
            version: "TLSv1.3",
            cipher: "TLS_AES_128_GCM_SHA256".to_owned(),
            group: Some("X25519MLKEM768".to_owned()),
            ..TlsInfo::default()
        };
        for (config, [old_passes, new_passes]) in [
            (min(MinVersion::Tls12), [true, true]),
            (min(MinVersion::Tls13), [false, true]),
            (suites(AES128), [true, true]),
            (suites(AES256), [false, true]),
            (wish(Wish::Off), [true, false]),
            (wish(Wish::Prefer), [true, true]),
            (wish(Wish::Require), [false, true]),
        ] {
            let text = format!("{config:?}");
            let chain = Chain::compile(vec![Placed::new("p/tls-policy", hooks(config))]).unwrap();
            for (tls, passes) in [
                (Some(old.clone()), old_passes),
                (Some(new.clone()), new_passes),
                (None, false),
            ] {
                let info = ConnectionInfo {
                    id: 1,
                    peer: SocketAddr::from(([192, 0, 2, 1], 4000)),
                    transport: Transport::Tls,
                    hello: None,
                    tls,
                };
                let connected = chain
                    .connect(Arc::new(info), Arc::new(TunnelInfo::default()))
                    .await;
                let reason = match connected {
                    Connected::Refused { refusal, .. } => Some(refusal.reason),
                    _ => None,
                };
                let expected = (!passes).then_some(Reason::Misdirected);
                assert_eq!(reason, expected, "{text}");
            }
        }
    }

    #[test]
    fn filters_of_one_chain_only_tighten() {
        let sum = |configs: [Config; 2]| {
            let filters = configs.map(|config| Placed::new("p/tls-policy", hooks(config)));
            let chain = Chain::compile(filters.into()).map_err(|error| error.to_string())?;
            Ok::<_, String>(chain.handshake().unwrap().min_version())
        };
        let (low, high) = (min(MinVersion::Tls12), min(MinVersion::Tls13));
        assert_eq!(sum([high.clone(), low.clone()]), Ok(TlsVersion::Tls13));
        assert_eq!(sum([low, high]), Ok(TlsVersion::Tls13));
        let wish = |wish| Config {
            post_quantum: Some(wish),
            ..Config::default()
        };
        let error = sum([wish(Wish::Off), wish(Wish::Require)]).unwrap_err();
        assert!(error.contains("post-quantum"), "{error}");
        let on_trial = Placed {
            dry_run: true,
            ..Placed::new("p/tls-policy", hooks(min(MinVersion::Tls13)))
        };
        let chain = Chain::compile(vec![on_trial]).unwrap();
        assert!(chain.handshake().is_none());
    }
}
