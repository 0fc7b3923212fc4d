//! A tunnel is opened: properties, names, permission, chain, route; in that order.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use adit_filters::TunnelInfo;
use adit_protocol::message::TunnelProperties;
use adit_protocol::{ErrorCode, ProtocolError, Version};

use super::listing::{TunnelRecord, authority};
use super::session::{AgentDial, Session};
use super::settings::Settings;
use super::{Agents, Assemble, ids, internal, pins};
use crate::edge::{Site, UpstreamMode};
use crate::names::Wanted;
use crate::properties::{Asked, Effective, HttpVersion};
use crate::route::{Conflict, Tunnel};

/// Attempts at a host name nobody has. With 40 random bits the second is never needed; the number
/// keeps a broken random source from looping.
const ALLOCATIONS_MAX: usize = 8;

/// First revision that asks for a host name in `hostname`; `host` was the field before.
const HOSTNAME_SINCE: Version = Version {
    major: 1,
    minor: 4,
    patch: 1,
};

/// Opens a tunnel of `session`, which has the tunnels `own` already, and puts it on the map.
/// Returns it with the properties to answer with.
pub(super) fn open(
    agents: &Agents,
    session: &Arc<Session>,
    own: &BTreeSet<String>,
    version: Version,
    properties: &TunnelProperties,
) -> Result<(Arc<Tunnel>, TunnelProperties), ProtocolError> {
    let settings = agents.settings.load();
    let plan = plan(agents, session, own, version, properties)?;
    let (info, asked) = (plan.info, plan.asked);
    let properties = asked.admit(&settings.offer(&session.project))?;
    let created = SystemTime::now();
    let record = TunnelRecord::opened(&info, &properties, created, settings.public_port);
    let info = Arc::new(TunnelInfo {
        record: record.to_map(),
        ..info
    });
    let assemble = agents.assemble.load_full();
    let tunnel = Arc::new(Tunnel {
        site: site(&**assemble, session, &info, &properties)?,
        info,
        properties,
        created,
        session: Arc::clone(session),
    });
    agents
        .routes
        .insert(&tunnel, settings.tunnels_per_project)
        .map_err(conflict)?;
    reassemble(agents, &assemble, &tunnel)?;
    let answer = answer(&tunnel, settings.public_port);
    Ok((tunnel, answer))
}

/// A tunnel that may be opened, as far as names and permission go.
struct Plan {
    asked: Asked,
    info: TunnelInfo,
}

/// Makes a plan of the request; where the credential pins properties, of the first way in which the
/// request fits. If it fits in none, it is judged as it stands, unless a name is merely taken now.
fn plan(
    agents: &Agents,
    session: &Session,
    own: &BTreeSet<String>,
    version: Version,
    properties: &TunnelProperties,
) -> Result<Plan, ProtocolError> {
    let plan_one =
        |properties: &TunnelProperties| plan_one(agents, session, own, version, properties);
    let mut conflict = None;
    for pinned in session.principal.pins(&session.project) {
        let mut filled = properties.clone();
        pins::fill(&mut filled, &pinned);
        match plan_one(&filled) {
            Ok(plan) => return Ok(plan),
            Err(error) if error.code.is_retryable() => {
                conflict.get_or_insert(error);
            }
            // Perhaps what was asked for and what is pinned contradict one another; the request
            // alone says it better.
            Err(_) => {}
        }
    }
    conflict.map_or_else(|| plan_one(properties), Err)
}

fn plan_one(
    agents: &Agents,
    session: &Session,
    own: &BTreeSet<String>,
    version: Version,
    properties: &TunnelProperties,
) -> Result<Plan, ProtocolError> {
    let settings = agents.settings.load();
    let asked = Asked::parse(properties, version < HOSTNAME_SINCE)?;
    let wanted = settings
        .names
        .place(asked.hostname().unwrap_or_default())
        .map_err(|error| ProtocolError::new(ErrorCode::INVALID_REQUEST, error.to_string()))?;
    let hostname = match (asked.effective().publish, wanted) {
        (false, _) => None,
        (true, Wanted::Name(name)) => Some(name),
        (true, Wanted::Any) => Some(allocate(agents, &settings)?),
    };
    let namespace = hostname
        .as_deref()
        .and_then(|name| settings.namespace_of(name));
    if namespace.is_some_and(|owner| owner != session.project) {
        let text = "`hostname` is in the namespace of another project, use another name";
        return Err(ProtocolError::new(ErrorCode::INVALID_REQUEST, text));
    }
    let name = asked.effective().name.as_deref();
    agents
        .routes
        .check(&session.project, name, hostname.as_deref())
        .map_err(conflict)?;
    if own.len() >= settings.tunnels_per_agent {
        return Err(ProtocolError::new(
            ErrorCode::CAPACITY_EXHAUSTED,
            format!(
                "the agent has {} tunnels, which is the limit",
                settings.tunnels_per_agent
            ),
        ));
    }
    let id = ids::id().map_err(|_| internal())?;
    let info = info(session, id, hostname, asked.effective());
    permit(session, &info, &asked, &settings)?;
    Ok(Plan { asked, info })
}

