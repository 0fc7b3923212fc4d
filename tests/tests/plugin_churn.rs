//! Plugins come and go, and trap, and nothing of them stays. In a process of its own, whose memory is looked at.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::fs;
use std::path::Path;

use adit_agent::TunnelOptions;
use adit_tests::engine::TestEngine;
use adit_tests::guests::guest;
use adit_tests::visitor;

/// Swaps, and requests that trap, until everything is as large as it gets.
const WARM_UP: usize = 20;

/// Those that are counted.
const COUNTED: usize = 100;

fn rules(file: &Path, what: &str) -> String {
    format!(
        "[plugin.hostile]\ncomponent = {file:?}\n[policy.edge]\nfilters = [{{ use = \"hostile\", what = {what:?} }}]\n\
         [project.default]\npolicies = [\"edge\"]\n"
    )
}

/// Memory of this process, in KiB.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    kib.unwrap().parse().unwrap()
}

#[tokio::test]
async fn swaps_and_traps_leave_no_memory_behind() {
    let first = fs::read(guest("hostile")).unwrap();
    // An empty custom section at its end makes another file of it.
    let next = [&first[..], b"\0\x02\x01x"].concat();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("filter.wasm");
    fs::write(&file, &first).unwrap();
    let engine = TestEngine::start_in(folder, &rules(&file, "nothing")).await;
    let client = engine.client().await;
    let (host, _) = engine.publish_watched(&client, TunnelOptions::http()).await;
    let sender = engine.h2(&host).await;
    let uri = format!("https://{host}/");
    let mut before = 0;
    for swap in 0..WARM_UP + COUNTED {
        if swap == WARM_UP {
            before = resident();
        }
        let (version, what, status) = match swap % 2 {
            0 => (&next, "panic", 500),
            _ => (&first, "nothing", 200),
        };
        fs::write(&file, version).unwrap();
        engine.rewrite(&rules(&file, what));
        engine.engine.reload().unwrap();
        for _ in 0..5 {
            let answer = visitor::get(&sender, &uri).await.unwrap();
            assert_eq!(answer.head.status, status, "{swap} {what}");
        }
    }
    let after = resident();
    assert!(
        after <= before + before / 20,
        "{before} KiB, then {after} KiB"
    );
}
