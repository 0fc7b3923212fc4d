//! The engine's configuration: TOML text to typed values, every problem with its position.
//!
//! The text is parsed into a tree that remembers where everything stands, environment variables are
//! laid over it, and readers take its keys one by one. A reader that finds something wrong notes it
//! and goes on, so that one run names every problem there is.

mod config;
mod invalid;
mod load;
mod overrides;
mod places;
mod plugin;
mod policy;
mod problem;
mod reader;
mod scope;
mod secret;
mod section;
mod settings;
mod sign_in;
mod stamp;
mod surroundings;
mod tree;
mod units;
mod values;

/// A commented configuration that works once its files are there: what `adit engine init` starts from.
pub const EXAMPLE: &str = include_str!("../examples/engine.toml");

pub use config::Config;
pub use invalid::Invalid;
pub use plugin::{Plugin, PluginLimits, Wasm};
pub use policy::{
    DEFAULT_PROJECT, FilterRef, FilterUse, OnError, Plan, Policy, Project, PublicAccess,
    UpgradeKind, When,
};
pub use problem::{Place, Problem};
pub use scope::{Pattern, Scope, TunnelMatch};
pub use secret::Secret;
pub use section::{NearPath, Section};
pub use settings::{
    Admin, Auth, CertificateFiles, Certificates, Engine, Front, GeoIp, JWT_SECRET_BYTES_MIN,
    Limits, Listen, LogLevel, Timeouts,
};
pub use sign_in::{Challenge, Login, Oidc};
pub use stamp::{Settling, Stamp};
pub use units::{Size, Span};
