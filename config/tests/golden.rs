//! Whole configurations: what they become, or every problem they have.
//!
//! Each `tests/invalid/NAME.toml` has the problems it must report in `NAME.expected`. A line
//! `#env NAME=value` sets a variable for the file it is in. Running the tests with the variable
//! `UPDATE_EXPECTED` set writes the expected files anew: read the difference before keeping it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_config::{
    Config, FilterRef, Invalid, LogLevel, OnError, Problem, PublicAccess, UpgradeKind,
};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests")
        .join(name)
}

fn parse(path: &Path) -> Result<Config, Invalid> {
    let text = std::fs::read_to_string(path).unwrap();
    let environment: Vec<(String, String)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("#env ")?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let name = path.file_name().unwrap().to_str().unwrap();
    Config::parse(name, &text, environment)
}

#[test]
fn every_invalid_file_reports_all_its_problems() {
    let mut checked = 0;
    for entry in std::fs::read_dir(folder("invalid")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let invalid = parse(&path).expect_err(&path.display().to_string());
        let shown: String = invalid
            .problems()
            .iter()
            .map(|problem| format!("{problem}\n"))
            .collect();
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(path.with_extension("expected"), &shown).unwrap();
        }
        let expected = std::fs::read_to_string(path.with_extension("expected")).unwrap_or_default();
        assert_eq!(shown, expected, "{}", path.display());
        checked += 1;
    }
    assert!(checked >= 10, "the files were not found");
}

#[test]
fn an_engine_without_a_secret_or_with_public_metrics_does_not_start() {
    // edge-behaviour §14.7 X11, X16
    let text = |auth: &str, token: &str| {
        format!(
            "[engine]\nhost = 'e.example'\n[certificates]\nfiles = {{ cert = 'c', key = 'k' }}\n[auth]\n{auth}\n\
             [listen]\nmetrics = '0.0.0.0:9090'\n{token}\n"
        )
    };
    let secret = "jwt-secret = { env = 'S' }";
    let token = "metrics-token = { env = 'S' }";
    for (auth, metrics, wrong) in [
        (secret, token, None),
        ("", token, Some("auth.jwt-secret")),
        (secret, "", Some("listen.metrics")),
    ] {
        let value = "0123456789abcdef0123456789abcdef".to_owned();
        let read = Config::parse(
            "engine.toml",
            &text(auth, metrics),
            [("S".to_owned(), value)],
        );
        let keys = read.err().map(|invalid| {
            let problems = invalid.problems().iter();
            problems.map(|problem| problem.key().to_owned()).collect()
        });
        assert_eq!(keys, wrong.map(|key| vec![key.to_owned()]));
    }
}

#[test]
fn five_mistakes_have_five_positions() {
    let invalid = parse(&folder("invalid").join("five-mistakes.toml")).unwrap_err();
    let positions: Vec<_> = invalid
        .problems()
        .iter()
        .filter_map(Problem::position)
        .collect();
    assert_eq!(positions, [(3, 8), (4, 1), (7, 9), (16, 9), (19, 13)]);
}

#[test]
fn the_smallest_configuration_gets_every_default() {
    let config = parse(&folder("valid").join("smallest.toml")).unwrap();
    assert_eq!(config.engine.host, "edge.example.com");
    assert_eq!(config.engine.log_level, LogLevel::Info);
    assert_eq!(config.listen.https, "[::]:443".parse().unwrap());
    assert_eq!(config.listen.http, None);
    assert_eq!(config.admin.socket, None);
    assert_eq!(config.timeouts.stream_request, Duration::from_secs(30));
    assert_eq!(config.timeouts.http_idle, Duration::from_secs(90));
    assert_eq!(config.limits.header_bytes, 32 << 10);
    assert_eq!(config.limits.header_fields, 128);
    assert_eq!(config.limits.pending_opens_per_agent, 48);
    let project = config.project("default").unwrap();
    assert_eq!(
        project.upgrades,
        [UpgradeKind::Websocket, UpgradeKind::Other]
    );
    assert_eq!(project.public_access, PublicAccess::Allowed);
}

