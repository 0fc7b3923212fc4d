//! Signing in at an OpenID Connect provider: the authorization code flow with PKCE
//! ([OpenID Connect Core §3.1](https://openid.net/specs/openid-connect-core-1_0.html#CodeFlowAuth),
//! [RFC 7636](https://www.rfc-editor.org/rfc/rfc7636)).
//!
//! Nothing waits here for users who went to the provider: what the flow needs to know again goes with them, sealed, in
//! `state`, and what it must keep from them is derived from `state` and the browser's own cookie.

mod fetch;
mod flow;
mod id_token;
mod keys;
mod provider;
#[cfg(test)]
mod tests;

pub use provider::ProviderSettings;

pub(super) use flow::RETURN_PATH;
pub(super) use provider::Provider;
