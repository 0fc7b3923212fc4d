//! Project policy ∧ tunnel properties ∧ plugins → ordered filters → chain.
//!
//! Every filter of every policy is built when a configuration is loaded, used or not, so that a reload finds every
//! mistake before anything changes; tunnels share them. A tunnel adds filters of its own behind those of its project
//! at the same stage. It cannot take any away, move or widen one.

mod build;
mod explain;
mod listing;
mod local;
mod network;
mod project;
mod proof;
mod switches;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use adit_config::PublicAccess;
use adit_filters::{Chain, ChainError, Hooks, KeyExchange, Meter, Placed, Stage, TunnelInfo};
use adit_plugins::identity::{challenge, rstream_auth};
use adit_plugins::network::geoip::Database;
use adit_protocol::{ErrorCode, ProtocolError};
use arc_swap::ArcSwap;

use crate::env::Load;
use crate::properties::{self, Effective, NEEDS_PROOF, Protocol};

use local::Local;

pub use explain::explain;
pub use listing::{FilterState, IdleSwitch};
use network::Admits;
use project::ProjectRules;
pub use switches::{Operator, Position, Switch, SwitchKey, Switches};

/// The policies of one load of the configuration, built. When it goes, so do its filters' jobs.
pub struct Policies {
    projects: BTreeMap<String, ProjectRules>,
    /// What tunnels add by themselves.
    own: TunnelFilters,
    /// What answers on reserved paths.
    local: Local,
    /// Where addresses are.
    geoip: Option<Arc<Database>>,
    load: Load,
    /// What the operator switched, shared by the policies of every load.
    switches: Arc<ArcSwap<Switches>>,
}

/// Filters that tunnels share because they have no settings of their own.
struct TunnelFilters {
    /// `mtls_auth` as the last method of a tunnel.
    client_cert: Option<Hooks>,
    /// `mtls_auth` where another method follows.
    client_cert_or_next: Option<Hooks>,
    /// `token_auth` as the last method of a tunnel.
    token: Option<Hooks>,
    /// `token_auth` where another method follows.
    token_or_next: Option<Hooks>,
    /// `rstream_auth`, which is the last method wherever it is one; none where nobody can sign in.
    rstream_auth: Option<Hooks>,
    /// `challenge_mode`; none where browsers are not asked to work.
    challenge: Option<Hooks>,
}

/// What the operator puts before a tunnel.
struct ProjectChain {
    public_access: PublicAccess,
    /// In the order of policies as listed and filters as written, the project's before those of scopes.
    filters: Vec<Placed>,
    /// Kinds of the filters in force.
    kinds: BTreeSet<String>,
    /// Grants upgrades, on HTTP tunnels only.
    upgrades: Vec<Placed>,
    /// What each filter over addresses or countries lets in.
    admits: Vec<Admits>,
}

