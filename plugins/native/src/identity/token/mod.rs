//! Tokens: who issued them, what they allow, and the `token` filter.
//!
//! [`Authority`] is the one place that verifies a token, for visitors, agents and the Engine API alike.

mod admitted;
mod authority;
mod boundary;
mod claims;
mod error;
mod filter;
mod jws;
mod memory;
mod permission;
mod principal;
mod proof;
mod query;
mod standing;
mod times;
mod trust;

pub use admitted::Admitted;
pub(crate) use admitted::stays;
pub use authority::{Authority, SECRET_BYTES_MIN, TOKEN_BYTES_MAX};
pub use boundary::{BoundaryError, Place, TunnelResource, Visible};
pub use claims::{Audience, Claims, Metadata, Resources, TokenKind};
pub use error::{AuthorityError, CertificateError, TokenError};
pub use filter::{TokenFactory, TokenFilter, TokenProof, TokenSource};
pub use permission::{Permission, Permissions, UnknownPermission};
pub use principal::Principal;
pub use query::{QUERY_TOKEN, without_query_token};
pub(crate) use trust::LOCAL_USER;
pub use trust::Trust;
