//! What the handshake must look like.

mod anchors;
pub mod client_cert;
mod holder;
mod leaf;
pub mod policy;

pub use holder::{NotAccepted, holder};