/// Why a tunnel has no chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AssembleError {
    /// The project permits no public tunnel without authentication, or none at all.
    #[error("{0}")]
    NotPermitted(&'static str),
    /// The project is not configured, or no longer.
    #[error("project `{0}` does not exist")]
    UnknownProject(String),
    /// Nobody could ever reach the tunnel.
    #[error("`trusted_ips` has no address in common with those the project trusts")]
    NobodyTrusted,
    /// The list of countries cannot be used.
    #[error("`geoip` cannot be used: {0}")]
    GeoIp(String),
    /// Nobody could ever reach the tunnel.
    #[error("`geoip` has no country in common with those the project allows")]
    NobodyThere,
    /// The list of trusted addresses cannot be used.
    #[error("`trusted_ips` cannot be used: {0}")]
    TrustedIps(String),
    /// The tunnel asks for less than the project demands.
    #[error("`tls_min_version` is below the project's, which is {}", .project.as_str())]
    BelowProject {
        /// What the project demands.
        project: properties::TlsVersion,
    },
    /// What the tunnel demands of TLS cannot be had.
    #[error("`tls_ciphers` cannot be used: {0}")]
    TlsPolicy(String),
    /// A demand of the project could never be met beside what the tunnel asks for.
    #[error(
        "`{method}` cannot go with the project's filter `{filter}`: visitors prove who they are by one method, and the tunnel does not choose it"
    )]
    OtherProof {
        /// The property that asks for it.
        method: &'static str,
        /// The filter.
        filter: Arc<str>,
    },
    /// A demand of the project judges requests, and this tunnel has none.
    #[error("the project's filter `{0}` judges HTTP requests, so the tunnel must be one of HTTP")]
    Unenforceable(Arc<str>),
    /// The engine was built without this kind of filter.
    #[error("unsupported: this engine has no `{0}` filter")]
    Missing(&'static str),
    /// The filters do not work together.
    #[error("the tunnel's filters do not work together: {0}")]
    Chain(#[from] ChainError),
}

impl AssembleError {
    /// The class of error the agent is told.
    #[must_use]
    pub fn class(&self) -> ErrorCode {
        match self {
            Self::NotPermitted(_) | Self::Unenforceable(_) => ErrorCode::UNAUTHORIZED,
            Self::UnknownProject(_) => ErrorCode::TUNNEL_NOT_FOUND,
            Self::GeoIp(_)
            | Self::NobodyThere
            | Self::NobodyTrusted
            | Self::TrustedIps(_)
            | Self::BelowProject { .. }
            | Self::TlsPolicy(_)
            | Self::OtherProof { .. }
            // Only what the tunnel adds can contradict what its project's policies agreed on at load.
            | Self::Chain(ChainError::Handshake { .. }) => ErrorCode::INVALID_REQUEST,
            Self::Missing(_) => ErrorCode::FEATURE_NOT_AVAILABLE,
            Self::Chain(ChainError::TooManyFilters { .. } | ChainError::TooManySlots { .. }) => {
                ErrorCode::CAPACITY_EXHAUSTED
            }
            Self::Chain(_) => ErrorCode::INTERNAL,
        }
    }
}

impl From<AssembleError> for ProtocolError {
    fn from(error: AssembleError) -> Self {
        Self::new(error.class(), error.to_string())
    }
}

impl Policies {
    /// The chain of a tunnel. A private tunnel has none: its visitors are clients that dial it.
    ///
    /// # Errors
    /// [`AssembleError`]. A live tunnel for which this fails after a reload must be closed.
    pub fn chain(
        &self,
        tunnel: &TunnelInfo,
        asked: &Effective,
    ) -> Result<Arc<Chain>, AssembleError> {
        self.chain_with(&self.switches.load(), tunnel, asked)
    }

    /// The chain a tunnel would have with other switches.
    pub(crate) fn chain_with(
        &self,
        switches: &Switches,
        tunnel: &TunnelInfo,
        asked: &Effective,
    ) -> Result<Arc<Chain>, AssembleError> {
        let rules = self
            .projects
            .get(&tunnel.project)
            .ok_or_else(|| AssembleError::UnknownProject(tunnel.project.clone()))?;
        if !asked.publish {
            return Ok(Arc::new(Chain::empty()));
        }
        let project = rules.chain(&rules.before(tunnel, switches));
        project.permits(asked)?;
        let mut filters = project.filters.clone();
        if asked.protocol == Some(Protocol::Http) {
            filters.extend(self.local.of(&project, &local::demands(asked)));
            filters.extend(project.upgrades.iter().cloned());
        } else if let Some(judge) = filters.iter().find(|placed| judges_requests(placed)) {
            return Err(AssembleError::Unenforceable(judge.name.clone()));
        }
        filters.extend(self.tunnel_filters(&project, asked)?);
        Ok(Arc::new(compile(filters, self.load.meter())?))
    }

    /// The chain of what the operator puts before an HTTP tunnel, whatever the tunnel adds and whether it may be
    /// public; none without its project.
    pub(crate) fn operators_chain(&self, tunnel: &TunnelInfo) -> Option<Result<Chain, ChainError>> {
        let rules = self.projects.get(&tunnel.project)?;
        let chain = rules.chain(&rules.before(tunnel, &self.switches.load()));
        Some(compile(chain.of_http(&self.local), None))
    }

    /// How projects want keys agreed on, which holds at their own hosts too (edge-behaviour §5.2).
    pub(crate) fn key_exchanges(&self) -> BTreeMap<String, KeyExchange> {
        let switches = self.switches.load();
        let exchange = |rules: &ProjectRules| {
            let chain = rules.chain(&rules.everywhere(&switches));
            tls::key_exchange(&chain)
        };
        self.projects
            .iter()
            .filter_map(|(name, rules)| Some((name.clone(), exchange(rules)?)))
            .collect()
    }

    /// What the tunnel adds by itself.
    fn tunnel_filters(
        &self,
        project: &ProjectChain,
        asked: &Effective,
    ) -> Result<Vec<Placed>, AssembleError> {
        let mut filters = Vec::new();
        filters.extend(network::trusted(asked, &project.admits)?);
        filters.extend(network::placed(
            asked,
            &project.admits,
            self.geoip.as_ref(),
        )?);
        filters.extend(tls::policy(project, asked)?);
        proof::suffice(project, asked)?;
        filters.extend(self.methods(asked)?);
        Ok(filters)
    }

    /// The ways in which visitors can prove themselves to the tunnel, in the order they are tried. One is enough: each
    /// but the last leaves a request without its proof to the next (edge-behaviour §7.1).
    fn methods(&self, asked: &Effective) -> Result<Vec<Placed>, AssembleError> {
        let mut filters = Vec::new();
        if asked.mtls_auth {
            let hooks = match asked.token_auth || asked.rstream_auth {
                true => &self.own.client_cert_or_next,
                false => &self.own.client_cert,
            };
            let hooks = hooks.clone();
            let hooks = hooks.ok_or(AssembleError::Missing("client-cert"))?;
            filters.push(from_tunnel("client-cert", "mtls_auth", hooks));
        }
        if asked.token_auth {
            let hooks = match asked.rstream_auth {
                true => &self.own.token_or_next,
                false => &self.own.token,
            };
            let hooks = hooks.clone().ok_or(AssembleError::Missing("token"))?;
            filters.push(from_tunnel("token", "token_auth", hooks));
        }
        if asked.challenge_mode {
            let hooks = self.own.challenge.clone();
            let hooks = hooks.ok_or(AssembleError::Missing(challenge::NAME))?;
            filters.push(from_tunnel(challenge::NAME, "challenge_mode", hooks));
        }
        if asked.rstream_auth {
            let hooks = self.own.rstream_auth.clone();
            let hooks = hooks.ok_or(AssembleError::Missing(rstream_auth::NAME))?;
            filters.push(from_tunnel(rstream_auth::NAME, "rstream_auth", hooks));
        }
        Ok(filters)
    }

    /// Lets tunnels ask for countries, by this database.
    #[must_use]
    pub fn with_geoip(mut self, geoip: Option<&Arc<Database>>) -> Self {
        self.geoip = geoip.cloned();
        self
    }

    /// Ends the jobs of all filters at once, before the last exchange lets go of them.
    pub fn cancel_jobs(&self) {
        self.load.cancel();
    }
}

impl Drop for Policies {
    fn drop(&mut self) {
        // Chains of exchanges under way still hold the filters, but their configuration is no longer in force.
        self.load.cancel();
    }
}

impl ProjectChain {
    /// The filters of an HTTP tunnel that adds none.
    fn of_http(self, local: &Local) -> Vec<Placed> {
        let local = local.of(&self, &[]);
        let mut filters = self.filters;
        filters.extend(local);
        filters.extend(self.upgrades);
        filters
    }

    /// The project's rule about public tunnels, asked again at each reload (edge-behaviour §7.7).
    fn permits(&self, asked: &Effective) -> Result<(), AssembleError> {
        match self.public_access {
            PublicAccess::Allowed => Ok(()),
            PublicAccess::AuthRequired if asked.authenticates() => Ok(()),
            PublicAccess::AuthRequired => Err(AssembleError::NotPermitted(NEEDS_PROOF)),
            PublicAccess::Forbidden => Err(AssembleError::NotPermitted(
                "the project forbids public tunnels",
            )),
        }
    }
}

fn from_tunnel(kind: &str, property: &str, hooks: Hooks) -> Placed {
    Placed {
        origin: format!("the tunnel's `{property}`"),
        ..Placed::new(format!("tunnel/{kind}"), hooks)
    }
}

/// Filters that only answer on paths of their own, grant upgrades or write logs have nothing to judge on other protocols,
/// and nothing is lost; those on trial judge nothing anywhere. One that judges connections has judged whoever comes by
/// another protocol.
fn judges_requests(placed: &Placed) -> bool {
    let phases = placed.hooks.phases();
    let takes = |phase| phases.contains(&phase);
    !placed.dry_run
        && placed.hooks.stage() < Stage::Upgrade
        && placed.hooks.stage() != Stage::Local
        && !takes("connect")
        && (takes("request") || takes("request-body"))
}

/// Within a stage and rank filters stay as they are: the project's in the order written, then the tunnel's.
fn compile(mut filters: Vec<Placed>, meter: Option<&dyn Meter>) -> Result<Chain, ChainError> {
    filters.sort_by_key(|placed| placed.hooks.place());
    Chain::measured(filters, meter)
}