#[test]
fn everything_that_can_be_written_is_read() {
    let config = parse(&folder("valid").join("everything.toml")).unwrap();
    assert_eq!(config.engine.aliases, ["localhost"]);
    assert_eq!(config.engine.public_port, Some(8443));
    assert_eq!(config.engine.log_level, LogLevel::Debug);
    assert_eq!(config.listen.https, "127.0.0.1:0".parse().unwrap());
    assert_eq!(config.listen.metrics_path, "/numbers");
    assert!(!config.listen.metrics_projects);
    assert!(
        config
            .listen
            .metrics_token
            .unwrap()
            .matches("0123456789abcdef0123456789abcdef")
    );
    assert_eq!(
        config.certificates.files.key,
        Path::new("/etc/adit/key.pem")
    );
    assert_eq!(config.admin.socket.unwrap(), Path::new("state/admin.sock"));
    assert_eq!(config.front.trusted.len(), 2);
    assert!(config.front.proxy_protocol);
    assert_eq!(config.timeouts.drain, Duration::from_secs(90));
    assert_eq!(config.limits.header_bytes, 64 << 10);
    assert_eq!(config.limits.header_fields, 64);
    let edge = &config.policies["edge"];
    let names: Vec<&str> = edge
        .filters
        .iter()
        .map(|filter| filter.name.as_str())
        .collect();
    assert_eq!(names, ["trusted-ips", "geoip", "vet-admin"]);
    let vet = &edge.filters[2];
    assert_eq!(vet.kind, "vet");
    assert_eq!(vet.when.as_ref().unwrap().path, "/admin/*");
    assert_eq!((vet.on_error, vet.optional), (OnError::Pass, false));
    let geoip = &edge.filters[1];
    assert_eq!(
        (geoip.on_error, geoip.dry_run, vet.dry_run),
        (OnError::Refuse, true, false)
    );
    assert_eq!(edge.filters[0].section.origin(), "everything.toml:38:3");
    let problem = vet.section.problem(Some("use"), "wrong").to_string();
    assert_eq!(
        problem,
        "everything.toml:40:11: policy.edge.filters.2.use: wrong"
    );
    let allow: std::collections::BTreeMap<String, Vec<String>> =
        edge.filters[0].section.deserialize().unwrap();
    assert_eq!(allow["allow"], ["203.0.113.0/24"]);
    let project = config.projects.get("default").unwrap();
    assert_eq!(project.policies, ["edge"]);
    let geoip = FilterRef {
        policy: "edge".into(),
        filter: "geoip".into(),
    };
    assert_eq!(project.off, [geoip]);
    let [scope] = &project.tunnels[..] else {
        panic!("{:?}", project.tunnels)
    };
    assert_eq!(
        scope.tunnels.to_string(),
        "name shop-*, host *.t.edge.example.com, label tier=public"
    );
    assert_eq!(scope.policies, ["shop"]);
    assert_eq!(scope.off[0].to_string(), "shop/token");
    assert_eq!(scope.place.to_string(), "everything.toml:49:3");
    assert_eq!(project.upgrades, [UpgradeKind::Websocket]);
    let shop = config.projects.get("shop").unwrap();
    assert_eq!(shop.public_access, PublicAccess::Forbidden);
    assert_eq!(shop.policies, ["edge"]);
    assert_eq!(shop.endpoints, ["0a1b2c3d"]);
}

#[test]
fn problems_found_later_stand_at_their_value() {
    let config = parse(&folder("valid").join("everything.toml")).unwrap();
    for (key, expected) in [
        ("certificates.files.cert", "everything.toml:25:8"),
        ("policy.edge.filters.1.allow", "everything.toml:39:28"),
        ("policy.edge.filters.1.dry-run", "everything.toml:39:63"),
        ("policy.edge.filters.1.absent", "everything.toml:39:3"),
        ("listen.https", "environment variable ADIT_LISTEN__HTTPS"),
        ("nowhere", "everything.toml:1:1"),
    ] {
        let problem = config.problem(key, "wrong").to_string();
        assert_eq!(problem, format!("{expected}: {key}: wrong"));
    }
}

fn example() -> &'static str {
    adit_config::EXAMPLE
}

