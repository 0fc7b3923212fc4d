//! Signing in with a browser, with local accounts: each way in with the ways that stay closed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::fs;

use adit_agent::{Client, TunnelOptions};
use adit_plugins::identity::rstream_auth::{ADDRESS_TRIES_MAX, Hash, SALT_BYTES};
use adit_plugins::identity::token::Claims;
use adit_tests::account::{accounts, enter, password};
use adit_tests::browser::{Browser, Cookie};
use adit_tests::engine::{ENGINE_HOST, TestEngine};
use adit_tests::flow::Flow;

/// Fields of a request.
type Fields<'a> = [(&'a str, &'a str)];

/// An engine with local accounts `ada` and `bob`, whose passwords are their names and ` has a password`.
async fn engine(more: &str) -> (TestEngine, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("accounts.toml");
    fs::write(&path, accounts()).unwrap();
    let login = format!("[login]\naccounts = {path:?}\n");
    (TestEngine::start(&format!("{login}{more}")).await, folder)
}

fn rstream_auth() -> TunnelOptions {
    TunnelOptions::http().with(|properties| properties.rstream_auth = Some(true))
}

async fn publish(engine: &TestEngine, client: &Client) -> String {
    engine.publish(client, rstream_auth()).await
}

async fn session(browser: &mut Browser<'_>, host: &str) -> serde_json::Value {
    let url = browser.url(host, "/.well-known/rstream/session");
    let answer = browser.ask("GET", &url, &[], "").await;
    // edge behaviour H12: the service would have answered with the request's head.
    assert_eq!(answer.status, 200, "{answer:#?}");
    assert_eq!(answer.field("cache-control"), Some("no-store"));
    assert_eq!(answer.field("content-type"), Some("application/json"));
    serde_json::from_str(&answer.body).unwrap()
}

