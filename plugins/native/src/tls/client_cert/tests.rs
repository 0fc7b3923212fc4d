#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::net::SocketAddr;
use std::time::Duration;

use adit_config::Secret;
use adit_filters::env::fake::Fake;
use adit_filters::{
    Chain, ClientAuth, Connected, Connection, ConnectionInfo, Decision, Placed, TlsInfo, Transport,
    TunnelInfo,
};
use bytes::Bytes;
use http::header::AUTHORIZATION;
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;

use super::*;
use crate::identity::credentials::{Credential, Credentials, sha256};
use crate::identity::token::{Claims, Permission, Permissions, TunnelResource};

const TUNNEL: &str = "t-1";

/// Certificates and what is stored of them.
struct Bench {
    fake: Fake,
    authority: Arc<Authority>,
    known: Arc<ClientCertificate>,
    /// May read the inventory and nothing else.
    reader: Arc<ClientCertificate>,
    /// Of another project.
    foreign: Arc<ClientCertificate>,
    /// For one path.
    narrow: Arc<ClientCertificate>,
    revoked: Arc<ClientCertificate>,
    unknown: Arc<ClientCertificate>,
    /// Known, for servers.
    server: Arc<ClientCertificate>,
}

fn certificate(change: impl FnOnce(&mut CertificateParams)) -> Arc<ClientCertificate> {
    let mut params = CertificateParams::new(["client".to_owned()]).unwrap();
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let der = Bytes::copy_from_slice(params.self_signed(&key).unwrap().der());
    Arc::new(ClientCertificate {
        sha256: sha256(&der),
        chain: vec![der],
    })
}

impl Bench {
    fn new() -> Self {
        let secret = Secret::new("demo-secret-32-bytes-minimum-0001".to_owned());
        let authority = Authority::new(&secret).unwrap();
        let boundary = |claim| Some(TunnelResource::parse(&claim).unwrap());
        let connect = |projects: &str, params| {
            boundary(json!({
                "projects": [projects],
                "scopes": { "tunnels": { "connect": { "params": params } } },
            }))
        };
        let one = |permission| Some([permission].into_iter().collect::<Permissions>());
        let credential = |id: &str| Credential {
            id: id.to_owned(),
            user_id: format!("u-{id}"),
            ..Credential::default()
        };
        let cases = [
            credential("known"),
            Credential {
                permissions: one(Permission::ReadResources),
                ..credential("reader")
            },
            Credential {
                boundary: connect("other", json!({ "path": "/" })),
                ..credential("foreign")
            },
            Credential {
                permissions: one(Permission::CreateStreams),
                boundary: connect("default", json!({ "path": "/ok" })),
                ..credential("narrow")
            },
            Credential {
                revoked: true,
                ..credential("revoked")
            },
        ];
        let mut credentials = Credentials::default();
        let certificates = cases.map(|credential| {
            let certificate = certificate(|params| {
                params.not_after = rcgen::date_time_ymd(2028, 1, 1);
            });
            let stored = std::mem::take(&mut credentials);
            credentials = stored.with_certificate(certificate.sha256, credential.into());
            certificate
        });
        let server = certificate(|params| {
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        });
        let credentials = credentials.with_certificate(server.sha256, credential("server").into());
        let [known, reader, foreign, narrow, revoked] = certificates;
        Self {
            fake: Fake::default(),
            authority: Arc::new(authority.with_credentials(credentials)),
            known,
            reader,
            foreign,
            narrow,
            revoked,
            unknown: certificate(|_| {}),
            server,
        }
    }

    fn filter(&self, missing: Missing) -> Hooks {
        ClientCert {
            authority: Arc::clone(&self.authority),
            anchors: None,
            missing,
            clock: self.fake.env().clock.clone(),
            tokens: self.tokens(),
        }
        .hooks()
    }

    fn tokens(&self) -> TokenFilter {
        TokenFilter::new(Arc::clone(&self.authority), &self.fake.env())
    }

    /// Certificates alone.
    fn only(&self) -> Chain {
        let filter = || self.filter(Missing::Refuse);
        // The project and the tunnel may both ask for a certificate.
        let filters = vec![
            Placed::new("project/client-cert", filter()),
            Placed::new("tunnel/client-cert", filter()),
        ];
        Chain::compile(filters).unwrap()
    }

    /// A certificate or a token.
    fn either(&self) -> Chain {
        let filters = vec![
            Placed::new("tunnel/client-cert", self.filter(Missing::Next)),
            Placed::new("tunnel/token", self.tokens().hooks()),
        ];
        Chain::compile(filters).unwrap()
    }

    fn token(&self) -> String {
        self.authority.mint(&Claims::default()).unwrap()
    }
}

/// Hands shaken for the tunnel, or for another.
fn shaken(certificate: Option<&Arc<ClientCertificate>>, whose: Option<&str>) -> TlsInfo {
    TlsInfo {
        version: "TLSv1.3",
        certificate_for: whose.map(Arc::from),
        client_certificate: certificate.cloned(),
        ..TlsInfo::default()
    }
}

