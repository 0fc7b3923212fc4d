//! The settings of the engine itself, table by table. Every default is written here and only here.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::reader::Reader;
use crate::secret::Secret;
use crate::values::{HostName, Of, Word};

/// Shortest HS256 secret taken, in bytes: the length of the hash (RFC 7518 §3.2).
pub const JWT_SECRET_BYTES_MIN: usize = 32;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// `[engine]`: who this engine is.
#[derive(Clone, Debug)]
pub struct Engine {
    /// Public name, lower case; tunnels are named below `t.` and this.
    pub host: String,
    /// Further names under which agents and the API are served, such as `localhost`.
    pub aliases: Vec<String>,
    /// Port the public reaches the engine at, where that is not the port it listens on.
    pub public_port: Option<u16>,
    /// What is logged.
    pub log_level: LogLevel,
    /// Threads that serve; 0 is one for each core.
    pub threads: usize,
    /// Folder for what must survive a restart.
    pub state_dir: Option<PathBuf>,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything, for people who work on Adit.
    Debug,
    /// What happens, in normal operation.
    #[default]
    Info,
    /// What an operator should look at.
    Warn,
    /// What went wrong.
    Error,
}

impl LogLevel {
    /// The word used in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl Word for LogLevel {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("debug", Self::Debug),
        ("info", Self::Info),
        ("warn", Self::Warn),
        ("error", Self::Error),
    ];
}

impl Engine {
    pub(crate) fn read(mut table: Reader<'_>) -> Option<Self> {
        let host = table.required(
            "host",
            "write the engine's public name, such as `edge.example.com`",
        );
        let aliases: Vec<HostName> = table.or("aliases", Vec::new());
        let public_port = table
            .field("public-port")
            .map(|_| table.count("public-port", 443, 1..=u16::MAX));
        let Of(log_level) = table.or("log-level", Of(LogLevel::default()));
        let threads = table.count("threads", 0, 0..=1024);
        let state_dir = table.value("state-dir");
        table.finish();
        let HostName(host) = host?;
        Some(Self {
            host,
            aliases: aliases.into_iter().map(|HostName(name)| name).collect(),
            public_port,
            log_level,
            threads,
            state_dir,
        })
    }
}

/// `[listen]`: the sockets.
#[derive(Clone, Debug)]
pub struct Listen {
    /// TLS: agents, API and published tunnels. Default `[::]:443`.
    pub https: SocketAddr,
    /// Plain HTTP, answered with a redirect to HTTPS.
    pub http: Option<SocketAddr>,
    /// Prometheus metrics.
    pub metrics: Option<SocketAddr>,
    /// Path of the metrics. Default `/metrics`.
    pub metrics_path: String,
    /// Bearer token a scraper must show; required where the metrics are not on loopback.
    pub metrics_token: Option<Secret<String>>,
    /// Whether metrics tell projects apart. Default true.
    pub metrics_projects: bool,
}

impl Listen {
    pub(crate) fn read(mut table: Reader<'_>) -> Self {
        let listen = Self {
            https: table.or("https", SocketAddr::from(([0u16; 8], 443))),
            http: table.value("http"),
            metrics: table.value("metrics"),
            metrics_path: slashed(table.or("metrics-path", "/metrics".to_owned())),
            metrics_token: table.value("metrics-token"),
            metrics_projects: table.or("metrics-projects", true),
        };
        if let Some(metrics) = listen.metrics
            && !metrics.ip().to_canonical().is_loopback()
            && table.field("metrics-token").is_none()
        {
            table.wrong(
                "metrics",
                format!("`{metrics}` can be reached from outside, set `metrics-token` or listen on `127.0.0.1:{}`", metrics.port()),
            );
        }
        for (key, other, other_key) in [
            ("http", Some(listen.https), "https"),
            ("metrics", Some(listen.https), "https"),
            ("metrics", listen.http, "http"),
        ] {
            let address = if key == "http" {
                listen.http
            } else {
                listen.metrics
            };
            if let (Some(address), Some(other)) = (address, other)
                && collide(address, other)
            {
                table.wrong(
                    key,
                    format!("`{address}` is taken by `{other_key}`, use another port"),
                );
            }
        }
        table.finish();
        listen
    }
}

fn slashed(path: String) -> String {
    if path.starts_with('/') {
        path
    } else {
        format!("/{path}")
    }
}

