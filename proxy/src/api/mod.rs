//! The Engine API: an inventory of agents and tunnels, read only (engine-api §3).
//!
//! It has no listener of its own: the edge hands it the requests for the engine's names.

mod access;
mod challenges;
mod discovery;
mod inventory;
mod pages;
mod params;
mod respond;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use adit_plugins::Services;
use adit_plugins::identity::challenge;
use adit_plugins::identity::token::Principal;
use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};

use access::Caller;
pub use inventory::{Inventory, Item};
use params::Params;
use respond::Refusal;

use crate::listen::OwnNames;

/// What the API describes itself with.
const OPENAPI: &str = include_str!("openapi.json");

/// What the API answers from.
pub struct Api {
    services: Arc<ArcSwap<Services>>,
    inventory: Arc<dyn Inventory>,
    names: ArcSwap<Names>,
    ready: AtomicBool,
    now: fn() -> SystemTime,
}

impl Api {
    /// An API over `inventory` for holders of tokens, not ready yet.
    pub fn new(
        services: Arc<ArcSwap<Services>>,
        inventory: Arc<dyn Inventory>,
        now: fn() -> SystemTime,
    ) -> Arc<Self> {
        Arc::new(Self {
            services,
            inventory,
            names: ArcSwap::default(),
            ready: AtomicBool::new(false),
            now,
        })
    }

    /// Says whether the engine takes visitors: not before it listens, nor while it drains.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }

    /// Says which names are the engine's, and at which port the public reaches them.
    pub fn set_names(&self, own: OwnNames, port: u16) {
        self.names.store(Arc::new(Names { own, port }));
    }

    /// The routes, to be called as a service.
    pub fn router(self: &Arc<Self>) -> Router {
        let routes = Router::new()
            .route("/api/openapi.json", get(openapi))
            .route("/api/auth", get(auth))
            .route("/api/health/live", get(live))
            .route("/api/health/ready", get(ready))
            .route("/api/clients", get(clients))
            .route("/api/tunnels", get(tunnels))
            .route("/api/tunnels/{id}", get(tunnel))
            .route(challenges::PATH, post(challenges::create))
            .fallback(async || Refusal::NotFound)
            .method_not_allowed_fallback(respond::other_method)
            .with_state(Arc::clone(self));
        let routes = routes.layer(axum::middleware::map_response(respond::common));
        // Pages say themselves who may see and keep them.
        let pages = Router::new()
            .route("/rstream/auth", any(login))
            .route("/rstream/auth/{*rest}", any(login))
            .route("/rstream/logout", any(login))
            .route(challenge::PAGE_PATH, any(work))
            .with_state(Arc::clone(self));
        let discovery = Router::new()
            .route("/.well-known/rstream/engine", get(discovery::engine))
            .with_state(Arc::clone(self));
        let guard = axum::middleware::from_fn_with_state(Arc::clone(self), discovery::guard);
        routes.merge(pages).merge(discovery).layer(guard)
    }

    fn principal(&self, caller: &Caller) -> Result<Arc<Principal>, Refusal> {
        let services = self.services.load();
        access::principal(&services.authority, caller, (self.now)())
    }
}

/// The engine's own names.
#[derive(Debug, Default)]
struct Names {
    own: OwnNames,
    port: u16,
}

type Shared = State<Arc<Api>>;

async fn openapi() -> Response {
    let kind = "application/vnd.oai.openapi+json;version=3.1";
    ([(header::CONTENT_TYPE, kind)], OPENAPI).into_response()
}

async fn auth(State(api): Shared, caller: Caller) -> Result<StatusCode, Refusal> {
    api.principal(&caller)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn live() -> Response {
    respond::json(StatusCode::OK, &serde_json::json!({ "status": "live" }))
}

async fn ready(State(api): Shared) -> Response {
    let (code, status) = match api.ready.load(Ordering::Relaxed) {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    respond::json(code, &serde_json::json!({ "status": status }))
}

async fn clients(
    State(api): Shared,
    RawQuery(query): RawQuery,
    caller: Caller,
) -> Result<Response, Refusal> {
    let principal = access::reader(api.principal(&caller)?)?;
    let params = Params::parse(query.as_deref(), params::CLIENT_FILTER)?;
    let clients = inventory::clients(&*api.inventory, &principal);
    Ok(respond::json(StatusCode::OK, &params.select(clients)))
}

async fn tunnels(
    State(api): Shared,
    RawQuery(query): RawQuery,
    caller: Caller,
) -> Result<Response, Refusal> {
    let principal = access::reader(api.principal(&caller)?)?;
    let params = Params::parse(query.as_deref(), params::TUNNEL_FILTER)?;
    let tunnels = inventory::tunnels(&*api.inventory, &principal);
    Ok(respond::json(StatusCode::OK, &params.select(tunnels)))
}

async fn tunnel(
    State(api): Shared,
    Path(id): Path<String>,
    caller: Caller,
) -> Result<Response, Refusal> {
    let principal = access::reader(api.principal(&caller)?)?;
    let tunnel = inventory::tunnel(&*api.inventory, &principal, &id).ok_or(Refusal::NotFound)?;
    Ok(respond::json(StatusCode::OK, &tunnel))
}

/// The page where browsers work.
async fn work(State(api): Shared, request: Request) -> Response {
    let gate = api.services.load().gate.clone();
    match gate {
        Some(gate) => {
            pages::answer(request, async |request, from| gate.serve(&request, from)).await
        }
        None => Refusal::NotFound.into_response(),
    }
}

/// The pages where users sign in and out.
async fn login(State(api): Shared, request: Request) -> Response {
    let desk = api.services.load().desk.clone();
    match desk {
        Some(desk) => {
            pages::answer(request, async |request, from| {
                desk.serve(request, from).await
            })
            .await
        }
        None => Refusal::NotFound.into_response(),
    }
}

#[cfg(test)]
mod tests;
