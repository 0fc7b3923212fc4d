//! What the engine and a project offer tunnels: the bounds within which a request is granted.

use adit_config::{Plan, PublicAccess};

use super::Effective;

/// What tunnels of one project may have.
#[derive(Clone, Copy, Debug, Default)]
pub struct Offer {
    /// Whether tunnels may be open to anybody.
    pub access: PublicAccess,
    /// What the project has a right to.
    pub plan: Plan,
    /// What the engine is set up for.
    pub features: Features,
}

/// What an engine is set up for beyond what it always does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Features {
    /// It asks browsers for a proof of work.
    pub challenge: bool,
    /// It knows where addresses are.
    pub geoip: bool,
    /// Users can sign in.
    pub login: bool,
}

impl Offer {
    /// Whether users can sign in to tunnels of the project.
    #[must_use]
    pub fn login(&self) -> bool {
        self.features.login && self.plan > Plan::Basic
    }

    /// The first thing asked for that is not offered, and by whom (edge-behaviour §3.4, §5.1, §7.4).
    pub(super) fn lacks(&self, asked: &Effective) -> Option<String> {
        let lists = [
            ("trusted_ips", !asked.trusted_ips.is_empty(), true),
            ("geoip", !asked.geoip.is_empty(), self.features.geoip),
            ("mtls_auth", asked.mtls_auth, true),
            ("rstream_auth", asked.rstream_auth, self.features.login),
        ];
        for (property, wanted, offered) in lists {
            if wanted && self.plan == Plan::Basic {
                return Some(format!("the project's plan does not include `{property}`"));
            }
            if wanted && !offered {
                return Some(not_offered(property));
            }
        }
        let challenge = asked.challenge_mode && !self.features.challenge;
        challenge.then(|| not_offered("challenge_mode"))
    }
}

pub(super) fn not_offered(feature: &str) -> String {
    let feature = feature.trim_matches('`');
    format!("unsupported: this engine does not offer `{feature}`")
}
