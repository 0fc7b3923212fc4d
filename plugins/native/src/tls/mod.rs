//! What the handshake must look like.

mod anchors;
pub mod client_cert;
mod leaf;
pub mod policy;
