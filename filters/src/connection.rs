//! What is known about a connection and a tunnel before and after the connect decision.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::facts::{Fact, Facts};
use crate::handshake::ClientCertificate;
use crate::slots::Slot;
use crate::weight::Note;

/// The carrier a visitor arrived on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Transport {
    /// Raw TCP, no TLS at the edge.
    Tcp,
    /// TLS on TCP, terminated or passed through.
    Tls,
    /// QUIC.
    Quic,
    /// Raw UDP.
    Udp,
    /// DTLS.
    Dtls,
}

impl Transport {
    /// The transport as the log writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Quic => "quic",
            Self::Udp => "udp",
            Self::Dtls => "dtls",
        }
    }
}

/// What the client said before any key was agreed on.
#[derive(Clone, Debug, Default)]
pub struct ClientHello {
    /// Server name, lower case.
    pub server_name: Option<String>,
    /// Protocols offered, in the client's order.
    pub alpn: Vec<Bytes>,
    /// Versions offered by their numbers in TLS, in the client's order; empty if it names none, as before TLS 1.3.
    pub versions: Vec<u16>,
    /// Groups for key exchange by their numbers at IANA, in the client's order.
    pub groups: Vec<u16>,
}

/// What the handshake agreed on, when the edge terminates TLS.
#[derive(Clone, Debug, Default)]
pub struct TlsInfo {
    /// For example `TLSv1.3`.
    pub version: &'static str,
    /// IANA name of the cipher suite.
    pub cipher: String,
    /// Protocol agreed on.
    pub alpn: Option<String>,
    /// Key exchange group.
    pub group: Option<String>,
    /// Whose handshake asked the client for a certificate: the tunnel's id, or one of the engine's own names. None if
    /// it did not ask.
    pub certificate_for: Option<Arc<str>>,
    /// The client's certificate, if it presented one.
    pub client_certificate: Option<Arc<ClientCertificate>>,
}

/// What is fixed once for a connection, before any filter runs.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// Unique in this process.
    pub id: u64,
    /// The visitor's address in canonical form: an IPv4-mapped IPv6 address is given as IPv4.
    pub peer: SocketAddr,
    /// The carrier.
    pub transport: Transport,
    /// The ClientHello, where there was one.
    pub hello: Option<ClientHello>,
    /// The handshake's result, where the edge terminated it.
    pub tls: Option<TlsInfo>,
}

/// What filters may know about the tunnel that an exchange reaches.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TunnelInfo {
    /// Opaque, unique.
    pub id: String,
    /// Dial name.
    pub name: Option<String>,
    /// The project it belongs to.
    pub project: String,
    /// The agent session that serves it.
    pub client_id: String,
    /// The principal that created it.
    pub user_id: Option<String>,
    /// Its public host name.
    pub hostname: Option<String>,
    /// Public rather than private.
    pub published: bool,
    /// `http`, `tls`, …; none on a raw private tunnel.
    pub protocol: Option<String>,
    /// `bytestream` or `datagram`.
    pub kind: String,
    /// The tunnel's labels.
    pub labels: BTreeMap<String, String>,
    /// The whole tunnel as the Engine API lists it: what boundaries of credentials are written over.
    pub record: Map<String, Value>,
}

/// One (connection, tunnel) after its connect decision: frozen, shared by every exchange on it.
///
/// A connection that reaches a second tunnel is decided again and gets a second one of these.
#[derive(Debug)]
pub struct Connection {
    info: Arc<ConnectionInfo>,
    tunnel: Arc<TunnelInfo>,
    facts: Facts,
    notes: Vec<Note>,
}

impl Connection {
    /// Freezes what the connect hooks established. The chain does this; a driver needs it only where there is no
    /// chain.
    #[must_use]
    pub fn new(info: Arc<ConnectionInfo>, tunnel: Arc<TunnelInfo>, facts: Facts) -> Self {
        Self::with_notes(info, tunnel, facts, Vec::new())
    }

    pub(crate) fn with_notes(
        info: Arc<ConnectionInfo>,
        tunnel: Arc<TunnelInfo>,
        facts: Facts,
        notes: Vec<Note>,
    ) -> Self {
        Self {
            info,
            tunnel,
            facts,
            notes,
        }
    }

    pub(crate) fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// What was fixed before any filter.
    #[must_use]
    pub fn info(&self) -> &Arc<ConnectionInfo> {
        &self.info
    }

    /// The tunnel the decision was made for.
    #[must_use]
    pub fn tunnel(&self) -> &Arc<TunnelInfo> {
        &self.tunnel
    }

    /// Everything connect hooks established.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// What this filter put into its slot when it decided about the connection.
    #[must_use]
    pub fn slot<T: Send + Sync + 'static>(&self, slot: Slot<T>) -> Option<&T> {
        self.facts.slot(slot)
    }

    /// One fact a connect hook established.
    #[must_use]
    pub fn fact<F: Fact>(&self) -> Option<&F> {
        self.facts.get()
    }
}
