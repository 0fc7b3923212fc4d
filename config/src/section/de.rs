//! The tree as a serde deserializer whose errors know where they happened.

use serde::de::{
    DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
    value::MapAccessDeserializer, value::MapDeserializer,
};
use serde::forward_to_deserialize_any;

use super::outside;
use crate::problem;
use crate::surroundings::Surroundings;
use crate::tree::{At, Entry, Node, Value};

/// What serde could not read, and where.
#[derive(Debug)]
pub(super) struct Misread {
    pub(super) at: Option<At>,
    pub(super) message: String,
    /// The key that is not there, where that is what is wrong.
    pub(super) missing: Option<&'static str>,
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
            missing: None,
        }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(problem::unknown("key", field, expected))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::custom(problem::unknown("value", variant, expected))
    }

    fn missing_field(field: &'static str) -> Self {
        Self {
            missing: Some(field),
            ..Self::custom(format!("`{field}` is missing"))
        }
    }
}

/// A value as serde reads it.
#[derive(Clone, Copy)]
pub(super) struct Reader<'n> {
    pub(super) node: &'n Node,
    pub(super) around: &'n Surroundings,
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
            Value::Array(items) => visitor.visit_seq(Items {
                rest: items.iter(),
                around: self.around,
            }),
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
                around: self.around,
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
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misread> {
        let read = match outside::text(name, self.node, self.around) {
            Some(found) => found
                .map_err(serde::de::Error::custom)
                .and_then(|text| visitor.visit_str(text.expose())),
            None => visitor.visit_newtype_struct(self),
        };
        read.map_err(|misread| misread.or_at(&self.node.at))
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
                        Reader {
                            node: &entry.node,
                            around: self.around,
                        },
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
struct Items<'n> {
    rest: std::slice::Iter<'n, Node>,
    around: &'n Surroundings,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Misread;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Misread> {
        let Some(node) = self.rest.next() else {
            return Ok(None);
        };
        let around = self.around;
        seed.deserialize(Reader { node, around })
            .map(Some)
            .map_err(|misread| misread.or_at(&node.at))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

/// The entries of a table, for the same reason.
struct Entries<'n> {
    rest: std::slice::Iter<'n, Entry>,
    value: Option<&'n Node>,
    around: &'n Surroundings,
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
        let around = self.around;
        seed.deserialize(Reader { node, around })
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
