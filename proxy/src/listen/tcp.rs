//! The TLS port: every connection is dispatched by its ClientHello (server name and protocols).

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use adit_config::DEFAULT_PROJECT;
use adit_filters::{ClientAuth, ClientHello, ConnectionInfo, KeyExchange, Transport};
use adit_transport::Guarded;
use adit_transport::tls::ServerStream;
use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::front::{self, FrontProxies};
use super::hello::{self, Beginning};
use super::names::OwnNames;
use super::old_alert::OldAlert;
use super::plain::{self, Answer};
use super::rewind::Rewind;
use super::slots::{Slot, Slots};
use crate::agents::{self, Agents, ConnInfo};
use crate::edge::{self, Edge, Entry, Found, Site};
use crate::metrics::ListenerMetrics;
use crate::tls::{self, Tls};

/// Connections the kernel holds until they are accepted.
const BACKLOG: i32 = 4096;

/// First and longest pause after accepting failed, as it does while descriptors are used up.
const PAUSE_FIRST: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long, and for how many bytes, a peer that spoke plain HTTP may finish its request.
const FAREWELL: Duration = Duration::from_secs(1);
const FAREWELL_BYTES: usize = 64 << 10;

/// The stream an agent is served on.
type AgentIo = ServerStream<Rewind<TcpStream>>;

/// The stream a visitor is served on.
type VisitorIo = tokio_rustls::server::TlsStream<OldAlert<Rewind<TcpStream>>>;

/// What a reload replaces for connections to come.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) names: OwnNames,
    pub(crate) tls: Arc<Tls>,
    pub(crate) hello_bytes: usize,
    /// For the hello and the rest of the handshake together.
    pub(crate) hello_wait: Duration,
}

/// What every connection to the TLS port shares.
pub(crate) struct Dispatch {
    pub(crate) settings: ArcSwap<Settings>,
    /// How projects want keys agreed on, at their own hosts too.
    pub(crate) exchanges: ArcSwap<BTreeMap<String, KeyExchange>>,
    pub(crate) fronts: Arc<FrontProxies>,
    pub(crate) edge: Arc<Edge>,
    pub(crate) agents: Arc<Agents>,
    pub(crate) metrics: Arc<ListenerMetrics>,
    pub(crate) connection_ids: AtomicU64,
    /// Places for visitors, fewer than for connections: each visitor may need a stream that an
    /// agent brings through this same port.
    pub(crate) visitors: Arc<Slots>,
}

/// Opens a listening socket; `[::]` takes IPv4 too.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// How far the engine has come in stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Connections are taken.
    Serving,
    /// No new ones are; those there are may end.
    Draining,
    /// Those still there are cut.
    Over,
}

/// Waits until the engine has come as far as `wanted`, or is gone.
pub(crate) async fn reached(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    // An engine that is gone has come all the way.
    let _ = phase.wait_for(|phase| *phase >= wanted).await;
}

/// Accepts connections, each served by `serve` on a task of its own. Stops accepting when `phase`
/// says so and returns once the last connection has ended or was cut.
pub(crate) async fn accept<F>(
    listener: TcpListener,
    slots: Arc<Slots>,
    metrics: Arc<ListenerMetrics>,
    mut phase: watch::Receiver<Phase>,
    serve: impl Fn(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let mut pause = PAUSE_FIRST;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next() => {
                report(ended);
                continue;
            }
            () = reached(&mut phase, Phase::Draining) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = PAUSE_FIRST;
                let Some(slot) = slots.take() else {
                    // Full: a closed connection tells a balancer more than one that hangs.
                    metrics.turned_away();
                    continue;
                };
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                let serving = serve(stream, peer);
                connections.spawn(async move {
                    serving.await;
                    drop(slot);
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, ?pause, "cannot accept connections");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
    drop(listener);
    loop {
        tokio::select! {
            ended = connections.join_next() => match ended {
                Some(ended) => report(ended),
                None => return,
            },
            () = reached(&mut phase, Phase::Over) => return,
        }
    }
}

/// A panic ends its connection alone, and is a fault to be known.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "serving a connection failed");
    }
}

/// Whether accepting failed because of the peer: the next connection may be well.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

