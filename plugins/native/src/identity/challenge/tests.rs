#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]
use std::sync::Arc;
use std::time::Duration;

use adit_config::Secret;
use adit_filters::TunnelInfo;
use adit_filters::env::fake::Fake;
use bytes::Bytes;
use http::{HeaderMap, Request};

use super::work::solve;
use super::*;

const HERE: &str = "192.0.2.1";
const NEAR: &str = "192.0.2.77";
const THERE: &str = "198.51.100.1";
const BITS: u8 = 8;
const LIFE: Duration = Duration::from_secs(3600);

struct Bench {
    fake: Fake,
    gate: Arc<Gate>,
}

fn gate(fake: &Fake, bits: u8, before: Option<&Gate>) -> Arc<Gate> {
    let settings = GateSettings {
        host: "edge.test".to_owned(),
        secret: Secret::new("a secret that is long enough for tests".to_owned()),
        lifetime: LIFE,
        bits,
    };
    Arc::new(Gate::new(settings, &fake.env(), before))
}

fn tunnel(host: &str, project: &str) -> TunnelInfo {
    TunnelInfo {
        hostname: Some(host.to_owned()),
        project: project.to_owned(),
        ..TunnelInfo::default()
    }
}

fn a() -> TunnelInfo {
    tunnel("a.t.edge.test", "default")
}

fn head(uri: &str) -> http::request::Parts {
    Request::get(uri).body(()).unwrap().into_parts().0
}

impl Bench {
    fn new() -> Self {
        let fake = Fake::default();
        let gate = gate(&fake, BITS, None);
        Self { fake, gate }
    }

    /// Sends a visitor to work: the sealed request.
    fn sent(&self, path: &str, peer: &str) -> String {
        let head = head(&format!("https://a.t.edge.test{path}"));
        let reply = self.gate.ask(&head, &a(), peer.parse().unwrap()).unwrap();
        assert_eq!(reply.status, 302);
        let to = reply.headers["location"].to_str().unwrap().to_owned();
        let (page, request) = to.split_once("?request=").unwrap();
        assert_eq!(page, "https://edge.test/rstream/challenge");
        request.to_owned()
    }

    /// What the page says: status, and the request and id to work for.
    fn page(&self, request: &str, peer: &str) -> (u16, String, String) {
        let uri = format!("https://edge.test{PAGE_PATH}?request={request}");
        let reply = self.gate.serve(
            &Request::get(uri).body(Bytes::new()).unwrap(),
            peer.parse().unwrap(),
        );
        let text = String::from_utf8(reply.body.to_vec()).unwrap();
        let data = |name: &str| {
            let begin = format!("data-{name}=\"");
            let rest = text.split_once(&begin).map_or("", |(_, rest)| rest);
            rest.split('"').next().unwrap().to_owned()
        };
        (reply.status.as_u16(), data("request"), data("id"))
    }

    /// Comes back with a proof: status, where it is sent, and the cookie.
    fn back(
        &self,
        request: &str,
        proof: &str,
        to: &TunnelInfo,
        peer: &str,
    ) -> (u16, String, String) {
        let host = to.hostname.as_deref().unwrap();
        let head = head(&format!(
            "https://{host}{CALLBACK_PATH}?request={request}&proof={proof}"
        ));
        let reply = self.gate.callback(&head, to, peer.parse().unwrap());
        let field = |name: &str| {
            let value = reply.headers.get(name);
            value.map_or("", |value| value.to_str().unwrap()).to_owned()
        };
        (
            reply.status.as_u16(),
            field("location"),
            field("set-cookie"),
        )
    }

    fn pass(&self) -> String {
        let request = self.sent("/", HERE);
        let (_, request, id) = self.page(&request, HERE);
        let (status, _, cookie) = self.back(&request, &solve(&id, BITS), &a(), HERE);
        assert_eq!(status, 303);
        cookie.split(';').next().unwrap().to_owned()
    }

    fn passes(&self, cookie: &str, tunnel: &TunnelInfo, peer: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert("cookie", cookie.parse().unwrap());
        self.gate.has_pass(&headers, tunnel, peer.parse().unwrap())
    }
}

