//! What there is, and what of it a principal sees (engine-api §3.3, §3.4, §8.4).

use std::collections::BTreeSet;

use adit_plugins::identity::token::{Place, Principal};
use serde_json::{Map, Value};

/// A client or tunnel, as an object of the API.
#[derive(Clone, Debug)]
pub struct Item {
    /// The project it belongs to.
    pub project: String,
    /// Its fields; what it does not have is absent, never null.
    pub object: Map<String, Value>,
}

/// Where the API learns what there is.
pub trait Inventory: Send + Sync {
    /// Every agent.
    fn clients(&self) -> Vec<Item>;
    /// Every tunnel.
    fn tunnels(&self) -> Vec<Item>;
    /// The tunnel with this id.
    fn tunnel(&self, id: &str) -> Option<Item>;
}

/// The tunnels the principal sees, each with the fields it sees.
pub(super) fn tunnels(inventory: &dyn Inventory, principal: &Principal) -> Vec<Map<String, Value>> {
    let items = inventory.tunnels().into_iter();
    items.filter_map(|item| seen(item, principal)).collect()
}

pub(super) fn tunnel(
    inventory: &dyn Inventory,
    principal: &Principal,
    id: &str,
) -> Option<Map<String, Value>> {
    seen(inventory.tunnel(id)?, principal)
}

fn seen(item: Item, principal: &Principal) -> Option<Map<String, Value>> {
    let place = Place {
        project: &item.project,
        workspace: None,
    };
    principal.sees(place, &item.object).of(item.object)
}

/// The clients the principal sees: all without a boundary, otherwise those with a tunnel it sees
/// and its own.
pub(super) fn clients(inventory: &dyn Inventory, principal: &Principal) -> Vec<Map<String, Value>> {
    let clients = inventory.clients().into_iter();
    if principal.resources.is_none() {
        return clients.map(|item| item.object).collect();
    }
    let visible: BTreeSet<String> = tunnels(inventory, principal)
        .iter()
        .filter_map(|tunnel| tunnel.get("client_id")?.as_str().map(str::to_owned))
        .collect();
    clients
        .filter(|item| {
            let place = Place {
                project: &item.project,
                workspace: None,
            };
            let text = |field| item.object.get(field).and_then(Value::as_str);
            let own =
                text("user_id") == Some(principal.user_id.as_str()) && principal.reaches(place);
            own || text("id").is_some_and(|id| visible.contains(id))
        })
        .map(|item| item.object)
        .collect()
}
