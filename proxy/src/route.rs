//! Which tunnel a host name, an id or a name leads to.
//!
//! Readers take an immutable snapshot and never wait; each change makes a new one that shares all
//! but the changed paths with the old, and swaps it in whole. So a name is given out at most once:
//! changes are made one after the other, and a reader sees all of one or nothing of it.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use adit_filters::TunnelInfo;
use arc_swap::ArcSwap;
use rpds::HashTrieMapSync;
use tokio::time::Instant;

use crate::agents::Session;
use crate::edge::{Directory, Found, Site};
use crate::properties::{Effective, TlsVersion};

/// Most host names of ended tunnels that are remembered.
pub const OFFLINE_MAX: usize = 10_000;

/// How long a host name of an ended tunnel is remembered. Agents that come back do so within
/// seconds, agents of a machine that restarts within minutes.
pub const OFFLINE_FOR: Duration = Duration::from_secs(60 * 60);

/// Outdated entries, beyond one for each name that is remembered, that are kept before they are
/// cleared away: clearing is rare then.
const OFFLINE_SLACK: usize = 64;

/// One incarnation of a tunnel, from its opening to its end.
#[derive(Debug)]
pub struct Tunnel {
    /// What filters and logs know of it.
    pub info: Arc<TunnelInfo>,
    /// Its properties in effect.
    pub properties: Effective,
    /// When it was opened.
    pub created: SystemTime,
    /// The agent that serves it.
    pub session: Arc<Session>,
    /// Its place at the HTTP edge; none for a private tunnel.
    pub site: Option<Arc<Site>>,
}

impl Tunnel {
    /// The lowest TLS version visitors may speak: the tunnel's own, or where it has none what the
    /// project's policies raise it to (edge-behaviour §5.2).
    #[must_use]
    pub fn tls_min_version(&self) -> Option<TlsVersion> {
        self.properties.tls_min_version.or_else(|| {
            let chain = self.site.as_ref()?.chain();
            match chain.handshake()?.min_version() {
                adit_filters::TlsVersion::Tls12 => None,
                adit_filters::TlsVersion::Tls13 => Some(TlsVersion::Tls13),
            }
        })
    }
}

/// What a host name leads to.
#[derive(Clone, Debug)]
pub enum Lookup {
    /// A live tunnel.
    Tunnel(Arc<Tunnel>),
    /// A tunnel that was live lately.
    Offline,
    /// Nothing.
    Unknown,
}

/// Why a tunnel cannot be routed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Conflict {
    /// The host name belongs to another live tunnel.
    // This very text makes published clients try again.
    #[error("Hostname is already in use.")]
    Hostname,
    /// The name belongs to another live tunnel of the project.
    #[error("Tunnel name is already in use.")]
    Name,
    /// The project has as many tunnels as it may have.
    #[error("the project has {max} tunnels, which is the limit")]
    ProjectFull {
        /// The limit.
        max: usize,
    },
}

/// All routes of an engine.
#[derive(Debug, Default)]
pub struct Routes {
    current: ArcSwap<Snapshot>,
    engine: ArcSwap<BTreeSet<String>>,
    writer: Mutex<Writer>,
}

#[derive(Clone, Debug, Default)]
struct Snapshot {
    hosts: HashTrieMapSync<String, Arc<Tunnel>>,
    ids: HashTrieMapSync<String, Arc<Tunnel>>,
    names: HashTrieMapSync<(String, String), Arc<Tunnel>>,
    offline: HashTrieMapSync<String, Instant>,
}

#[derive(Debug, Default)]
struct Writer {
    /// Ended tunnels, oldest first; an entry whose time is not the map's is out of date.
    offline: VecDeque<(String, Instant)>,
    projects: HashMap<String, usize>,
}

impl Routes {
    /// Names of the engine itself, which are no tunnel's; lower case, without a final dot.
    pub fn set_engine_hosts(&self, hosts: impl IntoIterator<Item = String>) {
        self.engine.store(Arc::new(hosts.into_iter().collect()));
    }

