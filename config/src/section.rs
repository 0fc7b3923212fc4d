//! A filter's own table, handed to the filter to read in its own words.

mod de;
mod outside;

use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::load;
use crate::problem::Problem;
use crate::reader::{self, Field, Reading};
use crate::surroundings::Surroundings;
use crate::tree::{At, Node, Source, Value};
use de::Reader;

pub use outside::NearPath;

/// Most problems reported for one section: a long list of nonsense says no more than its beginning.
const PROBLEMS_MAX: usize = 20;

/// The table that configures one filter, with the position of everything in it.
#[derive(Clone, Debug)]
pub struct Section {
    source: Arc<Source>,
    around: Arc<Surroundings>,
    key: String,
    /// What the filter reads.
    node: Node,
    /// The table as written, with the keys that are not the filter's.
    written: Node,
}

impl Section {
    pub(crate) fn new(
        source: Arc<Source>,
        around: Arc<Surroundings>,
        key: String,
        node: Node,
        written: Node,
    ) -> Self {
        Self {
            source,
            around,
            key,
            node,
            written,
        }
    }

    /// A section from a text of its own: what a tunnel asks for, or a test.
    ///
    /// # Errors
    /// Every syntax error of the text.
    pub fn parse(name: &str, text: &str) -> Result<Self, Vec<Problem>> {
        let source = Source::new(name, text);
        let node = source.tree()?;
        Ok(Self::new(
            Arc::new(source),
            Arc::default(),
            String::new(),
            node.clone(),
            node,
        ))
    }

    /// The whole of the file at `path` as a section: what the configuration keeps in a file of its own.
    ///
    /// # Errors
    /// That it cannot be read, or every syntax error of its text.
    pub fn load(path: &Path) -> Result<Self, Vec<Problem>> {
        let name = path.display().to_string();
        let text = load::text(path)
            .map_err(|error| vec![Problem::of_file(&name, format!("cannot be read: {error}"))])?;
        Self::parse(&name, &text)
    }

    /// Reads the whole section as `T`.
    ///
    /// # Errors
    /// What serde found wrong, each at the position of the value or key it stumbled over.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, Vec<Problem>> {
        let mut misread = match T::deserialize(self.reader(&self.node)) {
            Ok(read) => return Ok(read),
            Err(misread) => misread,
        };
        // Serde stops at the first mistake. What it stumbled over is taken out and the rest read
        // again; what then goes wrong around the hole is no mistake of the text.
        let mut rest = self.node.clone();
        let mut holes: Vec<String> = Vec::new();
        let mut problems = Vec::new();
        loop {
            let at = misread.at.unwrap_or_else(|| self.node.at.clone());
            let key = self.node.path_to(&at);
            let told = match misread.missing {
                Some(field) => !self.has(key.as_deref(), field),
                None => !holes.iter().any(|hole| is_within(hole, key.as_deref())),
            };
            if told {
                problems.push(self.problem_at(&at, key.as_deref(), misread.message));
            }
            let Some(hole) = key.filter(|_| problems.len() < PROBLEMS_MAX && rest.remove(&at))
            else {
                return Err(problems);
            };
            holes.push(hole);
            misread = match T::deserialize(self.reader(&rest)) {
                Ok(_) => return Err(problems),
                Err(misread) => misread,
            };
        }
    }

    fn reader<'n>(&'n self, node: &'n Node) -> Reader<'n> {
        Reader {
            node,
            around: &self.around,
        }
    }

    /// Whether `field` is written in the table under `key`, or in the section itself.
    fn has(&self, key: Option<&str>, field: &str) -> bool {
        let path = key.map_or_else(|| field.to_owned(), |key| format!("{key}.{field}"));
        find(&self.node, &path).is_some()
    }

    /// A problem at the value of `key` (dotted from the table's top, `use` and its like included), or
    /// of the section itself.
    pub fn problem(&self, key: Option<&str>, message: impl Into<String>) -> Problem {
        let at = key.and_then(|key| find(&self.written, key));
        self.problem_at(at.unwrap_or(&self.node.at), key, message.into())
    }

    /// The table under a dotted key; an empty one, where what is written of the key ends, if there is none.
    #[must_use]
    pub fn below(&self, key: &str) -> Self {
        let mut node = &self.node;
        let mut steps = key.split('.');
        let missing = steps.any(|step| match child(node, step) {
            Some(below) => {
                node = below;
                false
            }
            None => true,
        });
        let node = match missing {
            false => node.clone(),
            true => Node {
                at: node.at.clone(),
                value: Value::Table(Vec::new()),
            },
        };
        let key = match self.key.as_str() {
            "" => key.to_owned(),
            section => format!("{section}.{key}"),
        };
        let (source, around) = (Arc::clone(&self.source), Arc::clone(&self.around));
        Self::new(source, around, key, node.clone(), node)
    }

    /// Reads the section key by key.
    ///
    /// # Errors
    /// Everything that was found to be wrong.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(reader::Reader<'_>) -> Option<T>,
    ) -> Result<T, Vec<Problem>> {
        let reading = Reading {
            source: Arc::clone(&self.source),
            around: Arc::clone(&self.around),
            problems: RefCell::default(),
            warnings: RefCell::default(),
        };
        let field = Field {
            reading: &reading,
            node: &self.node,
            path: self.key.clone(),
        };
        let value = field.table().and_then(read);
        match (reading.problems.into_inner(), value) {
            (problems, Some(value)) if problems.is_empty() => Ok(value),
            (problems, _) => Err(problems),
        }
    }

    /// Where the section begins, as `file:line:column`.
    pub fn origin(&self) -> String {
        self.source.place(&self.node.at).to_string()
    }

    /// The dotted key of the section in its file; empty for one with a text of its own.
    pub fn key(&self) -> &str {
        &self.key
    }

    fn problem_at(&self, at: &At, key: Option<&str>, message: String) -> Problem {
        let key = match (self.key.as_str(), key) {
            ("", key) => key.unwrap_or("").to_owned(),
            (section, None) => section.to_owned(),
            (section, Some(key)) => format!("{section}.{key}"),
        };
        Problem::new(self.source.place(at), key, message)
    }
}

