//! The `params` query parameter: a JSON document with a limit and filters (engine-api §3.2).

use serde_json::{Map, Value};

use super::respond::Refusal;

/// Longest document taken, in bytes once decoded.
const DOCUMENT_BYTES_MAX: usize = 16 << 10;

/// What may be filtered on, and how each value must look.
pub(super) type FilterKeys = &'static [(&'static str, Kind)];

/// The type of a filter's value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Boolean,
    Labels,
    Text,
}

/// Filters of `/api/tunnels`.
pub(super) const TUNNEL_FILTER: FilterKeys = &[
    ("id", Kind::Text),
    ("name", Kind::Text),
    ("type", Kind::Text),
    ("status", Kind::Text),
    ("client_id", Kind::Text),
    ("user_id", Kind::Text),
    ("protocol", Kind::Text),
    ("hostname", Kind::Text),
    ("http_version", Kind::Text),
    ("publish", Kind::Boolean),
    ("labels", Kind::Labels),
];

/// Filters of `/api/clients`.
pub(super) const CLIENT_FILTER: FilterKeys = &[
    ("id", Kind::Text),
    ("status", Kind::Text),
    ("user_id", Kind::Text),
    ("agent", Kind::Text),
    ("channel", Kind::Text),
    ("version", Kind::Text),
    ("os", Kind::Text),
    ("arch", Kind::Text),
    ("protocol_version", Kind::Text),
    ("labels", Kind::Labels),
];

/// What was asked for.
#[derive(Debug, Default)]
pub(super) struct Params {
    limit: Option<usize>,
    /// Fields with the value each must have.
    equal: Vec<(&'static str, Value)>,
    /// Labels with the value each must have; `None`: any.
    labels: Vec<(String, Option<String>)>,
}

impl Params {
    /// Reads `params` from a query. Absent, empty and `null` all mean none; keys nobody knows are
    /// passed over.
    pub(super) fn parse(query: Option<&str>, keys: FilterKeys) -> Result<Self, Refusal> {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let mut documents = pairs
            .filter(|(name, _)| name == "params")
            .map(|(_, text)| text);
        let (document, another) = (documents.next(), documents.next());
        if another.is_some() {
            return Err(wrong("given twice"));
        }
        match document.as_deref().map(str::trim) {
            None | Some("") => Ok(Self::default()),
            Some(text) if text.len() > DOCUMENT_BYTES_MAX => Err(wrong("too long")),
            Some(text) => match serde_json::from_str(text) {
                Ok(Value::Null) => Ok(Self::default()),
                Ok(Value::Object(document)) => Self::of(&document, keys),
                Ok(_) => Err(wrong("not an object")),
                Err(_) => Err(wrong("not JSON")),
            },
        }
    }

    fn of(document: &Map<String, Value>, keys: FilterKeys) -> Result<Self, Refusal> {
        let mut params = Self::default();
        if let Some(limit) = given(document, "limit") {
            let limit = limit.as_u64().filter(|limit| *limit > 0);
            let limit = limit.ok_or_else(|| wrong("`limit` is not a whole number from 1 up"))?;
            params.limit = Some(usize::try_from(limit).unwrap_or(usize::MAX));
        }
        let Some(filters) = given(document, "filters") else {
            return Ok(params);
        };
        let filters = filters
            .as_object()
            .ok_or_else(|| wrong("`filters` is not an object"))?;
        for (key, kind) in keys {
            let Some(value) = given(filters, key) else {
                continue;
            };
            match kind {
                Kind::Text if value.is_string() => params.equal.push((key, value.clone())),
                Kind::Boolean if value.is_boolean() => params.equal.push((key, value.clone())),
                Kind::Labels => params.labels = labels(value)?,
                Kind::Text => return Err(wrong(&format!("`{key}` is not a string"))),
                Kind::Boolean => return Err(wrong(&format!("`{key}` is not a boolean"))),
            }
        }
        Ok(params)
    }

    /// The objects asked for. Those of one who sees a part of each are judged by that part: a
    /// filter must not tell what the object does not.
    pub(super) fn select(&self, objects: Vec<Map<String, Value>>) -> Vec<Map<String, Value>> {
        objects
            .into_iter()
            .filter(|object| self.matches(object))
            .take(self.limit.unwrap_or(usize::MAX))
            .collect()
    }

    fn matches(&self, object: &Map<String, Value>) -> bool {
        let equal = self
            .equal
            .iter()
            .all(|(key, value)| object.get(*key) == Some(value));
        let labels = object.get("labels").and_then(Value::as_object);
        let labelled = self.labels.iter().all(|(key, wanted)| {
            labels
                .and_then(|labels| labels.get(key))
                .is_some_and(|value| match wanted {
                    Some(wanted) => value.as_str() == Some(wanted),
                    None => true,
                })
        });
        equal && labelled
    }
}

fn labels(value: &Value) -> Result<Vec<(String, Option<String>)>, Refusal> {
    let not_labels = || wrong("`labels` is not an object of strings and nulls");
    value
        .as_object()
        .ok_or_else(not_labels)?
        .iter()
        .map(|(key, value)| match value {
            Value::Null => Ok((key.clone(), None)),
            Value::String(text) => Ok((key.clone(), Some(text.clone()))),
            _ => Err(not_labels()),
        })
        .collect()
}

/// A value that is there; clients write null for what they leave out.
fn given<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|value| !value.is_null())
}

fn wrong(what: &str) -> Refusal {
    Refusal::Params(format!("`params` cannot be read: {what}"))
}
