//! Who may reach a tunnel at all.

pub mod geoip;
pub mod trusted_ips;
