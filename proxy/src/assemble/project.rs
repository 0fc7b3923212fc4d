//! Which filters the operator puts before a tunnel: those of its project, and of the scopes it is in.

use std::collections::BTreeSet;
use std::sync::Arc;

use adit_config::{FilterRef, Project, PublicAccess, Section, TunnelMatch, UpgradeKind};
use adit_filters::{Filter, Hooks, Placed, TunnelInfo};
use adit_plugins::upgrade::other::OtherUpgrade;
use adit_plugins::upgrade::websocket::WebSocket;

use super::ProjectChain;
use super::network::Admits;
use super::switches::{Position, Switch, Switches};

/// A filter of a policy, built.
pub(super) struct Built {
    pub(super) at: FilterRef,
    pub(super) kind: String,
    pub(super) section: Section,
    pub(super) placed: Placed,
    /// Whom it lets in, if it is a list of addresses or countries.
    pub(super) admits: Option<Admits>,
}

/// A project as configured, with the filters of its policies.
pub(super) struct ProjectRules {
    pub(super) name: String,
    public_access: PublicAccess,
    upgrades: Vec<UpgradeKind>,
    policies: Vec<Arc<[Built]>>,
    off: BTreeSet<FilterRef>,
    scopes: Vec<ScopeRules>,
}

/// Further policies for tunnels that match.
pub(super) struct ScopeRules {
    pub(super) tunnels: TunnelMatch,
    policies: Vec<Arc<[Built]>>,
    off: BTreeSet<FilterRef>,
    pub(super) origin: String,
}

/// A filter that stands before a tunnel, unless it is off.
pub(super) struct Listed<'a> {
    pub(super) built: &'a Built,
    /// The first scope that brings it, if it is not on every tunnel of the project.
    pub(super) scope: Option<&'a ScopeRules>,
    /// Where the file puts it.
    pub(super) written: Position,
    /// How it was switched, if it may be.
    pub(super) switch: Option<&'a Switch>,
}

impl Listed<'_> {
    /// Where it is.
    pub(super) fn position(&self) -> Position {
        self.switch.map_or(self.written, |switch| switch.to)
    }
}

impl ProjectRules {
    /// The rules of a project whose policies `filters` gives by name.
    pub(super) fn new(project: &Project, filters: impl Fn(&str) -> Option<Arc<[Built]>>) -> Self {
        let all = |names: &[String]| names.iter().filter_map(|name| filters(name)).collect();
        let scopes = project.tunnels.iter().map(|scope| ScopeRules {
            tunnels: scope.tunnels.clone(),
            policies: all(&scope.policies),
            off: scope.off.iter().cloned().collect(),
            origin: scope.place.to_string(),
        });
        Self {
            name: project.name.clone(),
            public_access: project.public_access,
            upgrades: project.upgrades.clone(),
            policies: all(&project.policies),
            off: project.off.iter().cloned().collect(),
            scopes: scopes.collect(),
        }
    }

