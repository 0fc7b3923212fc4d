//! Client certificates of visitors, against a whole engine (edge-behaviour §14.3): each refusal with its allowed twin.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;

use adit_agent::TunnelOptions;
use adit_plugins::identity::rstream_auth::{Hash, SALT_BYTES};
use adit_plugins::identity::token::Claims;
use adit_tests::certificate::{ClientCertificate, bare, bare_of, get, visit};
use adit_tests::engine::{Arrived, TestEngine};
use adit_tests::flow::Flow;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, HandshakeKind};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// An engine with these credentials, and more settings.
async fn engine(credentials: &str, more: &str) -> TestEngine {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("credentials.toml"), credentials).unwrap();
    let more = format!("credentials = \"credentials.toml\"\n{more}");
    TestEngine::start_in(folder, &more).await
}

fn mtls() -> TunnelOptions {
    TunnelOptions::http().with(|asked| asked.mtls_auth = Some(true))
}

const CONNECT: &str = "permissions = [\"tunnels.streams.create-delete\"]";

#[tokio::test]
async fn where_only_a_certificate_counts_the_handshake_asks_for_it() {
    // M1, M2, M3, M4, M12, M14
    let known = ClientCertificate::new();
    let reader = ClientCertificate::new();
    let foreign = ClientCertificate::new();
    let narrow = ClientCertificate::new();
    let unknown = ClientCertificate::new();
    let credentials = [
        known.credential("known", CONNECT),
        reader.credential("reader", "permissions = [\"tunnels.resources.read-only\"]"),
        foreign.credential("foreign", "projects = [\"other\"]"),
        narrow.credential(
            "narrow",
            "[credential.resources.tunnels.scopes.tunnels.connect]\nparams = { path = \"/ok\" }",
        ),
    ];
    let engine = engine(
        &credentials.concat(),
        "[project.other]\nendpoints = [\"0a1b2c3d\"]\n",
    )
    .await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, mtls()).await;
    let with = |certificate: &ClientCertificate| certificate.visitor(&engine, "http/1.1");
    for (config, path, expected) in [
        (
            bare(&engine, "http/1.1"),
            "/",
            Err(AlertDescription::CertificateRequired),
        ),
        (
            with(&unknown),
            "/",
            Err(AlertDescription::CertificateUnknown),
        ),
        (with(&reader), "/", Ok(403)),
        (with(&foreign), "/", Ok(403)),
        (with(&narrow), "/other", Ok(403)),
    ] {
        assert_eq!(visit(&engine, &host, &config, path, "").await, expected);
    }
    assert_eq!(arrived.count(), 0);
    assert_eq!(visit(&engine, &host, &with(&known), "/", "").await, Ok(200));
    let head = arrived.last().unwrap();
    assert!(head.contains("x-rstream-auth-method: mtls"), "{head}");
    assert_eq!(
        visit(&engine, &host, &with(&narrow), "/ok", "").await,
        Ok(200)
    );
    // TLS 1.2 has words of its own.
    for (certificate, expected) in [
        (None, Err(AlertDescription::HandshakeFailure)),
        (Some(&unknown), Err(AlertDescription::CertificateUnknown)),
        (Some(&known), Ok(200)),
    ] {
        let config = match certificate {
            Some(certificate) => certificate.visitor_of(&engine, "http/1.1", &[&TLS12]),
            None => bare_of(&engine, "http/1.1", &[&TLS12]),
        };
        assert_eq!(visit(&engine, &host, &config, "/", "").await, expected);
    }
    // A tunnel that asks for nothing does not ask for a certificate either.
    let open = engine.publish(&client, TunnelOptions::http()).await;
    let both = with(&unknown);
    assert_eq!(visit(&engine, &open, &both, "/", "").await, Ok(200));
}

#[tokio::test]
async fn a_certificate_beside_another_proof_is_refused() {
    // M5, M6; §7.1 rule 2
    let known = ClientCertificate::new();
    let engine = engine(&known.credential("known", ""), "").await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, mtls()).await;
    let config = known.visitor(&engine, "http/1.1");
    let bearer = format!(
        "Authorization: Bearer {}\r\n",
        engine.token(&Claims::default())
    );
    for (path, fields) in [
        ("/", bearer.as_str()),
        ("/", "Cookie: rstream_auth=x\r\n"),
        ("/?rstream.token=x", ""),
    ] {
        let status = visit(&engine, &host, &config, path, fields).await;
        assert_eq!(status, Ok(400), "{path} {fields}");
    }
    assert_eq!(arrived.count(), 0);
    let own = "Authorization: Bearer of-the-application\r\nCookie: a=1\r\n";
    assert_eq!(visit(&engine, &host, &config, "/", own).await, Ok(200));
    let head = arrived.last().unwrap();
    assert!(head.contains("of-the-application"), "{head}");
}

