//! Who may reach a tunnel at all.

pub mod geoip;
pub mod rate_limit;
pub mod trusted_ips;
