//! The gate: sends browsers to the engine's host to work, and takes their proofs on the tunnel's.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_config::Secret;
use adit_filters::env::Clock;
use adit_filters::{Env, Reply, TunnelInfo};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, LOCATION, REFERRER_POLICY, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, request};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::page;
use super::spent::Spent;
use super::work;
use crate::identity::rstream_auth::seal::Seal;
use crate::identity::rstream_auth::{Millis, RETURN_BYTES_MAX, cookies, return_path};

/// The path on the engine's host where browsers work.
pub const PAGE_PATH: &str = "/rstream/challenge";

/// The path on a tunnel's host that a browser comes back to with its proof.
pub const CALLBACK_PATH: &str = "/.well-known/rstream/challenge/callback";

/// How long a browser may take.
pub const REQUEST_LIFE: Duration = Duration::from_secs(10 * 60);

/// Longest address that another challenge page may be asked for, in bytes.
pub const URL_BYTES_MAX: usize = RETURN_BYTES_MAX + 512;

/// The cookie of a pass (edge-behaviour §7.5).
const PASS: &str = "rstream_challenge";

/// How much of an address a pass is bound to. Many a network gives its users another address now and then, out of one
/// block; whoever has a block has earned its pass with every address in it.
const V4_BITS: u8 = 24;
const V6_BITS: u8 = 56;

/// What a gate is made of.
#[derive(Clone, Debug)]
pub struct GateSettings {
    /// The engine's public name.
    pub host: String,
    /// What keys are derived from.
    pub secret: Secret<String>,
    /// How long a pass counts.
    pub lifetime: Duration,
    /// How much work: zero bits, each of which doubles it.
    pub bits: u8,
}

/// The gate.
pub struct Gate {
    settings: GateSettings,
    seal: Seal,
    clock: Arc<dyn Clock>,
    kept: Arc<Kept>,
}

/// What outlives a reload.
#[derive(Default)]
struct Kept {
    port: AtomicU16,
    spent: Mutex<Spent>,
}

/// What a visitor wanted. It goes through the browser, sealed.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Wanted {
    /// What the work is done for.
    id: String,
    /// The tunnel's host.
    host: String,
    /// Its project.
    project: String,
    /// The path and query asked for; it begins with one slash.
    path: String,
    /// The network the visitor came from; none until its browser opens the page.
    from: Option<String>,
    /// How much work.
    bits: u8,
    /// When.
    since: Millis,
}

/// A pass. It is sealed for its tunnel and visitor.
#[derive(Debug, Deserialize, Serialize)]
struct Pass {
    since: Millis,
    until: Millis,
}

/// A challenge that was made for somebody who will come (edge-behaviour §7.5, step 3).
#[derive(Clone, Debug, Serialize)]
pub struct Created {
    /// What the page is asked for.
    pub id: String,
    /// The page.
    pub url: String,
}

/// Not an address on the host named.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the address is not an `https` one on the tunnel's host")]
pub struct NotHere;

impl Gate {
    /// A gate of these settings. It takes over from `before` what outlives a reload.
    #[must_use]
    pub fn new(settings: GateSettings, env: &Env, before: Option<&Self>) -> Self {
        Self {
            seal: Seal::new(&settings.secret, Arc::clone(&env.random)),
            clock: Arc::clone(&env.clock),
            kept: before.map_or_else(Arc::default, |before| Arc::clone(&before.kept)),
            settings,
        }
    }

    /// Says at which port the public reaches the engine.
    pub fn set_port(&self, port: u16) {
        self.kept.port.store(port, Ordering::Relaxed);
    }

    /// Whether a request carries a pass of this tunnel for this visitor.
    pub(crate) fn has_pass(&self, headers: &HeaderMap, tunnel: &TunnelInfo, peer: IpAddr) -> bool {
        let Some(host) = &tunnel.hostname else {
            return false;
        };
        let now = self.now();
        let from = network(peer);
        cookies::all(headers, PASS).any(|sealed| {
            let purpose = ["challenge", "pass", host, &tunnel.project, &from];
            let pass: Option<Pass> = self.seal.open(&purpose, sealed);
            // One from the future was made before the clock was set back: it would count too long.
            pass.is_some_and(|pass| {
                pass.since <= now
                    && now < pass.until
                    && now < pass.since.after(self.settings.lifetime)
            })
        })
    }

    /// Sends a visitor to work; none if it cannot be said where.
    pub(crate) fn ask(
        &self,
        head: &request::Parts,
        tunnel: &TunnelInfo,
        peer: IpAddr,
    ) -> Option<Reply> {
        let path = head.uri.path_and_query();
        let wanted = Wanted {
            path: return_path(path.map_or("/", |path| path.as_str())),
            from: Some(network(peer)),
            ..self.wanted(tunnel.hostname.clone()?, tunnel.project.clone())
        };
        Some(redirect(StatusCode::FOUND, &self.page_of(&wanted)))
    }

    /// A challenge for a visitor who is to come to `target`, an address on the tunnel's host.
    ///
    /// # Errors
    /// [`NotHere`].
    pub fn create(&self, host: &str, project: &str, target: &str) -> Result<Created, NotHere> {
        let target: http::Uri = Some(target)
            .filter(|target| target.len() <= URL_BYTES_MAX)
            .and_then(|target| target.parse().ok())
            .ok_or(NotHere)?;
        let named = target.host().map(str::to_ascii_lowercase);
        if target.scheme_str() != Some("https") || named.as_deref() != Some(host) {
            return Err(NotHere);
        }
        let path = target.path_and_query().map_or("/", |path| path.as_str());
        let wanted = Wanted {
            path: return_path(path),
            ..self.wanted(host.to_owned(), project.to_owned())
        };
        let id = self.sealed(&wanted);
        let url = format!(
            "{}{PAGE_PATH}?request={id}",
            self.origin(&self.settings.host)
        );
        Ok(Created { id, url })
    }

