//! `adit plugin`: from an empty folder to a filter that judges requests, and everything that is refused on the way.
#![cfg(feature = "engine")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use adit_tests::guests::{self, guest};
use serde_json::Value;
use support::machines::{Laptop, Server, online};
use support::{Running, adit, connect, output, service};

/// A project that was made and built once, for every test that needs a component.
static MADE: LazyLock<Made> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let new = output(plugin(folder.path()).args(["new", "only-browsers"]));
    let build = output(building(folder.path()).args(["build", "only-browsers"]));
    // Nobody takes a static away: what stays is below the target folder, which is cargo's to remove.
    let project = Path::new(env!("CARGO_TARGET_TMPDIR")).join("only-browsers");
    fs::create_dir_all(&project).unwrap();
    for name in ["only-browsers.wasm", "cases.toml", "Cargo.lock"] {
        let made = folder.path().join("only-browsers").join(name);
        fs::copy(made, project.join(name)).unwrap();
    }
    Made {
        project,
        new,
        build,
    }
});

struct Made {
    project: PathBuf,
    /// What was said.
    new: String,
    build: String,
}

impl Made {
    fn component(&self) -> PathBuf {
        self.project.join("only-browsers.wasm")
    }
}

fn plugin(folder: &Path) -> Command {
    let mut command = adit(folder);
    command.arg("plugin");
    command
}

/// With what compilers want. What cargo was told about this build is not meant for another target.
fn building(folder: &Path) -> Command {
    let mut command = plugin(folder);
    command
        .env("HOME", std::env::var_os("HOME").unwrap())
        .env("CARGO_TARGET_DIR", guests::target())
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET");
    command
}

/// What a command that fails with status 1 says, on both its outputs.
fn failure(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{command:?}: {output:?}");
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8(said).unwrap()
}