    /// What stands before this tunnel, and what would if it were not off.
    pub(super) fn before<'a>(
        &'a self,
        tunnel: &TunnelInfo,
        switches: &'a Switches,
    ) -> Vec<Listed<'a>> {
        self.listed(switches, |scope| scope.matches(tunnel))
    }

    /// What stands before every tunnel of the project.
    pub(super) fn everywhere<'a>(&'a self, switches: &'a Switches) -> Vec<Listed<'a>> {
        self.listed(switches, |_| false)
    }

    /// What can stand before a tunnel: without any scope, in each alone, and in all of them.
    pub(super) fn cases<'a>(&'a self, switches: &'a Switches) -> Vec<Vec<Listed<'a>>> {
        let mut cases = vec![self.everywhere(switches)];
        for alone in &self.scopes {
            cases.push(self.listed(switches, |scope| std::ptr::eq(scope, alone)));
        }
        if self.scopes.len() > 1 {
            cases.push(self.listed(switches, |_| true));
        }
        cases
    }

    /// The filters of the project's policies and of the scopes that `hold`, in order.
    fn listed<'a>(
        &'a self,
        switches: &'a Switches,
        hold: impl Fn(&ScopeRules) -> bool,
    ) -> Vec<Listed<'a>> {
        let switch = |built: &Built| {
            let switch = switches.get(&self.name, &built.at);
            switch.filter(|_| built.placed.optional)
        };
        let mut listed: Vec<Listed<'a>> = Vec::new();
        let project = self.policies.iter().flat_map(|policy| policy.iter());
        listed.extend(project.map(|built| Listed {
            built,
            scope: None,
            written: self.written(built, None),
            switch: switch(built),
        }));
        for scope in self.scopes.iter().filter(|scope| hold(scope)) {
            for built in scope.policies.iter().flat_map(|policy| policy.iter()) {
                let written = self.written(built, Some(scope));
                match listed.iter_mut().find(|other| other.built.at == built.at) {
                    // Two scopes bring the same policy: it is off only where both agree.
                    Some(earlier) if written == Position::On => earlier.written = written,
                    Some(_) => {}
                    None => listed.push(Listed {
                        built,
                        scope: Some(scope),
                        written,
                        switch: switch(built),
                    }),
                }
            }
        }
        listed
    }

    /// Where the file puts a filter. Configuration refuses to switch off what is not optional; nothing rests on that
    /// here.
    fn written(&self, built: &Built, scope: Option<&ScopeRules>) -> Position {
        let named = self.off.contains(&built.at)
            || scope.is_some_and(|scope| scope.off.contains(&built.at));
        match named && built.placed.optional {
            true => Position::Off,
            false => Position::On,
        }
    }

    /// Each filter of each policy once for the project, and once for each scope that brings it.
    pub(super) fn everything<'a>(&'a self, switches: &'a Switches) -> Vec<Listed<'a>> {
        let mut all = self.listed(switches, |_| false);
        for alone in &self.scopes {
            let listed = self.listed(switches, |scope| std::ptr::eq(scope, alone));
            all.extend(listed.into_iter().filter(|listed| listed.scope.is_some()));
        }
        all
    }

    /// The chain of these, without what a tunnel adds.
    pub(super) fn chain(&self, listed: &[Listed<'_>]) -> ProjectChain {
        let in_force = || {
            let listed = listed.iter();
            listed.filter(|listed| listed.position() == Position::On)
        };
        let enforced = || in_force().filter(|listed| !listed.built.placed.dry_run);
        ProjectChain {
            public_access: self.public_access,
            filters: in_force().map(Listed::placed).collect(),
            kinds: enforced().map(|listed| listed.built.kind.clone()).collect(),
            upgrades: self.granted(listed),
            admits: enforced()
                .filter_map(|listed| listed.built.admits.clone())
                .collect(),
        }
    }

    /// What grants upgrades where no filter listed speaks about them. A filter that is switched off has spoken: the
    /// default in its place would grant more than it did. One on trial has not: it is to change nothing.
    fn granted(&self, listed: &[Listed<'_>]) -> Vec<Placed> {
        let spoken = |kind: &str| {
            let mut filters = listed.iter().map(|listed| listed.built);
            filters.any(|built| built.kind == kind && !built.placed.dry_run)
        };
        let mut granted = Vec::new();
        for kind in &self.upgrades {
            let (name, hooks): (&str, Hooks) = match kind {
                UpgradeKind::Websocket => (WebSocket::NAME, Arc::new(WebSocket::any()).hooks()),
                UpgradeKind::Other => (OtherUpgrade::NAME, Arc::new(OtherUpgrade::any()).hooks()),
            };
            if !spoken(name) {
                let origin = format!("`upgrades` of project `{}`", self.name);
                granted.push(Placed {
                    origin,
                    ..Placed::new(format!("project/{name}"), hooks)
                });
            }
        }
        granted
    }
}

impl ScopeRules {
    fn matches(&self, tunnel: &TunnelInfo) -> bool {
        let (name, host) = (tunnel.name.as_deref(), tunnel.hostname.as_deref());
        self.tunnels.matches(name, host, &tunnel.labels)
    }
}

impl Listed<'_> {
    fn placed(&self) -> Placed {
        let mut placed = self.built.placed.clone();
        if let Some(scope) = self.scope {
            placed.origin = format!("{}, for the tunnels at {}", placed.origin, scope.origin);
        }
        placed
    }
}
