//! The ClientHello reader must not panic, and must find the same hello however its bytes arrive.

#![no_main]

use adit_proxy::listen::hello::Recorder;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&step, bytes)) = input.split_first() else {
        return;
    };
    let whole = Recorder::default().advance(bytes);
    let mut recorder = Recorder::default();
    let mut end = 0;
    let pieces = loop {
        end = (end + usize::from(step) + 1).min(bytes.len());
        match recorder.advance(&bytes[..end]) {
            Ok(None) if end < bytes.len() => {}
            outcome => break outcome,
        }
    };
    match (whole, pieces) {
        (Ok(Some(whole)), Ok(Some(pieces))) => {
            assert_eq!(whole.server_name, pieces.server_name);
            assert_eq!(whole.alpn, pieces.alpn);
            if let Some(name) = whole.server_name {
                assert!(!name.is_empty());
                assert_eq!(name, name.to_ascii_lowercase());
            }
        }
        (Ok(None), Ok(None)) | (Err(_), Err(_)) => {}
        (whole, pieces) => panic!("{whole:?} at once, {pieces:?} in pieces"),
    }
});