#[tokio::test]
async fn a_user_signs_in_once_for_every_tunnel_and_out_again() {
    let (engine, _folder) = engine("").await;
    let client = engine.client().await;
    let (one, other) = (
        publish(&engine, &client).await,
        publish(&engine, &client).await,
    );
    let mut browser = Browser::new(&engine);

    // edge behaviour H8
    let nobody = session(&mut browser, &one).await;
    assert_eq!(
        nobody,
        serde_json::json!({ "auth": { "authenticated": false } })
    );

    // edge behaviour §7.1: rstream, no proof; §7.6: where to.
    let asked = browser.navigate(&browser.url(&one, "/a?b=1&c=%2f")).await;
    assert_eq!(asked.status, 302);
    let begin = browser.url(ENGINE_HOST, "/rstream/auth?request=");
    assert!(asked.location().starts_with(&begin), "{asked:#?}");

    let inside = enter(&mut browser, &one, "/a?b=1&c=%20", "ada").await;
    assert_eq!(
        (inside.status, &*inside.url),
        (200, &*browser.url(&one, "/a?b=1&c=%20"))
    );
    assert!(
        inside.body.contains("x-rstream-auth-method: rstream-auth"),
        "{inside:#?}"
    );
    assert!(
        inside.body.contains("x-rstream-user-id: account:ada"),
        "{inside:#?}"
    );
    assert!(
        inside
            .body
            .contains("x-rstream-user-email: ada@example.com"),
        "{inside:#?}"
    );
    assert!(
        !inside.body.contains("rstream_"),
        "a cookie of the edge's: {inside:#?}"
    );

    // edge behaviour H9
    assert_eq!(
        session(&mut browser, &one).await,
        serde_json::json!({
            "auth": { "authenticated": true, "method": "rstream-auth" },
            "user": {
                "userId": "account:ada",
                "name": "Dr ada",
                "email": "ada@example.com",
                "image": null,
            },
            "tunnel": { "host": one, "workspaceId": "default", "projectId": "default" },
            "policies": ["rstream-auth"],
        })
    );

    // A second tunnel needs no password.
    let inside = browser.open(&browser.url(&other, "/")).await;
    assert_eq!(
        (inside.status, &*inside.url),
        (200, &*browser.url(&other, "/"))
    );

    // edge behaviour H10, H11
    let logout = browser.url(&one, "/.well-known/rstream/logout");
    let (here, there) = (browser.url(&one, ""), browser.url(&other, ""));
    for (field, value, status) in [
        ("Origin", &*there, 403),
        ("Origin", "null", 403),
        ("Origin", &*here.replace("https", "http"), 403),
        ("Referer", &*format!("{there}/x"), 403),
        ("Content-Type", "text/plain", 415),
        ("Content-Type", "application/x-www-form-urlencoded", 415),
    ] {
        let refused = browser.ask("POST", &logout, &[(field, value)], "").await;
        assert_eq!(refused.status, status, "{field}: {value}");
        assert!(refused.field("set-cookie").is_none());
    }
    for method in ["GET", "PUT", "DELETE"] {
        let refused = browser.ask(method, &logout, &[], "").await;
        assert_eq!(
            (refused.status, refused.field("allow")),
            (405, Some("POST"))
        );
    }
    assert!(browser.cookie(&one, "rstream_auth").is_some());
    let stolen = browser.jar.clone();
    let fields = [
        ("Origin", &*here),
        ("Referer", &*format!("{here}/page")),
        ("Content-Type", "application/json"),
    ];
    let out = browser.ask("POST", &logout, &fields, "{}").await;
    assert_eq!((out.status, &*out.body), (204, ""));
    assert!(browser.cookie(&one, "rstream_auth").is_none());
    // It does nothing for nobody, and says the same.
    let again = browser.ask("POST", &logout, &[], "").await;
    assert_eq!(again.status, 204);
    assert!(again.field("set-cookie").is_none());

    // A copy of the cookie is no session any more; the other tunnel's still is.
    let mut thief = Browser::new(&engine);
    thief.jar = stolen;
    assert_eq!(
        session(&mut thief, &one).await["auth"]["authenticated"],
        false
    );
    assert_eq!(
        session(&mut thief, &other).await["auth"]["authenticated"],
        true
    );

    // Back in takes a word, no password.
    let page = browser.open(&browser.url(&one, "/back")).await;
    assert!(
        page.body.contains("Continue as ada@example.com?"),
        "{page:#?}"
    );
    let form = [
        ("request", &*page.hidden("request")),
        ("csrf", &*page.hidden("csrf")),
    ];
    let inside = browser
        .send(&browser.url(ENGINE_HOST, "/rstream/auth/continue"), &form)
        .await;
    assert_eq!(
        (inside.status, &*inside.url),
        (200, &*browser.url(&one, "/back"))
    );

    // Signing out on the engine's host ends all of them, copies too.
    let page = browser
        .open(&browser.url(ENGINE_HOST, "/rstream/logout"))
        .await;
    let stolen = browser.jar.clone();
    let form = [("csrf", &*page.hidden("csrf"))];
    let out = browser
        .send(&browser.url(ENGINE_HOST, "/rstream/logout"), &form)
        .await;
    assert!(out.body.contains("You are signed out"), "{out:#?}");
    thief.jar = stolen;
    for host in [&one, &other] {
        assert_eq!(
            session(&mut thief, host).await["auth"]["authenticated"],
            false
        );
        let page = thief.open(&thief.url(host, "/")).await;
        assert!(page.body.contains("Password"), "{page:#?}");
    }
}