impl Dispatch {
    /// Serves one connection to its end.
    pub(crate) async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        // Serving may last for days: its future carries neither the hello's nor the room of what
        // the connection turned out not to be.
        let ready = Box::pin(self.begin(stream, peer)).await;
        match ready {
            Some(Ready::Agent(io, info)) => {
                Box::pin(agents::serve(Arc::clone(&self.agents), *io, info)).await;
            }
            Some(Ready::Visitor(io, info, entry, _slot)) => {
                Box::pin(edge::serve(Arc::clone(&self.edge), io, *info, entry)).await;
            }
            None => {}
        }
    }

    async fn begin(&self, stream: TcpStream, peer: SocketAddr) -> Option<Ready> {
        let settings = self.settings.load_full();
        let begun = self.handshake(&settings, stream, peer);
        match tokio::time::timeout(settings.hello_wait, begun).await {
            Ok(ready) => ready,
            Err(_) => {
                self.metrics.failed("timeout");
                None
            }
        }
    }

    async fn handshake(
        &self,
        settings: &Settings,
        mut stream: TcpStream,
        peer: SocketAddr,
    ) -> Option<Ready> {
        let (peer, buffer) = self.announced(&mut stream, peer).await?;
        let (hello, head) = match hello::read(&mut stream, buffer, settings.hello_bytes).await {
            Beginning::Hello(hello, head) => (hello, head),
            Beginning::PlainHttp => {
                self.metrics.failed("plain_http");
                speak_https(stream).await;
                return None;
            }
            Beginning::Neither(error) => {
                self.metrics.failed("hello");
                tracing::debug!(%peer, %error, "no ClientHello");
                return None;
            }
        };
        // Without the first a small frame waits for the acknowledgement of the one before; without
        // the second a peer that vanished is never missed.
        let _ = adit_transport::dial::tune(&stream);
        let route = self.route(settings, &hello, &stream);
        let io = Rewind::new(head, stream);
        let mut info = ConnectionInfo {
            id: self.connection_ids.fetch_add(1, Ordering::Relaxed),
            peer,
            transport: Transport::Tls,
            hello: Some(hello),
            tls: None,
        };
        match route {
            Route::Agents(config) => match TlsAcceptor::from(config).accept(io).await {
                Ok(io) => {
                    let info = ConnInfo {
                        peer,
                        server_name: info.hello.and_then(|hello| hello.server_name),
                        certificate: tls::presented(io.get_ref().1),
                    };
                    Some(Ready::Agent(Box::new(Guarded::new(io)), info))
                }
                Err(error) => self.not_agreed(peer, &error),
            },
            Route::Visitors(Reception {
                entry,
                config,
                certificate_for,
            }) => {
                let Some(slot) = self.visitors.take() else {
                    self.metrics.turned_away();
                    return None;
                };
                let io = OldAlert::new(io);
                match TlsAcceptor::from(config).accept(io).await {
                    Ok(mut io) => {
                        io.get_mut().0.settle();
                        info.tls = Some(tls::info(io.get_ref().1, certificate_for));
                        Some(Ready::Visitor(Box::new(io), Box::new(info), entry, slot))
                    }
                    Err(error) => self.not_agreed(peer, &error),
                }
            }
            Route::Alert(alert) => {
                self.metrics.failed(alert.label());
                plain::close_with(io, &alert.record(), FAREWELL, FAREWELL_BYTES).await;
                None
            }
        }
    }

    fn not_agreed(&self, peer: SocketAddr, error: &io::Error) -> Option<Ready> {
        self.metrics.failed("handshake");
        tracing::debug!(%peer, %error, "TLS handshake failed");
        None
    }

    /// The peer's address, from the PROXY header where a front proxy sends one.
    async fn announced(
        &self,
        stream: &mut TcpStream,
        peer: SocketAddr,
    ) -> Option<(SocketAddr, BytesMut)> {
        if !self.fronts.announces(peer.ip()) {
            return Some((peer, BytesMut::new()));
        }
        match front::read(stream).await {
            Ok((source, rest)) => Some((source.unwrap_or(peer), rest)),
            Err(error) => {
                self.metrics.failed("proxy_header");
                tracing::warn!(%peer, %error, "a front proxy's connection is not served");
                None
            }
        }
    }

    /// Who serves a connection with this hello (edge-behaviour §1.2, §1.5).
    fn route(&self, settings: &Settings, hello: &ClientHello, stream: &TcpStream) -> Route {
        let for_agents = hello.alpn.iter().any(|offer| offer == adit_protocol::ALPN);
        let own = match hello.server_name.as_deref() {
            Some(name) => settings.names.is_own(name),
            // Who dials an address sends no name; the certificate says whether that is meant.
            None => stream
                .local_addr()
                .is_ok_and(|own| settings.tls.covers(&own.ip().to_canonical().to_string())),
        };
        let name = hello.server_name.as_deref();
        // Who comes as an agent by the engine's host, or by none, comes to the default project.
        let exchange = name
            .and_then(|name| settings.names.demands_of(name))
            .or(for_agents.then_some(DEFAULT_PROJECT))
            .filter(|_| own)
            .and_then(|project| self.exchanges.load().get(project).copied());
        match (own, for_agents, name) {
            (true, true, Some(name)) if settings.names.takes_certificates(name) => {
                Route::Alert(Alert::NoApplicationProtocol)
            }
            (true, true, _) => Route::Agents(settings.tls.agents(hello, exchange)),
            (true, false, name) => {
                Route::Visitors(Reception::of_engine(settings, name, hello, exchange))
            }
            (false, _, None) => Route::Alert(Alert::UnrecognizedName),
            (false, _, Some(name)) => match self.edge.directory.find(name) {
                Found::Site(site) => match Reception::of_site(settings, site, hello) {
                    Ok(reception) => Route::Visitors(reception),
                    Err(error) => {
                        tracing::error!(host = name, %error, "no TLS can be had for a tunnel");
                        Route::Alert(Alert::InternalError)
                    }
                },
                // An answer in HTTP says more than an alert: 404, 421 or 503.
                _ if settings.tls.covers(name) => {
                    Route::Visitors(Reception::of_engine(settings, None, hello, None))
                }
                Found::OtherProtocol => Route::Alert(Alert::NoApplicationProtocol),
                _ => Route::Alert(Alert::UnrecognizedName),
            },
        }
    }
}