async fn connect(chain: &Chain, tls: Option<TlsInfo>) -> Result<Arc<Connection>, Reason> {
    let info = ConnectionInfo {
        id: 1,
        peer: SocketAddr::from(([192, 0, 2, 1], 4000)),
        transport: Transport::Tls,
        hello: None,
        tls,
    };
    let tunnel = TunnelInfo {
        id: TUNNEL.to_owned(),
        project: "default".to_owned(),
        ..TunnelInfo::default()
    };
    match chain.connect(Arc::new(info), Arc::new(tunnel)).await {
        Connected::Admitted(connection) => Ok(connection),
        Connected::Refused { refusal, .. } => Err(refusal.reason),
        other => panic!("{other:?}"),
    }
}

/// What becomes of a request: the identity's method and subject, or why it is refused.
async fn ask(
    chain: &Chain,
    connection: &Arc<Connection>,
    uri: &str,
    fields: &[(http::HeaderName, String)],
) -> Result<String, Reason> {
    let mut request = http::Request::get(format!("https://a.example{uri}"));
    for (name, value) in fields {
        request = request.header(name, value);
    }
    let (mut head, ()) = request.body(()).unwrap().into_parts();
    let mut exchange = chain.exchange(Arc::clone(connection));
    match chain.request(&mut head, &mut exchange, None).await {
        Decision::Pass { .. } => {
            let Identity {
                method, subject, ..
            } = exchange.fact::<Identity>().unwrap();
            assert!(exchange.fact::<Admitted>().is_some());
            Ok(format!("{method} {subject}"))
        }
        Decision::Refuse(refusal) => Err(refusal.reason),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_request_passes_by_the_credential_of_its_certificate() {
    // edge behaviour M2, M3, M4, M12, M14
    let bench = Bench::new();
    let passes = |who: &str| Ok(format!("mtls u-{who}"));
    let refused = Err(Reason::Mtls);
    for chain in [bench.only(), bench.either()] {
        for (certificate, path, expected) in [
            (&bench.known, "/", passes("known")),
            (&bench.reader, "/", refused.clone()),
            (&bench.foreign, "/", refused.clone()),
            (&bench.revoked, "/", refused.clone()),
            (&bench.unknown, "/", refused.clone()),
            (&bench.narrow, "/ok", passes("narrow")),
            (&bench.narrow, "/other", refused.clone()),
        ] {
            let tls = shaken(Some(certificate), Some(TUNNEL));
            let connection = connect(&chain, Some(tls)).await.unwrap();
            assert_eq!(ask(&chain, &connection, path, &[]).await, expected);
        }
        let tls = shaken(Some(&bench.server), Some(TUNNEL));
        assert_eq!(connect(&chain, Some(tls)).await.unwrap_err(), Reason::Mtls);
    }
}

#[tokio::test]
async fn a_certificate_beside_another_proof_is_ambiguous() {
    // edge behaviour M5, M6, M10, §7.1 rule 2
    let bench = Bench::new();
    let token = bench.token();
    let bearer = |token: &str| vec![(AUTHORIZATION, format!("Bearer {token}"))];
    let cookie = |value: &str| vec![(COOKIE, value.to_owned())];
    let ambiguous = Err(Reason::AmbiguousCredentials);
    let passes = Ok("mtls u-known".to_owned());
    for chain in [bench.only(), bench.either()] {
        for (uri, fields, expected) in [
            ("/", vec![], &passes),
            ("/", bearer(&token), &ambiguous),
            ("/", bearer("of-the-application"), &passes),
            ("/?rstream.token=x", vec![], &ambiguous),
            ("/?rstream.token=", vec![], &ambiguous),
            ("/?rstream.tokens=x", vec![], &passes),
            ("/", cookie("a=1; rstream_auth=x"), &ambiguous),
            ("/", cookie("rstream_auth"), &ambiguous),
            ("/", cookie("a=rstream_auth; xrstream_auth=1"), &passes),
        ] {
            let tls = shaken(Some(&bench.known), Some(TUNNEL));
            let connection = connect(&chain, Some(tls)).await.unwrap();
            let got = ask(&chain, &connection, uri, &fields).await;
            assert_eq!(&got, expected, "{uri} {fields:?}");
        }
    }
}

#[tokio::test]
async fn without_a_certificate_another_method_decides_if_there_is_one() {
    // edge behaviour M1, M8
    let bench = Bench::new();
    let none = || Some(shaken(None, Some(TUNNEL)));
    let refused = connect(&bench.only(), none()).await.unwrap_err();
    assert_eq!(refused, Reason::Mtls);
    let chain = bench.either();
    let connection = connect(&chain, none()).await.unwrap();
    let missing = ask(&chain, &connection, "/", &[]).await;
    assert_eq!(missing, Err(Reason::MissingToken));
    let bearer = [(AUTHORIZATION, format!("Bearer {}", bench.token()))];
    let with_token = ask(&chain, &connection, "/", &bearer).await;
    assert_eq!(with_token, Ok("token local".to_owned()));
}

#[tokio::test]
async fn a_reused_connection_needs_a_handshake_of_this_tunnel() {
    // edge behaviour M13
    let bench = Bench::new();
    let misdirected = Err(Reason::Misdirected);
    for (chain, bare) in [(bench.only(), misdirected), (bench.either(), Ok(()))] {
        for (tls, expected) in [
            (Some(shaken(Some(&bench.known), Some(TUNNEL))), Ok(())),
            (Some(shaken(None, None)), bare),
            (Some(shaken(None, Some("t-2"))), bare),
            (Some(shaken(Some(&bench.known), Some("t-2"))), misdirected),
            (None, misdirected),
        ] {
            let text = format!("{tls:?}");
            let got = connect(&chain, tls).await.map(|_| ());
            assert_eq!(got, expected, "{text}");
        }
    }
}

#[tokio::test]
async fn what_was_admitted_ends_with_the_certificate_and_with_its_credential() {
    let bench = Bench::new();
    let chain = bench.only();
    let tls = || Some(shaken(Some(&bench.known), Some(TUNNEL)));
    let connection = connect(&chain, tls()).await.unwrap();
    assert!(ask(&chain, &connection, "/", &[]).await.is_ok());
    bench.fake.clock.advance(Duration::from_secs(366 * 86_400));
    let late = ask(&chain, &connection, "/", &[]).await;
    assert_eq!(late, Err(Reason::Mtls), "the certificate ended");
    let bench = Bench::new();
    let chain = bench.only();
    let tls = shaken(Some(&bench.known), Some(TUNNEL));
    let connection = connect(&chain, Some(tls)).await.unwrap();
    assert!(ask(&chain, &connection, "/", &[]).await.is_ok());
    bench.authority.set_credentials(Credentials::default());
    let revoked = ask(&chain, &connection, "/", &[]).await;
    assert_eq!(revoked, Err(Reason::Mtls), "the credential was removed");
}

#[test]
fn the_handshake_requires_what_nothing_else_can_prove() {
    let bench = Bench::new();
    let judged = |chain: &Chain, certificate: &ClientCertificate| {
        let demand = chain.handshake().unwrap();
        (demand.client_auth(), demand.judge(certificate))
    };
    let (only, either) = (bench.only(), bench.either());
    for (certificate, verdict) in [
        (&bench.known, CertificateVerdict::Accepted),
        // Rights are judged in HTTP, where there are words for it.
        (&bench.reader, CertificateVerdict::Accepted),
        (&bench.unknown, CertificateVerdict::Unknown),
        (&bench.revoked, CertificateVerdict::Revoked),
        (&bench.server, CertificateVerdict::Unsuitable),
    ] {
        assert_eq!(judged(&only, certificate), (ClientAuth::Require, verdict));
        let accepted = CertificateVerdict::Accepted;
        assert_eq!(
            judged(&either, certificate),
            (ClientAuth::Request, accepted)
        );
    }
    bench.fake.clock.advance(Duration::from_secs(366 * 86_400));
    let (_, late) = judged(&only, &bench.known);
    assert_eq!(late, CertificateVerdict::Expired);
}

#[test]
fn a_bundle_of_authorities_asks_for_more_and_never_for_less() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("bundle.pem");
    let issuer = |name: &str| {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        rcgen::CertifiedIssuer::self_signed(params, key).unwrap()
    };
    let authority = issuer("ours");
    std::fs::write(&bundle, authority.pem()).unwrap();
    let signed = || {
        let params = CertificateParams::new(["client".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let der = params.signed_by(&key, &authority).unwrap();
        let der = Bytes::copy_from_slice(der.der());
        ClientCertificate {
            sha256: sha256(&der),
            chain: vec![der],
        }
    };
    let (registered, stranger) = (signed(), signed());
    let credential = Credential {
        id: "c".into(),
        ..Credential::default()
    };
    let credentials = Credentials::default()
        .with_certificate(registered.sha256, credential.clone().into())
        .with_certificate(bench.known.sha256, credential.into());
    bench.authority.set_credentials(credentials);
    let factory = ClientCertFactory::new(Arc::clone(&bench.authority));
    let section = Section::parse("engine.toml", &format!("ca = {bundle:?}")).unwrap();
    let hooks = factory.build(&section, &mut bench.fake.env()).unwrap();
    let demand = hooks.demands().unwrap();
    for (certificate, verdict) in [
        (&registered, CertificateVerdict::Accepted),
        (&stranger, CertificateVerdict::Unknown),
        (&*bench.known, CertificateVerdict::Untrusted),
    ] {
        assert_eq!(demand.judge(certificate), verdict);
    }
}
