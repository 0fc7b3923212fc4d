//! Signing in at an OpenID Connect provider, one that behaves and one that does not.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::time::Duration;

use adit_agent::TunnelOptions;
use adit_tests::browser::{Answer, Browser};
use adit_tests::engine::{ENGINE_HOST, TestEngine};
use adit_tests::provider::{Provider, SUBJECT, Signing, parameter};
use serde_json::json;

async fn published(engine: &TestEngine) -> String {
    let client = Box::leak(Box::new(engine.client().await));
    let options = TunnelOptions::http().with(|properties| properties.rstream_auth = Some(true));
    engine.publish(client, options).await
}

/// Opens an address and signs in at the provider if sent there.
async fn enter(browser: &mut Browser<'_>, provider: &Provider, url: &str) -> Answer {
    let sent = browser.open(url).await;
    if sent.status != 302 {
        return sent;
    }
    let back = provider.authorize(sent.location());
    browser.open(&back).await
}

#[tokio::test]
async fn a_user_of_the_provider_enters_every_tunnel_after_signing_in_once() {
    let provider = Provider::start().await;
    let rule = "[project.default]\nusers = { groups = ['staff'] }\n";
    let engine = TestEngine::start(&format!("{}{rule}", provider.config())).await;
    let (one, other) = (published(&engine).await, published(&engine).await);
    let mut browser = Browser::new(&engine);
    let url = browser.url(&one, "/a?b=1");
    let inside = enter(&mut browser, &provider, &url).await;
    assert_eq!((inside.status, &*inside.url), (200, &*url), "{inside:#?}");
    for field in [
        format!("x-rstream-user-id: oidc:{SUBJECT}"),
        "x-rstream-user-email: ada@example.com".to_owned(),
        "x-rstream-auth-method: rstream-auth".to_owned(),
    ] {
        assert!(inside.body.contains(&field), "{inside:#?}");
    }
    let url = browser.url(&other, "/");
    let inside = enter(&mut browser, &provider, &url).await;
    assert_eq!(
        (inside.status, &*inside.url, provider.logins()),
        (200, &*url, 1)
    );
    // Somebody else is asked at the provider, too, and rules hold for whoever comes from there.
    let page = browser
        .navigate(&browser.url(ENGINE_HOST, "/rstream/auth?as=other"))
        .await;
    assert!(page.body.contains("Sign in with Test login"), "{page:#?}");
    let other = browser.url(ENGINE_HOST, "/rstream/auth/provider?as=other");
    let sent = browser.navigate(&other).await;
    assert_eq!(parameter(sent.location(), "prompt"), "login");
}

#[tokio::test]
async fn nobody_enters_on_a_word_that_cannot_be_taken() {
    let provider = Provider::start().await;
    let engine = TestEngine::start(&provider.config()).await;
    let host = published(&engine).await;
    let cases = [
        (json!({ "nonce": "another" }), Signing::Own),
        (json!({ "aud": "somebody-else" }), Signing::Own),
        (json!({ "iss": "http://127.0.0.1:1" }), Signing::Own),
        (json!({ "exp": 1_000 }), Signing::Own),
        (json!({ "iat": 99_999_999_999_u64 }), Signing::Own),
        (json!({}), Signing::None),
        (json!({}), Signing::Secret),
        (json!({}), Signing::Forged),
    ];
    for (claims, signing) in cases {
        provider.behave(|behaviour| {
            behaviour.claims = claims.clone();
            behaviour.signing = signing;
        });
        let mut browser = Browser::new(&engine);
        let url = browser.url(&host, "/");
        let refused = enter(&mut browser, &provider, &url).await;
        assert_eq!(refused.status, 400, "{claims} {signing:?}: {refused:#?}");
        assert!(refused.body.contains("Try again"), "{refused:#?}");
        assert!(
            browser
                .cookie(ENGINE_HOST, "__Host-rstream_login")
                .is_none()
        );
        assert_eq!(browser.ask("POST", &url, &[], "").await.status, 401);
    }
    // The allowed twin.
    provider.behave(|behaviour| {
        behaviour.claims = json!({});
        behaviour.signing = Signing::Own;
    });
    let mut browser = Browser::new(&engine);
    let url = browser.url(&host, "/");
    assert_eq!(enter(&mut browser, &provider, &url).await.url, url);
}

#[tokio::test]
async fn an_answer_is_worth_nothing_in_another_browser_or_twice() {
    let provider = Provider::start().await;
    let engine = TestEngine::start(&provider.config()).await;
    let host = published(&engine).await;
    let mut attacker = Browser::new(&engine);
    let sent = attacker.open(&attacker.url(&host, "/")).await;
    let back = provider.authorize(sent.location());
    // Login CSRF: the victim is sent to the attacker's answer.
    let mut victim = Browser::new(&engine);
    victim.open(&victim.url(&host, "/")).await;
    assert_eq!(victim.open(&back).await.status, 400);
    assert!(victim.cookie(ENGINE_HOST, "__Host-rstream_login").is_none());
    // Another issuer's answer.
    let mixed_up = back.replace("iss=http", "iss=https");
    assert_eq!(attacker.open(&mixed_up).await.status, 400);
    assert_eq!(attacker.open(&back).await.status, 200);
    assert_eq!(attacker.open(&back).await.status, 400, "the code is spent");
}

#[tokio::test]
async fn keys_change_while_the_engine_runs() {
    let provider = Provider::start().await;
    let engine = TestEngine::start(&provider.config()).await;
    let host = published(&engine).await;
    for kid in ["k-1", "k-2"] {
        provider.behave(|behaviour| behaviour.kid = kid.to_owned());
        let mut browser = Browser::new(&engine);
        let url = browser.url(&host, "/");
        let inside = enter(&mut browser, &provider, &url).await;
        assert_eq!(inside.url, url, "{kid}: {inside:#?}");
    }
}

#[tokio::test]
async fn a_provider_that_is_away_comes_back_by_itself() {
    let provider = Provider::start().await;
    let engine = TestEngine::start(&provider.config()).await;
    let host = published(&engine).await;
    let url = Browser::new(&engine).url(&host, "/");
    // Away altogether, then without its keys.
    for part in ["all", "keys"] {
        provider.behave(|behaviour| match part {
            "all" => behaviour.up = false,
            _ => behaviour.keys_up = false,
        });
        let mut browser = Browser::new(&engine);
        let away = enter(&mut browser, &provider, &url).await;
        assert_eq!(
            (away.status, away.field("retry-after")),
            (503, Some("10")),
            "{part}"
        );
        assert!(
            away.body.contains("Test login does not answer"),
            "{away:#?}"
        );
        assert_eq!(browser.ask("POST", &url, &[], "").await.status, 401);
        provider.behave(|behaviour| (behaviour.up, behaviour.keys_up) = (true, true));
        if part == "keys" {
            // A visitor tries again until it is in.
            let back = async {
                while enter(&mut browser, &provider, &url).await.status == 503 {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), back)
                .await
                .unwrap();
            assert_eq!(enter(&mut browser, &provider, &url).await.url, url);
        } else {
            let up = async {
                while browser.open(&url).await.status == 503 {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), up)
                .await
                .unwrap();
        }
    }
}
