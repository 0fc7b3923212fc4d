//! What policies and tunnels demand of TLS, seen by visitors: each refusal with its allowed twin.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io;
use std::sync::Arc;

use adit_agent::{Client, Error, TunnelOptions};
use adit_tests::engine::{ENGINE_HOST, TestEngine, provider};
use rustls::crypto::aws_lc_rs::{cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, NamedGroup, SupportedProtocolVersion};

fn policy(filters: &str) -> String {
    format!("[policy.edge]\nfilters = [{filters}]\n[project.default]\npolicies = [\"edge\"]\n")
}

fn visitor(
    engine: &TestEngine,
    versions: &[&'static SupportedProtocolVersion],
    narrow: impl FnOnce(&mut CryptoProvider),
) -> Arc<ClientConfig> {
    let mut narrowed = CryptoProvider::clone(&provider());
    narrow(&mut narrowed);
    let mut config = ClientConfig::builder_with_provider(narrowed.into())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(engine.roots())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

fn groups(groups: &'static [&'static dyn SupportedKxGroup]) -> impl FnOnce(&mut CryptoProvider) {
    |provider| provider.kx_groups = groups.to_vec()
}

/// The alert that ended a handshake.
fn alert(error: &io::Error) -> AlertDescription {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        _ => panic!("{error:?}"),
    }
}

