//! An engine against a client that says exactly what a test tells it to, over memory.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod control;
mod hostile;
mod limits;
mod streams;
mod tokens;
mod tunnels;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit_filters::Chain;
use adit_protocol::liveness::EnginePolicy;
use adit_protocol::message::message::Payload;
use adit_protocol::message::{
    ClientDetails, ControlChannelLiveness, Message, OpenControlChannelReq, OpenControlChannelRsp,
    OpenTunnelReq, OpenTunnelRsp, ProxyConnReq, ProxyReq, StreamReq, TunnelProperties,
    open_control_channel_rsp, open_tunnel_rsp,
};
use adit_protocol::{ErrorCode, ProtocolError, Secret};
use adit_transport::messages::{self, MessageReader};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};

use super::{Agents, Authority, ConnInfo, Principal, Settings, Shown, TunnelRecord, serve};
use crate::names::Names;
use crate::route::Routes;
use crate::usage::Usages;

/// Bytes a connection holds in each direction before it pushes back.
const LINK_BYTES: usize = 64 << 10;

const TOKEN: &str = "right";
const CONFINED: &str = "confined";

/// Knows two tokens: one may do everything, the other nothing but connect.
struct Doorman;

struct Guest {
    all: bool,
}

impl Authority for Doorman {
    fn verify(
        &self,
        shown: Shown<'_>,
        _project: &str,
        _now: SystemTime,
    ) -> Result<Arc<dyn Principal>, ProtocolError> {
        match shown.token.map(Secret::expose) {
            Some(TOKEN) => Ok(Arc::new(Guest { all: true })),
            Some(CONFINED) => Ok(Arc::new(Guest { all: false })),
            _ => Err(ProtocolError::new(ErrorCode::UNAUTHORIZED, "bad token")),
        }
    }
}

impl Principal for Guest {
    fn user_id(&self) -> Option<&str> {
        Some("u1")
    }

    fn may_create(&self, _tunnel: &TunnelRecord) -> bool {
        self.all
    }

    fn may_dial(&self, _tunnel: &TunnelRecord) -> bool {
        self.all
    }
}

fn settings() -> Settings {
    Settings {
        first_frame: Duration::from_secs(10),
        stream_request: Duration::from_secs(30),
        agents_max: 100,
        tunnels_per_agent: 10,
        tunnels_per_project: 100,
        pending_opens: 48,
        queued_opens: 4,
        liveness: EnginePolicy::default(),
        names: Names::new("engine.example.com"),
        public_port: 443,
        projects: [("default".to_owned(), Default::default())].into(),
        endpoints: [("0a1b.engine.example.com".to_owned(), "shop".to_owned())].into(),
    }
}

/// An engine and the door to it.
#[derive(Clone)]
struct Engine {
    agents: Arc<Agents>,
    routes: Arc<Routes>,
}