/// Whether two sockets cannot both be bound.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    one.port() != 0
        && one.port() == other.port()
        && (one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified())
}

/// `[certificates]`: what the engine shows on its own names.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// A certificate chain and its key, re-read when they change.
    pub files: CertificateFiles,
}

/// A pair of PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, leaf first. Must cover the engine host and `*.t.` below it.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Certificates {
    pub(crate) fn read(mut table: Reader<'_>) -> Option<Self> {
        let what = "write `files = { cert = \"cert.pem\", key = \"key.pem\" }`";
        if table.field("files").is_none() {
            table.missing("files", what);
            table.finish();
            return None;
        }
        let mut files = table.table("files");
        let cert = files.required("cert", "write the path of the certificate chain");
        let key = files.required("key", "write the path of the private key");
        files.finish();
        table.finish();
        Some(Self {
            files: CertificateFiles {
                cert: cert?,
                key: key?,
            },
        })
    }
}

/// `[auth]`: who may use the engine.
#[derive(Clone, Debug)]
pub struct Auth {
    /// The HS256 secret that tokens are signed with; at least [`JWT_SECRET_BYTES_MIN`] bytes.
    pub jwt_secret: Secret<String>,
    /// Audiences of which a token that names any must name one; none accepts every token.
    pub audience: Vec<String>,
    /// File of applications, personal tokens and client certificates.
    pub credentials: Option<PathBuf>,
    /// Host below which the Engine API takes client certificates, at `<endpoint>.` and this.
    pub certificate_host: Option<String>,
}

impl Auth {
    pub(crate) fn read(mut table: Reader<'_>) -> Option<Self> {
        let secret: Option<Secret<String>> = table.required(
            "jwt-secret",
            "write `{ file = \"jwt.secret\" }` or `{ env = \"VARIABLE\" }`, `adit engine init` makes one",
        );
        if let Some(secret) = &secret
            && secret.expose().len() < JWT_SECRET_BYTES_MIN
        {
            table.wrong(
                "jwt-secret",
                format!("shorter than {JWT_SECRET_BYTES_MIN} bytes, use a longer secret such as `openssl rand -hex 32` prints"),
            );
        }
        let audience = table.or("audience", Vec::new());
        let credentials = table.value("credentials");
        let host: Option<HostName> = table.value("certificate-host");
        table.finish();
        Some(Self {
            jwt_secret: secret?,
            audience,
            credentials,
            certificate_host: host.map(|HostName(host)| host),
        })
    }
}

/// `[geoip]`: where addresses are.
#[derive(Clone, Debug, Default)]
pub struct GeoIp {
    /// A MaxMind database of countries or cities, read again when it changes.
    pub database: Option<PathBuf>,
}

impl GeoIp {
    pub(crate) fn read(mut table: Reader<'_>) -> Self {
        let geoip = Self {
            database: table.value("database"),
        };
        table.finish();
        geoip
    }
}

/// `[front]`: proxies in front of the engine whose word about the client's address is taken.
#[derive(Clone, Debug, Default)]
pub struct Front {
    /// Addresses of those proxies.
    pub trusted: Vec<IpNet>,
    /// Whether their connections begin with a PROXY protocol header, version 1 or 2.
    pub proxy_protocol: bool,
}

impl Front {
    pub(crate) fn read(mut table: Reader<'_>) -> Self {
        let front = Self {
            trusted: table.or("trusted", Vec::new()),
            proxy_protocol: table.or("proxy-protocol", false),
        };
        if front.proxy_protocol && table.field("trusted").is_none() {
            table.wrong(
                "proxy-protocol",
                "nobody is trusted to send it, list the proxies' addresses in `trusted`",
            );
        }
        table.finish();
        front
    }
}

/// `[admin]`: the operator's door.
#[derive(Clone, Debug, Default)]
pub struct Admin {
    /// Unix socket for `adit engine explain` and its like; `admin.sock` in the state folder where
    /// only that is set; none without either.
    pub socket: Option<PathBuf>,
}

impl Admin {
    pub(crate) fn read(mut table: Reader<'_>, state_dir: Option<&PathBuf>) -> Self {
        let socket = table
            .value("socket")
            .or_else(|| Some(state_dir?.join("admin.sock")));
        table.finish();
        Self { socket }
    }
}

