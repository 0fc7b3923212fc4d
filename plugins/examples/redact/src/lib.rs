//! Blacks out words in responses, also where one is cut by the border of two pieces.
//!
//! ```toml
//! [plugin.redact]
//! component = "redact.wasm"
//!
//! [policy.edge]
//! filters = [{ use = "redact", words = ["secret-project"] }]
//! ```

use adit_guest::prelude::*;

/// Which words.
#[config]
pub struct Config {
    /// As they stand, capitals included.
    words: Vec<String>,
}

struct Redact(Config);

impl Plugin for Redact {
    type Config = Config;

    fn new(config: Config) -> Result<Self, ConfigError> {
        match config.words.iter().position(String::is_empty) {
            Some(at) => Err(ConfigError::at(
                &format!("words.{at}"),
                "a word has letters",
            )),
            None => Ok(Self(config)),
        }
    }
}

/// The end of what has come, which may be the beginning of a word.
#[derive(Default)]
pub struct Tail(Vec<u8>);

impl Redact {
    /// Blacks out every whole word, and says how many bytes at the end may begin one.
    fn black_out(&self, bytes: &mut [u8]) -> usize {
        let mut open = 0;
        for word in self.0.words.iter().map(String::as_bytes) {
            let mut at = 0;
            while let Some(window) = bytes.get_mut(at..at + word.len()) {
                if window == word {
                    window.fill(b'*');
                }
                at += 1;
            }
            let longest = word.len().saturating_sub(1).min(bytes.len());
            let begins = (1..=longest)
                .rev()
                .find(|length| bytes.ends_with(&word[..*length]));
            open = open.max(begins.unwrap_or(0));
        }
        open
    }
}

impl OnResponseBody for Redact {
    type State = Tail;

    fn on_response_body(
        &self,
        tail: &mut Tail,
        piece: &mut Piece<'_>,
        _: &Exchange,
    ) -> Result<Passage, Failure> {
        let mut bytes = std::mem::take(&mut tail.0);
        bytes.append(&mut piece.bytes);
        let open = self.black_out(&mut bytes);
        if !piece.last {
            tail.0 = bytes.split_off(bytes.len() - open);
        }
        piece.bytes = bytes;
        Ok(Passage::Forward)
    }
}

adit_guest::export!(Redact: on_response_body);
