//! What the handshake must look like.

pub mod policy;
