#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
use std::net::SocketAddr;

use adit_filters::env::fake::Fake;
use adit_filters::{Chain, Connected, Decision, Placed, Transport};

use super::*;

struct Bench {
    fake: Fake,
    chain: Chain,
}

/// Says that everybody is who the header says.
struct Believes;
impl OnRequest for Believes {
    async fn on_request(&self, cx: &mut RequestCx<'_>) -> Result<Verdict, FilterError> {
        if let Some(who) = cx.head.headers.get("who") {
            let identity = Identity {
                subject: who.to_str().unwrap().to_owned(),
                method: "test",
                ..Identity::default()
            };
            cx.exchange.establish(identity).unwrap();
        }
        Ok(Verdict::Continue)
    }
}

impl Bench {
    fn new(table: &str) -> Self {
        let fake = Fake::default();
        let section = Section::parse("engine.toml", table).unwrap();
        let hooks = RateLimitFactory.build(&section, &mut fake.env()).unwrap();
        let believes = Hooks::new()
            .at(Stage::Identity)
            .request(Arc::new(Believes))
            .gives::<Identity>();
        let mut filters = vec![
            Placed::new("who", believes),
            Placed::new("rate-limit", hooks),
        ];
        filters.sort_by_key(|placed| placed.hooks.place());
        Self {
            chain: Chain::compile(filters).unwrap(),
            fake,
        }
    }

    /// A request by `who` from `peer` to `tunnel`: how long it must wait, if it must.
    async fn ask(&self, peer: &str, tunnel: &str, who: &str) -> Option<Duration> {
        let info = ConnectionInfo {
            id: 1,
            peer: SocketAddr::new(peer.parse().unwrap(), 4000),
            transport: Transport::Tls,
            hello: None,
            tls: None,
        };
        let tunnel = TunnelInfo {
            id: tunnel.to_owned(),
            ..TunnelInfo::default()
        };
        let refusal = match self.chain.connect(Arc::new(info), Arc::new(tunnel)).await {
            Connected::Refused { refusal, .. } => refusal,
            Connected::Close { .. } => panic!(),
            Connected::Admitted(connection) => {
                let mut exchange = self.chain.exchange(connection);
                let request = http::Request::get("https://a.example/").header("who", who);
                let mut head = request.body(()).unwrap().into_parts().0;
                match self.chain.request(&mut head, &mut exchange, None).await {
                    Decision::Refuse(refusal) => refusal,
                    _ => return None,
                }
            }
        };
        assert_eq!(refusal.reason, Reason::RateLimited);
        Some(refusal.retry_after.unwrap())
    }

    async fn passes(&self, peer: &str, tunnel: &str, who: &str) -> bool {
        self.ask(peer, tunnel, who).await.is_none()
    }
}

#[tokio::test]
async fn so_many_pass_in_a_window_and_the_next_is_told_when() {
    for table in [
        "requests = 3\nwindow = '3s'",
        "connections = 3\nwindow = '3s'",
    ] {
        let bench = Bench::new(table);
        for _ in 0..3 {
            assert!(bench.passes("192.0.2.1", "t", "u").await);
        }
        let wait = bench.ask("192.0.2.1", "t", "u").await.unwrap();
        assert!(
            wait > Duration::ZERO && wait <= Duration::from_secs(1),
            "{wait:?}"
        );
        // Whoever waits as told passes, once.
        bench.fake.clock.advance(wait);
        assert!(bench.passes("192.0.2.1", "t", "u").await);
        assert!(!bench.passes("192.0.2.1", "t", "u").await);
        bench.fake.clock.advance(Duration::from_secs(3));
        for _ in 0..3 {
            assert!(bench.passes("192.0.2.1", "t", "u").await);
        }
    }
}

#[tokio::test]
async fn a_burst_is_smaller_or_larger_than_a_window() {
    let bench = Bench::new("requests = 60\nwindow = '1m'\nburst = 2");
    assert!(bench.passes("192.0.2.1", "t", "u").await);
    assert!(bench.passes("192.0.2.1", "t", "u").await);
    assert!(!bench.passes("192.0.2.1", "t", "u").await);
    bench.fake.clock.advance(Duration::from_secs(1));
    assert!(bench.passes("192.0.2.1", "t", "u").await);
}