#[test]
fn the_example_is_a_valid_configuration() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("jwt.secret"),
        "0123456789abcdef0123456789abcdef\n",
    )
    .unwrap();
    let path = folder.path().join("engine.toml");
    std::fs::write(&path, example()).unwrap();
    let config = Config::load(&path, []).unwrap();
    assert!(
        config
            .auth
            .jwt_secret
            .matches("0123456789abcdef0123456789abcdef")
    );
    assert_eq!(
        config.admin.socket.unwrap(),
        folder.path().join("admin.sock")
    );
}

#[test]
fn the_example_shows_every_default_as_it_is() {
    // Taking every comment mark off a `key = value` line must change nothing but what is off.
    let plain: String = example()
        .lines()
        .filter(|line| {
            !["# credentials", "# certificate-host", "# client-secret"]
                .iter()
                .any(|off| line.starts_with(off))
                && !line.contains("metrics.token")
        })
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with('[') || rest.contains(" = ") || rest == "]" => rest,
            Some(rest) if rest.starts_with("  {") => rest,
            _ => line,
        })
        .fold(String::new(), |text, line| text + line + "\n")
        .replace("{ file = \"jwt.secret\" }", "{ env = \"SECRET\" }");
    let secret = (
        "SECRET".to_owned(),
        "0123456789abcdef0123456789abcdef".to_owned(),
    );
    let shown = Config::parse("engine.toml", &plain, [secret.clone()]).unwrap();
    let quiet = example().replace("{ file = \"jwt.secret\" }", "{ env = \"SECRET\" }");
    let default = Config::parse("engine.toml", &quiet, [secret]).unwrap();
    assert_eq!(
        format!("{:?}", shown.timeouts),
        format!("{:?}", default.timeouts)
    );
    assert_eq!(
        format!("{:?}", shown.limits),
        format!("{:?}", default.limits)
    );
    assert_eq!(shown.listen.https, default.listen.https);
    assert_eq!(shown.listen.metrics_path, default.listen.metrics_path);
    assert_eq!(
        shown.listen.metrics_projects,
        default.listen.metrics_projects
    );
    assert_eq!(shown.policies["edge"].filters.len(), 2);
}

#[cfg(unix)]
#[test]
fn a_secret_that_others_can_read_is_warned_about() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("jwt.secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef").unwrap();
    let path = folder.path().join("engine.toml");
    std::fs::write(&path, example()).unwrap();
    for (mode, warnings) in [(0o600, 0), (0o640, 1)] {
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(Config::load(&path, []).unwrap().warnings.len(), warnings);
    }
}

#[test]
fn a_missing_file_is_a_problem_of_its_own() {
    let invalid = Config::load(Path::new("/no/such/engine.toml"), []).unwrap_err();
    assert!(
        invalid.problems()[0]
            .to_string()
            .starts_with("/no/such/engine.toml: cannot be read")
    );
}

#[test]
fn what_is_readable_of_an_invalid_configuration_can_be_looked_into() {
    let text = "[certificates]\nfiles = { cert = 'c', key = 'k' }\n[timeouts]\ndrain = 'soon'\n\
                [policy.edge]\nfilters = [{ use = 'token' }, { when = 7 }]\n";
    let invalid = Config::parse("engine.toml", text, []).unwrap_err();
    let filters: Vec<&str> = invalid.policies()["edge"]
        .filters
        .iter()
        .map(|filter| filter.kind.as_str())
        .collect();
    assert_eq!(filters, ["token"]);
    assert!(invalid.projects().contains_key("default"));
    assert!(invalid.certificate_files().is_some());
    assert!(!invalid.policies_are_whole());

    // What is found in looking stands in its place; where something was said already, that is kept.
    let before = invalid.problems().len();
    let found = vec![
        invalid.problem("certificates.files.cert", "found"),
        invalid.problem("timeouts.drain", "found"),
        invalid.problem("policy.edge.filters.0.use", "found"),
    ];
    let all = invalid.with(found);
    assert_eq!(all.len(), before + 2);
    let places: Vec<_> = all.iter().filter_map(Problem::position).collect();
    assert!(places.is_sorted(), "{places:?}");
    let found: Vec<&str> = all
        .iter()
        .filter(|problem| problem.message() == "found")
        .map(Problem::key)
        .collect();
    assert_eq!(
        found,
        ["certificates.files.cert", "policy.edge.filters.0.use"]
    );
}
