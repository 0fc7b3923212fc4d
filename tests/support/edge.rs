//! An edge without sockets: visitors and origins are pairs of pipes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use adit_filters::{Chain, ConnectionInfo, Placed, TlsInfo, Transport, TunnelInfo};
use adit_proxy::edge::{
    BoxStream, Counters, Dial, DialError, Dialing, Directory, Edge, Entry, Found, Fronts, Limits,
    Parts, Site, UpstreamMode, serve,
};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

/// Bytes a pipe holds before its writer waits.
pub const PIPE_BYTES: usize = 64 << 10;

/// The host most tests ask for.
pub const HOST: &str = "app.t.edge.test";

/// Opens a pipe per stream and hands its far end to the origin.
pub struct Pipes(mpsc::UnboundedSender<Opened>);

/// A stream the edge opened towards an origin.
pub struct Opened {
    pub io: DuplexStream,
    pub source: Option<IpAddr>,
}

impl Dial for Pipes {
    fn dial(&self, source: Option<IpAddr>) -> Dialing<'_> {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let opened = self.0.send(Opened { io: far, source });
        Box::pin(async move {
            match opened {
                Ok(()) => Ok(Box::new(near) as BoxStream),
                Err(_) => Err(DialError::Refused("nobody listens".to_owned())),
            }
        })
    }
}

/// Fails each time with the same error.
pub struct Failing(pub DialError);

impl Dial for Failing {
    fn dial(&self, _: Option<IpAddr>) -> Dialing<'_> {
        let error = self.0.clone();
        Box::pin(async move { Err(error) })
    }
}

#[derive(Default)]
struct Names(Mutex<HashMap<String, Found>>);

impl Directory for Names {
    fn find(&self, host: &str) -> Found {
        let names = self.0.lock().unwrap();
        names.get(host).cloned().unwrap_or(Found::Unknown)
    }
}

/// Whether every peer is a front proxy that names its visitors.
struct Behind(bool);

impl Fronts for Behind {
    fn trusts(&self, _: IpAddr) -> bool {
        self.0
    }
}

/// An edge whose tunnels a test adds one by one.
pub struct TestEdge {
    pub edge: Arc<Edge>,
    names: Arc<Names>,
}

impl TestEdge {
    pub fn new(limits: Limits) -> Self {
        Self::with_fronts(limits, false)
    }

    /// One whose visitors come by way of front proxies, and may be any that these name.
    pub fn behind(limits: Limits) -> Self {
        Self::with_fronts(limits, true)
    }

    fn with_fronts(limits: Limits, is_behind: bool) -> Self {
        let names = Arc::new(Names::default());
        let api = axum::Router::new().route("/api/ping", axum::routing::get(|| async { "pong" }));
        names
            .0
            .lock()
            .unwrap()
            .insert("edge.test".to_owned(), Found::Engine);
        let edge = Edge::new(Parts {
            directory: Arc::clone(&names) as Arc<dyn Directory>,
            fronts: Arc::new(Behind(is_behind)),
            api,
            counters: Arc::new(Counters::register(&prometheus::Registry::new()).unwrap()),
            limits,
            port: 443,
        });
        Self { edge, names }
    }

    pub fn found(&self, host: &str, found: Found) {
        self.names.0.lock().unwrap().insert(host.to_owned(), found);
    }

    /// Adds a tunnel; its streams arrive at the receiver.
    pub fn tunnel(
        &self,
        host: &str,
        mode: UpstreamMode,
        filters: Vec<Placed>,
    ) -> mpsc::UnboundedReceiver<Opened> {
        let (opened, streams) = mpsc::unbounded_channel();
        self.site(host, mode, filters, Arc::new(Pipes(opened)));
        streams
    }

    pub fn site(
        &self,
        host: &str,
        mode: UpstreamMode,
        filters: Vec<Placed>,
        dial: Arc<dyn Dial>,
    ) -> Arc<Site> {
        let chain = Arc::new(Chain::compile(filters).unwrap());
        let info = Arc::new(TunnelInfo {
            id: format!("tunnel-{host}"),
            name: None,
            project: "default".to_owned(),
            client_id: "client".to_owned(),
            user_id: None,
            hostname: Some(host.to_owned()),
            published: true,
            protocol: Some("http".to_owned()),
            kind: "bytestream".to_owned(),
            ..TunnelInfo::default()
        });
        let site = Arc::new(Site::new(info, mode, chain, dial));
        self.found(host, Found::Site(Arc::clone(&site)));
        site
    }

    /// A visitor's connection, in the HTTP version its handshake agreed on.
    pub fn visit(&self, alpn: &str) -> DuplexStream {
        self.visit_from(alpn, "203.0.113.7")
    }

    pub fn visit_from(&self, alpn: &str, peer: &str) -> DuplexStream {
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let peer: IpAddr = peer.parse().unwrap();
        let info = ConnectionInfo {
            id: 1,
            peer: (peer, 50_000).into(),
            transport: Transport::Tls,
            hello: None,
            tls: Some(TlsInfo {
                version: "TLSv1.3",
                cipher: "TLS13_AES_128_GCM_SHA256".to_owned(),
                alpn: Some(alpn.to_owned()),
                group: None,
                certificate_for: None,
                client_certificate: None,
            }),
        };
        let edge = Arc::clone(&self.edge);
        tokio::spawn(serve(edge, far, info, Entry::Engine));
        near
    }
}
