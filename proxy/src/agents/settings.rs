//! What agents are held to.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use adit_config::{Config, DEFAULT_PROJECT};
use adit_protocol::liveness::EnginePolicy;

use crate::names::Names;
use crate::properties::{Features, Offer};

/// Limits, waits and names for agents. One value per engine, replaced whole on reload.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time for the first frame of a connection.
    pub first_frame: Duration,
    /// Time an agent has to bring a stream, waiting for its turn included.
    pub stream_request: Duration,
    /// Most agents connected.
    pub agents_max: usize,
    /// Most live tunnels of one agent.
    pub tunnels_per_agent: usize,
    /// Most live tunnels of one project.
    pub tunnels_per_project: usize,
    /// Most streams asked of one agent and not yet answered.
    pub pending_opens: usize,
    /// Most streams waiting until the agent may be asked for them.
    pub queued_opens: usize,
    /// What is granted about heartbeats.
    pub liveness: EnginePolicy,
    /// Names of published tunnels.
    pub names: Names,
    /// The port published tunnels are told.
    pub public_port: u16,
    /// What tunnels of each project may have, by the project's name.
    pub projects: BTreeMap<String, Offer>,
    /// The project of each server name that chooses one.
    pub endpoints: HashMap<String, String>,
}

impl Settings {
    /// The settings of a configuration. `public_port` is the port the public reaches the engine at.
    #[must_use]
    pub fn of(config: &Config, public_port: u16) -> Self {
        let host = &config.engine.host;
        let mut endpoints = HashMap::new();
        for project in config.projects.values() {
            for endpoint in &project.endpoints {
                endpoints.insert(format!("{endpoint}.{host}"), project.name.clone());
            }
        }
        let features = Features {
            challenge: config.challenge.enabled,
            geoip: config.geoip.database.is_some(),
            login: config.login.is_possible(),
        };
        Self {
            first_frame: config.timeouts.first_frame,
            stream_request: config.timeouts.stream_request,
            agents_max: config.limits.agents,
            tunnels_per_agent: config.limits.tunnels_per_agent,
            tunnels_per_project: config.limits.tunnels_per_project,
            pending_opens: config.limits.pending_opens_per_agent,
            queued_opens: config.limits.queued_opens_per_agent,
            liveness: EnginePolicy::default(),
            names: Names::new(host),
            public_port,
            projects: config
                .projects
                .values()
                .map(|project| {
                    let offer = Offer {
                        access: project.public_access,
                        plan: project.plan,
                        features,
                    };
                    (project.name.clone(), offer)
                })
                .collect(),
            endpoints,
        }
    }

    /// The project a client reaches by the server name of its handshake.
    #[must_use]
    pub fn project_of(&self, server_name: Option<&str>) -> String {
        let chosen = server_name.and_then(|name| self.endpoints.get(name));
        chosen.map_or_else(|| DEFAULT_PROJECT.to_owned(), String::clone)
    }

    /// The project whose namespace a host name is in: its first label ends in a hyphen and one of the project's
    /// endpoints (edge-behaviour §2).
    #[must_use]
    pub fn namespace_of(&self, hostname: &str) -> Option<&str> {
        let label = hostname.split('.').next()?;
        let (_, endpoint) = label.rsplit_once('-')?;
        let mut known = self.endpoints.iter();
        known
            .find(|(host, _)| host.split('.').next() == Some(endpoint))
            .map(|(_, project)| project.as_str())
    }

    /// What tunnels of `project` may have.
    #[must_use]
    pub fn offer(&self, project: &str) -> Offer {
        self.projects.get(project).copied().unwrap_or_default()
    }
}