#[tokio::test]
async fn with_other_methods_a_certificate_is_one_way_in() {
    // M7, M8, M9, M10, and the rows of §7.1
    let known = ClientCertificate::new();
    let unknown = ClientCertificate::new();
    let folder = tempfile::tempdir().unwrap();
    let accounts = folder.path().join("accounts.toml");
    let hash = Hash::of("a password", [7; SALT_BYTES]);
    let account = format!("[account.ada]\npassword = '{}'\n", hash.as_str());
    fs::write(&accounts, account).unwrap();
    let login = format!("[login]\naccounts = {accounts:?}\n");
    let engine = engine(&known.credential("known", ""), &login).await;
    let client = engine.client().await;
    let bearer = format!(
        "Authorization: Bearer {}\r\n",
        engine.token(&Claims::default())
    );
    let session = "Cookie: rstream_auth=x\r\n";
    let (none, with, stranger) = (
        bare(&engine, "http/1.1"),
        known.visitor(&engine, "http/1.1"),
        unknown.visitor(&engine, "http/1.1"),
    );
    let signing_in = |options: TunnelOptions| options.with(|asked| asked.rstream_auth = Some(true));
    for (options, [missing, token, cookie]) in [
        (mtls().token_auth(true), [401, 200, 401]),
        (signing_in(mtls()), [302, 302, 302]),
        (signing_in(mtls().token_auth(true)), [302, 200, 302]),
    ] {
        let (host, arrived) = engine.publish_watched(&client, options).await;
        for (config, fields, status) in [
            (&none, "", missing),
            (&none, &*bearer, token),
            (&none, session, cookie),
            (&with, "", 200),
            (&with, &*bearer, 400),
            (&with, session, 400),
            (&stranger, "", 403),
            // Never a fall-through to another proof.
            (&stranger, &*bearer, 400),
            (&stranger, session, 400),
        ] {
            let before = arrived.count();
            let navigation = format!("{fields}Accept: text/html\r\n");
            let got = visit(&engine, &host, config, "/", &navigation).await;
            assert_eq!(got, Ok(status), "{fields}");
            assert_eq!(arrived.count() - before, usize::from(status == 200));
        }
    }
}

/// Asks for each of these hosts on one HTTP/2 connection.
async fn over_one_connection(
    engine: &TestEngine,
    stream: TlsStream<TcpStream>,
    cases: &[(&str, u16)],
) {
    let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    for (host, status) in cases {
        let uri = format!("https://{host}:{}/", engine.port());
        let request = http::Request::get(uri).body(()).unwrap();
        send = send.ready().await.unwrap();
        let (response, _) = send.send_request(request, true).unwrap();
        let mut response = response.await.unwrap();
        assert_eq!(response.status().as_u16(), *status, "{host}");
        if *status == 421 {
            let body = response.body_mut().data().await.unwrap().unwrap();
            assert!(body.starts_with(b"Misdirected Request"), "{body:?}");
        }
    }
}

#[tokio::test]
async fn a_reused_connection_reaches_no_tunnel_that_did_not_ask_for_its_certificate() {
    // M13
    let known = ClientCertificate::new();
    let engine = engine(&known.credential("known", ""), "").await;
    let client = engine.client().await;
    let open = engine.publish(&client, TunnelOptions::http()).await;
    let (one, at_one) = engine.publish_watched(&client, mtls()).await;
    let (other, at_other) = engine.publish_watched(&client, mtls()).await;
    let config = known.visitor(&engine, "h2");
    let stream = engine.handshake(&open, &config).await.unwrap();
    over_one_connection(&engine, stream, &[(&open, 200), (&one, 421), (&open, 200)]).await;
    let seen = |arrived: &Arrived| arrived.count();
    assert_eq!((seen(&at_one), seen(&at_other)), (0, 0));
    let stream = engine.handshake(&one, &config).await.unwrap();
    let cases = [(&*one, 200), (&*other, 421), (&*open, 200), (&*one, 200)];
    over_one_connection(&engine, stream, &cases).await;
    assert_eq!((seen(&at_one), seen(&at_other)), (2, 0));
}

