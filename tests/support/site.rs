//! Twenty tunnels of one engine, two in each of two projects for each kind of proof, and what opens each.

use std::fmt;
use std::fs;
use std::sync::Arc;

use adit_agent::{Client, TunnelOptions};
use adit_plugins::identity::token::{Claims, Resources};
use aws_lc_rs::digest;
use rustls::ClientConfig;
use serde_json::json;

use crate::account;
use crate::browser::{Browser, solved};
use crate::certificate::{ClientCertificate, bare};
use crate::engine::{Arrived, TestEngine};
use crate::guests::guest;

/// The projects and where their agents dial.
const PROJECTS: [(&str, &str); 2] = [("default", "0a1b2c3d"), ("other", "0a1b2c3e")];

/// What tunnels of one kind and project are told apart by; those of the other project have the same names.
const NAMES: [&str; 2] = ["left", "right"];

/// The paths of each tunnel. What counts for one path alone counts for the first.
pub const PATHS: [&str; 2] = ["/one", "/two"];

/// What a tunnel asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Token,
    Session,
    Certificate,
    Challenge,
    /// A key that a plugin knows, which is all that stands before the tunnel.
    Key,
}

/// All of them.
const KINDS: [Kind; 5] = [
    Kind::Token,
    Kind::Session,
    Kind::Certificate,
    Kind::Challenge,
    Kind::Key,
];

/// One tunnel.
pub struct Place {
    pub kind: Kind,
    pub project: &'static str,
    pub name: String,
    pub host: String,
    /// What its service saw.
    pub arrived: Arrived,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.name, self.project)
    }
}

/// How a proof is shown.
enum Shown {
    Bearer(String),
    Query(String),
    Cookies(String),
    Certificate(ClientCertificate),
    Key(String),
}

/// What opens one tunnel, and there both paths or only the first.
pub struct Proof {
    /// Which of the places it is for.
    pub home: usize,
    shown: Shown,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.shown {
            Shown::Bearer(_) => "the bearer token",
            Shown::Query(_) => "the query token",
            Shown::Cookies(_) => "the cookies",
            Shown::Certificate(_) => "the certificate",
            Shown::Key(_) => "the key",
        })
    }
}

impl Proof {
    /// Whether it counts for the first path alone.
    pub fn one_path(&self) -> bool {
        !matches!(self.shown, Shown::Cookies(_) | Shown::Key(_))
    }

    /// The request target for a path.
    pub fn target(&self, path: &str) -> String {
        match &self.shown {
            Shown::Query(token) => format!("{path}?rstream.token={token}"),
            _ => path.to_owned(),
        }
    }

    /// The field that carries it, if one does.
    pub fn field(&self) -> Option<(&'static str, String)> {
        match &self.shown {
            Shown::Bearer(token) => Some(("authorization", format!("Bearer {token}"))),
            Shown::Cookies(cookies) => Some(("cookie", cookies.clone())),
            Shown::Key(key) => Some(("x-api-key", key.clone())),
            Shown::Query(_) | Shown::Certificate(_) => None,
        }
    }

    /// How a visitor with it shakes hands.
    pub fn visitor(&self, engine: &TestEngine, alpn: &str) -> Arc<ClientConfig> {
        match &self.shown {
            Shown::Certificate(certificate) => certificate.visitor(engine, alpn),
            _ => bare(engine, alpn),
        }
    }
}

/// All tunnels and all proofs.
pub struct Site {
    pub engine: TestEngine,
    pub places: Vec<Place>,
    pub proofs: Vec<Proof>,
    /// While they are there, so are their tunnels.
    _agents: Vec<Client>,
}

impl Site {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut certificates = Vec::new();
        let mut credentials = String::new();
        for (project, _) in PROJECTS {
            for name in NAMES.map(|name| named(Kind::Certificate, name)) {
                let certificate = ClientCertificate::new();
                let path = PATHS[0];
                credentials += &certificate.credential(
                    &format!("{project}-{name}"),
                    &format!(
                        "projects = [{project:?}]\n\
                         [credential.resources.tunnels.scopes.tunnels.connect]\n\
                         filters = {{ name = {name:?} }}\nparams = {{ path = {path:?} }}"
                    ),
                );
                certificates.push(certificate);
            }
        }
        fs::write(folder.path().join("credentials.toml"), credentials).unwrap();
        fs::write(folder.path().join("accounts.toml"), account::accounts()).unwrap();
        // Little work, since a debug build hashes slowly.
        let mut more =
            "credentials = \"credentials.toml\"\n[login]\naccounts = \"accounts.toml\"\n\
             [challenge]\nbits = 6\n"
                .to_owned();
        more += &format!(
            "[plugin.api-key]\ncomponent = {:?}\nstage = \"identity\"\nestablish-identity = true\n",
            guest("api_key")
        );
        let mut policies = String::new();
        for (project, endpoint) in PROJECTS {
            more += &format!("[project.{project}]\nendpoints = [{endpoint:?}]\n");
            for name in NAMES.map(|name| named(Kind::Key, name)) {
                let policy = format!("{project}-{name}");
                more += &format!(
                    "[[project.{project}.tunnels]]\nmatch = {{ name = {name:?} }}\npolicies = [{policy:?}]\n"
                );
                // Whoever tries is at one address.
                let digest = digest::digest(&digest::SHA256, key(project, &name).as_bytes());
                let digest: String = digest
                    .as_ref()
                    .iter()
                    .map(|octet| format!("{octet:02x}"))
                    .collect();
                policies += &format!(
                    "[policy.{policy}]\nfilters = [{{ use = \"api-key\", tries = 100000, keys = {{ ada = {digest:?} }} }}]\n"
                );
            }
        }
        more += &policies;
        let engine = TestEngine::start_in(folder, &more).await;