impl Engine {
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: Settings) -> Self {
        let routes = Arc::new(Routes::default());
        let usages = Usages::register(&prometheus::Registry::new()).unwrap();
        let usages = Arc::new(usages);
        let agents = Agents::new(Arc::clone(&routes), usages, settings, Doorman, |_, _| {
            Ok(Arc::new(Chain::empty()))
        });
        Self { agents, routes }
    }

    /// A new connection, past its TLS handshake.
    fn connect(&self) -> Link {
        self.connect_with(None, LINK_BYTES)
    }

    fn connect_to(&self, server_name: Option<&str>) -> Link {
        self.connect_with(server_name, LINK_BYTES)
    }

    /// A new connection that holds no more than `bytes` in each direction.
    fn connect_over(&self, bytes: usize) -> Link {
        self.connect_with(None, bytes)
    }

    fn connect_with(&self, server_name: Option<&str>, bytes: usize) -> Link {
        let (ours, theirs) = tokio::io::duplex(bytes);
        let info = ConnInfo {
            certificate: None,
            peer: ([192, 0, 2, 10], 4711).into(),
            server_name: server_name.map(str::to_owned),
        };
        tokio::spawn(serve(Arc::clone(&self.agents), theirs, info));
        Link::new(ours)
    }

    /// A control channel that is open.
    async fn agent(&self) -> Link {
        let mut link = self.connect();
        let ok = link.open(None).await.unwrap();
        assert!(!ok.client_id.is_empty());
        link
    }

    /// A control channel with one tunnel, and the tunnel's id.
    async fn agent_with(&self, properties: TunnelProperties) -> (Link, String) {
        let mut link = self.agent().await;
        let tunnel = link.open_tunnel(properties).await.unwrap();
        (link, tunnel.id.unwrap())
    }

    /// Waits until a condition on the engine's state holds. Connections are served by other tasks
    /// of the same thread, so giving way is enough.
    async fn until(&self, holds: impl Fn(&Self) -> bool) {
        for _ in 0..10_000 {
            if holds(self) {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("the engine did not get there");
    }

    /// The agent's leg of a stream.
    async fn bring(&self, request: &ProxyConnReq, zero_rtt: Option<bool>) -> Link {
        let mut link = self.connect();
        link.send(ProxyReq {
            client_details: details(request.secret.as_deref()),
            stream_id: request.stream_id.clone(),
            zero_rtt,
        })
        .await;
        link
    }

    async fn dial(&self, target: &str, zero_rtt: bool) -> Link {
        let mut link = self.connect();
        link.send(StreamReq {
            client_details: details(Some(TOKEN)),
            tunnel_id_name: target.to_owned(),
            zero_rtt: Some(zero_rtt),
            datagram_channel: None,
        })
        .await;
        link
    }
}

/// The client's end of a connection.
struct Link {
    reader: MessageReader<ReadHalf<DuplexStream>>,
    writer: WriteHalf<DuplexStream>,
}

impl Link {
    fn new(io: DuplexStream) -> Self {
        let (reader, writer) = tokio::io::split(io);
        Self {
            reader: MessageReader::new(reader),
            writer,
        }
    }

    async fn send(&mut self, message: impl Into<Message>) {
        let message = message.into();
        messages::write(&mut self.writer, &message).await.unwrap();
    }

    /// The next message; `None` at the end of the connection.
    async fn next(&mut self) -> Option<Payload> {
        let message = self.reader.next().await.unwrap()?;
        Some(message.payload.expect("an empty envelope"))
    }

    /// Asserts that nothing but the end is left.
    async fn ended(&mut self) {
        assert_eq!(self.next().await, None);
    }

    /// Asserts that the engine has nothing to say now.
    async fn is_quiet(&mut self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let wait = Duration::from_millis(1);
        let next = tokio::time::timeout(wait, self.reader.next()).await;
        assert!(next.is_err(), "{next:?}");
    }

    async fn open(
        &mut self,
        liveness: Option<ControlChannelLiveness>,
    ) -> Result<open_control_channel_rsp::Ok, ProtocolError> {
        self.open_as(details(Some(TOKEN)), liveness).await
    }

    async fn open_as(
        &mut self,
        client_details: Option<ClientDetails>,
        liveness: Option<ControlChannelLiveness>,
    ) -> Result<open_control_channel_rsp::Ok, ProtocolError> {
        self.send(OpenControlChannelReq {
            client_details,
            liveness,
        })
        .await;
        let Some(Payload::OpenControlChannelRsp(OpenControlChannelRsp { result })) =
            self.next().await
        else {
            panic!("another answer first");
        };
        match result.unwrap() {
            open_control_channel_rsp::Result::Ok(ok) => Ok(ok),
            open_control_channel_rsp::Result::Error(error) => Err(error.into()),
        }
    }

    async fn open_tunnel(
        &mut self,
        properties: TunnelProperties,
    ) -> Result<TunnelProperties, ProtocolError> {
        self.send(OpenTunnelReq {
            request_id: "r".to_owned(),
            tunnel_properties: Some(Box::new(properties)),
        })
        .await;
        self.tunnel_answer("r").await
    }

    async fn tunnel_answer(&mut self, request: &str) -> Result<TunnelProperties, ProtocolError> {
        let Some(Payload::OpenTunnelRsp(OpenTunnelRsp { request_id, result })) = self.next().await
        else {
            panic!("no answer to the tunnel");
        };
        assert_eq!(request_id, request);
        match result.unwrap() {
            open_tunnel_rsp::Result::TunnelProperties(properties) => Ok(*properties),
            open_tunnel_rsp::Result::Error(error) => Err(error.into()),
        }
    }

    async fn stream_request(&mut self) -> ProxyConnReq {
        match self.next().await {
            Some(Payload::ProxyConnReq(request)) => request,
            other => panic!("no stream request but {other:?}"),
        }
    }

    /// The connection as payload.
    fn payload(self) -> (ReadHalf<DuplexStream>, WriteHalf<DuplexStream>) {
        (self.reader.into_inner(), self.writer)
    }
}

fn details(token: Option<&str>) -> Option<ClientDetails> {
    Some(ClientDetails {
        agent: Some("scripted".to_owned()),
        token: token.map(str::to_owned),
        protocol_version: Some("1.4.5".to_owned()),
        ..ClientDetails::default()
    })
}

fn private(name: &str) -> TunnelProperties {
    TunnelProperties {
        name: (!name.is_empty()).then(|| name.to_owned()),
        publish: Some(false),
        ..TunnelProperties::default()
    }
}

fn published(hostname: &str) -> TunnelProperties {
    TunnelProperties {
        hostname: Some(hostname.to_owned()),
        ..TunnelProperties::default()
    }
}

/// Sends bytes one way, then its end, and expects them at the other.
async fn passes<W, R>(mut from: W, mut to: R, bytes: &[u8])
where
    W: tokio::io::AsyncWrite + Unpin,
    R: tokio::io::AsyncRead + Unpin,
{
    from.write_all(bytes).await.unwrap();
    from.shutdown().await.unwrap();
    let mut read = Vec::new();
    to.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, bytes);
}