fn allocate(agents: &Agents, settings: &Settings) -> Result<String, ProtocolError> {
    for _ in 0..ALLOCATIONS_MAX {
        let random = ids::octets().map_err(|_| internal())?;
        let name = settings.names.allocate(random);
        if agents.routes.check("", None, Some(&name)).is_ok() {
            return Ok(name);
        }
    }
    Err(internal())
}

fn permit(
    session: &Session,
    info: &TunnelInfo,
    asked: &Asked,
    settings: &Settings,
) -> Result<(), ProtocolError> {
    let planned = TunnelRecord::planned(info, asked.effective(), settings.public_port);
    if session.principal.may_create(&planned) {
        return Ok(());
    }
    Err(ProtocolError::new(
        ErrorCode::UNAUTHORIZED,
        "the credential does not allow this tunnel to be created",
    ))
}

fn info(
    session: &Session,
    id: String,
    hostname: Option<String>,
    properties: &Effective,
) -> TunnelInfo {
    TunnelInfo {
        id,
        name: properties.name.clone(),
        project: session.project.clone(),
        client_id: session.client_id.clone(),
        user_id: session.principal.user_id().map(str::to_owned),
        hostname,
        published: properties.publish,
        protocol: properties
            .protocol
            .map(|protocol| protocol.as_str().to_owned()),
        kind: properties.kind.as_str().to_owned(),
        labels: properties.labels.clone(),
        record: serde_json::Map::new(),
    }
}

/// The place of a published tunnel at the edge, with its chain.
fn site(
    assemble: &Assemble,
    session: &Arc<Session>,
    info: &Arc<TunnelInfo>,
    properties: &Effective,
) -> Result<Option<Arc<Site>>, ProtocolError> {
    if !properties.publish {
        return Ok(None);
    }
    let chain = assemble(info, properties)?;
    let mode = match (properties.upstream_tls, properties.http_version) {
        (true, _) => UpstreamMode::Tls,
        (false, Some(HttpVersion::H2c)) => UpstreamMode::H2c,
        (false, _) => UpstreamMode::Http1,
    };
    let dial = Arc::new(AgentDial {
        session: Arc::clone(session),
        tunnel_id: info.id.clone(),
    });
    Ok(Some(Arc::new(Site::new(
        Arc::clone(info),
        mode,
        chain,
        dial,
    ))))
}

/// Chains may have been replaced after this one was made and before the tunnel was on the map, where
/// the replacement would have found it.
fn reassemble(
    agents: &Agents,
    used: &Arc<Box<Assemble>>,
    tunnel: &Tunnel,
) -> Result<(), ProtocolError> {
    let current = agents.assemble.load_full();
    let Some(site) = tunnel
        .site
        .as_ref()
        .filter(|_| !Arc::ptr_eq(used, &current))
    else {
        return Ok(());
    };
    match (**current)(&tunnel.info, &tunnel.properties) {
        Ok(chain) => {
            site.set_chain(chain);
            Ok(())
        }
        Err(error) => {
            agents.routes.remove([tunnel.info.id.as_str()]);
            Err(error)
        }
    }
}

/// The whole set of properties, as the agent and its user see the tunnel.
fn answer(tunnel: &Tunnel, public_port: u16) -> TunnelProperties {
    let info = &tunnel.info;
    let host = info.hostname.as_ref();
    TunnelProperties {
        id: Some(info.id.clone()),
        creation_date: Some(tunnel.created.into()),
        hostname: host.cloned(),
        tls_min_version: tunnel
            .tls_min_version()
            .map(|version| version.as_str().to_owned()),
        port: host.map(|_| u32::from(public_port)),
        host: host.map(|host| authority(host, public_port)),
        ..tunnel.properties.to_message()
    }
}

fn conflict(conflict: Conflict) -> ProtocolError {
    let code = match conflict {
        Conflict::ProjectFull { .. } => ErrorCode::CAPACITY_EXHAUSTED,
        Conflict::Hostname | Conflict::Name => ErrorCode::RESOURCE_CONFLICT,
    };
    ProtocolError::new(code, conflict.to_string())
}