    /// Answers a request for the page on the engine's host.
    pub fn serve(&self, request: &Request<Bytes>, peer: IpAddr) -> Reply {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return page::wrong_method();
        }
        let found = parameter(request.uri().query(), "request").and_then(|sealed| {
            let wanted = self.open(&sealed)?;
            // A request counts for whoever asked, or for the first to open it where nobody has.
            match &wanted.from {
                Some(from) if *from == network(peer) => Some((wanted, sealed)),
                Some(_) => None,
                None => {
                    let wanted = Wanted {
                        id: self.seal.id(),
                        from: Some(network(peer)),
                        ..wanted
                    };
                    let sealed = self.sealed(&wanted);
                    Some((wanted, sealed))
                }
            }
        });
        let Some((wanted, sealed)) = found else {
            return page::over();
        };
        page::work(page::Work {
            id: &wanted.id,
            bits: work::bits_of_piece(wanted.bits),
            host: &wanted.host,
            back: &format!("{}{CALLBACK_PATH}", self.origin(&wanted.host)),
            request: &sealed,
        })
    }

    /// A browser comes back to a tunnel's host with a proof: it gets its pass, or is told what to do.
    pub(crate) fn callback(
        &self,
        head: &request::Parts,
        tunnel: &TunnelInfo,
        peer: IpAddr,
    ) -> Reply {
        let host = tunnel.hostname.as_deref().unwrap_or_default();
        self.redeem(head, tunnel, host, peer)
            .unwrap_or_else(|| page::not_passed(&self.origin(host)))
    }

    fn redeem(
        &self,
        head: &request::Parts,
        tunnel: &TunnelInfo,
        host: &str,
        peer: IpAddr,
    ) -> Option<Reply> {
        let wanted = self.open(&parameter(head.uri.query(), "request")?)?;
        let proof = parameter(head.uri.query(), "proof")?;
        let from = network(peer);
        let meant = wanted.host == host
            && wanted.project == tunnel.project
            && wanted.from.as_ref() == Some(&from)
            // Who was asked for less before a reload works again.
            && wanted.bits >= self.settings.bits;
        if !meant || !work::is_done(&wanted.id, wanted.bits, &proof) {
            return None;
        }
        let now = self.now();
        let mut spent = self
            .kept
            .spent
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !spent.take(&wanted.id, REQUEST_LIFE, now) {
            return None;
        }
        drop(spent);
        let life = self.settings.lifetime;
        let pass = Pass {
            since: now,
            until: now.after(life),
        };
        let purpose = ["challenge", "pass", host, &tunnel.project, &from];
        let sealed = self.seal.seal(&purpose, &pass);
        let to = format!("{}{}", self.origin(host), wanted.path);
        let mut reply = redirect(StatusCode::SEE_OTHER, &to);
        reply
            .headers
            .append(SET_COOKIE, cookies::set(PASS, &sealed, life));
        Some(reply)
    }

    fn wanted(&self, host: String, project: String) -> Wanted {
        Wanted {
            id: self.seal.id(),
            host,
            project,
            path: "/".to_owned(),
            from: None,
            bits: self.settings.bits,
            since: self.now(),
        }
    }

    fn page_of(&self, wanted: &Wanted) -> String {
        let origin = self.origin(&self.settings.host);
        format!("{origin}{PAGE_PATH}?request={}", self.sealed(wanted))
    }

    fn sealed(&self, wanted: &Wanted) -> String {
        self.seal.seal(&["challenge", "request"], wanted)
    }

    fn open(&self, sealed: &str) -> Option<Wanted> {
        let wanted: Wanted = self.seal.open(&["challenge", "request"], sealed)?;
        let now = self.now();
        (wanted.since <= now && now < wanted.since.after(REQUEST_LIFE)).then_some(wanted)
    }

    fn now(&self) -> Millis {
        Millis::of(self.clock.now())
    }

    fn origin(&self, host: &str) -> String {
        match self.kept.port.load(Ordering::Relaxed) {
            0 | 443 => format!("https://{host}"),
            port => format!("https://{host}:{port}"),
        }
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// The network of an address that a pass counts for.
fn network(address: IpAddr) -> String {
    let address = address.to_canonical();
    let bits = if address.is_ipv4() { V4_BITS } else { V6_BITS };
    IpNet::new(address, bits).map_or_else(|_| address.to_string(), |net| net.trunc().to_string())
}

/// The only parameter of this name.
fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let mut found = form_urlencoded::parse(query?.as_bytes())
        .filter_map(|(key, value)| (key == name).then(|| value.into_owned()));
    found.next().filter(|_| found.next().is_none())
}

fn redirect(status: StatusCode, to: &str) -> Reply {
    let mut headers = HeaderMap::new();
    // Hosts, numbers and paths of visible characters make a field value.
    if let Ok(to) = HeaderValue::from_str(to) {
        headers.insert(LOCATION, to);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Reply {
        status,
        headers,
        ..Reply::default()
    }
}
