//! `trusted-ips`: only visitors from these addresses, or none from those.
//!
//! It decides once per (connection, tunnel): every exchange on the connection has the same peer. The project's list
//! and the tunnel's are two filters in one chain, so that a visitor must satisfy both.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::sync::Arc;

use adit_filters::{
    Admission, ConfigError, ConnectCx, Env, Filter, FilterError, Hooks, OnConnect, Reason, Stage,
};
use ipnet::{IpNet, Ipv4Net};
use serde::Deserialize;

/// How many networks one list may name: the search is linear.
pub const NETWORKS_MAX: usize = 4096;

/// Which addresses may pass.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// Only these; without it, all.
    pub allow: Option<Vec<Network>>,
    /// Never these, even if allowed.
    #[serde(default)]
    pub deny: Vec<Network>,
}

/// An address or a network in CIDR notation. An IPv4-mapped IPv6 network is read as IPv4.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct Network(IpNet);

/// What is not a network.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "`{0}` is not an address or network, write it like `203.0.113.7`, `203.0.113.0/24` or `2001:db8::/32`"
)]
pub struct NotANetwork(String);

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let wrong = || NotANetwork(text.to_owned());
        let net = if text.contains('/') {
            text.parse::<IpNet>().map_err(|_| wrong())?
        } else {
            IpNet::from(text.parse::<IpAddr>().map_err(|_| wrong())?)
        };
        Ok(Self::from(net))
    }
}

impl From<IpNet> for Network {
    fn from(net: IpNet) -> Self {
        Self(canonical(net).trunc())
    }
}

impl TryFrom<String> for Network {
    type Error = NotANetwork;
    fn try_from(text: String) -> Result<Self, NotANetwork> {
        text.parse()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Network {
    /// Whether the two have an address in common: a tunnel's list that shares none with its project's admits nobody.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.0.contains(&other.0) || other.0.contains(&self.0)
    }
}

/// Bits of `::ffff:0:0/96`, in which IPv4 is mapped.
const MAPPED_BITS: u8 = 96;

fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let mapped = v6.addr().to_ipv4_mapped().and_then(|address: Ipv4Addr| {
        let prefix = v6.prefix_len().checked_sub(MAPPED_BITS)?;
        Ipv4Net::new(address, prefix).ok()
    });
    mapped.map_or(net, IpNet::V4)
}

/// The filter.
#[derive(Debug)]
pub struct TrustedIps {
    allow: Option<Vec<IpNet>>,
    deny: Vec<IpNet>,
}

impl TrustedIps {
    /// Reads the lists.
    ///
    /// # Errors
    /// When they decide nothing, admit nobody by oversight, or are too long.
    pub fn from_config(config: Config) -> Result<Self, ConfigError> {
        let Config { allow, deny } = config;
        if allow.is_none() && deny.is_empty() {
            let message = "`trusted-ips` decides nothing: give `allow`, `deny` or both";
            return Err(ConfigError {
                key: None,
                message: message.into(),
            });
        }
        if allow.as_ref().is_some_and(Vec::is_empty) {
            return Err(ConfigError::at(
                "allow",
                "`allow` is empty: name a network, or leave it out to allow all",
            ));
        }
        for (key, list) in [
            ("allow", allow.as_deref().unwrap_or_default()),
            ("deny", &deny),
        ] {
            if list.len() > NETWORKS_MAX {
                let message = format!(
                    "`{key}` names {} networks, more than {NETWORKS_MAX}",
                    list.len()
                );
                return Err(ConfigError::at(key, message));
            }
        }
        let merge =
            |list: Vec<Network>| IpNet::aggregate(&list.into_iter().map(|net| net.0).collect());
        Ok(Self {
            allow: allow.map(merge),
            deny: merge(deny),
        })
    }

    fn admits(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        let within = |list: &[IpNet]| list.iter().any(|net| net.contains(&peer));
        !within(&self.deny) && self.allow.as_deref().is_none_or(within)
    }
}

