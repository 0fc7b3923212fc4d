//! What judging a bearer token costs a request: `cargo run --release -p adit-plugins --example token_cost`.
//!
//! Each figure is the least of several rounds, in nanoseconds of one thread.

use std::error::Error;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use adit_config::{Secret, Section};
use adit_filters::env::fake::Fake;
use adit_filters::{Chain, Connected, ConnectionInfo, Decision, Placed, Transport, TunnelInfo};
use adit_plugins::identity::credentials::{Credentials, PublicKey};
use adit_plugins::identity::token::{Authority, Claims, Resources, TokenFilter};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

const ROUNDS: usize = 7;

fn least(count: u32, mut each: impl FnMut(u32)) -> u128 {
    let rounds = (0..ROUNDS).map(|_| {
        let begun = Instant::now();
        for n in 0..count {
            each(n);
        }
        begun.elapsed().as_nanos() / u128::from(count)
    });
    rounds.min().unwrap_or_default()
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P521_SHA512_FIXED_SIGNING)?;
    let secret = hex::encode(pair.to_pkcs8v1()?.as_ref());
    let key = PublicKey::of_secret(&secret).ok_or("no key")?;
    let text = format!(
        "[[credential]]\nid = \"app\"\npublic-key = \"{}\"\n",
        hex::encode(key.der())
    );
    let section = Section::parse("credentials.toml", &text).map_err(|_| "no section")?;
    let credentials = Credentials::read(&section, ["default"]).map_err(|_| "no credentials")?;
    let authority = Authority::new(&Secret::new("k".repeat(32)))?.with_credentials(credentials);
    let authority = Arc::new(authority);
    let now = SystemTime::now();
    let seconds = now.duration_since(UNIX_EPOCH)?.as_secs();

    let path = json!({ "params": { "path": { "regex": "^/api(/|$)" } } });
    let claims = |n: u32| Claims {
        sub: Some(format!("user-{n}")),
        resources: Some(Resources {
            tunnels: json!({ "projects": ["default"], "scopes": { "tunnels": { "connect": path } } }),
        }),
        ..Claims::default()
    };
    let token = authority.mint(&claims(0))?;
    let many: Result<Vec<String>, _> = (1..4096).map(|n| authority.mint(&claims(n))).collect();
    let many = many?;
    println!("{} bytes of token", token.len());
    let remembered = least(100_000, |_| {
        black_box(authority.verify(black_box(&token), now)).ok();
    });
    println!("remembered            {remembered:>8} ns");
    // More of them than are remembered, in turn.
    let mut turn = many.iter().cycle();
    let first = least(4096, |_| {
        if let Some(token) = turn.next() {
            black_box(authority.verify(black_box(token), now)).ok();
        }
    });
    println!("HS256, seen first     {first:>8} ns");

    let app = |n: u32| -> Result<String, Box<dyn Error>> {
        let claims = json!({ "type": "app", "clientId": "app", "jti": n.to_string(), "iat": seconds, "exp": seconds + 3600 });
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES512","typ":"JWT"}"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = pair.sign(&SystemRandom::new(), signed.as_bytes())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    };
    let apps: Result<Vec<String>, _> = (0..2000).map(app).collect();
    let apps = apps?;
    let mut turn = apps.iter().cycle();
    let first = least(2000, |_| {
        if let Some(token) = turn.next() {
            black_box(authority.verify(black_box(token), now)).ok();
        }
    });
    println!("ES512, seen first     {first:>8} ns");
    let foreign = "eyJhbGciOiJSUzI1NiJ9.e30.AAAA";
    let refused = least(100_000, |_| {
        black_box(authority.verify(black_box(foreign), now)).ok();
    });
    println!("another's, refused    {refused:>8} ns");

    let principal = authority.verify(&token, now)?;
    let again = least(100_000, |_| {
        black_box(authority.judge_again(black_box(&principal))).ok();
    });
    println!("judged again          {again:>8} ns");

    let fake = Fake::default();
    let filter = TokenFilter::new(authority.clone(), &fake.env()).hooks();
    let chain = Chain::compile(vec![Placed::new("tunnel/token", filter)])?;
    let bare = Chain::empty();
    for (name, chain) in [("chain, empty", bare), ("chain with the filter", chain)] {
        let peer: SocketAddr = "192.0.2.1:4000".parse()?;
        let connection = Arc::new(ConnectionInfo {
            id: 1,
            peer,
            transport: Transport::Tls,
            hello: None,
            tls: None,
        });
        let tunnel = Arc::new(TunnelInfo {
            project: "default".into(),
            ..TunnelInfo::default()
        });
        let Connected::Admitted(connection) = chain.connect(connection, tunnel).await else {
            return Err("not admitted".into());
        };
        let mut cost = u128::MAX;
        for _ in 0..ROUNDS {
            let mut spent = 0;
            for _ in 0..20_000 {
                let request = http::Request::get("https://a.example/api/x")
                    .header("authorization", format!("Bearer {token}"));
                let mut head = request.body(())?.into_parts().0;
                let begun = Instant::now();
                let mut exchange = chain.exchange(connection.clone());
                let decision = chain.request(&mut head, &mut exchange, None).await;
                spent += begun.elapsed().as_nanos();
                if !matches!(decision, Decision::Pass { .. }) {
                    return Err(format!("{decision:?}").into());
                }
            }
            cost = cost.min(spent / 20_000);
        }
        println!("{name:<21} {cost:>8} ns");
    }
    Ok(())
}
