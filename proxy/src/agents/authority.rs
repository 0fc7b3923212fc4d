//! Who may be an agent, open tunnels and dial them.

use std::sync::Arc;
use std::time::SystemTime;

use adit_filters::ClientCertificate;
use adit_plugins::identity::token;
use adit_plugins::tls::holder;
use adit_protocol::{ErrorCode, ProtocolError, Secret};
use serde_json::{Map, Value};

use super::listing::TunnelRecord;

/// What somebody shows of themselves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown<'a> {
    /// A token in the request.
    pub token: Option<&'a Secret>,
    /// A certificate in the handshake.
    pub certificate: Option<&'a ClientCertificate>,
}

/// Tells who is behind a credential.
pub trait Authority: Send + Sync {
    /// Who shows this and wants into `project`.
    ///
    /// # Errors
    ///
    /// Class 1000 for anybody who may not.
    fn verify(
        &self,
        shown: Shown<'_>,
        project: &str,
        now: SystemTime,
    ) -> Result<Arc<dyn Principal>, ProtocolError>;
}

/// Somebody let in.
pub trait Principal: Send + Sync {
    /// Its id, as listed with what it makes.
    fn user_id(&self) -> Option<&str>;

    /// Values that opening a tunnel in `project` pins, one set for each way it is allowed, named as
    /// in the Engine API.
    fn pins(&self, project: &str) -> Vec<Map<String, Value>> {
        let _ = project;
        Vec::new()
    }

    /// Whether it may open this tunnel.
    fn may_create(&self, tunnel: &TunnelRecord) -> bool;

    /// Whether it may dial this tunnel.
    fn may_dial(&self, tunnel: &TunnelRecord) -> bool;

    /// Whether it would still be let in, but for the time that has passed.
    fn may_stay(&self) -> bool {
        true
    }
}

/// Lets everybody do everything: for an engine that nobody else can reach.
#[derive(Clone, Copy, Debug)]
pub struct Anyone;

impl Authority for Anyone {
    fn verify(
        &self,
        _shown: Shown<'_>,
        _project: &str,
        _now: SystemTime,
    ) -> Result<Arc<dyn Principal>, ProtocolError> {
        Ok(Arc::new(Self))
    }
}

impl Principal for Anyone {
    fn user_id(&self) -> Option<&str> {
        None
    }

    fn may_create(&self, _tunnel: &TunnelRecord) -> bool {
        true
    }

    fn may_dial(&self, _tunnel: &TunnelRecord) -> bool {
        true
    }
}

/// Lets the bearers of the engine's tokens and of known certificates in, within the permissions and the
/// boundary of each.
pub struct TokenAuthority(Arc<token::Authority>);

impl TokenAuthority {
    /// Believes the tokens `authority` signs.
    #[must_use]
    pub fn new(authority: Arc<token::Authority>) -> Self {
        Self(authority)
    }
}

impl Authority for TokenAuthority {
    fn verify(
        &self,
        shown: Shown<'_>,
        project: &str,
        now: SystemTime,
    ) -> Result<Arc<dyn Principal>, ProtocolError> {
        let token = shown.token.filter(|token| !token.is_blank());
        let principal = match (token, shown.certificate) {
            (Some(_), Some(_)) => {
                let text =
                    "a token and a client certificate cannot be used together, leave one out";
                return Err(unauthorized(text));
            }
            (None, None) => {
                return Err(unauthorized("a token or a client certificate is required"));
            }
            (Some(token), None) => self
                .0
                .verify(token.expose(), now)
                .map_err(|error| unauthorized(error.to_string()))?,
            (None, Some(certificate)) => holder(&self.0, certificate, now)
                .map_err(|error| unauthorized(error.to_string()))?,
        };
        if !principal.reaches(place(project)) {
            let what = token.map_or("certificate", |_| "token");
            return Err(unauthorized(format!(
                "the {what} is not for project `{project}`"
            )));
        }
        Ok(Arc::new(Bearer {
            authority: Arc::clone(&self.0),
            principal,
            project: project.to_owned(),
        }))
    }
}

/// The bearer of a token or certificate. Its rights are those it has when it uses them, not those it came with.
struct Bearer {
    authority: Arc<token::Authority>,
    principal: Arc<token::Principal>,
    /// The project it entered.
    project: String,
}

impl Bearer {
    fn now(&self) -> Option<Arc<token::Principal>> {
        self.authority.judge_again(&self.principal).ok()
    }
}

impl Principal for Bearer {
    fn user_id(&self) -> Option<&str> {
        Some(&self.principal.user_id)
    }

    fn pins(&self, project: &str) -> Vec<Map<String, Value>> {
        let pins = |now: Arc<token::Principal>| now.pins(place(project));
        self.now().map(pins).unwrap_or_default()
    }

    fn may_create(&self, tunnel: &TunnelRecord) -> bool {
        let properties = tunnel.to_map();
        self.now()
            .is_some_and(|now| now.may_create(place(project(tunnel)), &properties))
    }

    fn may_dial(&self, tunnel: &TunnelRecord) -> bool {
        let live = tunnel.to_map();
        self.now()
            .is_some_and(|now| now.may_connect(place(project(tunnel)), &live, None))
    }

    fn may_stay(&self) -> bool {
        self.now()
            .is_some_and(|now| now.reaches(place(&self.project)))
    }
}

fn project(tunnel: &TunnelRecord) -> &str {
    tunnel.project_id.as_deref().unwrap_or_default()
}

fn place(project: &str) -> token::Place<'_> {
    token::Place {
        workspace: None,
        project,
    }
}

fn unauthorized(text: impl Into<String>) -> ProtocolError {
    ProtocolError::new(ErrorCode::UNAUTHORIZED, text)
}
