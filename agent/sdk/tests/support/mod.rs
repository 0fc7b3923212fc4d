//! An engine by script: real TLS on loopback, and every message in the hands of the test.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    dead_code,
    unreachable_pub,
    reason = "tests; not every file uses everything"
)]

use std::sync::Arc;
use std::time::Duration;

use adit_agent::{Client, ClientBuilder, Interval};
use adit_protocol::message::message::Payload;
use adit_protocol::message::{
    ControlChannelLiveness, Heartbeat, Message, OpenControlChannelReq, OpenControlChannelRsp,
    OpenTunnelReq, OpenTunnelRsp, ProxyConnReq, TunnelProperties, open_control_channel_rsp,
    open_tunnel_rsp,
};
use adit_transport::messages::{self, MessageReader};
use adit_transport::tls::{self, ServerStream};
use adit_transport::trust::Trust;
use rustls_pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};

pub const NAME: &str = "engine.localhost";

/// Longest wait for anything that is expected to happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Engine {
    listener: Option<TcpListener>,
    config: Arc<rustls::ServerConfig>,
    ca: String,
    pub port: u16,
}

impl Engine {
    pub async fn start() -> Self {
        let key = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).unwrap();
        let mut config = rustls::ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![key.cert.der().clone()],
                PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![adit_protocol::ALPN.to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            port: listener.local_addr().unwrap().port(),
            listener: Some(listener),
            config: Arc::new(config),
            ca: key.cert.pem(),
        }
    }

    /// Stops listening.
    pub fn stop(&mut self) {
        self.listener = None;
    }

    /// Listens again on the same port.
    pub async fn restart(&mut self) {
        self.listener = Some(TcpListener::bind(("127.0.0.1", self.port)).await.unwrap());
    }

    pub fn client(&self) -> ClientBuilder {
        self.client_through(self.port)
    }

    /// A client that dials `port`, where something passes the bytes on.
    pub fn client_through(&self, port: u16) -> ClientBuilder {
        Client::builder()
            .engine(format!("{NAME}:{port}"))
            .token("tok")
            .trust(Trust::system().without_system().and_pem(self.ca.as_str()))
            .heartbeat(Interval::from_millis(1_000).unwrap())
    }

    /// The next connection, whatever it is.
    pub async fn accept(&self) -> (ServerStream<TcpStream>, Payload) {
        let accept = async {
            let listener = self.listener.as_ref().unwrap();
            let (tcp, _) = listener.accept().await.unwrap();
            let stream = tls::accept(Arc::clone(&self.config), tcp, PATIENCE)
                .await
                .unwrap();
            let mut reader = MessageReader::new(stream);
            let first = reader.expect(PATIENCE).await.unwrap();
            (reader.into_inner(), first.payload.unwrap())
        };
        tokio::time::timeout(PATIENCE, accept).await.unwrap()
    }

    /// Accepts one connection whose handshake the client breaks off.
    pub async fn accept_in_vain(&self) {
        let (tcp, _) = self.listener.as_ref().unwrap().accept().await.unwrap();
        let shaken = tls::accept(Arc::clone(&self.config), tcp, PATIENCE).await;
        assert!(shaken.is_err());
    }

    /// The next connection, which must be a control channel.
    pub async fn control(&self) -> (Control, OpenControlChannelReq) {
        let (stream, first) = self.accept().await;
        match first {
            Payload::OpenControlChannelReq(request) => (Control { stream }, request),
            other => panic!("{other:?}"),
        }
    }

    /// The next control channel, opened with this timeout.
    pub async fn open(&self, timeout_ms: u32) -> Control {
        let (mut control, request) = self.control().await;
        control
            .send(OpenControlChannelRsp {
                result: Some(open_control_channel_rsp::Result::Ok(
                    open_control_channel_rsp::Ok {
                        client_id: "c1".to_owned(),
                        server_details: None,
                        liveness: request.liveness.map(|asked| ControlChannelLiveness {
                            heartbeat_timeout_ms: timeout_ms,
                            ..asked
                        }),
                    },
                )),
            })
            .await;
        control
    }
}

/// The engine's end of a control channel.
pub struct Control {
    stream: ServerStream<TcpStream>,
}

impl Control {
    pub async fn send(&mut self, message: impl Into<Message>) {
        messages::write(&mut self.stream, &message.into())
            .await
            .unwrap();
    }

    /// The next message; heartbeats are answered and passed over.
    pub async fn next(&mut self) -> Option<Payload> {
        loop {
            let next = MessageReader::new(&mut self.stream).expect(PATIENCE).await;
            match next.ok()?.payload.unwrap() {
                Payload::Heartbeat(beat) => {
                    self.send(Heartbeat {
                        sequence: 0,
                        acknowledgement: beat.sequence,
                    })
                    .await;
                }
                other => return Some(other),
            }
        }
    }

    pub async fn tunnel_request(&mut self) -> OpenTunnelReq {
        match self.next().await {
            Some(Payload::OpenTunnelReq(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    /// Opens the tunnel asked for next, under `id`, with the hostname asked for or `hostname`.
    pub async fn open_tunnel(&mut self, id: &str, hostname: &str) -> TunnelProperties {
        let request = self.tunnel_request().await;
        let asked = *request.tunnel_properties.unwrap();
        let given = TunnelProperties {
            id: Some(id.to_owned()),
            hostname: Some(
                asked
                    .hostname
                    .clone()
                    .unwrap_or_else(|| hostname.to_owned()),
            ),
            ..asked.clone()
        };
        self.send(OpenTunnelRsp {
            request_id: request.request_id,
            result: Some(open_tunnel_rsp::Result::TunnelProperties(Box::new(given))),
        })
        .await;
        asked
    }

    pub async fn ask_for_stream(&mut self, tunnel_id: &str, stream_id: &str) {
        self.send(stream_request(tunnel_id, stream_id)).await;
    }
}

pub fn stream_request(tunnel_id: &str, stream_id: &str) -> ProxyConnReq {
    ProxyConnReq {
        tunnel_id: tunnel_id.to_owned(),
        stream_id: stream_id.to_owned(),
        secret: Some(format!("secret of {stream_id}")),
        source_ip: Some(std::net::IpAddr::from([192, 0, 2, 10]).into()),
        proxy_endpoint: None,
    }
}
