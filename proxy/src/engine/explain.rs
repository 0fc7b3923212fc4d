//! What a host name leads to, and which filters stand before it.

use adit_filters::TunnelInfo;
use serde::{Deserialize, Serialize};

use crate::assemble::{FilterState, Position};
use crate::edge::{Directory, Found};
use crate::route::{Lookup, Routes};

/// What is behind a host name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Explanation {
    /// The engine itself: agents and the API.
    Engine,
    /// A tunnel that was here lately.
    Offline,
    /// A live tunnel.
    Tunnel {
        /// Its id.
        id: String,
        /// Its name, if it has one.
        name: Option<String>,
        /// Its project.
        project: String,
        /// The agent that serves it.
        client_id: String,
        /// Its chain as a table: the filters in order, with the line that put each there.
        chain: Option<String>,
        /// The operator's filters that are off, or were switched while the engine ran.
        switched: Vec<FilterState>,
    },
    /// Nothing.
    Unknown,
}

/// Explains `host`, as a user wrote it: with or without scheme, port, path and trailing dot. `filters`
/// are the operator's for a tunnel.
pub(super) fn explain(
    routes: &Routes,
    filters: impl Fn(&TunnelInfo) -> Vec<FilterState>,
    host: &str,
) -> Explanation {
    let host = bare(host);
    if matches!(routes.find(&host), Found::Engine) {
        return Explanation::Engine;
    }
    match routes.host(&host) {
        Lookup::Tunnel(tunnel) => Explanation::Tunnel {
            id: tunnel.info.id.clone(),
            name: tunnel.info.name.clone(),
            project: tunnel.info.project.clone(),
            client_id: tunnel.info.client_id.clone(),
            chain: tunnel
                .site
                .as_ref()
                .map(|site| crate::assemble::explain(&site.chain())),
            switched: match &tunnel.site {
                Some(_) => {
                    let mut filters = filters(&tunnel.info);
                    filters.retain(|one| one.position == Position::Off || one.switch.is_some());
                    filters
                }
                None => Vec::new(),
            },
        },
        Lookup::Offline => Explanation::Offline,
        Lookup::Unknown => Explanation::Unknown,
    }
}

pub(super) fn bare(host: &str) -> String {
    let host = host.split_once("://").map_or(host, |(_, rest)| rest);
    let host = host.split(['/', '?']).next().unwrap_or_default();
    let host = host.split(':').next().unwrap_or_default();
    host.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_found_in_what_people_paste() {
        for pasted in [
            "https://App.t.example.com:8443/a?b",
            "app.t.example.com.",
            "app.t.example.com:443",
            "APP.t.example.com",
        ] {
            assert_eq!(bare(pasted), "app.t.example.com");
        }
    }

    #[test]
    fn the_engines_own_names_and_strangers_are_told_apart() {
        let routes = Routes::default();
        routes.set_engine_hosts(["edge.example.com".to_owned()]);
        let explain = |host| explain(&routes, |_| Vec::new(), host);
        assert_eq!(explain("https://edge.example.com/"), Explanation::Engine);
        assert_eq!(explain("x.t.edge.example.com"), Explanation::Unknown);
    }
}