#[tokio::test]
async fn only_pages_are_sent_to_sign_in() {
    // edge behaviour §7.6: navigation 302, everything else 401.
    let (engine, _folder) = engine("").await;
    let client = engine.client().await;
    let host = publish(&engine, &client).await;
    let mut browser = Browser::new(&engine);
    let url = browser.url(&host, "/x");
    let upgrade = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let cases: &[(&str, &Fields<'_>, u16)] = &[
        ("GET", &[], 302),
        ("HEAD", &[], 302),
        ("GET", &[("Accept", "application/json")], 401),
        ("GET", &[("Sec-Fetch-Mode", "cors")], 401),
        ("POST", &[], 401),
        ("POST", &[("Sec-Fetch-Mode", "navigate")], 401),
        ("OPTIONS", &[], 401),
        ("GET", &upgrade, 401),
    ];
    for (method, fields, status) in cases {
        let answer = browser.ask(method, &url, fields, "").await;
        assert_eq!(answer.status, *status, "{method} {fields:?}: {answer:#?}");
    }
    // The allowed twins.
    enter(&mut browser, &host, "/x", "ada").await;
    for (method, fields, _) in cases {
        let answer = browser.ask(method, &url, fields, "").await;
        assert_eq!(answer.status, 200, "{method} {fields:?}: {answer:#?}");
    }
}

#[tokio::test]
async fn a_session_counts_at_its_own_tunnel_and_in_its_own_browser() {
    let projects =
        "[project.default]\nendpoints = ['0a1b2c3d']\n[project.other]\nendpoints = ['0a1b2c3e']\n";
    let (engine, _folder) = engine(projects).await;
    let client = engine.client().await;
    let (one, other) = (
        publish(&engine, &client).await,
        publish(&engine, &client).await,
    );
    let mut browser = Browser::new(&engine);
    enter(&mut browser, &one, "/", "ada").await;
    let cookie = |name: &str| browser.cookie(&one, name).unwrap().to_owned();
    let (session_cookie, own) = (cookie("rstream_auth"), cookie("__Host-rstream_browser"));
    let login = browser
        .cookie(ENGINE_HOST, "__Host-rstream_login")
        .unwrap()
        .to_owned();
    let mut flipped = session_cookie.clone().into_bytes();
    flipped[20] ^= 1;
    let flipped = String::from_utf8_lossy(&flipped).into_owned();
    let fresh = "AAAAAAAAAAAAAAAAAAAAAA".to_owned();
    let cases = [
        (
            &one,
            vec![
                ("rstream_auth", &session_cookie),
                ("__Host-rstream_browser", &own),
            ],
            200,
        ),
        // Replayed at another tunnel.
        (
            &other,
            vec![
                ("rstream_auth", &session_cookie),
                ("__Host-rstream_browser", &own),
            ],
            401,
        ),
        // Planted in another browser, by a page of another tunnel: that cannot set the second cookie.
        (&one, vec![("rstream_auth", &session_cookie)], 401),
        (
            &one,
            vec![
                ("rstream_auth", &session_cookie),
                ("__Host-rstream_browser", &fresh),
            ],
            401,
        ),
        // Forged.
        (
            &one,
            vec![("rstream_auth", &flipped), ("__Host-rstream_browser", &own)],
            401,
        ),
        (
            &one,
            vec![("rstream_auth", &login), ("__Host-rstream_browser", &own)],
            401,
        ),
        (
            &one,
            vec![("rstream_auth", &own), ("__Host-rstream_browser", &own)],
            401,
        ),
        // Beside a planted one the real one counts.
        (
            &one,
            vec![
                ("rstream_auth", &flipped),
                ("rstream_auth", &session_cookie),
                ("__Host-rstream_browser", &own),
            ],
            200,
        ),
        // Two of what tells browsers apart: nobody can say which.
        (
            &one,
            vec![
                ("rstream_auth", &session_cookie),
                ("__Host-rstream_browser", &own),
                ("__Host-rstream_browser", &own),
            ],
            401,
        ),
    ];
    for (host, cookies, status) in cases {
        let mut visitor = Browser::new(&engine);
        visitor.jar = cookies
            .iter()
            .map(|(name, value)| Cookie {
                host: host.clone(),
                name: (*name).to_owned(),
                value: (*value).clone(),
            })
            .collect();
        let url = visitor.url(host, "/");
        let answer = visitor.ask("POST", &url, &[], "").await;
        assert_eq!(answer.status, status, "{host} {cookies:?}");
    }
}

#[tokio::test]
async fn a_code_counts_once_at_its_tunnel_in_the_browser_that_asked() {
    let (engine, _folder) = engine("").await;
    let client = engine.client().await;
    let (one, other) = (
        publish(&engine, &client).await,
        publish(&engine, &client).await,
    );
    let mut browser = Browser::new(&engine);
    enter(&mut browser, &one, "/", "ada").await;

    // The way to the second tunnel, up to its code.
    async fn code(browser: &mut Browser<'_>, host: &str) -> String {
        let asked = browser.navigate(&browser.url(host, "/")).await;
        let sent = browser.navigate(asked.location()).await;
        sent.location().to_owned()
    }
    let callback = code(&mut browser, &other).await;
    assert!(callback.starts_with(&browser.url(&other, "/.well-known/rstream/auth/callback?code=")));
    // Login CSRF: somebody else's browser is sent there.
    let mut victim = Browser::new(&engine);
    let refused = victim.navigate(&callback).await;
    assert_eq!(refused.status, 400, "{refused:#?}");
    assert!(victim.jar.is_empty());
    // That spent it.
    assert_eq!(browser.navigate(&callback).await.status, 400);

    // At another tunnel it is worth nothing, and is spent.
    let callback = code(&mut browser, &other).await;
    let elsewhere = callback.replace(&other, &one);
    assert_eq!(browser.navigate(&elsewhere).await.status, 400);
    assert_eq!(browser.navigate(&callback).await.status, 400);

    // The allowed twin, once.
    let callback = code(&mut browser, &other).await;
    let inside = browser.navigate(&callback).await;
    assert_eq!(
        (inside.status, inside.location()),
        (303, &*browser.url(&other, "/"))
    );
    assert_eq!(browser.navigate(&callback).await.status, 400);
    // Not by another method, and none that was never given out.
    let refused = browser.ask("POST", &callback, &[], "").await;
    assert_eq!((refused.status, refused.field("allow")), (405, Some("GET")));
    for query in ["", "?code=", "?code=AAAAAAAAAAAAAAAAAAAAAA"] {
        let url = browser.url(
            &other,
            &format!("/.well-known/rstream/auth/callback{query}"),
        );
        assert_eq!(browser.navigate(&url).await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn nobody_is_sent_to_another_origin() {
    let (engine, _folder) = engine("").await;
    let client = engine.client().await;
    let host = publish(&engine, &client).await;
    for path in ["//evil.example/x", "/\\evil.example", "//evil.example%2f.."] {
        let mut browser = Browser::new(&engine);
        let asked = browser.navigate(&browser.url(&host, path)).await;
        if asked.status == 400 {
            continue; // a path that can be read in two ways
        }
        let page = browser.navigate(asked.location()).await;
        let inside = browser.sign_in(&page, "ada", &password("ada")).await;
        assert_eq!(inside.url, browser.url(&host, "/"), "{path}");
    }
    // What the engine did not make leads nowhere, and what it made is read as a whole.
    let mut browser = Browser::new(&engine);
    let asked = browser.navigate(&browser.url(&host, "/")).await;
    let made = asked
        .location()
        .split_once("request=")
        .unwrap()
        .1
        .to_owned();
    for request in [
        "https://evil.example/",
        "AAAA",
        &made[1..],
        &format!("{made}A"),
    ] {
        let url = browser.url(ENGINE_HOST, &format!("/rstream/auth?request={request}"));
        let refused = browser.navigate(&url).await;
        assert_eq!(refused.status, 400, "{request}: {refused:#?}");
        assert!(!refused.body.contains("evil"));
    }
}

#[tokio::test]
async fn forms_are_taken_from_pages_of_the_engine_alone() {
    let (engine, _folder) = engine("").await;
    let client = engine.client().await;
    let host = publish(&engine, &client).await;
    let mut browser = Browser::new(&engine);
    let page = browser.open(&browser.url(&host, "/")).await;
    for policy in [
        "frame-ancestors 'none'",
        "default-src 'none'",
        "form-action 'self'",
    ] {
        let sent = page.field("content-security-policy").unwrap();
        assert!(sent.contains(policy), "{sent}");
    }
    assert_eq!(page.field("x-frame-options"), Some("DENY"));
    assert!(page.field("access-control-allow-origin").is_none());
    let url = browser.url(ENGINE_HOST, "/rstream/auth/password");
    let own = browser.url(ENGINE_HOST, "");
    let right = format!(
        "request={}&csrf={}&name=ada&password=ada+has+a+password",
        page.hidden("request"),
        page.hidden("csrf")
    );
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let evil = ("Origin", "https://evil.example");
    let cases: &[(&Fields<'_>, String, u16)] = &[
        (&[("Content-Type", "text/plain")], right.clone(), 415),
        (&[], right.clone(), 415),
        (&[form, evil], right.clone(), 403),
        (&[form, ("Origin", "null")], right.clone(), 403),
        (
            &[form, ("Sec-Fetch-Site", "cross-site")],
            right.clone(),
            403,
        ),
        (&[form, ("Sec-Fetch-Site", "same-site")], right.clone(), 403),
        (&[form], right.replace("csrf=", "csrf=A"), 403),
        (&[form], right.replace("csrf", "csfr"), 403),
        (&[form], format!("{right}&x={}", "x".repeat(17_000)), 413),
        (
            &[form, ("Origin", &own), ("Sec-Fetch-Site", "same-origin")],
            right.clone(),
            200,
        ),
        (&[form], right.clone(), 200),
    ];
    for (fields, body, status) in cases {
        let answer = browser.ask("POST", &url, fields, body).await;
        assert_eq!(answer.status, *status, "{fields:?}: {answer:#?}");
        assert_eq!(answer.refresh().is_some(), *status == 200);
    }
    // Who has signed in is let in anew by a page that is opened, and by none that is part of another.
    let enter = browser.url(ENGINE_HOST, "/rstream/auth");
    for (mode, status) in [("navigate", 200), ("no-cors", 400), ("cors", 400)] {
        let fields: &Fields<'_> = &[("Sec-Fetch-Mode", mode)];
        let answer = browser.ask("GET", &enter, fields, "").await;
        assert_eq!(answer.status, status, "{mode}: {answer:#?}");
    }
    // Another browser's token is none.
    let mut other = Browser::new(&engine);
    other.open(&other.url(&host, "/")).await;
    let answer = other.ask("POST", &url, &[form], &right).await;
    assert_eq!(answer.status, 403);
}

#[tokio::test]
async fn wrong_passwords_are_told_alike_and_slowed_down() {
    let (engine, _folder) = engine("").await;
    let client = engine.client().await;
    let host = publish(&engine, &client).await;
    let mut browser = Browser::new(&engine);
    let page = browser.open(&browser.url(&host, "/")).await;
    let mut told = Vec::new();
    for (name, password) in [
        ("ada", "bob has a password"),
        ("nobody", "ada has a password"),
        ("ada", ""),
        ("ada", &"x".repeat(2_000)),
        (&"x".repeat(200), "x"),
    ] {
        let answer = browser.sign_in(&page, name, password).await;
        assert_eq!(answer.status, 401, "{name}: {answer:#?}");
        assert!(
            browser
                .cookie(ENGINE_HOST, "__Host-rstream_login")
                .is_none()
        );
        let (_, text) = answer.body.split_once("role=\"alert\">").unwrap();
        told.push(text.split('<').next().unwrap().to_owned());
    }
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
    // Three of those were compared; too long ones are not worth it. The right password does not count.
    let inside = browser.sign_in(&page, " ADA ", &password("ada")).await;
    assert_eq!(inside.url, browser.url(&host, "/"));
    for _ in 3..ADDRESS_TRIES_MAX {
        assert_eq!(browser.sign_in(&page, "ada", "wrong").await.status, 401);
    }
    let slowed = browser.sign_in(&page, "ada", &password("ada")).await;
    assert_eq!(
        (slowed.status, slowed.field("retry-after")),
        (429, Some("300"))
    );
}

#[tokio::test]
async fn users_enter_where_rules_name_them() {
    let rules = "[project.default]\nusers = { groups = ['adas'] }\npolicies = ['edge']\n\
                 [policy.edge]\nfilters = [{ use = 'rstream-auth', when = { path = '/secret/*' }, \
                 allow = { emails = ['nobody@example.com'] } }]\n";
    let (engine, _folder) = engine(rules).await;
    let client = engine.client().await;
    let host = publish(&engine, &client).await;
    let mut bob = Browser::new(&engine);
    let refused = enter(&mut bob, &host, "/", "bob").await;
    assert_eq!(refused.status, 403, "{refused:#?}");
    assert!(refused.body.contains("bob@example.com"), "{refused:#?}");
    assert!(bob.cookie(&host, "rstream_auth").is_none());
    // The way to sign in as another.
    let other = refused
        .body
        .split_once("class=\"button\" href=\"")
        .unwrap()
        .1;
    let other = other.split('"').next().unwrap().replace("&amp;", "&");
    let page = bob.open(&bob.url(ENGINE_HOST, &other)).await;
    let inside = bob.sign_in(&page, "ada", &password("ada")).await;
    assert_eq!((inside.status, &*inside.url), (200, &*bob.url(&host, "/")));
    // A filter's own rule tightens what the project allows.
    let secret = bob.url(&host, "/secret/1");
    let refused = bob.navigate(&secret).await;
    assert_eq!(refused.status, 403, "{refused:#?}");
    assert!(
        refused.body.contains("Sign in as somebody else"),
        "{refused:#?}"
    );
    assert!(refused.field("content-security-policy").is_some());
    assert_eq!(bob.ask("POST", &secret, &[], "").await.status, 403);
}

#[tokio::test]
async fn a_login_ends_with_its_account_and_survives_a_reload() {
    let (engine, folder) = engine("").await;
    let client = engine.client().await;
    let host = publish(&engine, &client).await;
    let mut browser = Browser::new(&engine);
    enter(&mut browser, &host, "/", "ada").await;
    let path = folder.path().join("accounts.toml");
    let login = format!("[login]\naccounts = {path:?}\n");
    let is_in = async |browser: &mut Browser<'_>| {
        session(browser, &host).await["auth"]["authenticated"] == true
    };
    engine.engine.reload().unwrap();
    assert!(is_in(&mut browser).await, "a reload ends nothing");
    // Signed out of the tunnel, a copy stays out after a reload too.
    let copy = browser.jar.clone();
    let logout = browser.url(&host, "/.well-known/rstream/logout");
    browser.ask("POST", &logout, &[], "").await;
    engine.engine.reload().unwrap();
    browser.jar = copy;
    assert!(!is_in(&mut browser).await);

    browser.jar.clear();
    enter(&mut browser, &host, "/", "ada").await;
    // A rule that no longer names the user.
    engine.rewrite(&format!("{login}allow = {{ groups = ['bobs'] }}\n"));
    engine.engine.reload().unwrap();
    assert!(!is_in(&mut browser).await);
    assert_eq!(browser.navigate(&browser.url(&host, "/")).await.status, 403);
    engine.rewrite(&login);
    engine.engine.reload().unwrap();
    assert!(is_in(&mut browser).await);
    // Another password ends what the old one began.
    let other = Hash::of("something else", [8; SALT_BYTES]);
    let old = Hash::of(&password("ada"), [7; SALT_BYTES]);
    fs::write(&path, accounts().replace(old.as_str(), other.as_str())).unwrap();
    engine.engine.reload().unwrap();
    assert!(!is_in(&mut browser).await);
    // An account file that is wrong changes nothing, and says where.
    fs::write(&path, "[account.ada]\npassword = 'x'\n").unwrap();
    let error = engine.engine.reload().unwrap_err().to_string();
    assert!(error.contains("accounts.toml:2:12"), "{error}");
    // Without a way to sign in the tunnel cannot be: it is closed.
    engine.rewrite("");
    engine.engine.reload().unwrap();
    let gone = browser.navigate(&browser.url(&host, "/")).await;
    assert!(matches!(gone.status, 404 | 503), "{gone:#?}");
}

#[tokio::test]
async fn a_tunnel_that_nobody_could_enter_is_refused() {
    // edge behaviour §3.4: a feature that is not configured.
    let engine = TestEngine::start("").await;
    let client = engine.client().await;
    let error = client.create_tunnel(rstream_auth()).await.unwrap_err();
    assert!(error.to_string().contains("rstream_auth"), "{error}");
    let page = engine.get(ENGINE_HOST, "/rstream/auth", "").await;
    assert_eq!(page.0, 404);
}

#[tokio::test]
async fn a_token_decides_before_a_session() {
    // edge behaviour §7.1: token + rstream.
    let (engine, _folder) = engine("").await;
    let client = engine.client().await;
    let options = rstream_auth().token_auth(true);
    let host = engine.publish(&client, options).await;
    let good = format!("Bearer {}", engine.token(&Claims::default()));
    let expired = format!(
        "Bearer {}",
        engine.token(&Claims {
            exp: Some(1.0),
            ..Claims::default()
        })
    );
    let mut browser = Browser::new(&engine);
    let url = browser.url(&host, "/");
    let check = async |browser: &mut Browser<'_>, bearer: &str, status: u16, method: &str| {
        let fields = [("Authorization", bearer)];
        let fields = if bearer.is_empty() { &[][..] } else { &fields };
        let answer = browser.ask("GET", &url, fields, "").await;
        assert_eq!(answer.status, status, "{bearer}");
        if status == 200 {
            let method = format!("x-rstream-auth-method: {method}\r\n");
            assert!(answer.body.contains(&method), "{answer:#?}");
        }
        let url = url.clone() + ".well-known/rstream/session";
        let told = browser.ask("GET", &url, fields, "").await.body;
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["auth"]["authenticated"], status == 200, "{told}");
        if status == 200 {
            let method = if method == "token" {
                "token-auth"
            } else {
                method
            };
            assert_eq!(told["auth"]["method"], method);
            assert_eq!(
                told["policies"],
                serde_json::json!(["token-auth", "rstream-auth"])
            );
        }
    };
    check(&mut browser, "", 302, "").await;
    check(&mut browser, &good, 200, "token").await;
    check(&mut browser, &expired, 401, "").await;
    enter(&mut browser, &host, "/", "ada").await;
    check(&mut browser, "", 200, "rstream-auth").await;
    // Bearer beside a cookie: the token alone counts, an invalid one too.
    check(&mut browser, &good, 200, "token").await;
    check(&mut browser, &expired, 401, "").await;
    // Logging out is nothing to who came with a token.
    let logout = browser.url(&host, "/.well-known/rstream/logout");
    let fields = [("Authorization", &*good)];
    let out = browser.ask("POST", &logout, &fields, "").await;
    assert_eq!((out.status, out.field("set-cookie")), (204, None));
    check(&mut browser, "", 200, "rstream-auth").await;
}

#[tokio::test]
async fn reserved_paths_reach_no_service_under_any_spelling() {
    // edge behaviour §7.6, H12
    let (engine, _folder) = engine("").await;
    let client = engine.client().await;
    let host = engine.publish(&client, TunnelOptions::http()).await;
    let mut browser = Browser::new(&engine);
    for (path, status) in [
        ("/.well-known/rstream/session", 200),
        ("/.well-known/rstream/session?x=1", 200),
        ("/.well-known/rstream/", 404),
        ("/.well-known/rstream", 404),
        ("/.well-known/rstream/other", 404),
        ("/.well-known/rstream/session/", 404),
        ("/.well-known/%72stream/session", 404),
        ("//.well-known//rstream/session", 404),
        ("/.well-known/rstream/auth/callback", 400),
    ] {
        let answer = browser.ask("GET", &browser.url(&host, path), &[], "").await;
        assert_eq!(answer.status, status, "{path}");
        assert!(!answer.body.contains("GET /"), "{path} was forwarded");
    }
    for path in [
        "/.well-known/rstreams",
        "/.well-known/acme-challenge/x",
        "/x",
    ] {
        let answer = browser.ask("GET", &browser.url(&host, path), &[], "").await;
        assert!(answer.body.contains("GET /"), "{path} was not forwarded");
    }
    let url = browser.url(&host, "/.well-known/rstream/session");
    let refused = browser.ask("POST", &url, &[], "").await;
    assert_eq!(
        (refused.status, refused.field("allow")),
        (405, Some("GET, HEAD"))
    );
    let head = browser.ask("HEAD", &url, &[], "").await;
    assert_eq!((head.status, &*head.body), (200, ""));
}

#[tokio::test]
async fn what_is_open_ends_with_the_session_that_opened_it() {
    let (engine, folder) = engine("").await;
    let client = engine.client().await;
    let host = engine.publish_service(&client, rstream_auth()).await;
    let mut ada = Browser::new(&engine);
    enter(&mut ada, &host, "/up", "ada").await;
    let mut bob = Browser::new(&engine);
    enter(&mut bob, &host, "/up", "bob").await;
    let (of_ada, of_bob) = (ada.cookies(&host), bob.cookies(&host));
    let begin = async |way, fields: &str| Flow::begin(&engine, &host, way, fields).await;
    assert_eq!(begin("h1 websocket", "").await.err(), Some(401));
    let mut flows = [
        begin("h1 websocket", &of_ada).await.unwrap(),
        begin("h2 body", &of_ada).await.unwrap(),
    ];
    let mut twin = begin("h1 websocket", &of_bob).await.unwrap();
    engine.engine.reload().unwrap();
    for flow in &mut flows {
        assert!(flow.goes_on().await);
    }
    let logout = ada.url(&host, "/.well-known/rstream/logout");
    assert_eq!(ada.ask("POST", &logout, &[], "").await.status, 204);
    for flow in &mut flows {
        flow.ends().await;
    }
    assert!(twin.goes_on().await);
    // An account that is gone has no sessions either.
    let accounts = accounts().split("[account.bob]").next().unwrap().to_owned();
    fs::write(folder.path().join("accounts.toml"), accounts).unwrap();
    engine.engine.reload().unwrap();
    twin.ends().await;
}

#[tokio::test]
async fn every_rule_is_asked_whatever_stands_before_it() {
    let rule = |more: &str| format!("{{ use = 'rstream-auth'{more} }}");
    let (staff, ops) = (
        rule(", name = 'all'"),
        rule(", name = 'ops', when = { path = '/admin/*' }, allow = { groups = ['bobs'] }"),
    );
    for filters in [format!("{staff}, {ops}"), format!("{ops}, {staff}")] {
        let rules = format!(
            "[policy.edge]\nfilters = [{filters}]\n[project.default]\npolicies = ['edge']\n"
        );
        let (engine, folder) = engine(&rules).await;
        let client = engine.client().await;
        let (host, arrived) = engine.publish_watched(&client, TunnelOptions::http()).await;
        for (name, status) in [("ada", 403), ("bob", 200)] {
            let mut browser = Browser::new(&engine);
            assert_eq!(enter(&mut browser, &host, "/", name).await.status, 200);
            let before = arrived.count();
            let admin = browser.url(&host, "/admin/1");
            assert_eq!(
                browser.navigate(&admin).await.status,
                status,
                "{name}: {filters}"
            );
            assert_eq!(browser.ask("POST", &admin, &[], "").await.status, status);
            let reached = if status == 200 { 2 } else { 0 };
            assert_eq!(arrived.count() - before, reached, "{name}: {filters}");
        }
        // What is open is held to all of them, too.
        let host = engine.publish_service(&client, TunnelOptions::http()).await;
        let mut ada = Browser::new(&engine);
        enter(&mut ada, &host, "/up", "ada").await;
        let mut flow = Flow::begin(&engine, &host, "h1 websocket", &ada.cookies(&host))
            .await
            .unwrap();
        engine.engine.reload().unwrap();
        assert!(flow.goes_on().await);
        let accounts = folder.path().join("accounts.toml");
        let everywhere = rules.replace(", when = { path = '/admin/*' }", "");
        engine.rewrite(&format!("[login]\naccounts = {accounts:?}\n{everywhere}"));
        engine.engine.reload().unwrap();
        flow.ends().await;
    }
}

#[tokio::test]
async fn a_token_spares_work_and_is_no_login() {
    // edge behaviour §7.1, the row of rstream alone, behind a challenge
    let (engine, _folder) = engine("[challenge]\nbits = 4\n").await;
    let client = engine.client().await;
    let both = rstream_auth().with(|asked| asked.challenge_mode = Some(true));
    let (host, arrived) = engine.publish_watched(&client, both).await;
    let bearer = format!(
        "Authorization: Bearer {}\r\n",
        engine.token(&Claims::default())
    );
    let (status, answer) = engine
        .get(&host, "/", &format!("{bearer}Accept: text/html\r\n"))
        .await;
    assert_eq!(status, 302);
    assert!(answer.contains("/rstream/auth?request="), "{answer}");
    let (status, _) = engine
        .get(&host, "/", &format!("{bearer}Sec-Fetch-Mode: cors\r\n"))
        .await;
    assert_eq!((status, arrived.count()), (401, 0));
}

#[tokio::test]
async fn a_tunnel_does_not_choose_another_proof_than_its_project() {
    let rules = |filter: &str| {
        format!("[policy.edge]\nfilters = [{filter}]\n[project.default]\npolicies = ['edge']\n")
    };
    let login = "{ use = 'rstream-auth', allow = { groups = ['bobs'] } }";
    let either = "{ use = 'token', missing = 'next' }, { use = 'rstream-auth' }";
    let by_token = || TunnelOptions::http().token_auth(true);
    for (filter, options, may) in [
        (login, by_token(), false),
        (login, rstream_auth(), true),
        ("{ use = 'token' }", rstream_auth(), false),
        ("{ use = 'token' }", by_token(), true),
        (either, by_token(), true),
        (either, rstream_auth(), true),
        ("{ use = 'rstream-auth', dry-run = true }", by_token(), true),
    ] {
        let (engine, _folder) = engine(&rules(filter)).await;
        let client = engine.client().await;
        let made = client.create_tunnel(options).await;
        assert_eq!(made.is_ok(), may, "{filter}");
        if let Err(error) = made {
            let text = error.to_string();
            assert!(
                text.contains("cannot go with the project's filter"),
                "{text}"
            );
        }
    }
}
