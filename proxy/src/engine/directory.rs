//! Where visitors find tunnels and the engine itself.

use std::net::IpAddr;
use std::sync::Arc;

use crate::edge::{self, Found};
use crate::route::Routes;

/// The routes, and the engine behind its bare addresses.
pub(super) struct Directory(pub(super) Arc<Routes>);

impl edge::Directory for Directory {
    fn find(&self, host: &str) -> Found {
        // No tunnel is named by an address. Who dials one means whoever is there.
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if bare.parse::<IpAddr>().is_ok() {
            return Found::Engine;
        }
        self.0.find(host)
    }
}

#[cfg(test)]
mod tests {
    use crate::edge::Directory as _;

    use super::*;

    #[test]
    fn an_address_means_the_engine() {
        let directory = Directory(Arc::default());
        for host in ["127.0.0.1", "[::1]", "::1"] {
            assert!(matches!(directory.find(host), Found::Engine), "{host}");
        }
        assert!(matches!(directory.find("1.2.3"), Found::Unknown));
    }
}
