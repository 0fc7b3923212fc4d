//! One credential: whose it is and what it may do where, whatever proves it.

use time::OffsetDateTime;

use crate::identity::token::{Permissions, TunnelResource};

/// One stored credential.
#[derive(Clone, Debug, Default)]
pub struct Credential {
    /// Its own id.
    pub id: String,
    /// The user or application it stands for.
    pub user_id: String,
    /// That user's name, for people.
    pub name: Option<String>,
    /// That user's mail address.
    pub email: Option<String>,
    /// What it may do; none means everything.
    pub permissions: Option<Permissions>,
    /// Where; none means everywhere.
    pub boundary: Option<TunnelResource>,
    /// When its time is over, in Unix seconds.
    pub expires: Option<f64>,
    /// Whether it has been taken back.
    pub revoked: bool,
    /// Its revision: a token derived from it names the one it was derived from.
    pub updated_at: Option<OffsetDateTime>,
}