#[test]
fn a_browser_works_and_comes_back_to_where_it_wanted() {
    let bench = Bench::new();
    let request = bench.sent("/a?b=1&c=%20", HERE);
    let (status, again, id) = bench.page(&request, HERE);
    assert_eq!((status, &again), (200, &request));
    let (status, to, cookie) = bench.back(&request, &solve(&id, BITS), &a(), HERE);
    assert_eq!((status, &*to), (303, "https://a.t.edge.test/a?b=1&c=%20"));
    assert!(cookie.starts_with("rstream_challenge="));
    assert!(
        cookie.ends_with("; Max-Age=3600; Path=/; Secure; HttpOnly; SameSite=Lax"),
        "{cookie}"
    );
    assert!(bench.passes(cookie.split(';').next().unwrap(), &a(), HERE));
}

#[test]
fn a_pass_counts_for_its_tunnel_its_visitor_and_its_time() {
    let bench = Bench::new();
    let pass = bench.pass();
    assert!(bench.passes(&pass, &a(), HERE));
    assert!(bench.passes(&pass, &a(), NEAR), "the same network");
    assert!(!bench.passes(&pass, &a(), THERE));
    assert!(!bench.passes(&pass, &tunnel("b.t.edge.test", "default"), HERE));
    assert!(!bench.passes(&pass, &tunnel("a.t.edge.test", "other"), HERE));
    for at in "rstream_challenge=".len()..pass.len() {
        let mut forged = pass.clone().into_bytes();
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(forged).unwrap();
        assert!(!bench.passes(&forged, &a(), HERE), "octet {at}");
    }
    bench.fake.clock.advance(LIFE - Duration::from_secs(1));
    assert!(bench.passes(&pass, &a(), HERE));
    bench.fake.clock.advance(Duration::from_secs(1));
    assert!(!bench.passes(&pass, &a(), HERE));
}

#[test]
fn a_clock_that_jumps_refuses_and_lets_in_again() {
    let bench = Bench::new();
    let early = bench.pass();
    bench.fake.clock.advance(Duration::from_secs(60));
    let late = bench.pass();
    // Another engine whose clock is behind: what comes from its future does not count, the rest does.
    let behind = Bench::new();
    assert!(behind.passes(&early, &a(), HERE));
    assert!(!behind.passes(&late, &a(), HERE));
    behind.fake.clock.advance(Duration::from_secs(60));
    assert!(behind.passes(&late, &a(), HERE));
}

#[test]
fn proofs_that_are_not_this_visitors_for_this_tunnel_now_are_refused() {
    let bench = Bench::new();
    let request = bench.sent("/", HERE);
    let (_, _, id) = bench.page(&request, HERE);
    let proof = solve(&id, BITS);
    let other = bench.sent("/", HERE);
    let cases = [
        (
            "another tunnel",
            &request,
            &proof,
            tunnel("b.t.edge.test", "default"),
            HERE,
        ),
        (
            "another project",
            &request,
            &proof,
            tunnel("a.t.edge.test", "other"),
            HERE,
        ),
        ("another visitor", &request, &proof, a(), THERE),
        ("another request", &other, &proof, a(), HERE),
        ("no proof", &request, &String::new(), a(), HERE),
        (
            "a forged request",
            &format!("{request}A"),
            &proof,
            a(),
            HERE,
        ),
    ];
    for (case, request, proof, tunnel, peer) in cases {
        let (status, _, cookie) = bench.back(request, proof, &tunnel, peer);
        assert_eq!((status, &*cookie), (403, ""), "{case}");
    }
    // None of this has used it up; the second time has.
    assert_eq!(bench.back(&request, &proof, &a(), NEAR).0, 303);
    assert_eq!(bench.back(&request, &proof, &a(), HERE).0, 403);
    // Nor does a reload make it count again.
    let reloaded = Bench {
        gate: gate(&bench.fake, BITS, Some(&bench.gate)),
        fake: Fake::default(),
    };
    assert_eq!(reloaded.back(&request, &proof, &a(), HERE).0, 403);
}