/// Why the engine opens no such tunnel.
async fn refusal(client: &Client, options: TunnelOptions) -> (i32, String) {
    match client.create_tunnel(options).await {
        Err(Error::Engine(error)) => (error.code.0, error.message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn old_versions_are_refused_by_project_and_by_tunnel() {
    // edge behaviour Q8
    let engine = TestEngine::start(&policy(
        "{ use = \"tls-policy\", min-version = \"tls1.3\" }",
    ))
    .await;
    let plain = TestEngine::start("").await;
    let own = |version: &str| {
        let version = Some(version.to_owned());
        TunnelOptions::http().with(|properties| properties.tls_min_version = version)
    };
    for (engine, options, old_works) in [
        (&engine, TunnelOptions::http(), false),
        (&engine, own("tls1.3"), false),
        (&plain, TunnelOptions::http(), true),
        (&plain, own("tls1.2"), true),
        (&plain, own("tls1.3"), false),
    ] {
        let client = engine.client().await;
        let host = engine.publish(&client, options).await;
        let new = visitor(engine, &[&TLS13], |_| {});
        engine.handshake(&host, &new).await.unwrap();
        let old = visitor(engine, &[&TLS12], |_| {});
        match engine.handshake(&host, &old).await {
            Ok(_) => assert!(old_works),
            Err(error) => {
                assert!(!old_works);
                assert_eq!(alert(&error), AlertDescription::ProtocolVersion);
            }
        }
    }
}

#[tokio::test]
async fn a_tunnel_gets_its_projects_minimum_and_may_not_ask_for_less() {
    let engine = TestEngine::start(&policy(
        "{ use = \"tls-policy\", min-version = \"tls1.3\" }",
    ))
    .await;
    let client = engine.client().await;
    let tunnel = client.create_tunnel(TunnelOptions::http()).await.unwrap();
    let info = tunnel.info().unwrap();
    let minimum = info.properties().tls_min_version.as_deref();
    assert_eq!(minimum, Some("tls1.3"));
    for (options, hint) in [
        (
            TunnelOptions::http().with(|asked| asked.tls_min_version = Some("tls1.2".into())),
            "tls1.3",
        ),
        (
            TunnelOptions::http().with(|asked| asked.tls_ciphers = vec!["TLS_NULL".into()]),
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        ),
    ] {
        let refusal = refusal(&client, options).await;
        assert_eq!(refusal.0, 2000, "{refusal:?}");
        assert!(refusal.1.contains(hint), "{refusal:?}");
    }
}

#[tokio::test]
async fn only_the_suites_of_project_and_tunnel_are_agreed_on() {
    const AES128: &str = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
    const AES256: &str = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
    let allowed = format!("cipher-suites = [\"{AES128}\", \"{AES256}\"]");
    let engine =
        TestEngine::start(&policy(&format!("{{ use = \"tls-policy\", {allowed} }}"))).await;
    let client = engine.client().await;
    let options = TunnelOptions::http().with(|asked| asked.tls_ciphers = vec![AES128.into()]);
    let host = engine.publish(&client, options).await;
    let offering = |suite| {
        visitor(&engine, &[&TLS12], move |provider| {
            provider.cipher_suites = vec![suite];
        })
    };
    let good = offering(cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
    engine.handshake(&host, &good).await.unwrap();
    let bad = offering(cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384);
    let error = engine.handshake(&host, &bad).await.unwrap_err();
    assert_eq!(alert(&error), AlertDescription::HandshakeFailure);
    // TLS 1.3 is not touched by the list.
    let new = visitor(&engine, &[&TLS13], |_| {});
    engine.handshake(&host, &new).await.unwrap();
    let options = TunnelOptions::http().with(|asked| {
        asked.tls_ciphers = vec!["TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256".into()];
    });
    assert_eq!(refusal(&client, options).await.0, 2000);
}

#[tokio::test]
async fn keys_are_agreed_on_as_the_policy_wants() {
    // edge behaviour Q9
    const HYBRID: NamedGroup = NamedGroup::X25519MLKEM768;
    const CLASSIC: NamedGroup = NamedGroup::X25519;
    static BOTH: [&dyn SupportedKxGroup; 2] = [kx_group::X25519, kx_group::X25519MLKEM768];
    static NEW: [&dyn SupportedKxGroup; 1] = [kx_group::X25519MLKEM768];
    static OLD: [&dyn SupportedKxGroup; 1] = [kx_group::X25519];
    let refused = Err(AlertDescription::HandshakeFailure);
    for (wish, [both, new, old]) in [
        ("off", [Ok(CLASSIC), refused, Ok(CLASSIC)]),
        ("prefer", [Ok(HYBRID), Ok(HYBRID), Ok(CLASSIC)]),
        ("require", [Ok(HYBRID), Ok(HYBRID), refused]),
    ] {
        let filter = format!("{{ use = \"tls-policy\", post-quantum = \"{wish}\" }}");
        let engine = TestEngine::start(&policy(&filter)).await;
        let client = engine.client().await;
        let host = engine.publish(&client, TunnelOptions::http()).await;
        for (offer, expected) in [(&BOTH[..], both), (&NEW[..], new), (&OLD[..], old)] {
            let config = visitor(&engine, &[&TLS13], groups(offer));
            let agreed = match engine.handshake(&host, &config).await {
                Ok(stream) => {
                    let (_, session) = stream.get_ref();
                    Ok(session.negotiated_key_exchange_group().unwrap().name())
                }
                Err(error) => Err(alert(&error)),
            };
            assert_eq!(agreed, expected, "{wish}");
        }
        let old = visitor(&engine, &[&TLS12], |_| {});
        assert_eq!(
            engine.handshake(&host, &old).await.is_ok(),
            wish != "require"
        );
    }
}

#[tokio::test]
async fn keys_are_agreed_on_so_at_the_project_s_own_host_too() {
    // edge behaviour §5.2: the Engine API and the control channel on the project host
    static NEW: [&dyn SupportedKxGroup; 1] = [kx_group::X25519MLKEM768];
    static OLD: [&dyn SupportedKxGroup; 1] = [kx_group::X25519];
    let rules = "[policy.edge]\nfilters = [{ use = \"tls-policy\", post-quantum = \"require\", optional = true }]\n\
                 [project.shop]\nendpoints = [\"0a1b2c3d\"]\npolicies = [\"edge\"]\n";
    let off = "off = [\"edge/tls-policy\"]\n";
    let engine = TestEngine::start(rules).await;
    let own = format!("0a1b2c3d.{ENGINE_HOST}");
    let agreed = async |host: &str, offer, alpn: &[u8]| {
        let mut config = Arc::unwrap_or_clone(visitor(&engine, &[&TLS13], groups(offer)));
        config.alpn_protocols = vec![alpn.to_vec()];
        let stream = engine.handshake(host, &Arc::new(config)).await;
        stream.map(drop).map_err(|error| alert(&error))
    };
    let refused = Err(AlertDescription::HandshakeFailure);
    for alpn in [&b"h2"[..], b"rstrm/1"] {
        assert_eq!(agreed(&own, &NEW, alpn).await, Ok(()));
        assert_eq!(agreed(&own, &OLD, alpn).await, refused);
        assert_eq!(agreed(ENGINE_HOST, &OLD, alpn).await, Ok(()));
    }
    engine.rewrite(&format!("{rules}{off}"));
    engine.engine.reload().unwrap();
    assert_eq!(agreed(&own, &OLD, b"rstrm/1").await, Ok(()));
    // Whoever names no project comes to the default one.
    let both = format!("{rules}{off}[project.default]\npolicies = [\"edge\"]\n");
    engine.rewrite(&both);
    engine.engine.reload().unwrap();
    assert_eq!(agreed(ENGINE_HOST, &OLD, b"rstrm/1").await, refused);
    assert_eq!(agreed(ENGINE_HOST, &NEW, b"rstrm/1").await, Ok(()));
    assert_eq!(agreed(ENGINE_HOST, &OLD, b"h2").await, Ok(()));
    // A handshake for another name is none for the project's host.
    let config = visitor(&engine, &[&TLS13], groups(&OLD));
    for (name, status) in [(ENGINE_HOST, 421), (&own, 200)] {
        let stream = engine.handshake(name, &config).await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::get(format!("https://{own}/api/health/live"));
        let mut send = send.ready().await.unwrap();
        let (answer, _) = send.send_request(request.body(()).unwrap(), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), status, "{name}");
    }
}

#[tokio::test]
async fn a_reused_connection_that_does_not_meet_the_policy_is_sent_away() {
    // edge behaviour §8.2, R1
    let engine = TestEngine::start("").await;
    let client = engine.client().await;
    let open = engine.publish(&client, TunnelOptions::http()).await;
    let options = TunnelOptions::http().with(|asked| asked.tls_min_version = Some("tls1.3".into()));
    let (strict, arrived) = engine.publish_watched(&client, options).await;
    for (versions, status) in [(&TLS12, 421), (&TLS13, 200)] {
        let config = visitor(&engine, &[versions], |_| {});
        let stream = engine.handshake(&open, &config).await.unwrap();
        let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        for (host, status) in [(&open, 200), (&strict, status), (&open, 200)] {
            let uri = format!("https://{host}:{}/", engine.port());
            let request = http::Request::get(uri).body(()).unwrap();
            send = send.ready().await.unwrap();
            let (response, _) = send.send_request(request, true).unwrap();
            let mut response = response.await.unwrap();
            assert_eq!(response.status().as_u16(), status);
            if status == 421 {
                let body = response.body_mut().data().await.unwrap().unwrap();
                assert!(body.starts_with(b"Misdirected Request"), "{body:?}");
                assert_eq!(arrived.count(), 0);
            }
        }
    }
    assert_eq!(arrived.count(), 1);
}

/// Processor time of this process so far, visitors and engine together, in ticks of 10 ms.
fn processor_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = rest.split(' ').collect();
    let field = |at: usize| fields.get(at).unwrap().parse::<u64>().unwrap();
    field(11) + field(12)
}

/// `cargo test --release -p adit-tests --test handshake -- --ignored --nocapture`
#[tokio::test]
#[ignore = "measures, and wants the machine for itself"]
async fn a_handshake_with_demands_of_its_own_costs_what_any_other_does() {
    const ROUNDS: usize = 20;
    const HANDSHAKES: usize = 100;
    let engine = TestEngine::start("").await;
    let client = engine.client().await;
    let plain = engine.publish(&client, TunnelOptions::http()).await;
    let options = TunnelOptions::http().with(|asked| {
        asked.tls_min_version = Some("tls1.2".into());
    });
    let own = engine.publish(&client, options).await;
    let config = {
        let mut config = ClientConfig::clone(&visitor(&engine, &[&TLS13], |_| {}));
        config.resumption = rustls::client::Resumption::disabled();
        Arc::new(config)
    };
    let mut ticks = [0, 0];
    for _ in 0..ROUNDS {
        for (host, ticks) in [&plain, &own].into_iter().zip(&mut ticks) {
            let before = processor_ticks();
            for _ in 0..HANDSHAKES {
                engine.handshake(host, &config).await.unwrap();
            }
            *ticks += processor_ticks() - before;
        }
    }
    let [plain, own] = ticks.map(|ticks| ticks as f64 * 10.0 / (ROUNDS * HANDSHAKES) as f64);
    println!("ms of processor a handshake: {plain:.3} shared, {own:.3} of its own");
    assert!(own < plain * 1.1, "{own} against {plain}");
}