/// The status that a visitor with this user agent is answered.
fn visit(url: &str, ca: &Path, agent: &str) -> u16 {
    let authority = url.strip_prefix("https://").unwrap();
    let authority = authority.split('/').next().unwrap();
    let mut stream = connect(authority, ca).unwrap();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: {agent}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _close_notify_or_not = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn an_empty_folder_becomes_a_filter_in_a_chain() {
    let made = &*MADE;
    assert!(made.new.contains("adit plugin build"), "{}", made.new);
    let component = made.component();
    let bytes = fs::read(&component).unwrap();
    let sha256: String = adit_plugins::identity::credentials::sha256(&bytes)
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect();
    let project = made.project.parent().unwrap();
    assert!(
        made.build.starts_with("only-browsers/only-browsers.wasm\n"),
        "{}",
        made.build
    );
    assert!(made.build.contains(&sha256), "{}", made.build);
    // Nothing is resolved anew: the versions are those that were written down.
    let lock = |folder: &Path| fs::read_to_string(folder.join("only-browsers/Cargo.lock")).unwrap();
    let fresh = tempfile::tempdir().unwrap();
    output(plugin(fresh.path()).args(["new", "only-browsers"]));
    assert_eq!(lock(project), lock(fresh.path()));

    let file = component.to_str().unwrap();
    let told = output(plugin(project).args(["check", file]));
    for part in [
        "loadable\n",
        "phases   request\n",
        "stage    any; `policy`",
        "adit:filter/context@0.1.0: ",
        "WASI, where there are no files",
        "grants   none needed",
        "`unwelcome`: list of string. Words in `User-Agent`",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let told = output(plugin(project).args(["check", "--json", file]));
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["loadable"], true);
    assert_eq!(told["sha256"], sha256.as_str());
    assert_eq!(told["config"][0]["key"], "unwelcome");

    // The cases beside the component.
    let told = output(plugin(project).args(["test", file]));
    assert!(told.ends_with("3 passed\n"), "{told}");
    assert_eq!(told.matches("✓ ").count(), 3, "{told}");
    assert!(told.contains(" fuel "), "{told}");

    let server = Server::new();
    let rules = format!(
        "\n[plugin.only-browsers]\ncomponent = {file:?}\nsha256 = {sha256:?}\n\
         [policy.edge]\nfilters = [{{ use = \"only-browsers\", unwelcome = [\"crawler\"] }}]\n\
         [project.default]\npolicies = [\"edge\"]\n"
    );
    let path = server.path("engine.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text + &rules).unwrap();
    let _engine = server.start();
    let laptop = Laptop::new(&server);
    let port = service("from the service").to_string();
    let mut agent = laptop.forward(&[&port]);
    let url = agent.wait("online", online);
    let ca = server.path("ca.pem");
    assert_eq!(visit(&url, &ca, "Mozilla/5.0"), 200);
    assert_eq!(visit(&url, &ca, "MegaCrawler/1.0"), 403);
}

#[test]
fn a_name_has_to_fit_and_nothing_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    for (name, why) in [
        ("Big", "cannot be a filter's name"),
        ("a_b", "cannot be a filter's name"),
        ("../up", "cannot be a filter's name"),
        ("", "cannot be a filter's name"),
        ("match", "means something else to Rust"),
        ("serde", "is a crate that filters are made of"),
        ("geoip", "there is a built-in filter `geoip`"),
    ] {
        let said = failure(plugin(place).args(["new", name]));
        assert!(said.contains(why), "{name}: {said}");
    }
    assert_eq!(fs::read_dir(place).unwrap().count(), 0);

    fs::create_dir(place.join("mine")).unwrap();
    fs::write(place.join("mine/notes"), "mine").unwrap();
    fs::write(place.join("file"), "mine, too").unwrap();
    for name in ["mine", "file"] {
        let said = failure(plugin(place).args(["new", name]));
        assert!(
            said.contains("is there already, and stays as it is"),
            "{said}"
        );
    }
    assert_eq!(fs::read_dir(place.join("mine")).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(place.join("file")).unwrap(), "mine, too");

    // The names of our own examples are free.
    for name in ["other", "api-key"] {
        output(plugin(place).args(["new", name]));
        assert!(place.join(name).join("src/lib.rs").is_file());
    }
}

#[test]
fn what_cannot_be_built_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path();
    let said = failure(building(place).args(["build"]));
    assert!(said.contains("there is no filter in `.`"), "{said}");

    output(plugin(place).args(["new", "broken"]));
    let code = place.join("broken/src/lib.rs");
    let text = fs::read_to_string(&code).unwrap();
    fs::write(
        &code,
        text.replace("Verdict::Continue", "Verdict::Contiune"),
    )
    .unwrap();
    let said = failure(building(place).args(["build", "broken"]));
    // In the compiler's words, with the place.
    assert!(
        said.contains("Contiune") && said.contains("src/lib.rs:"),
        "{said}"
    );
    assert!(said.contains("cargo could not build `broken`"), "{said}");
    assert!(!place.join("broken/broken.wasm").exists());

    // Mended, it builds: in a target folder that other projects have, too.
    fs::write(&code, text).unwrap();
    let told = output(building(&place.join("broken")).args(["build"]));
    assert!(told.starts_with("broken.wasm\n"), "{told}");

    // A compiler without the target.
    let rustc = place.join("rustc");
    fs::write(&rustc, "#!/bin/sh\necho /nowhere/at/all\n").unwrap();
    fs::set_permissions(&rustc, fs::Permissions::from_mode(0o755)).unwrap();
    let said = failure(
        building(place)
            .args(["build", "broken"])
            .env("RUSTC", rustc),
    );
    assert!(
        said.contains("`rustup target add wasm32-wasip2` installs it"),
        "{said}"
    );
}