    /// What a host name leads to; lower case, without port and final dot.
    #[must_use]
    pub fn host(&self, host: &str) -> Lookup {
        let routes = self.current.load();
        if let Some(tunnel) = routes.hosts.get(host) {
            return Lookup::Tunnel(Arc::clone(tunnel));
        }
        match routes.offline.get(host) {
            Some(since) if since.elapsed() < OFFLINE_FOR => Lookup::Offline,
            _ => Lookup::Unknown,
        }
    }

    /// The live tunnel of this id.
    #[must_use]
    pub fn id(&self, id: &str) -> Option<Arc<Tunnel>> {
        self.current.load().ids.get(id).cloned()
    }

    /// The live tunnel of this name in a project.
    #[must_use]
    pub fn name(&self, project: &str, name: &str) -> Option<Arc<Tunnel>> {
        let key = (project.to_owned(), name.to_owned());
        self.current.load().names.get(&key).cloned()
    }

    /// All live tunnels, as they were at one moment.
    #[must_use]
    pub fn tunnels(&self) -> Vec<Arc<Tunnel>> {
        self.current.load().ids.values().cloned().collect()
    }

    /// How many tunnels are live.
    #[must_use]
    pub fn len(&self) -> usize {
        self.current.load().ids.size()
    }

    /// Whether no tunnel is live.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a host name and a name are free now. Somebody else may take them before they are
    /// inserted.
    ///
    /// # Errors
    ///
    /// The [`Conflict`] that inserting such a tunnel would meet.
    pub fn check(
        &self,
        project: &str,
        name: Option<&str>,
        hostname: Option<&str>,
    ) -> Result<(), Conflict> {
        self.current.load().check(project, name, hostname)
    }

    /// Puts a tunnel on the map, if `per_project_max` and its names allow.
    ///
    /// # Errors
    ///
    /// The [`Conflict`] met; nothing has changed then.
    pub fn insert(&self, tunnel: &Arc<Tunnel>, per_project_max: usize) -> Result<(), Conflict> {
        let info = &tunnel.info;
        let mut writer = self.writer();
        let mut next = Snapshot::clone(&self.current.load());
        next.check(
            &info.project,
            info.name.as_deref(),
            info.hostname.as_deref(),
        )?;
        let count = writer.projects.entry(info.project.clone()).or_default();
        if *count >= per_project_max {
            return Err(Conflict::ProjectFull {
                max: per_project_max,
            });
        }
        *count += 1;
        next.ids.insert_mut(info.id.clone(), Arc::clone(tunnel));
        if let Some(name) = &info.name {
            let key = (info.project.clone(), name.clone());
            next.names.insert_mut(key, Arc::clone(tunnel));
        }
        if let Some(host) = &info.hostname {
            next.hosts.insert_mut(host.clone(), Arc::clone(tunnel));
            next.offline.remove_mut(host);
        }
        self.current.store(Arc::new(next));
        Ok(())
    }