#[test]
fn a_request_has_its_time_and_its_visitor() {
    let bench = Bench::new();
    let request = bench.sent("/", HERE);
    assert_eq!(bench.page(&request, THERE).0, 400);
    assert_eq!(bench.page("nonsense", HERE).0, 400);
    assert_eq!(
        bench.page(&format!("{request}&request={request}"), HERE).0,
        400
    );
    let (_, _, id) = bench.page(&request, HERE);
    bench.fake.clock.advance(REQUEST_LIFE);
    assert_eq!(bench.page(&request, HERE).0, 400);
    assert_eq!(bench.back(&request, &solve(&id, BITS), &a(), HERE).0, 403);
}

#[test]
fn work_that_was_asked_for_before_it_became_harder_is_not_enough() {
    let bench = Bench::new();
    let request = bench.sent("/", HERE);
    let (_, _, id) = bench.page(&request, HERE);
    let harder = Bench {
        gate: gate(&bench.fake, BITS + 1, Some(&bench.gate)),
        fake: Fake::default(),
    };
    assert_eq!(harder.back(&request, &solve(&id, BITS), &a(), HERE).0, 403);
}

#[test]
fn a_challenge_for_somebody_else_counts_for_the_first_to_open_it() {
    let bench = Bench::new();
    let target = "https://a.t.edge.test/x?y=1";
    let created = bench
        .gate
        .create("a.t.edge.test", "default", target)
        .unwrap();
    assert!(created.url.ends_with(&created.id));
    let (status, own, id) = bench.page(&created.id, THERE);
    assert_eq!(status, 200);
    assert_ne!(own, created.id);
    let proof = solve(&id, BITS);
    assert_eq!(
        bench.back(&created.id, &proof, &a(), THERE).0,
        403,
        "not its own yet"
    );
    let (status, to, _) = bench.back(&own, &proof, &a(), THERE);
    assert_eq!((status, &*to), (303, target));
    for target in [
        "https://b.t.edge.test/",
        "http://a.t.edge.test/",
        "//a.t.edge.test/",
        "/x",
        "",
        &format!("https://a.t.edge.test/{}", "x".repeat(URL_BYTES_MAX)),
    ] {
        assert!(
            bench
                .gate
                .create("a.t.edge.test", "default", target)
                .is_err(),
            "{target}"
        );
    }
}

#[test]
fn a_visitor_is_sent_back_to_the_same_host_alone() {
    let bench = Bench::new();
    for path in ["//evil.test/", "/\\evil.test"] {
        let Ok(uri) = http::Uri::try_from(format!("https://a.t.edge.test{path}")) else {
            continue;
        };
        let reply = bench
            .gate
            .ask(&head(&uri.to_string()), &a(), HERE.parse().unwrap())
            .unwrap();
        let to = reply.headers["location"].to_str().unwrap().to_owned();
        let (_, request) = to.split_once("?request=").unwrap();
        let (_, request, id) = bench.page(request, HERE);
        let (_, to, _) = bench.back(&request, &solve(&id, BITS), &a(), HERE);
        assert_eq!(to, "https://a.t.edge.test/", "{path}");
    }
}

#[test]
fn the_page_loads_nothing_and_its_script_is_the_one_it_names() {
    let bench = Bench::new();
    let request = bench.sent("/", HERE);
    let uri = format!("https://edge.test{PAGE_PATH}?request={request}");
    let reply = bench.gate.serve(
        &Request::get(uri).body(Bytes::new()).unwrap(),
        HERE.parse().unwrap(),
    );
    let policy = reply.headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.starts_with("default-src 'none'; ") && policy.contains("frame-ancestors 'none'")
    );
    let text = String::from_utf8(reply.body.to_vec()).unwrap();
    let script = text
        .split_once("<script")
        .unwrap()
        .1
        .split_once('>')
        .unwrap()
        .1;
    let script = script.split_once("</script>").unwrap().0;
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, script.as_bytes());
    use base64::Engine as _;
    let hash = base64::engine::general_purpose::STANDARD.encode(hash);
    assert!(
        policy.contains(&format!("script-src 'sha256-{hash}'")),
        "{policy}"
    );
    assert!(
        !text.contains("src=") && !text.contains("onclick"),
        "{text}"
    );
    let post = Request::post("https://edge.test/")
        .body(Bytes::new())
        .unwrap();
    assert_eq!(bench.gate.serve(&post, HERE.parse().unwrap()).status, 405);
}