#[tokio::test]
async fn each_address_principal_or_tunnel_has_a_limit_of_its_own() {
    // peer, tunnel, who: the first uses the limit up; is the second counted with it?
    let cases = [
        (
            "ip",
            ("192.0.2.1", "t", "u"),
            ("192.0.2.2", "t", "u"),
            false,
        ),
        ("ip", ("192.0.2.1", "t", "u"), ("192.0.2.1", "s", "v"), true),
        (
            "ip",
            ("192.0.2.1", "t", "u"),
            ("::ffff:192.0.2.1", "t", "u"),
            true,
        ),
        (
            "ip",
            ("2001:db8::1", "t", "u"),
            ("2001:db8::ffff:2", "t", "u"),
            true,
        ),
        (
            "ip",
            ("2001:db8::1", "t", "u"),
            ("2001:db8:0:1::1", "t", "u"),
            false,
        ),
        (
            "token",
            ("192.0.2.1", "t", "u"),
            ("198.51.100.1", "s", "u"),
            true,
        ),
        (
            "token",
            ("192.0.2.1", "t", "u"),
            ("192.0.2.1", "t", "v"),
            false,
        ),
        (
            "tunnel",
            ("192.0.2.1", "t", "u"),
            ("198.51.100.1", "t", "v"),
            true,
        ),
        (
            "tunnel",
            ("192.0.2.1", "t", "u"),
            ("192.0.2.1", "s", "u"),
            false,
        ),
    ];
    for (per, one, other, together) in cases {
        let bench = Bench::new(&format!("requests = 1\nper = '{per}'"));
        assert!(bench.passes(one.0, one.1, one.2).await);
        let passes = bench.passes(other.0, other.1, other.2).await;
        assert_eq!(passes, !together, "{per} {one:?} {other:?}");
    }
}

#[test]
fn by_token_it_stands_where_the_principal_is_known_and_needs_one() {
    let section = Section::parse("engine.toml", "requests = 1\nper = 'token'").unwrap();
    let hooks = RateLimitFactory.build(&section, &mut Fake::default().env());
    let hooks = hooks.unwrap();
    assert_eq!(hooks.stage(), Stage::Capacity);
    let alone = Chain::compile(vec![Placed::new("rate-limit", hooks)]);
    assert!(
        alone
            .unwrap_err()
            .to_string()
            .contains("needs the fact `identity`")
    );
}

/// Each may come once in a tenth of a second, five at once.
fn limit(fake: &Fake) -> RateLimit {
    let quota = Quota::with_period(Duration::from_millis(100)).unwrap();
    let quota = quota.allow_burst(NonZeroU32::new(5).unwrap());
    RateLimit::new(quota, Per::Ip, fake.env().clock)
}

fn v4(address: u32) -> Whose<'static> {
    Whose::from(std::net::IpAddr::from(std::net::Ipv4Addr::from(address)))
}

const MIB: usize = 1 << 20;

#[test]
fn a_million_addresses_stay_under_64_mib_and_nobody_within_its_limit_is_refused() {
    let fake = Fake::default();
    let limit = limit(&fake);
    let (mut within, mut refused) = (0, 0);
    // A million strangers in a second, each twice: nobody is even again before all have come.
    for stranger in 0..1_000_000u32 {
        for _ in 0..2 {
            let _ = limit.count(v4(stranger | 0x8000_0000));
        }
        if stranger % 1000 == 0 {
            fake.clock.advance(Duration::from_millis(1));
        }
        // A thousand guests, each a hundred times in that second and no more often than it may.
        if stranger % 100 == 0 {
            within += 1;
            refused += u32::from(limit.count(v4(stranger / 100 % 1000)).is_err());
        }
    }
    assert_eq!((within, refused), (10_000, 0));
    let store = limit.limiter.into_state_store();
    assert!(store.bytes() < 64 * MIB, "{} bytes", store.bytes());
}

#[test]
fn who_comes_too_often_is_not_forgotten_for_strangers_nor_does_the_table_outgrow_its_bound() {
    let fake = Fake::default();
    let quota = Quota::with_period(Duration::from_secs(60)).unwrap();
    let quota = quota.allow_burst(NonZeroU32::new(10).unwrap());
    let limit = RateLimit::new(quota, Per::Ip, fake.env().clock);
    for _ in 0..10 {
        assert_eq!(limit.count(Whose::tunnel("greedy")), Ok(()));
    }
    // More than there is room for, each once, and none of them even in this time.
    for stranger in 0..2_500_000u32 {
        assert_eq!(limit.count(v4(stranger)), Ok(()));
    }
    assert!(limit.count(Whose::tunnel("greedy")).is_err());
    const { assert!(KEYS_MAX < 2_500_000 && KEYS_MAX * 16 <= 32 * MIB) };
    let store = limit.limiter.into_state_store();
    assert!(store.bytes() < 33 * MIB, "{} bytes", store.bytes());
}