/// Whether the dotted key `inner` is `outer` or below it; everything is below the section itself.
fn is_within(inner: &str, outer: Option<&str>) -> bool {
    let Some(outer) = outer else {
        return true;
    };
    inner
        .strip_prefix(outer)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn find<'n>(node: &'n Node, key: &str) -> Option<&'n At> {
    key.split('.').try_fold(node, child).map(|node| &node.at)
}

fn child<'n>(node: &'n Node, step: &str) -> Option<&'n Node> {
    match &node.value {
        Value::Table(entries) => entries
            .iter()
            .find(|entry| entry.key == step)
            .map(|entry| &entry.node),
        Value::Array(items) => step.parse().ok().and_then(|index: usize| items.get(index)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use ipnet::IpNet;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    struct Sample {
        allow: Vec<IpNet>,
        #[serde(default)]
        mode: Mode,
        rate: Option<u32>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(rename_all = "kebab-case")]
    enum Mode {
        #[default]
        Strict,
        Lax,
    }

    fn check(text: &str, expected: &str) {
        let section = Section::parse("s.toml", text).unwrap();
        let problems = section.deserialize::<Sample>().unwrap_err();
        let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(shown, [expected]);
    }

    #[test]
    fn a_section_becomes_the_filters_own_type() {
        let section =
            Section::parse("s.toml", "allow = ['10.0.0.0/8']\nmode = 'lax'\nrate = 7").unwrap();
        let sample: Sample = section.deserialize().unwrap();
        assert_eq!(sample.allow, ["10.0.0.0/8".parse::<IpNet>().unwrap()]);
        assert_eq!((sample.mode, sample.rate), (Mode::Lax, Some(7)));
    }

    #[test]
    fn a_misreading_points_at_the_value_or_the_key() {
        check(
            "allow = []\nalow = 1",
            "s.toml:2:1: alow: unknown key `alow`, did you mean `allow`?",
        );
        check("mode = 'lax'", "s.toml:1:1: `allow` is missing");
        check(
            "allow = ['10.0.0.0/8', 'x']",
            "s.toml:1:24: allow.1: invalid IP address syntax",
        );
        check(
            "allow = []\nrate = -1",
            "s.toml:2:8: rate: invalid value: integer `-1`, expected u32",
        );
        check(
            "allow = []\nmode = 'lacks'",
            "s.toml:2:8: mode: unknown value `lacks`, use one of `strict`, `lax`",
        );
    }

    #[test]
    fn every_misreading_is_told_and_none_that_follows_from_another() {
        let section = Section::parse(
            "s.toml",
            "allow = ['x', '10.0.0.0/8', 'y']\nmode = 7\nrat = 1\nrate = 'x'",
        )
        .unwrap();
        let problems = section.deserialize::<Sample>().unwrap_err();
        let keys: Vec<&str> = problems.iter().map(Problem::key).collect();
        assert_eq!(keys, ["allow.0", "allow.2", "mode", "rat", "rate"]);
        // Without its only value the key is missing, which nobody wrote.
        let section = Section::parse("s.toml", "allow = 7").unwrap();
        let problems = section.deserialize::<Sample>().unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        let section = Section::parse("s.toml", "rate = -1").unwrap();
        let problems = section.deserialize::<Sample>().unwrap_err();
        let messages: Vec<&str> = problems.iter().map(Problem::message).collect();
        assert_eq!(messages.len(), 2, "{messages:?}");
        assert_eq!(messages.last(), Some(&"`allow` is missing"));
    }

    #[test]
    fn a_long_list_of_nonsense_is_told_from_its_beginning() {
        let text = format!("allow = [{}]", "'x', ".repeat(PROBLEMS_MAX + 1));
        let section = Section::parse("s.toml", &text).unwrap();
        let problems = section.deserialize::<Sample>().unwrap_err();
        assert_eq!(problems.len(), PROBLEMS_MAX);
    }

    #[derive(Debug, Deserialize)]
    #[serde(try_from = "String")]
    struct Short;

    impl TryFrom<String> for Short {
        type Error = &'static str;
        fn try_from(text: String) -> Result<Self, &'static str> {
            if text.len() < 3 {
                Ok(Self)
            } else {
                Err("too long")
            }
        }
    }

    #[test]
    fn a_value_refused_after_reading_is_pointed_at_itself() {
        #[derive(Debug, Deserialize)]
        #[expect(dead_code, reason = "only read")]
        struct Shorts {
            one: Option<Short>,
            many: Vec<Short>,
        }
        let check = |text: &str, expected: &str| {
            let section = Section::parse("s.toml", text).unwrap();
            let problems = section.deserialize::<Shorts>().unwrap_err();
            assert_eq!(
                problems.first().map(ToString::to_string).as_deref(),
                Some(expected)
            );
        };
        check("many = ['a', 'abc']", "s.toml:1:14: many.1: too long");
        check("many = []\none = 'abc'", "s.toml:2:7: one: too long");
    }

    #[test]
    fn a_filter_points_at_a_key_of_its_own() {
        let section = Section::parse("s.toml", "a = 1\nb = { c = [1, 2] }").unwrap();
        let problem = section.problem(Some("b.c.1"), "wrong");
        assert_eq!(problem.to_string(), "s.toml:2:15: b.c.1: wrong");
        assert_eq!(
            section.problem(None, "wrong").to_string(),
            "s.toml:1:1: wrong"
        );
    }

    #[test]
    fn a_table_within_is_a_section_that_knows_its_place() {
        let text = "[[a]]\nb = { allow = ['x'] }\n[[a]]\nc = 1";
        let section = Section::parse("s.toml", text).unwrap();
        let told = |key: &str| {
            let problems = section.below(key).deserialize::<Sample>().unwrap_err();
            problems.first().unwrap().to_string()
        };
        assert_eq!(
            told("a.0.b"),
            "s.toml:2:16: a.0.b.allow.0: invalid IP address syntax"
        );
        // One that is not written is empty, and stands where what is written ends.
        assert_eq!(told("a.1.b"), "s.toml:3:1: a.1.b: `allow` is missing");
        assert_eq!(told("b.1"), "s.toml:1:1: b.1: `allow` is missing");
    }
}
