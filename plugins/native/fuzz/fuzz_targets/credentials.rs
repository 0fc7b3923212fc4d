//! No text makes reading it for credentials panic, and every mistake has a place.

#![no_main]

use adit_config::Section;
use adit_plugins::identity::credentials::Credentials;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Ok(section) = Section::parse("credentials.toml", text) else {
        return;
    };
    if let Err(problems) = Credentials::read(&section, ["default"]) {
        assert!(!problems.is_empty());
        assert!(problems.iter().all(|problem| problem.position().is_some()));
    }
});
