//! Leaving HTTP for another protocol. Without one of these in the chain no upgrade is granted.

pub mod other;
pub mod websocket;
