//! `--filter key=value,...` as the engine's `params`.

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

/// The `params` document for `text`; `known` are the keys this list has, besides labels.
pub(super) fn params(text: &str, known: &[&str]) -> anyhow::Result<Value> {
    let mut filters = Map::new();
    let mut labels = Map::new();
    for entry in text.split(',').map(str::trim).filter(|e| !e.is_empty()) {
        let (key, value) = entry
            .split_once('=')
            .with_context(|| format!("--filter `{entry}` must be key=value"))?;
        let (key, value) = (key.trim(), value.trim());
        let label = key
            .strip_prefix("labels.")
            .or_else(|| key.strip_prefix("label."));
        if let Some(label) = label {
            if label.is_empty() {
                bail!("--filter `{entry}` names no label");
            }
            let value = match value {
                "" | "*" => Value::Null,
                value => value.into(),
            };
            labels.insert(label.to_owned(), value);
        } else if !known.contains(&key) {
            bail!("--filter has no `{key}`, there is {}", known.join(", "));
        } else if key == "publish" {
            let publish: bool = value
                .parse()
                .ok()
                .with_context(|| format!("--filter `{entry}` must be true or false"))?;
            filters.insert(key.to_owned(), publish.into());
        } else {
            filters.insert(key.to_owned(), value.into());
        }
    }
    if !labels.is_empty() {
        filters.insert("labels".to_owned(), labels.into());
    }
    Ok(json!({ "filters": filters }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const KNOWN: &[&str] = &["name", "publish"];

    #[test]
    fn filters_become_the_engines_document() {
        for (text, expected) in [
            ("", json!({"filters": {}})),
            ("name=a", json!({"filters": {"name": "a"}})),
            (
                " name = a ,, publish=true",
                json!({"filters": {"name": "a", "publish": true}}),
            ),
            (
                "labels.a=b,label.c=,labels.d=*",
                json!({"filters": {"labels": {"a": "b", "c": null, "d": null}}}),
            ),
        ] {
            assert_eq!(params(text, KNOWN).unwrap(), expected, "{text}");
        }
        for text in ["name", "color=red", "publish=yes", "labels.=x"] {
            assert!(params(text, KNOWN).is_err(), "{text}");
        }
    }
}