        let mut places = Vec::new();
        let mut agents = Vec::new();
        for (project, endpoint) in PROJECTS {
            let client = engine.client_of(endpoint).await;
            for kind in KINDS {
                for name in NAMES.map(|name| named(kind, name)) {
                    let asked = options(kind).name(&name);
                    let (host, arrived) = engine.publish_echoing(&client, asked).await;
                    places.push(Place {
                        kind,
                        project,
                        name,
                        host,
                        arrived,
                    });
                }
            }
            agents.push(client);
        }

        let proofs = proofs(&engine, &places, certificates).await;
        Self {
            engine,
            places,
            proofs,
            _agents: agents,
        }
    }

    /// How many requests each service saw.
    pub fn counts(&self) -> Vec<usize> {
        let places = self.places.iter();
        places.map(|place| place.arrived.count()).collect()
    }
}

fn named(kind: Kind, name: &str) -> String {
    format!("{kind:?}-{name}").to_lowercase()
}

/// The key of a tunnel that asks for one.
fn key(project: &str, name: &str) -> String {
    format!("the key of {name} of {project}")
}

fn options(kind: Kind) -> TunnelOptions {
    TunnelOptions::http().with(|asked| match kind {
        Kind::Token => asked.token_auth = Some(true),
        Kind::Session => asked.rstream_auth = Some(true),
        Kind::Certificate => asked.mtls_auth = Some(true),
        Kind::Challenge => asked.challenge_mode = Some(true),
        Kind::Key => {}
    })
}

/// Gets what opens each place, in the way of its kind; `certificates` are those of the places that ask for one, in order.
async fn proofs(
    engine: &TestEngine,
    places: &[Place],
    certificates: Vec<ClientCertificate>,
) -> Vec<Proof> {
    let mut certificates = certificates.into_iter();
    // One browser, so that what one tunnel gave it is all that tells its visits apart.
    let mut browser = Browser::new(engine);
    let mut signed_in = false;
    let mut proofs = Vec::new();
    for (home, place) in places.iter().enumerate() {
        let mut add = |shown| proofs.push(Proof { home, shown });
        match place.kind {
            Kind::Token => {
                let token = token(engine, place);
                add(Shown::Bearer(token.clone()));
                add(Shown::Query(token));
            }
            Kind::Session => {
                if signed_in {
                    let url = browser.url(&place.host, "/");
                    assert_eq!(browser.open(&url).await.url, url);
                } else {
                    account::enter(&mut browser, &place.host, "/", "ada").await;
                    signed_in = true;
                }
                add(Shown::Cookies(cookies(
                    &browser,
                    place,
                    &["rstream_auth", "__Host-rstream_browser"],
                )));
            }
            Kind::Certificate => add(Shown::Certificate(certificates.next().unwrap())),
            Kind::Key => add(Shown::Key(key(place.project, &place.name))),
            Kind::Challenge => {
                let url = browser.url(&place.host, "/");
                let page = browser.open(&url).await;
                let back = solved(&page.body);
                assert_eq!(browser.ask("GET", &back, &[], "").await.status, 303);
                add(Shown::Cookies(cookies(
                    &browser,
                    place,
                    &["rstream_challenge"],
                )));
            }
        }
    }
    proofs
}

/// A token for the place's first path.
fn token(engine: &TestEngine, place: &Place) -> String {
    let connect = json!({ "filters": { "name": place.name }, "params": { "path": PATHS[0] } });
    let tunnels = json!({
        "projects": [place.project],
        "scopes": { "tunnels": { "connect": connect } },
    });
    engine.token(&Claims {
        sub: Some("u-1".to_owned()),
        resources: Some(Resources { tunnels }),
        ..Claims::default()
    })
}

/// Exactly these cookies of the place.
fn cookies(browser: &Browser<'_>, place: &Place, names: &[&str]) -> String {
    let pairs: Vec<String> = names
        .iter()
        .map(|name| {
            let value = browser.cookie(&place.host, name);
            let value = value.unwrap_or_else(|| panic!("no {name} of {place}: {:?}", browser.jar));
            format!("{name}={value}")
        })
        .collect();
    pairs.join("; ")
}