enum Ready {
    Agent(Box<AgentIo>, ConnInfo),
    Visitor(Box<VisitorIo>, Box<ConnectionInfo>, Entry, Slot),
}

enum Route {
    Agents(Arc<ServerConfig>),
    Alert(Alert),
    Visitors(Reception),
}

/// How a visitor's handshake is answered, and where it leads.
struct Reception {
    entry: Entry,
    config: Arc<ServerConfig>,
    /// Who asks for a certificate.
    certificate_for: Option<Arc<str>>,
}

impl Reception {
    /// `name` is one of the engine's own.
    fn of_engine(
        settings: &Settings,
        name: Option<&str>,
        hello: &ClientHello,
        exchange: Option<KeyExchange>,
    ) -> Self {
        let certificate_for = name.filter(|name| settings.names.takes_certificates(name));
        Self {
            entry: Entry::Engine,
            config: match certificate_for {
                Some(_) => settings.tls.certificates(hello, exchange),
                None => settings.tls.users(hello, exchange),
            },
            certificate_for: certificate_for.map(Arc::from),
        }
    }

    fn of_site(
        settings: &Settings,
        site: Arc<Site>,
        hello: &ClientHello,
    ) -> Result<Self, rustls::Error> {
        let chain = site.chain();
        let asks = chain
            .handshake()
            .is_some_and(|demand| demand.client_auth() != ClientAuth::None);
        Ok(Self {
            config: site.handshakes.config(&chain, &settings.tls, hello)?,
            certificate_for: asks.then(|| site.info.id.as_str().into()),
            entry: Entry::Site(site),
        })
    }
}

/// Fatal alerts sent before any handshake (RFC 8446 §6).
#[derive(Clone, Copy, Debug)]
enum Alert {
    InternalError,
    NoApplicationProtocol,
    UnrecognizedName,
}

impl Alert {
    fn record(self) -> Bytes {
        let description = match self {
            Self::InternalError => 80,
            Self::NoApplicationProtocol => 120,
            Self::UnrecognizedName => 112,
        };
        // alert, legacy version 1.2, two bytes: fatal and why.
        Bytes::copy_from_slice(&[21, 3, 3, 0, 2, 2, description])
    }

    fn label(self) -> &'static str {
        match self {
            Self::InternalError => "internal_error",
            Self::NoApplicationProtocol => "no_application_protocol",
            Self::UnrecognizedName => "unrecognized_name",
        }
    }
}

/// Tells whoever speaks HTTP in the clear on the TLS port what is wrong.
async fn speak_https(stream: TcpStream) {
    let text = "this port speaks HTTPS: write https:// in the address";
    let reply = Answer::text("400 Bad Request", text).bytes(false);
    plain::close_with(stream, &reply, FAREWELL, FAREWELL_BYTES).await;
}
