//! Who a verified token or certificate stands for, and what it may do where.

use serde_json::{Map, Value};

use super::boundary::{Place, TunnelResource, Visible};
use super::claims::TokenKind;
use super::permission::{Permission, Permissions};
use super::proof::Proof;

/// The bearer of a verified token or certificate. Permission (what) and boundary (where) must both allow.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The user's or application's id.
    pub user_id: String,
    /// The user's name, where a stored credential knows it.
    pub name: Option<String>,
    /// The user's mail address, where a stored credential knows it.
    pub email: Option<String>,
    /// The id of the stored credential behind the proof, if there is one.
    pub credential_id: Option<String>,
    /// The kind of token; none on an operator's own.
    pub kind: Option<TokenKind>,
    /// What it may do; none means everything.
    pub permissions: Option<Permissions>,
    /// Where; none means everywhere.
    pub resources: Option<TunnelResource>,
    /// The token's own id, if it has one.
    pub token_id: Option<String>,
    /// When the token's time is over, in Unix seconds.
    pub expires: Option<f64>,
    /// What it was admitted by.
    pub(super) proof: Proof,
}

impl Principal {
    /// Whether it has the permission.
    #[must_use]
    pub fn allows(&self, permission: Permission) -> bool {
        self.permissions.is_none_or(|set| set.contains(permission))
    }

    /// Whether anything in this place is within its boundary.
    #[must_use]
    pub fn reaches(&self, place: Place<'_>) -> bool {
        self.resources
            .as_ref()
            .is_none_or(|boundary| boundary.reaches(place))
    }

    /// Whether it may connect to the tunnel (in the shape of the Engine API) and, for a request, to this path as
    /// received, without the query. A CONNECT has no path.
    #[must_use]
    pub fn may_connect(
        &self,
        place: Place<'_>,
        tunnel: &Map<String, Value>,
        path: Option<&str>,
    ) -> bool {
        self.allows(Permission::CreateStreams)
            && self
                .resources
                .as_ref()
                .is_none_or(|boundary| boundary.connects(place, tunnel, path))
    }

    /// Whether it may create a tunnel of these effective properties (in the shape of the Engine API).
    #[must_use]
    pub fn may_create(&self, place: Place<'_>, properties: &Map<String, Value>) -> bool {
        self.allows(Permission::CreateTunnels)
            && self
                .resources
                .as_ref()
                .is_none_or(|boundary| boundary.creates(place, properties))
    }

    /// Values that creation pins exactly, one set for each way the boundary grants it: fill unset properties from a
    /// set, then ask [`may_create`](Self::may_create).
    #[must_use]
    pub fn pins(&self, place: Place<'_>) -> Vec<Map<String, Value>> {
        self.resources
            .as_ref()
            .map(|boundary| boundary.pins(place))
            .unwrap_or_default()
    }

    /// Whether its boundary grants listing tunnels anywhere. One that does may still see none.
    #[must_use]
    pub fn may_list(&self) -> bool {
        self.allows(Permission::ReadResources)
            && self.resources.as_ref().is_none_or(TunnelResource::lists)
    }

    /// What of a tunnel (in the shape of the Engine API) it may see in lists and events.
    #[must_use]
    pub fn sees(&self, place: Place<'_>, tunnel: &Map<String, Value>) -> Visible {
        if !self.allows(Permission::ReadResources) {
            return Visible::Nothing;
        }
        self.resources
            .as_ref()
            .map_or(Visible::Whole, |boundary| boundary.sees(place, tunnel))
    }
}
