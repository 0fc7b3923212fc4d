//! The desk where users sign in, as a configuration wants it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use adit_config::{Config, JWT_SECRET_BYTES_MIN, Oidc, Problem, Secret, Section};
use adit_filters::env::Random as _;
use adit_plugins::Services;
use adit_plugins::identity::challenge::{Gate, GateSettings};
use adit_plugins::identity::rstream_auth::{
    Allow, Desk, DeskError, DeskSettings, ProviderSettings,
};

use crate::edge::{Changes, Edge};
use crate::env::{OsRandom, World};

/// The key space of what the desk stores.
const STORE: &str = "login";

/// The desk of a configuration, if anybody can sign in. It takes over from `before` what outlives a reload.
pub(super) fn desk(
    config: &Config,
    world: &World,
    before: Option<&Desk>,
) -> Result<Option<Arc<Desk>>, Vec<Problem>> {
    let login = &config.login;
    if !login.is_possible() {
        return Ok(None);
    }
    let mut problems = Vec::new();
    let mut rule = |section: &Section| {
        let read = section.deserialize::<Allow>();
        read.map_err(|found| problems.extend(found)).ok()
    };
    let allow = login.allow.as_ref().and_then(&mut rule);
    let projects: BTreeMap<String, Allow> = config
        .projects
        .values()
        .filter_map(|project| Some((project.name.clone(), rule(project.users.as_ref()?)?)))
        .collect();
    if !problems.is_empty() {
        return Err(problems);
    }
    let settings = DeskSettings {
        host: config.engine.host.clone(),
        secret: config.auth.jwt_secret.clone(),
        lifetime: login.lifetime,
        allow,
        projects,
        accounts: login.accounts.clone(),
        provider: login.oidc.clone().map(provider),
    };
    let env = world.load().env(STORE);
    match Desk::new(settings, &env, before) {
        Ok(desk) => Ok(Some(Arc::new(desk))),
        Err(DeskError::Accounts(problems)) => Err(problems),
        Err(error @ DeskError::Threads(_)) => {
            Err(vec![config.problem("login.accounts", error.to_string())])
        }
    }
}

fn provider(oidc: Oidc) -> ProviderSettings {
    ProviderSettings {
        issuer: oidc.issuer,
        name: oidc.name,
        client_id: oidc.client_id,
        client_secret: oidc.client_secret,
        scopes: oidc.scopes,
        groups_claim: oidc.groups_claim,
        trust_email: oidc.trust_email,
    }
}

/// A gate that nobody comes to, for the same.
pub(super) fn nobodys_gate(world: &World) -> Option<Arc<Gate>> {
    let settings = GateSettings {
        host: String::new(),
        secret: nobodys_secret(),
        lifetime: Duration::ZERO,
        bits: 0,
    };
    Some(Arc::new(Gate::new(
        settings,
        &world.load().env("challenge"),
        None,
    )))
}

fn nobodys_secret() -> Secret<String> {
    let mut secret = [0; JWT_SECRET_BYTES_MIN];
    OsRandom.fill(&mut secret);
    Secret::new(hex::encode(secret))
}

/// A desk where nobody can sign in, for filters that never meet a visitor.
pub(super) fn nobodys_desk(world: &World) -> Option<Arc<Desk>> {
    let settings = DeskSettings {
        host: String::new(),
        secret: nobodys_secret(),
        lifetime: Duration::ZERO,
        allow: None,
        projects: BTreeMap::new(),
        accounts: None,
        provider: None,
    };
    let desk = Desk::new(settings, &world.load().env(STORE), None);
    desk.ok().map(Arc::new)
}

/// Where browsers work, if a configuration asks them to. It takes over from `before` what outlives a reload.
pub(super) fn gate(config: &Config, world: &World, before: Option<&Gate>) -> Option<Arc<Gate>> {
    let challenge = &config.challenge;
    let settings = GateSettings {
        host: config.engine.host.clone(),
        secret: config.auth.jwt_secret.clone(),
        lifetime: challenge.lifetime,
        bits: challenge.bits,
    };
    let new = || Arc::new(Gate::new(settings, &world.load().env("challenge"), before));
    challenge.enabled.then(new)
}

/// Says at which port the public reaches the engine, once that is known.
pub(super) fn at_port(services: &Services, port: u16) {
    if let Some(desk) = &services.desk {
        desk.set_port(port);
    }
    if let Some(gate) = &services.gate {
        gate.set_port(port);
    }
}

/// Has open exchanges judged again when somebody signs out.
pub(super) fn on_sign_out(services: &Services, edge: &Edge) {
    if let Some(desk) = &services.desk {
        let open = Arc::clone(&edge.open);
        desk.on_sign_out(move || open.change(Changes::of_credentials()));
    }
}