#[test]
fn what_no_engine_could_load_is_told_apart() {
    let good = fs::read(MADE.component()).unwrap();
    let with = |old: &str, new: &str| {
        assert_eq!(old.len(), new.len());
        let mut bytes = good.clone();
        for at in 0..bytes.len() - old.len() {
            if bytes[at..].starts_with(old.as_bytes()) {
                bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
            }
        }
        bytes
    };
    let folder = tempfile::tempdir().unwrap();
    for (bytes, why) in [
        (
            b"[plugin]\n".to_vec(),
            "it does not begin as WebAssembly does",
        ),
        (
            b"\0asm\x01\0\0\0".to_vec(),
            "it is a core module, build for the target `wasm32-wasip2`",
        ),
        (b"\0asm\x0d\0\x01\0".to_vec(), "it is no filter"),
        (
            with("adit:filter/plugin@0.1.0", "adit:filter/plugin@0.2.0"),
            "speaks `adit:filter/plugin@0.2.0`",
        ),
        (
            with("adit:filter/context@0.1.0", "adit:filter/contexx@0.1.0"),
            "imports what filters are not given",
        ),
        (
            with(
                "adit:filter/on-request@0.1.0",
                "adit:filter/on-reqqest@0.1.0",
            ),
            "takes part in no phase",
        ),
        (
            good[..good.len() / 2].to_vec(),
            "it is no WebAssembly component",
        ),
    ] {
        let file = folder.path().join("x.wasm");
        fs::write(&file, bytes).unwrap();
        let said = failure(plugin(folder.path()).args(["check", "x.wasm"]));
        assert!(
            said.starts_with("x.wasm: not loadable: ") && said.contains(why),
            "{why}: {said}"
        );
        let said = failure(plugin(folder.path()).args(["check", "x.wasm", "--json"]));
        let said: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["loadable"], false);
        fs::write(folder.path().join("cases.toml"), CASE).unwrap();
        let said = failure(plugin(folder.path()).args(["test", "x.wasm"]));
        assert!(
            said.contains("is not loadable: ") && said.contains(why),
            "{why}: {said}"
        );
    }
    // What was built with a later addition loads where nothing it uses is missing.
    let file = folder.path().join("x.wasm");
    fs::write(file, with("@0.1.0", "@0.1.7")).unwrap();
    let told = output(plugin(folder.path()).args(["check", "x.wasm"]));
    assert!(told.contains("adit:filter/plugin@0.1.7"), "{told}");
    let said = failure(plugin(folder.path()).args(["check", "none.wasm"]));
    assert!(said.contains("cannot read `none.wasm`"), "{said}");
}

/// A case that any filter of ours can be asked.
const CASE: &str = "[[case]]\nname = \"one\"\nexpect = { verdict = \"continue\" }\n";

