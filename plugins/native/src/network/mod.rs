//! Who may reach a tunnel at all.

pub mod trusted_ips;
