//! How much of everything an instance may use.

use std::time::Duration;

/// What one call of a filter may use, and what one instance may hold. Each has a name in the plugin's `limits`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Memory of an instance, in bytes.
    pub memory: usize,
    /// Fuel (about one for each instruction) for setting an instance up: its start and its configuration.
    pub fuel_start: u64,
    /// Fuel for deciding about one connection, request, response, or open exchange.
    pub fuel_decide: u64,
    /// Fuel for one piece of a body or stream, or one datagram, and for the log.
    pub fuel_piece: u64,
    /// How long a hook that may wait may take in all.
    pub wait: Duration,
    /// How often one hook may call the host.
    pub host_calls: u32,
    /// How many fields a filter may leave in a head or in trailers.
    pub fields: usize,
    /// How long a field's value may be that a filter sets, in bytes.
    pub field_bytes: usize,
    /// How many bytes a filter may keep for one exchange, names included.
    pub variable_bytes: usize,
    /// How many bytes a reply may have.
    pub reply_bytes: usize,
    /// How many lines the filter may log in a second, over all its instances.
    pub log_lines: u32,
    /// How long a line may be, in bytes; the rest is cut off.
    pub log_line_bytes: usize,
    /// How many bytes of an answer to `fetch` are taken.
    pub fetch_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: 16 << 20,
            fuel_start: 100_000_000,
            fuel_decide: 20_000_000,
            fuel_piece: 20_000_000,
            wait: Duration::from_secs(5),
            host_calls: 10_000,
            fields: 128,
            field_bytes: 16 << 10,
            variable_bytes: 16 << 10,
            reply_bytes: 1 << 20,
            log_lines: 100,
            log_line_bytes: 4 << 10,
            fetch_bytes: 1 << 20,
        }
    }
}
