//! Tokens: who issued them, what they allow, and the `token` filter.
//!
//! [`Authority`] is the one place that verifies a token, for visitors, agents and the Engine API alike.

mod authority;
mod boundary;
mod claims;
mod filter;
mod permission;
mod principal;
mod query;

pub use authority::{
    Authority, AuthorityError, CertificateError, SECRET_BYTES_MIN, TOKEN_BYTES_MAX, TokenError,
};
pub use boundary::{BoundaryError, Place, TunnelResource, Visible};
pub use claims::{Claims, Metadata, Resources, TokenKind};
pub use filter::{TokenFactory, TokenFilter, TokenProof, TokenSource};
pub use permission::{Permission, Permissions, UnknownPermission};
pub use principal::Principal;
pub use query::{QUERY_TOKEN, without_query_token};
