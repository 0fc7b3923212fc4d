//! Every bound the edge holds a visitor, an upstream or itself to, by name.

use std::time::Duration;

/// Limits of the HTTP edge. One value per engine, replaced whole on reload.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest head of a request or response, in bytes; over it a request gets 431.
    pub header_bytes: usize,
    /// Most header fields in one head; over it a request gets 431.
    pub header_fields: usize,
    /// Most concurrent streams a visitor may open on one HTTP/2 connection.
    pub h2_streams: u32,
    /// Most streams a visitor may reset on one HTTP/2 connection within a minute
    /// (rapid reset, CVE-2023-44487); over it the connection ends with `ENHANCE_YOUR_CALM`.
    pub h2_resets_per_minute: u32,
    /// First receive window of an HTTP/2 stream from a visitor, in bytes.
    pub h2_stream_window: u32,
    /// Receive window of a whole HTTP/2 connection from a visitor, in bytes.
    pub h2_connection_window: u32,
    /// Most bytes kept unsent per HTTP/2 stream.
    pub h2_send_buffer: usize,
    /// Time a visitor has for a whole request head, from its first byte.
    pub header_wait: Duration,
    /// Time a connection without an exchange stays open.
    pub idle: Duration,
    /// Time a request body may go without a byte.
    pub body_idle: Duration,
    /// Time a peer may leave what is sent to it unread.
    pub write_idle: Duration,
    /// Time the second direction of an upgraded stream may outlive the first.
    pub half_closed: Duration,
    /// Longest time the rest of an unwanted request body is read before the connection closes.
    pub lingering: Duration,
    /// Most bytes of an unwanted request body that are read before the connection closes.
    pub lingering_bytes: usize,
    /// Most idle upstream connections kept per tunnel.
    pub upstream_idle_max: usize,
    /// Time an idle upstream connection is kept.
    pub upstream_idle: Duration,
    /// Most concurrent streams on one HTTP/2 connection to an upstream, whatever it allows.
    pub upstream_h2_streams: usize,
    /// What small unread frames may cost on one HTTP/2 connection to an upstream before h2 gives it
    /// up, in h2's own measure of 256 bytes less a frame's size: room for many streams of events
    /// that nobody reads.
    pub upstream_h2_frame_budget: usize,
    /// Time an upstream's TLS or HTTP/2 handshake may take.
    pub upstream_handshake: Duration,
    /// Time a request that expects `100 Continue` waits for the upstream's word before its body
    /// is asked for all the same (RFC 9110 §10.1.1).
    pub continue_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 32 << 10,
            header_fields: 128,
            h2_streams: 200,
            h2_resets_per_minute: 200,
            h2_stream_window: 256 << 10,
            h2_connection_window: 1 << 20,
            h2_send_buffer: 64 << 10,
            header_wait: Duration::from_secs(30),
            idle: Duration::from_secs(90),
            body_idle: Duration::from_secs(60),
            write_idle: Duration::from_secs(120),
            half_closed: Duration::from_secs(600),
            lingering: Duration::from_secs(5),
            lingering_bytes: 1 << 20,
            upstream_idle_max: 128,
            upstream_idle: Duration::from_secs(60),
            upstream_h2_streams: 100,
            upstream_h2_frame_budget: 64 << 20,
            upstream_handshake: Duration::from_secs(10),
            continue_wait: Duration::from_secs(1),
        }
    }
}
