//! Properties of paths and patterns that must hold for whatever a visitor sends.
#![allow(clippy::unwrap_used, reason = "tests")]

use adit_filters::{PathPattern, is_ambiguous_path};
use proptest::prelude::*;

/// What a service may do with a path: undo percent-encoding until nothing is left to undo, take backslashes for
/// slashes, and resolve dot segments.
fn as_a_service_reads(path: &str) -> Vec<String> {
    let text = percent_encoding::percent_decode_str(path)
        .decode_utf8_lossy()
        .replace('\\', "/");
    let mut segments: Vec<String> = Vec::new();
    for segment in text.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other.to_owned()),
        }
    }
    segments
}

proptest! {
    #[test]
    fn no_path_slips_past_a_guard_that_the_service_would_read_under_it(
        path in "(/|%2f|%2F|\\\\|%5c|\\.|%2e|a|d|%61|%64|dmin|admin|x|;|%00){0,12}"
    ) {
        let path = format!("/{path}");
        let guard = PathPattern::parse("/admin/*").unwrap();
        let guarded = as_a_service_reads(&path).first().is_some_and(|first| first == "admin");
        prop_assert!(!guarded || is_ambiguous_path(&path) || guard.matches(&path), "{}", path);
    }

    #[test]
    fn any_spelling_of_a_guarded_path_is_guarded(tail in "[a-z0-9/]{0,8}", escaped in prop::collection::vec(any::<bool>(), 5)) {
        let name: String = "admin"
            .chars()
            .zip(escaped)
            .map(|(letter, escaped)| if escaped { format!("%{:02x}", u32::from(letter)) } else { letter.to_string() })
            .collect();
        let path = format!("/{name}/{tail}");
        prop_assert!(!is_ambiguous_path(&path));
        prop_assert!(PathPattern::parse("/admin/*").unwrap().matches(&path), "{}", path);
    }

    #[test]
    fn reading_paths_and_patterns_never_panics(text in any::<String>()) {
        let _ = is_ambiguous_path(&text);
        if let Ok(pattern) = PathPattern::parse(&text) {
            let _ = pattern.matches(&text);
        }
        let _ = PathPattern::parse("/a/*").unwrap().matches(&text);
    }
}