/// `[timeouts]`: how long the engine waits.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// For an agent to bring a stream it was asked for, upstream connect included.
    pub stream_request: Duration,
    /// For the next request on a connection.
    pub http_idle: Duration,
    /// For a whole request head.
    pub http_header: Duration,
    /// For the next byte of a request body.
    pub body_idle: Duration,
    /// For the rest of a body nobody wants, before the connection closes.
    pub lingering: Duration,
    /// For exchanges to end when the engine stops.
    pub drain: Duration,
    /// For a whole TLS ClientHello and the rest of the handshake.
    pub hello: Duration,
    /// For an agent's first frame.
    pub first_frame: Duration,
}

impl Timeouts {
    pub(crate) fn read(mut table: Reader<'_>) -> Self {
        let wait = SECOND / 10..=DAY;
        let timeouts = Self {
            stream_request: table.duration("stream-request", SECOND * 30, wait.clone()),
            http_idle: table.duration("http-idle", SECOND * 90, wait.clone()),
            http_header: table.duration("http-header", SECOND * 30, wait.clone()),
            body_idle: table.duration("body-idle", SECOND * 60, wait.clone()),
            lingering: table.duration("lingering", SECOND * 5, Duration::ZERO..=SECOND * 60),
            drain: table.duration("drain", SECOND * 30, Duration::ZERO..=DAY),
            hello: table.duration("hello", SECOND * 10, wait.clone()),
            first_frame: table.duration("first-frame", SECOND * 10, wait),
        };
        table.finish();
        timeouts
    }
}

/// `[limits]`: how much the engine takes on.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Head of a request or response, in bytes.
    pub header_bytes: usize,
    /// Fields in a head.
    pub header_fields: usize,
    /// Concurrent streams on one HTTP/2 connection.
    pub h2_streams: u32,
    /// Streams a visitor may reset on one HTTP/2 connection within a minute.
    pub h2_resets_per_minute: u32,
    /// Rest of an unwanted request body that is read before the connection closes, in bytes.
    pub lingering_bytes: usize,
    /// ClientHello with its records, in bytes.
    pub hello_bytes: usize,
    /// Connections of visitors and agents together.
    pub connections: usize,
    /// Agents.
    pub agents: usize,
    /// Tunnels of one agent.
    pub tunnels_per_agent: usize,
    /// Streams asked of one agent and not yet brought.
    pub pending_opens_per_agent: usize,
    /// Streams waiting until one agent may be asked for them.
    pub queued_opens_per_agent: usize,
    /// Idle upstream connections kept for one tunnel.
    pub upstream_idle_per_tunnel: usize,
    /// Concurrent streams on one HTTP/2 connection to an upstream.
    pub upstream_h2_streams: usize,
    /// Tunnels of one project.
    pub tunnels_per_project: usize,
}

impl Limits {
    pub(crate) fn read(mut table: Reader<'_>) -> Self {
        let limits = Self {
            header_bytes: table.size("header-bytes", 32 << 10, 8 << 10..=1 << 20),
            header_fields: table.count("header-fields", 128, 16..=4096),
            h2_streams: table.count("h2-streams", 200, 1..=65_535),
            h2_resets_per_minute: table.count("h2-resets-per-minute", 200, 1..=1_000_000),
            lingering_bytes: table.size("lingering-bytes", 1 << 20, 0..=64 << 20),
            hello_bytes: table.size("hello-bytes", 64 << 10, 4 << 10..=64 << 10),
            connections: table.count("connections", 100_000, 1..=10_000_000),
            agents: table.count("agents", 10_000, 1..=1_000_000),
            tunnels_per_agent: table.count("tunnels-per-agent", 1_000, 1..=100_000),
            // A published client answers at most 64 requests at a time and counts an overflow as
            // an error; some end the channel over it.
            pending_opens_per_agent: table.count("pending-opens-per-agent", 48, 1..=4096),
            queued_opens_per_agent: table.count("queued-opens-per-agent", 1024, 0..=65_536),
            upstream_idle_per_tunnel: table.count("upstream-idle-per-tunnel", 128, 0..=4096),
            upstream_h2_streams: table.count("upstream-h2-streams", 100, 1..=65_535),
            tunnels_per_project: table.count("tunnels-per-project", 10_000, 1..=1_000_000),
        };
        table.finish();
        limits
    }
}
