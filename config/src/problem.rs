//! What is wrong with a configuration, and where.

use std::fmt;
use std::sync::Arc;

/// One thing wrong with a configuration: where it stands, which key it concerns, what is wrong
/// and what would be right.
///
/// Displays as `file:line:column: key: message`; a value that came from an environment variable
/// shows the variable instead of a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    place: Place,
    key: String,
    message: String,
}

impl Problem {
    pub(crate) fn new(place: Place, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            place,
            key: key.into(),
            message: message.into(),
        }
    }

    /// A problem of a file as a whole, such as one that cannot be read.
    pub fn of_file(file: &str, message: impl Into<String>) -> Self {
        Self::new(Place::File(file.into()), "", message)
    }

    /// Where the problem is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Line and column, from 1, if the problem has a position in a text.
    pub fn position(&self) -> Option<(usize, usize)> {
        match &self.place {
            Place::Text { line, column, .. } => Some((*line, *column)),
            Place::Environment(_) | Place::File(_) => None,
        }
    }

    /// The dotted key concerned, such as `listen.https`; empty for a syntax error.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What is wrong and what would be right.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

/// Where a value or a problem stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A file as a whole.
    File(Arc<str>),
    /// A position in a text.
    Text {
        /// The file's name as the user gave it.
        file: Arc<str>,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// An environment variable, by name.
    Environment(Arc<str>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => f.write_str(file),
            Self::Text { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Environment(variable) => write!(f, "environment variable {variable}"),
        }
    }
}

/// The known word closest to `word`, if one is close enough to have been meant.
pub(crate) fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Two slips in three letters is another word; a third of the letters is where typing errors end.
    let reach = (word.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= reach)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// ``unknown key, did you mean `x`?`` or the list of what is known.
pub(crate) fn unknown(what: &str, word: &str, known: &[&str]) -> String {
    if let Some(meant) = closest(word, known.iter().copied()) {
        return format!("unknown {what} `{word}`, did you mean `{meant}`?");
    }
    if known.is_empty() {
        return format!("unknown {what} `{word}`, there are none here");
    }
    format!("unknown {what} `{word}`, use one of {}", listed(known))
}

/// The words in back-ticks, with commas.
pub(crate) fn listed(words: &[&str]) -> String {
    words
        .iter()
        .map(|word| format!("`{word}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_its_word() {
        assert_eq!(closest("htps", ["http", "https"]), Some("https"));
        assert_eq!(closest("lisen", ["listen", "limits"]), Some("listen"));
        assert_eq!(closest("zebra", ["listen", "limits"]), None);
    }

    #[test]
    fn a_problem_reads_as_position_key_and_message() {
        let place = Place::Text {
            file: "engine.toml".into(),
            line: 3,
            column: 9,
        };
        let problem = Problem::new(place, "listen.https", "what is wrong");
        assert_eq!(
            problem.to_string(),
            "engine.toml:3:9: listen.https: what is wrong"
        );
    }
}
