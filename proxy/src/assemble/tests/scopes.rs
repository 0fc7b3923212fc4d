//! Policies for some tunnels of a project, and filters on trial.

use super::*;

fn names(policies: &Policies, tunnel: &TunnelInfo) -> String {
    let chain = policies.chain(tunnel, &http()).unwrap();
    let names = chain.rows().map(|row| row.name.to_string());
    let names = names.filter(|name| name != "engine/well-known");
    names.collect::<Vec<_>>().join(" ")
}

fn named(name: Option<&str>, host: &str, labels: &[(&str, &str)]) -> TunnelInfo {
    let own = |text: &str| text.to_owned();
    TunnelInfo {
        name: name.map(own),
        hostname: Some(own(host)),
        labels: labels.iter().map(|(k, v)| (own(k), own(v))).collect(),
        ..tunnel("default")
    }
}

#[test]
fn a_scope_adds_its_policies_where_every_criterion_matches() {
    let text = |criteria: &str| {
        format!(
            "[policy.edge]\nfilters = [{{ use = 'needs-identity', name = 'last' }}, {{ use = 'token' }}]\n\
             [policy.shop]\nfilters = [{{ use = 'trusted-ips', allow = ['10.0.0.0/8'] }}, {{ use = 'token' }}]\n\
             [project.default]\npolicies = ['edge']\nupgrades = []\n\
             tunnels = [{{ match = {criteria}, policies = ['shop'] }}]\n"
        )
    };
    let shop = named(Some("shop-1"), "shop.t.e.example", &[("tier", "public")]);
    let blog = named(Some("blog"), "blog.t.e.example", &[("tier", "inner")]);
    let bare = named(None, "x.t.e.example", &[]);
    let inside = "shop/trusted-ips edge/token shop/token edge/last";
    let outside = "edge/token edge/last";
    for (criteria, expected) in [
        ("{ name = 'shop-*' }", [inside, outside, outside]),
        ("{ host = 'SHOP.t.*' }", [inside, outside, outside]),
        (
            "{ label = { tier = 'public' } }",
            [inside, outside, outside],
        ),
        ("{ label = { tier = '*' } }", [inside, inside, outside]),
        ("{ name = 'shop-*', host = 'blog.*' }", [outside; 3]),
        (
            "{ name = '*', label = { tier = 'inner' } }",
            [outside, inside, outside],
        ),
        ("{ host = '*' }", [inside; 3]),
    ] {
        let policies = build(&text(criteria)).unwrap();
        let found = [&shop, &blog, &bare].map(|tunnel| names(&policies, tunnel));
        assert_eq!(found, expected, "{criteria}");
    }
    // Where it comes from is told.
    let policies = build(&text("{ name = 'shop-*' }")).unwrap();
    let explained = explain(&policies.chain(&shop, &http()).unwrap());
    let row = explained.lines().nth(1).unwrap();
    assert!(
        row.ends_with("engine.toml:10:12, for the tunnels at engine.toml:14:12"),
        "{explained}"
    );
}

#[test]
fn a_policy_of_two_scopes_stands_once_and_is_off_only_where_both_agree() {
    let text = |off: &str| {
        format!(
            "[policy.shop]\nfilters = [{{ use = 'token', optional = true }}]\n\
             [project.default]\nupgrades = []\ntunnels = [\n\
             {{ match = {{ name = 'a*' }}, policies = ['shop'], off = ['shop/token'] }},\n\
             {{ match = {{ name = '*b' }}, policies = ['shop'], off = [{off}] }},\n]\n"
        )
    };
    for (off, expected) in [
        ("", ["", "shop/token", "shop/token"]),
        ("'shop/token'", ["", "", ""]),
    ] {
        let policies = build(&text(off)).unwrap();
        let found = ["a", "b", "ab"].map(|name| {
            let tunnel = named(Some(name), "x.t.e.example", &[]);
            names(&policies, &tunnel)
        });
        assert_eq!(found, expected, "{off}");
    }
}

#[test]
fn a_scope_speaks_about_upgrades_for_its_tunnels_alone() {
    let policies = build(
        "[policy.shop]\nfilters = [{ use = 'websocket', origins = ['self'] }]\n\
         [project.default]\ntunnels = [{ match = { name = 'shop' }, policies = ['shop'] }]\n",
    )
    .unwrap();
    let shop = named(Some("shop"), "x.t.e.example", &[]);
    assert_eq!(names(&policies, &shop), "shop/websocket project/upgrade");
    assert_eq!(
        names(&policies, &tunnel("default")),
        "project/websocket project/upgrade"
    );
}

#[test]
fn filters_that_do_not_work_together_in_a_scope_are_refused_at_load() {
    let problems = build(
        "[policy.edge]\nfilters = [{ use = 'token' }]\n\
         [policy.shop]\nfilters = [{ use = 'needs-identity' }]\n\
         [project.default]\ntunnels = [\n\
         { match = { name = 'a' }, policies = ['shop', 'edge'] },\n\
         { match = { name = 'b' }, policies = ['shop'] },\n]\n",
    )
    .err()
    .unwrap();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(
        problems[0].starts_with(
            "engine.toml:10:12: policy.shop.filters.0: `shop/needs-identity` needs the fact `identity`"
        ),
        "{problems:#?}"
    );
}

// What is on trial must not change what a tunnel may be or get.
#[test]
fn a_filter_on_trial_stands_in_nobodys_way() {
    let policies = |filter: &str| {
        build(&format!(
            "[policy.p]\nfilters = [{{ {filter} }}]\n[project.default]\npolicies = ['p']\n"
        ))
        .unwrap()
    };
    let raw = Effective {
        protocol: None,
        ..http()
    };
    for (filter, asked, enforced, on_trial) in [
        (
            "use = 'token'",
            raw,
            "1000: the project's filter `p/token` judges HTTP requests, so the tunnel must be one of HTTP",
            "p/token",
        ),
        (
            "use = 'websocket', origins = ['self']",
            http(),
            "p/websocket project/upgrade",
            "p/websocket project/websocket project/upgrade",
        ),
        (
            "use = 'trusted-ips', allow = ['10.0.0.0/8']",
            trusting(&["192.0.2.0/24"]),
            "2000: `trusted_ips` has no address in common with those the project trusts",
            "p/trusted-ips tunnel/trusted-ips project/websocket project/upgrade",
        ),
    ] {
        assert_eq!(chain(&policies(filter), &asked), enforced);
        let dry = format!("{filter}, dry-run = true");
        assert_eq!(chain(&policies(&dry), &asked), on_trial);
    }
    let policies = policies("use = 'token', optional = true, dry-run = true, on-error = 'pass'");
    let explained = explain(&policies.chain(&tunnel("default"), &http()).unwrap());
    assert!(
        explained.contains("p/token (optional) (on-error pass) (dry-run)"),
        "{explained}"
    );
}
