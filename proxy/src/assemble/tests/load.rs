//! What keeps a configuration from being loaded, and what a reload ends.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[test]
fn every_problem_of_every_policy_is_reported_with_its_position() {
    let problems = build(
        "[policy.unused]\nfilters = [\n\
         { use = 'trusted-ips', allow = ['10.0.0.0/8', 'here'] },\n\
         { use = 'geopi' },\n\
         { use = 'token', when = { path = '/adm*' } },\n\
         ]\n\
         [policy.edge]\nfilters = [{ use = 'websocket', orgins = [] }]\n\
         [project.default]\npolicies = ['edge']\n",
    )
    .err()
    .unwrap();
    let expected = [
        "engine.toml:9:47: policy.unused.filters.0.allow.1: `here` is not an address or network",
        "engine.toml:10:9: policy.unused.filters.1.use: unknown filter `geopi`, use one of `trusted-ips`, ",
        "engine.toml:11:34: policy.unused.filters.2.when.path: in path pattern `/adm*`, `*` must stand for a whole segment",
        "engine.toml:14:33: policy.edge.filters.0.orgins: unknown key `orgins`, did you mean `origins`?",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.starts_with(expected), "{problem}\n{expected}");
    }
}

#[test]
fn filters_that_do_not_work_together_are_refused_at_load() {
    let project = "[project.default]\npolicies = ['p']\n";
    let policy = |filters: &str| format!("[policy.p]\nfilters = [\n{filters}\n]\n{project}");
    let cases = [
        ("{ use = 'needs-identity' },\n{ use = 'token' },", None),
        (
            "{ use = 'needs-identity' },",
            Some(
                "engine.toml:9:1: policy.p.filters.0: `p/needs-identity` needs the fact `identity`, which no filter gives",
            ),
        ),
        (
            "{ use = 'token', when = { path = '/a/*' } },\n{ use = 'needs-identity' },",
            Some(
                "engine.toml:10:1: policy.p.filters.1: `p/needs-identity` needs the fact `identity`, which `p/token` at engine.toml:9:1 gives too late",
            ),
        ),
        (
            "{ use = 'trusted-ips', allow = ['10.0.0.0/8'], when = { path = '/a/*' } },",
            Some("engine.toml:9:1: policy.p.filters.0: `p/trusted-ips` decides about connections"),
        ),
    ];
    for (filters, expected) in cases {
        // Two projects share the policy: the problem is told once.
        let text = format!("{}[project.other]\npolicies = ['p']\n", policy(filters));
        match (build(&text), expected) {
            (Ok(_), None) => {}
            (Err(problems), Some(expected)) => {
                assert!(
                    matches!(&problems[..], [only] if only.starts_with(expected)),
                    "{problems:#?}"
                );
            }
            (Ok(_), Some(expected)) => panic!("{expected}"),
            (Err(problems), None) => panic!("{problems:?}"),
        }
    }
}

#[test]
fn a_chain_that_a_tunnel_makes_too_long_is_refused() {
    let filters = "{ use = 'token', name = 'NAME' },\n";
    let many = |count: usize| {
        let list: String = (0..count)
            .map(|n| filters.replace("NAME", &format!("t{n}")))
            .collect();
        build(&format!(
            "[policy.p]\nfilters = [\n{list}]\n[project.default]\npolicies = ['p']\nupgrades = []\n"
        ))
    };
    assert!(
        many(200).is_err(),
        "no room for what answers on reserved paths"
    );
    let policies = many(199).unwrap();
    assert_eq!(
        policies.chain(&tunnel("default"), &http()).unwrap().len(),
        200
    );
    let asked = Effective {
        token_auth: true,
        ..http()
    };
    assert!(
        chain(&policies, &asked).starts_with("7000: the tunnel's filters do not work together")
    );
}

/// A job that runs until it is cancelled.
struct Works;
static RUNNING: AtomicUsize = AtomicUsize::new(0);
struct Running;
impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::AcqRel);
    }
}
impl Filter for Works {
    const NAME: &'static str = "works";
    type Config = Nothing;
    fn new(_: Nothing, env: &mut Env) -> Result<Self, ConfigError> {
        RUNNING.fetch_add(1, Ordering::AcqRel);
        let running = Running;
        let held = env.clone();
        let job = Box::pin(async move {
            let _running = (running, held);
            std::future::pending::<()>().await;
        });
        env.jobs.spawn("works", job).map_err(|error| ConfigError {
            key: None,
            message: error.to_string(),
        })?;
        Ok(Self)
    }
    fn hooks(self: Arc<Self>) -> Hooks {
        Hooks::new()
    }
}

#[tokio::test]
async fn a_reload_ends_the_jobs_of_what_it_replaces() {
    let world = World::new(
        &prometheus::Registry::new(),
        tokio::runtime::Handle::current(),
    )
    .unwrap();
    let registry = registry().with::<Works>();
    let text = "[policy.p]\nfilters = [{ use = 'works' }]\n[project.default]\npolicies = ['p']\n";
    let before = Policies::build(&config(text), &registry, world.load(), Arc::default()).unwrap();
    let chain = before.chain(&tunnel("default"), &http()).unwrap();
    let _after = Policies::build(&config(text), &registry, world.load(), Arc::default()).unwrap();
    tokio::task::yield_now().await;
    assert_eq!(RUNNING.load(Ordering::Acquire), 2);
    drop(before);
    while RUNNING.load(Ordering::Acquire) > 1 {
        tokio::task::yield_now().await;
    }
    assert!(
        chain.rows().any(|row| &*row.name == "p/works"),
        "exchanges under way keep their chain"
    );
    // A load that fails leaves no job behind either, though one keeps its environment.
    let broken = text.replace("'works' }", "'works' }, { use = 'nonsense' }");
    assert!(Policies::build(&config(&broken), &registry, world.load(), Arc::default()).is_err());
    while RUNNING.load(Ordering::Acquire) > 1 {
        tokio::task::yield_now().await;
    }
}
