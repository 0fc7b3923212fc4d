//! Agents and tunnels as the API and the metrics show them.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::agents::{Agents, TunnelRecord};
use crate::api::{Inventory, Item};
use crate::metrics::{Metrics, Observed, TunnelLabels};
use crate::route::Routes;
use crate::tls::Tls;

/// The inventory of a running engine.
pub(super) struct Shelf {
    pub(super) agents: Arc<Agents>,
    pub(super) routes: Arc<Routes>,
    /// The port tunnels are reached at.
    pub(super) port: u16,
}

impl Inventory for Shelf {
    fn clients(&self) -> Vec<Item> {
        let clients = self.agents.clients().into_iter();
        clients
            .map(|client| item(client.project_id.clone(), &client))
            .collect()
    }

    fn tunnels(&self) -> Vec<Item> {
        let tunnels = self.agents.tunnels().into_iter();
        tunnels
            .map(|tunnel| item(tunnel.project_id.clone(), &tunnel))
            .collect()
    }

    fn tunnel(&self, id: &str) -> Option<Item> {
        let tunnel = TunnelRecord::of(&*self.routes.id(id)?, self.port);
        Some(item(tunnel.project_id.clone(), &tunnel))
    }
}

fn item(project: Option<String>, record: &impl Serialize) -> Item {
    let object = match serde_json::to_value(record) {
        Ok(Value::Object(object)) => object,
        // Records are plain structs; one that were not would be seen by no boundary.
        _ => Map::new(),
    };
    Item {
        project: project.unwrap_or_default(),
        object,
    }
}

/// Brings the gauges of `metrics` up to date.
pub(super) fn observe(metrics: &Metrics, agents: &Agents, routes: &Routes, tls: &Tls) {
    let tunnels = routes.tunnels();
    metrics.observe(Observed {
        clients: agents.agent_count(),
        streams: agents.stream_count(),
        tunnels: tunnels.iter().map(|tunnel| TunnelLabels {
            protocol: tunnel.info.protocol.as_deref().unwrap_or("none"),
            kind: &tunnel.info.kind,
            published: tunnel.info.published,
        }),
        certificate_ends: tls.not_after(),
    });
}