/// What trying cases on a component says, if that ends with this status.
fn tried(status: i32, component: &Path, cases: &str, more: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("cases.toml"), cases).unwrap();
    let mut command = plugin(folder.path());
    command.args(["test", component.to_str().unwrap(), "cases.toml"]);
    let output = command.args(more).output().unwrap();
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[test]
fn a_case_that_fails_shows_the_difference() {
    let component = MADE.component();
    let cases = r#"[config]
unwelcome = ["crawler"]

[[case]]
name = "passes"
expect = { verdict = "continue", request = { path = "/", headers = { x-agent-seen = "yes", x-other = false } } }

[[case]]
name = "is refused"
request = { headers = { user-agent = "crawler" } }
expect = { verdict = "respond", status = 200, request = { headers = { x-agent-seen = "no" } } }

[[case]]
name = "takes too much"
expect = { verdict = "continue", request = { headers = { x-agent-seen = "no" } } }
max-fuel = 10

[[case]]
name = "does not take its table"
config = { unwelcome = "crawler" }
expect = { verdict = "continue" }
"#;
    let said = tried(1, &component, cases, &[]);
    for part in [
        "✓ passes",
        "✗ is refused",
        "    cases.toml:8:1\n",
        "    - verdict: respond\n    + verdict: refuse, policy\n",
        "    - status: 200\n    + status: 403\n",
        "    + request header `x-agent-seen`: (none)\n",
        "    its log: info: `crawler`\n",
        "    - request header `x-agent-seen`: no\n    + request header `x-agent-seen`: yes\n",
        "    - fuel: 10 at most\n",
        "    + verdict: misconfigured (cases.toml:20:24: case.3.config.unwelcome: \"crawler\" is not of type \"array\")",
        "1 passed, 3 failed\n",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let said = tried(1, &component, cases, &["--json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&said["passed"], &said["failed"]), (&1.into(), &3.into()));
    assert_eq!(said["cases"][1]["differences"][0]["got"], "refuse, policy");
    assert!(said["cases"][0]["fuel"].as_u64().unwrap() > 100);
}

#[test]
fn a_mistake_in_the_cases_is_told_with_its_position() {
    let component = MADE.component();
    for (cases, why) in [
        ("[[case]\n", "cases.toml:1:"),
        ("", "cases.toml:1:1: there is no case, write `[[case]]`"),
        (
            "[[case]]\nname = \"x\"\n",
            "cases.toml:1:1: case.0: `expect` is missing",
        ),
        (
            "[[case]]\nname = \"x\"\nexpect = { verdict = \"refused\" }\n",
            "cases.toml:3:22: case.0.expect.verdict: unknown value `refused`",
        ),
        (
            "[[case]]\nname = \"x\"\nexpect = { verdict = \"refuse\", reason = \"mood\" }\n",
            "cases.toml:3:41: case.0.expect.reason: `mood` is not a reason, use one of ",
        ),
        (
            "[[case]]\nname = \"x\"\nreqest = {}\nexpect = { verdict = \"close\" }\n",
            "cases.toml:3:1: case.0.reqest: unknown key `reqest`, did you mean `request`?",
        ),
        (
            &format!("[plugin]\nstage = \"front\"\n{CASE}"),
            "cases.toml:2:9: plugin.stage: `front` is not a stage",
        ),
        (
            &format!("[plugin]\nallow-hosts = [\"https://a.test\"]\n{CASE}"),
            "cases.toml:2:15: plugin.allow-hosts: `https://a.test` is not a host",
        ),
        (
            &format!("[plugin]\nsha256 = \"{}\"\n{CASE}", "0".repeat(64)),
            "cases.toml:2:10: plugin.sha256: ",
        ),
    ] {
        let said = tried(1, &component, cases, &[]);
        assert!(said.contains(why), "{why}: {said}");
        assert!(said.contains(" with `cases.toml`"), "{said}");
    }
    // An error is no refusal, unless the case expects that error.
    for (status, reason) in [
        (1, ""),
        (1, ", reason = \"policy\""),
        (0, ", reason = \"plugin\""),
    ] {
        let cases = format!(
            "[config]\nwhat = \"panic\"\n[[case]]\nname = \"one\"\nexpect = {{ verdict = \"refuse\"{reason} }}\n"
        );
        let said = tried(status, &guest("hostile"), &cases, &[]);
        assert_eq!(said.contains("it panicked"), status == 1, "{said}");
    }
    // A request that no edge would let as far as a filter is no case.
    let cases = format!(
        "[config]\nunwelcome = []\n{CASE}request = {{ headers = {{ \"a b\" = \"c\" }} }}\n"
    );
    let said = tried(1, &component, &cases, &[]);
    assert!(
        said.contains("cases.toml:3:1: `one` cannot be tried: `a b` is not a field's name"),
        "{said}"
    );
}

#[test]
fn every_phase_that_requests_pass_is_tried() {
    for (example, cases) in [
        (
            "ip_reputation",
            r#"[plugin]
stage = "network"
allow-hosts = ["reputation.example.com"]
[config]
url = "https://reputation.example.com/v1/"
worst = 75
[[case]]
name = "of good repute"
stubs = [{ url = "https://reputation.example.com/v1/198.51.100.9", body = '{"score": 3}' }]
request = { from = "198.51.100.9" }
expect = { verdict = "continue" }
[[case]]
name = "of ill repute"
stubs = [{ url = "https://reputation.example.com/v1/203.0.113.7", body = '{"score": 90}' }]
expect = { verdict = "refuse", reason = "ip", status = 403, log = ["score 90"] }
[[case]]
name = "nobody to ask"
stubs = [{ url = "https://reputation.example.com/v1/203.0.113.7", fail = "timeout" }]
expect = { verdict = "continue", log = ["not asked: "] }
[[case]]
name = "nobody to ask, and strict"
config = { url = "https://reputation.example.com/v1/", worst = 75, strict = true }
stubs = [{ url = "https://reputation.example.com/v1/203.0.113.7", status = 500, body = "?" }]
expect = { verdict = "refuse", reason = "unavailable", status = 503 }
[[case]]
name = "remembered"
repeat = 3
stubs = [{ url = "https://reputation.example.com/v1/203.0.113.7", body = '{"score": 90}' }]
expect = { verdict = "refuse", reason = "ip" }
"#,
        ),
        (
            "api_key",
            r#"[plugin]
stage = "identity"
establish-identity = true
[config]
keys = { ada = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b" }
tries = 3
[[case]]
name = "the key says who"
request = { headers = { x-api-key = "secret" } }
expect = { verdict = "continue", identity = "ada", request = { headers = { x-api-key = false } } }
[[case]]
name = "somebody else already"
request = { headers = { x-api-key = "secret" }, identity = { subject = "bob" } }
expect = { verdict = "refuse", reason = "ambiguous-credentials" }
[[case]]
name = "too many tries"
request = { headers = { x-api-key = "guess" } }
repeat = 4
expect = { verdict = "refuse", reason = "rate-limited", status = 429 }
[[case]]
name = "no try too many"
request = { headers = { x-api-key = "guess" } }
repeat = 3
expect = { verdict = "refuse", reason = "invalid-token" }
"#,
        ),
        (
            "geo_block",
            r#"[config]
countries = ["DE"]
[[case]]
name = "from there"
request = { country = "DE" }
expect = { verdict = "continue" }
[[case]]
name = "from nowhere known"
expect = { verdict = "refuse", reason = "country" }
"#,
        ),
        (
            "redact",
            r#"[config]
words = ["secret"]
[[case]]
name = "across the border of two pieces"
response = { status = 201, headers = { x-a = ["1", "2"] }, body = ["a sec", "ret, ", "told"] }
expect = { verdict = "continue", response = { status = 201, headers = { x-a = ["1", "2"] }, body = "a ******, told" } }
"#,
        ),
        (
            "ws_origin",
            r#"[config]
origins = ["https://a.example"]
[[case]]
name = "the page's own"
request = { headers = { connection = "upgrade", upgrade = "websocket", sec-websocket-version = "13", sec-websocket-key = "dGhlIHNhbXBsZSBub25jZQ==", origin = "https://a.example" } }
expect = { verdict = "upgrade" }
[[case]]
name = "another page's"
request = { headers = { connection = "upgrade", upgrade = "websocket", sec-websocket-version = "13", sec-websocket-key = "dGhlIHNhbXBsZSBub25jZQ==", origin = "https://b.example" } }
expect = { verdict = "refuse", reason = "origin" }
"#,
        ),
    ] {
        let told = tried(0, &guest(example), cases, &[]);
        assert!(told.ends_with(" passed\n"), "{example}: {told}");
    }
    // Nobody is asked but whom the case names.
    let cases = "[plugin]\nallow-hosts = [\"a.example\"]\n[config]\nurl = \"https://a.example/\"\nworst = 1\n";
    let said = tried(1, &guest("ip_reputation"), &format!("{cases}{CASE}"), &[]);
    assert!(
        said.contains("+ request of its own without a stub: GET https://a.example/203.0.113.7"),
        "{said}"
    );
    // A grant that the table does not give is not there: nobody is asked at all.
    let (_, config) = cases.split_once("[config]").unwrap();
    let case = CASE.replace("continue\"", "continue\", log = [\"NotGranted\"]");
    tried(
        0,
        &guest("ip_reputation"),
        &format!("[config]{config}{case}"),
        &[],
    );
    let told = output(plugin(Path::new(".")).args(["check", guest("api_key").to_str().unwrap()]));
    assert!(
        told.contains("`establish-identity`: it can say who visitors are"),
        "{told}"
    );
    let told =
        output(plugin(Path::new(".")).args(["check", guest("ip_reputation").to_str().unwrap()]));
    assert!(
        told.contains("`allow-hosts`: it can send requests of its own"),
        "{told}"
    );
}

#[test]
fn a_filter_is_built_and_swapped_into_a_running_engine_whenever_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    output(plugin(folder.path()).args(["new", "only-browsers"]));
    let project = folder.path().join("only-browsers");
    let said = failure(adit(folder.path()).args(["dev", "--port", "0", "--plugin", "x.wasm"]));
    assert!(said.contains("there is no component `x.wasm`"), "{said}");

    let mut building = Running::start(building(folder.path()).args(["dev", "only-browsers"]));
    building.wait_for("3 passed");
    let mut engine = Running::start(adit(folder.path()).args([
        "dev",
        "--port",
        "0",
        "--plugin",
        "only-browsers/only-browsers.wasm",
    ]));
    let url = engine.wait("public URL", |line| {
        let text = line.trim();
        text.starts_with("https://").then(|| text.to_owned())
    });
    let ca = folder.path().join(".adit/ca.pem");
    let hello = format!("{url}/hello");
    assert_eq!(visit(&hello, &ca, "Mozilla/5.0"), 200);
    assert_eq!(visit(&hello, &ca, "MegaCrawler/1.0"), 403);
    engine.wait_for("refused by dev/only-browsers: policy");

    // What does not build changes nothing, and what does is in place by itself.
    let source = project.join("src/lib.rs");
    let text = fs::read_to_string(&source).unwrap();
    fs::write(&source, text.replace("fn on_request", "fn on_reqest")).unwrap();
    building.wait_for("could not build");
    assert_eq!(visit(&hello, &ca, "MegaCrawler/1.0"), 403);
    fs::write(&source, text.replace("Reason::Policy", "Reason::NotFound")).unwrap();
    engine.wait_for("the new one is in place");
    assert_eq!(visit(&hello, &ca, "MegaCrawler/1.0"), 404);
    building.signal("INT");
    assert!(building.ended().success());
}