    /// Takes tunnels off the map, all at once; their host names are remembered for a while.
    pub fn remove<'a>(&self, ids: impl IntoIterator<Item = &'a str>) {
        let mut writer = self.writer();
        let mut next = Snapshot::clone(&self.current.load());
        let now = Instant::now();
        let mut removed = Vec::new();
        for id in ids {
            let Some(tunnel) = next.ids.get(id).cloned() else {
                continue;
            };
            next.ids.remove_mut(id);
            let info = &tunnel.info;
            if let Some(name) = &info.name {
                next.names.remove_mut(&(info.project.clone(), name.clone()));
            }
            if let Some(host) = &info.hostname {
                next.hosts.remove_mut(host);
                next.offline.insert_mut(host.clone(), now);
                writer.offline.push_back((host.clone(), now));
            }
            if let Some(count) = writer.projects.get_mut(&info.project) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    writer.projects.remove(&info.project);
                }
            }
            removed.push(tunnel);
        }
        writer.forget(&mut next, now);
        self.current.store(Arc::new(next));
        drop(writer);
        for site in removed.iter().filter_map(|tunnel| tunnel.site.as_ref()) {
            site.close();
        }
    }

    fn writer(&self) -> std::sync::MutexGuard<'_, Writer> {
        // A snapshot is swapped in whole, so a panic elsewhere leaves nothing half done.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Snapshot {
    fn check(
        &self,
        project: &str,
        name: Option<&str>,
        hostname: Option<&str>,
    ) -> Result<(), Conflict> {
        if hostname.is_some_and(|host| self.hosts.contains_key(host)) {
            return Err(Conflict::Hostname);
        }
        let key = name.map(|name| (project.to_owned(), name.to_owned()));
        if key.is_some_and(|key| self.names.contains_key(&key)) {
            return Err(Conflict::Name);
        }
        Ok(())
    }
}

impl Writer {
    /// Lets go of what is too old or too much.
    fn forget(&mut self, routes: &mut Snapshot, now: Instant) {
        // A name that comes and goes leaves an entry each time, and only the last one counts.
        if self.offline.len() > 2 * routes.offline.size() + OFFLINE_SLACK {
            self.offline
                .retain(|(host, since)| routes.offline.get(host) == Some(since));
        }
        while let Some((host, since)) = self.offline.front() {
            let current = routes.offline.get(host) == Some(since);
            let old = now.saturating_duration_since(*since) >= OFFLINE_FOR;
            if current && !old && routes.offline.size() <= OFFLINE_MAX {
                return;
            }
            if current {
                routes.offline.remove_mut(host);
            }
            self.offline.pop_front();
        }
    }
}