#[tokio::test]
async fn a_resumed_session_does_not_outlive_its_credential() {
    // §7.4, resumption
    let (known, spare) = (ClientCertificate::new(), ClientCertificate::new());
    let kept = spare.credential("spare", "");
    let engine = engine(&format!("{kept}{}", known.credential("known", "")), "").await;
    let client = engine.client().await;
    let (host, arrived) = engine.publish_watched(&client, mtls()).await;
    for versions in [&[&TLS13], &[&TLS12]] {
        fs::write(
            engine.folder.path().join("credentials.toml"),
            format!("{kept}{}", known.credential("known", "")),
        )
        .unwrap();
        engine.engine.reload().unwrap();
        let before = arrived.count();
        let config = known.visitor_of(&engine, "http/1.1", versions);
        let mut first = engine.handshake(&host, &config).await.unwrap();
        assert_eq!(get(&mut first, &host, "/", "").await.unwrap().0, 200);
        let mut resumed = engine.handshake(&host, &config).await.unwrap();
        let kind = resumed.get_ref().1.handshake_kind();
        assert_eq!(kind, Some(HandshakeKind::Resumed));
        assert_eq!(get(&mut resumed, &host, "/", "").await.unwrap().0, 200);
        assert_eq!(arrived.count(), before + 2);

        fs::write(engine.folder.path().join("credentials.toml"), &kept).unwrap();
        engine.engine.reload().unwrap();
        // What is open stays so and gets nothing more.
        assert_eq!(get(&mut resumed, &host, "/", "").await.unwrap().0, 403);
        // What the client has kept resumes nothing.
        let late = visit(&engine, &host, &config, "/", "").await;
        assert_eq!(late, Err(AlertDescription::CertificateUnknown));
        assert_eq!(arrived.count(), before + 2);
        drop(first);
    }
}

#[tokio::test]
async fn a_credential_has_two_certificates_while_one_replaces_the_other() {
    let (old, new) = (ClientCertificate::new(), ClientCertificate::new());
    let hash = |certificate: &ClientCertificate| {
        let table = certificate.credential("", "");
        table.split('"').nth(3).unwrap().to_owned()
    };
    let both = format!(
        "[[credential]]\nid = \"c\"\ncertificate-sha256 = [\"{}\", \"{}\"]\n",
        hash(&old),
        hash(&new)
    );
    let engine = engine(&both, "").await;
    let client = engine.client().await;
    let host = engine.publish(&client, mtls()).await;
    for certificate in [&old, &new] {
        let config = certificate.visitor(&engine, "http/1.1");
        assert_eq!(visit(&engine, &host, &config, "/", "").await, Ok(200));
    }
    let renewed = new.credential("c", "");
    fs::write(engine.folder.path().join("credentials.toml"), renewed).unwrap();
    engine.engine.reload().unwrap();
    let config = old.visitor(&engine, "http/1.1");
    let gone = visit(&engine, &host, &config, "/", "").await;
    assert_eq!(gone, Err(AlertDescription::CertificateUnknown));
    let config = new.visitor(&engine, "http/1.1");
    assert_eq!(visit(&engine, &host, &config, "/", "").await, Ok(200));
}

#[tokio::test]
async fn a_tunnels_certificates_do_not_stand_in_for_what_the_project_asks_for() {
    let policy = |filters: &str| {
        format!("[policy.edge]\nfilters = [{filters}]\n[project.default]\npolicies = [\"edge\"]\n")
    };
    for (filters, fits) in [
        ("{ use = \"token\" }", false),
        ("{ use = \"client-cert\" }", true),
        (
            "{ use = \"client-cert\", missing = \"next\" }, { use = \"token\" }",
            true,
        ),
    ] {
        let engine = TestEngine::start(&policy(filters)).await;
        let client = engine.client().await;
        match client.create_tunnel(mtls()).await {
            Ok(_) => assert!(fits, "{filters}"),
            Err(adit_agent::Error::Engine(error)) => {
                assert!(!fits, "{filters}: {}", error.message);
                assert_eq!(error.code.0, 2000);
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn what_a_certificate_let_in_ends_when_it_is_taken_back() {
    let (kept, revoked) = (ClientCertificate::new(), ClientCertificate::new());
    let credentials = |more: &str| {
        let more = format!("{CONNECT}\n{more}");
        [
            kept.credential("kept", CONNECT),
            revoked.credential("revoked", &more),
        ]
        .concat()
    };
    let engine = engine(&credentials(""), "").await;
    let client = engine.client().await;
    let host = engine.publish_service(&client, mtls()).await;
    let mut flows = Vec::new();
    for certificate in [&kept, &revoked] {
        let config = certificate.visitor(&engine, "http/1.1");
        let stream = engine.handshake(&host, &config).await.unwrap();
        flows.push(Flow::websocket_on(stream, &host, "").await.unwrap());
    }
    engine.engine.reload().unwrap();
    for flow in &mut flows {
        assert!(flow.goes_on().await);
    }
    let file = engine.folder.path().join("credentials.toml");
    fs::write(file, credentials("revoked = true")).unwrap();
    engine.engine.reload().unwrap();
    let [of_kept, of_revoked] = &mut *flows else {
        panic!()
    };
    of_revoked.ends().await;
    assert!(of_kept.goes_on().await);
}
