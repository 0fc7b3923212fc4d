//! A filter's own table, handed to the filter to read in its own words.

use std::sync::Arc;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess,
    Visitor, value::MapAccessDeserializer, value::MapDeserializer,
};
use serde::forward_to_deserialize_any;

use crate::problem::{self, Problem};
use crate::tree::{At, Entry, Node, Source, Value};

/// The table that configures one filter, with the position of everything in it.
#[derive(Clone, Debug)]
pub struct Section {
    source: Arc<Source>,
    key: String,
    /// What the filter reads.
    node: Node,
    /// The table as written, with the keys that are not the filter's.
    written: Node,
}

impl Section {
    pub(crate) fn new(source: Arc<Source>, key: String, node: Node, written: Node) -> Self {
        Self {
            source,
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
            String::new(),
            node.clone(),
            node,
        ))
    }

    /// Reads the whole section as `T`.
    ///
    /// # Errors
    /// What serde found wrong, at the position of the value or key it stumbled over.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, Vec<Problem>> {
        T::deserialize(Reader { node: &self.node }).map_err(|misread| {
            let at = misread.at.as_ref().unwrap_or(&self.node.at);
            let key = self.node.path_to(at);
            vec![self.problem_at(at, key.as_deref(), misread.message)]
        })
    }

    /// A problem at the value of `key` (dotted from the table's top, `use` and its like included), or
    /// of the section itself.
    pub fn problem(&self, key: Option<&str>, message: impl Into<String>) -> Problem {
        let at = key.and_then(|key| find(&self.written, key));
        self.problem_at(at.unwrap_or(&self.node.at), key, message.into())
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

fn find<'n>(node: &'n Node, key: &str) -> Option<&'n At> {
    key.split('.')
        .try_fold(node, |node, step| match &node.value {
            Value::Table(entries) => entries
                .iter()
                .find(|entry| entry.key == step)
                .map(|entry| &entry.node),
            Value::Array(items) => step.parse().ok().and_then(|index: usize| items.get(index)),
            _ => None,
        })
        .map(|node| &node.at)
}

/// What serde could not read, and where.
#[derive(Debug)]
struct Misread {
    at: Option<At>,
    message: String,
}

impl Misread {
    /// The innermost value that failed is the one to point at.
    fn or_at(mut self, at: &At) -> Self {
        self.at.get_or_insert_with(|| at.clone());
        self
    }
}

impl std::fmt::Display for Misread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Misread {}

impl serde::de::Error for Misread {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self {
            at: None,
            message: message.to_string(),
        }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(problem::unknown("key", field, expected))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(problem::unknown("value", variant, expected))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format!("`{field}` is missing"))
    }
}

#[derive(Clone, Copy)]
struct Reader<'n> {
    node: &'n Node,
}

impl<'de> IntoDeserializer<'de, Misread> for Reader<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = Misread;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        match &self.node.value {
            Value::Array(items) => visitor.visit_seq(Items(items.iter())),
            Value::Boolean(yes) => visitor.visit_bool(*yes),
            Value::Datetime(date) => visitor.visit_borrowed_str(date),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Integer(Some(number)) => visitor.visit_i64(*number),
            Value::Integer(None) => Err(serde::de::Error::custom(
                "does not fit 64 bits, use a smaller number",
            )),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Table(entries) => visitor.visit_map(Entries {
                rest: entries.iter(),
                value: None,
            }),
        }
        .map_err(|misread: Misread| misread.or_at(&self.node.at))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        // TOML has no null: what is written is there.
        visitor
            .visit_some(self)
            .map_err(|misread| misread.or_at(&self.node.at))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misread> {
        visitor
            .visit_newtype_struct(self)
            .map_err(|misread| misread.or_at(&self.node.at))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misread> {
        match &self.node.value {
            Value::String(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Value::Table(entries) => visitor.visit_enum(MapAccessDeserializer::new(
                MapDeserializer::new(entries.iter().map(|entry| {
                    (
                        Key {
                            key: &entry.key,
                            at: &entry.at,
                        },
                        Reader { node: &entry.node },
                    )
                })),
            )),
            _ => Err(serde::de::Error::custom(format!(
                "{} is not a name, use a string",
                self.node.kind()
            ))),
        }
        .map_err(|misread: Misread| misread.or_at(&self.node.at))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

/// The items of an array. A type that refuses a value after reading it (`try_from`) fails here, not in the item's
/// own reader: the item is still what to point at.
struct Items<'n>(std::slice::Iter<'n, Node>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Misread;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Misread> {
        let Some(node) = self.0.next() else {
            return Ok(None);
        };
        seed.deserialize(Reader { node })
            .map(Some)
            .map_err(|misread| misread.or_at(&node.at))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

/// The entries of a table, for the same reason.
struct Entries<'n> {
    rest: std::slice::Iter<'n, Entry>,
    value: Option<&'n Node>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Misread;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Misread> {
        let Some(entry) = self.rest.next() else {
            return Ok(None);
        };
        self.value = Some(&entry.node);
        let (key, at) = (entry.key.as_str(), &entry.at);
        seed.deserialize(Key { key, at })
            .map(Some)
            .map_err(|misread| misread.or_at(at))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misread> {
        let node = self
            .value
            .take()
            .ok_or_else(|| serde::de::Error::custom("a value was read before its key"))?;
        seed.deserialize(Reader { node })
            .map_err(|misread: Misread| misread.or_at(&node.at))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

#[derive(Clone, Copy)]
struct Key<'n> {
    key: &'n str,
    at: &'n At,
}

impl<'de> IntoDeserializer<'de, Misread> for Key<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Key<'de> {
    type Error = Misread;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misread> {
        visitor
            .visit_borrowed_str(self.key)
            .map_err(|misread: Misread| misread.or_at(self.at))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misread> {
        visitor
            .visit_enum(self.key.into_deserializer())
            .map_err(|misread: Misread| misread.or_at(self.at))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
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
}