impl Directory for Routes {
    fn find(&self, host: &str) -> Found {
        if self.engine.load().contains(host) {
            return Found::Engine;
        }
        match self.host(host) {
            Lookup::Tunnel(tunnel) => match &tunnel.site {
                Some(site) => Found::Site(Arc::clone(site)),
                None => Found::OtherProtocol,
            },
            Lookup::Offline => Found::Offline,
            Lookup::Unknown => Found::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;
    use crate::properties::Asked;
    use crate::properties::Offer;
    use adit_protocol::message::TunnelProperties;

    fn tunnel(id: &str, project: &str, name: &str, host: &str) -> Arc<Tunnel> {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let asked = Asked::parse(&TunnelProperties::default(), false).unwrap();
        Arc::new(Tunnel {
            info: Arc::new(TunnelInfo {
                id: id.to_owned(),
                name: given(name),
                project: project.to_owned(),
                hostname: given(host),
                ..TunnelInfo::default()
            }),
            properties: asked.admit(&Offer::default()).unwrap(),
            created: SystemTime::UNIX_EPOCH,
            session: Session::for_tests(),
            site: None,
        })
    }

    fn is_live(routes: &Routes, host: &str, id: &str) -> bool {
        matches!(routes.host(host), Lookup::Tunnel(tunnel) if tunnel.info.id == id)
    }

    #[tokio::test]
    async fn a_tunnel_is_found_by_host_id_and_name() {
        let routes = Routes::default();
        routes.insert(&tunnel("1", "p", "web", "a.t.e"), 9).unwrap();
        assert!(is_live(&routes, "a.t.e", "1"));
        assert_eq!(routes.id("1").unwrap().info.id, "1");
        assert_eq!(routes.name("p", "web").unwrap().info.id, "1");
        assert!(routes.name("q", "web").is_none());
        assert!(matches!(routes.host("b.t.e"), Lookup::Unknown));
        assert_eq!(routes.tunnels().len(), 1);
    }

    #[tokio::test]
    async fn names_are_given_once_and_free_again_after_the_end() {
        // edge-behaviour §14.1 C19
        let routes = Routes::default();
        routes.insert(&tunnel("1", "p", "web", "a.t.e"), 9).unwrap();
        for (other, conflict) in [
            (tunnel("2", "q", "", "a.t.e"), Conflict::Hostname),
            (tunnel("2", "p", "web", "b.t.e"), Conflict::Name),
        ] {
            assert_eq!(routes.insert(&other, 9), Err(conflict));
            assert!(routes.id("2").is_none());
        }
        routes.insert(&tunnel("3", "q", "web", "c.t.e"), 9).unwrap();
        routes.remove(["1", "unknown"]);
        assert!(matches!(routes.host("a.t.e"), Lookup::Offline));
        routes.insert(&tunnel("4", "p", "web", "a.t.e"), 9).unwrap();
        assert!(is_live(&routes, "a.t.e", "4"));
        // An end that comes late does not take the successor along.
        routes.remove(["1"]);
        assert!(is_live(&routes, "a.t.e", "4"));
        assert_eq!(routes.len(), 2);
    }

    #[tokio::test]
    async fn a_project_holds_so_many_tunnels() {
        let routes = Routes::default();
        routes.insert(&tunnel("1", "p", "", ""), 1).unwrap();
        let full = Conflict::ProjectFull { max: 1 };
        assert_eq!(routes.insert(&tunnel("2", "p", "", ""), 1), Err(full));
        routes.insert(&tunnel("3", "q", "", ""), 1).unwrap();
        routes.remove(["1"]);
        routes.insert(&tunnel("2", "p", "", ""), 1).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn ended_tunnels_are_remembered_for_a_time() {
        let routes = Routes::default();
        routes.insert(&tunnel("1", "p", "", "a.t.e"), 9).unwrap();
        routes.remove(["1"]);
        tokio::time::advance(OFFLINE_FOR - Duration::from_secs(1)).await;
        assert!(matches!(routes.find("a.t.e"), Found::Offline));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(matches!(routes.find("a.t.e"), Found::Unknown));
    }

    #[tokio::test]
    async fn ended_tunnels_are_remembered_up_to_a_number() {
        let routes = Routes::default();
        for number in 0..=OFFLINE_MAX {
            let id = number.to_string();
            let host = format!("{number}.t.e");
            routes.insert(&tunnel(&id, "p", "", &host), 9).unwrap();
            routes.remove([id.as_str()]);
        }
        assert!(matches!(routes.host("0.t.e"), Lookup::Unknown));
        assert!(matches!(routes.host("1.t.e"), Lookup::Offline));
        assert_eq!(routes.writer().offline.len(), OFFLINE_MAX);
    }

    #[tokio::test]
    async fn a_name_that_comes_and_goes_takes_no_other_names_place() {
        let routes = Routes::default();
        for (id, host) in [("1", "a.t.e"), ("2", "b.t.e")] {
            routes.insert(&tunnel(id, "p", "", host), 9).unwrap();
            routes.remove([id]);
        }
        for _ in 0..2 * OFFLINE_MAX {
            routes.insert(&tunnel("x", "p", "", "x.t.e"), 9).unwrap();
            routes.remove(["x"]);
        }
        for host in ["a.t.e", "b.t.e", "x.t.e"] {
            assert!(matches!(routes.host(host), Lookup::Offline), "{host}");
        }
        assert!(routes.writer().offline.len() <= 2 * 3 + OFFLINE_SLACK);
    }

    #[tokio::test]
    async fn the_engines_own_names_are_no_tunnels() {
        let routes = Routes::default();
        routes.set_engine_hosts(["e".to_owned(), "localhost".to_owned()]);
        assert!(matches!(routes.find("e"), Found::Engine));
        assert!(matches!(routes.find("localhost"), Found::Engine));
        routes.insert(&tunnel("1", "p", "", "a.t.e"), 9).unwrap();
        assert!(matches!(routes.find("a.t.e"), Found::OtherProtocol));
    }
}
