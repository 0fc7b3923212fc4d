//! Carriers between agent and engine, both ends of each.