impl OnConnect for TrustedIps {
    async fn on_connect(&self, cx: &mut ConnectCx<'_>) -> Result<Admission, FilterError> {
        Ok(if self.admits(cx.connection.peer.ip()) {
            Admission::Admit
        } else {
            Admission::Refuse(Reason::Ip)
        })
    }
}

impl Filter for TrustedIps {
    const NAME: &'static str = "trusted-ips";
    const STAGE: Stage = Stage::Network;
    type Config = Config;

    fn new(config: Config, _: &mut Env) -> Result<Self, ConfigError> {
        Self::from_config(config)
    }

    fn hooks(self: Arc<Self>) -> Hooks {
        Hooks::new().at(Self::STAGE).connect(self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn networks(list: &[&str]) -> Vec<Network> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn filter(allow: Option<&[&str]>, deny: &[&str]) -> Result<TrustedIps, ConfigError> {
        TrustedIps::from_config(Config {
            allow: allow.map(networks),
            deny: networks(deny),
        })
    }

    #[test]
    fn lists_admit_these_and_refuse_those() {
        type Case = (
            Option<&'static [&'static str]>,
            &'static [&'static str],
            &'static [&'static str],
            &'static [&'static str],
        );
        let cases: &[Case] = &[
            (
                Some(&["10.0.0.0/8", "2001:db8::/32"]),
                &[],
                &["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::1"],
                &[
                    "11.0.0.1",
                    "::ffff:11.0.0.1",
                    "2001:db9::1",
                    "::1",
                    "127.0.0.1",
                ],
            ),
            (
                Some(&["203.0.113.7"]),
                &[],
                &["203.0.113.7", "::ffff:203.0.113.7"],
                &["203.0.113.8"],
            ),
            // IPv4-mapped networks are IPv4.
            (
                Some(&["::ffff:10.0.0.0/104"]),
                &[],
                &["10.9.9.9"],
                &["11.0.0.1"],
            ),
            (Some(&["10.1.2.3/8"]), &[], &["10.200.0.1"], &["11.0.0.1"]),
            (Some(&["0.0.0.0/0"]), &[], &["192.0.2.1"], &["2001:db8::1"]),
            (
                Some(&["::/0"]),
                &[],
                &["2001:db8::1"],
                &["192.0.2.1", "::ffff:192.0.2.1"],
            ),
            (
                None,
                &["192.0.2.0/24"],
                &["192.0.3.1", "2001:db8::1"],
                &["192.0.2.9", "::ffff:192.0.2.9"],
            ),
            (
                Some(&["10.0.0.0/8"]),
                &["10.1.0.0/16"],
                &["10.2.0.1"],
                &["10.1.0.1", "11.0.0.1"],
            ),
        ];
        for (allow, deny, admitted, refused) in cases {
            let filter = filter(*allow, deny).unwrap();
            for peer in *admitted {
                assert!(
                    filter.admits(peer.parse().unwrap()),
                    "{allow:?} but {deny:?} should admit {peer}"
                );
            }
            for peer in *refused {
                assert!(
                    !filter.admits(peer.parse().unwrap()),
                    "{allow:?} but {deny:?} should refuse {peer}"
                );
            }
        }
    }

    #[test]
    fn lists_that_decide_nothing_or_too_much_are_refused() {
        assert_eq!(filter(None, &[]).unwrap_err().key, None);
        assert_eq!(
            filter(Some(&[]), &[]).unwrap_err().key.as_deref(),
            Some("allow")
        );
        let many = |count: usize| Config {
            allow: Some(vec!["10.0.0.0/8".parse().unwrap(); count]),
            deny: vec![],
        };
        assert!(TrustedIps::from_config(many(NETWORKS_MAX)).is_ok());
        assert_eq!(
            TrustedIps::from_config(many(NETWORKS_MAX + 1))
                .unwrap_err()
                .key
                .as_deref(),
            Some("allow")
        );
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "example.com",
            "10.0.0.0/",
            "10.0.0.0 /8",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
